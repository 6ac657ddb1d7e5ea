"""Lesions and heat over a photograph; the indexed mask."""

import numpy as np
import pytest
from bundle.labels import LESION_COLOURS
from bundle.reporting.overlay import BAND_PX, PALETTE, heat_overlay, lesion_overlay, shrink_lesions, write_mask_png
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

GREY = np.full((7, 9, 3), 100, dtype=np.uint8)


def square_of(lesion_class):
    lesions = np.zeros((7, 9), dtype=np.uint8)
    lesions[1:6, 2:7] = lesion_class
    return lesions


def test_the_inside_of_a_lesion_is_blended_and_its_outline_is_pure_colour():
    overlay = lesion_overlay(GREY, square_of(2), alpha=0.5)
    assert overlay[3, 4].tolist() == [178, 74, 74]  # half of 100 and half of (255, 48, 48), rounded
    assert overlay[1, 2].tolist() == list(LESION_COLOURS["HE"])
    assert overlay[0, 0].tolist() == [100, 100, 100]


def test_a_lesion_of_one_pixel_is_all_outline():
    lesions = np.zeros((7, 9), dtype=np.uint8)
    lesions[4, 8] = 1
    assert lesion_overlay(GREY, lesions)[4, 8].tolist() == list(LESION_COLOURS["MA"])


@settings(max_examples=30, deadline=None)
@given(hnp.arrays(np.uint8, (5, 8), elements=st.integers(0, 4)))
def test_only_lesion_pixels_change_and_the_photograph_is_left_alone(lesions):
    image = np.random.default_rng(0).integers(0, 40, (5, 8, 3), dtype=np.uint8)
    before = image.copy()
    overlay = lesion_overlay(image, lesions)
    assert ((overlay != image).any(axis=2) == (lesions > 0)).all()  # no palette colour is that dark
    assert (image == before).all()


def test_lesions_that_reach_over_a_band_of_rows_have_no_seam():
    lesions = np.zeros((3 * BAND_PX + 8, 40), np.uint8)
    lesions[30:150, 5:30] = 3
    lesions[BAND_PX - 1 : BAND_PX + 2, 8:20] = 1
    lesions[2 * BAND_PX - 1, 10:20] = 0
    padded = np.pad(lesions, 1, mode="edge")
    around = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    edge = np.logical_or.reduce([neighbour != lesions for neighbour in around])
    opacity = np.where(edge, 1.0, 0.45)[..., None]
    image = np.full((*lesions.shape, 3), 90, np.uint8)
    whole = np.where(lesions[..., None] > 0, (image * (1 - opacity) + PALETTE[lesions] * opacity).round(), image)
    assert np.array_equal(lesion_overlay(image, lesions), whole)


def test_no_heat_leaves_the_photograph_and_full_heat_covers_three_quarters_of_it():
    heat = np.zeros((7, 9), dtype=np.float32)
    heat[:, 5:] = 1.0
    overlay = heat_overlay(GREY, heat)
    assert overlay[3, 0].tolist() == [100, 100, 100]
    assert overlay[3, 8].tolist() == pytest.approx([0.25 * 100 + 0.75 * c for c in (253, 231, 36)], abs=1)


def test_a_coarse_heat_map_is_stretched_over_the_photograph():
    overlay = heat_overlay(GREY, np.array([[0.0, 1.0]]))
    distance = np.abs(overlay.astype(int) - 100).sum(axis=2)
    assert distance[:, 0].max() == 0 < distance[:, -1].min()


def test_a_mask_png_keeps_classes_size_and_colours(tmp_path):
    lesions = square_of(4)
    lesions[0, 0] = 3
    write_mask_png(tmp_path / "deep" / "mask.png", lesions)
    picture = Image.open(tmp_path / "deep" / "mask.png")
    assert picture.mode == "P"
    assert picture.size == (9, 7)
    assert (np.asarray(picture) == lesions).all()
    assert np.asarray(picture.convert("RGB"))[3, 4].tolist() == list(LESION_COLOURS["SE"])
    assert [file.name for file in (tmp_path / "deep").iterdir()] == ["mask.png"]


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(np.uint8, st.tuples(st.integers(4, 30), st.integers(4, 30)), elements=st.integers(0, 4)),
    st.integers(1, 4),
    st.integers(1, 4),
)
def test_shrinking_keeps_a_lesion_that_is_there_and_adds_none(lesions, width, height):
    small = shrink_lesions(lesions, (width, height))
    assert small.shape == (height, width)
    assert set(small.flat) <= set(lesions.flat)
    assert (small > 0).any() == (lesions > 0).any()
    assert (small > 0).all() >= (lesions > 0).all()


def test_where_lesions_meet_in_one_pixel_the_priority_decides():
    lesions = np.array([[3, 1, 0, 0], [3, 3, 2, 4]], dtype=np.uint8)
    assert shrink_lesions(lesions, (2, 1)).tolist() == [[1, 4]]  # MA before EX, SE before HE


def test_a_label_map_grows_by_repeating_its_pixels():
    lesions = np.array([[0, 1], [3, 4]], dtype=np.uint8)
    assert np.array_equal(shrink_lesions(lesions, (6, 4)), lesions.repeat(2, axis=0).repeat(3, axis=1))


def test_rejects_lesions_of_another_size():
    with pytest.raises(ValueError, match=r"lesions of the photograph's size \(7, 9\), got \(9, 7\)"):
        lesion_overlay(GREY, square_of(1).T)


def test_rejects_an_unknown_class(tmp_path):
    with pytest.raises(ValueError, match=r"classes 0 to 4 in a label map, got \[0, 7\]"):
        write_mask_png(tmp_path / "mask.png", square_of(7))
    assert list(tmp_path.iterdir()) == []


def test_rejects_a_float_photograph():
    with pytest.raises(ValueError, match=r"RGB image \(H, W, 3\) of uint8, got \(7, 9, 3\) of float64"):
        heat_overlay(GREY / 255, np.ones((7, 9)))


@pytest.mark.parametrize("heat", [np.full((7, 9), 1.5), np.full((7, 9), np.nan), np.ones(9)])
def test_rejects_heat_that_is_no_map_between_zero_and_one(heat):
    with pytest.raises(ValueError, match=r"expected a heat map \(h, w\) in \[0, 1\]"):
        heat_overlay(GREY, heat)
