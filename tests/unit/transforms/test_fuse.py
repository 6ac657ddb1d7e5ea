"""Four lesion classes become one; gaps close, and no lesion is lost."""

import numpy as np
import pytest
import torch
from bundle.labels import LESIONS
from bundle.transforms import FuseLesionsd, class_names, fuse_lesions, fuse_outlines, fused_radius_px
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

label_maps = arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(13, 20)), elements=st.integers(0, 4))


def two_spots(gap_px):
    """A microaneurysm and a soft exudate of 3 px side, so far apart."""
    labels = np.zeros((9, 15), np.uint8)
    labels[3:6, 2:5] = 1
    labels[3:6, 5 + gap_px : 8 + gap_px] = 4
    return labels


def test_two_spots_2_px_apart_close_to_one_with_radius_1():
    expected = two_spots(2) > 0
    expected[4, 5:7] = True  # of each column, the one pixel whose whole cross the dilation covers
    assert np.array_equal(fuse_lesions(two_spots(2), 1), expected)


def test_two_spots_3_px_apart_stay_two_with_radius_1():
    assert np.array_equal(fuse_lesions(two_spots(3), 1), two_spots(3) > 0)


def test_radius_0_is_the_plain_union():
    labels = np.array([[1, 2, 0, 3, 4], [0, 0, 1, 0, 0]], np.uint8)
    fused = fuse_lesions(labels, 0)
    assert fused.tolist() == [[1, 1, 0, 1, 1], [0, 0, 1, 0, 0]]
    assert fused.dtype == np.uint8


@pytest.mark.parametrize("radius_px", [0, 1, 3, 8])
def test_a_spot_at_the_border_or_near_it_stays_as_it_is(radius_px):
    labels = np.zeros((20, 31), np.uint8)
    labels[0:3, 8:11] = 1  # at the upper border
    labels[18:20, 29:31] = 2  # in a corner
    if radius_px < 3:
        labels[8:11, 1:4] = 3  # one pixel from the left border: the gap is not filled
    assert np.array_equal(fuse_lesions(labels, radius_px), labels > 0)


@settings(max_examples=60)
@given(label_maps, st.integers(0, 4))
def test_no_pixel_of_any_lesion_is_lost_and_the_map_is_left_as_it_was(labels, radius_px):
    before = labels.copy()
    fused = fuse_lesions(labels, radius_px)
    assert fused[labels > 0].all()
    assert fused.shape == labels.shape
    assert fused.max() <= 1
    assert np.array_equal(labels, before)


@settings(max_examples=30)
@given(label_maps, st.integers(1, 3))
def test_what_is_closed_has_nothing_left_to_close(labels, radius_px):
    fused = fuse_lesions(labels, radius_px)
    assert np.array_equal(fuse_lesions(fused, radius_px), fused)


def test_the_transform_fuses_the_label_map_and_leaves_the_item_as_it_was():
    lesions = torch.from_numpy(two_spots(2)[:, :9].copy())[None]
    item = {"lesions": lesions, "image": "kept"}
    before = lesions.clone()
    found = FuseLesionsd(radius_px=1)(item)
    assert found["image"] == "kept"
    assert found["lesions"].dtype == torch.uint8
    assert found["lesions"].shape == (1, 9, 9)
    assert np.array_equal(found["lesions"][0].numpy(), fuse_lesions(before[0].numpy(), 1))
    assert torch.equal(item["lesions"], before)


def test_the_transform_takes_the_key_that_it_is_given():
    maps = {"lesions": torch.full((1, 4, 4), 3, dtype=torch.uint8), "other": torch.full((1, 4, 4), 2).byte()}
    found = FuseLesionsd(radius_px=0, key="other")(maps)
    assert found["other"].unique().tolist() == [1]
    assert found["lesions"].unique().tolist() == [3]


def test_outlines_are_joined_without_morphology():
    spots = two_spots(2)
    masks = {"MA": spots == 1, "SE": spots == 4}
    assert np.array_equal(fuse_outlines(masks)["lesion"], spots > 0)
    assert np.array_equal(masks["MA"], spots == 1)
    assert fuse_outlines({}) == {}


def test_fused_or_not_the_classes_and_the_radius_go_with_it():
    assert class_names(False) == LESIONS
    assert class_names(True) == ("lesion",)
    assert fused_radius_px(True, 2) == 2
    assert fused_radius_px(False, 2) is None


@pytest.mark.parametrize("radius_px", [-1, 1.0, True, "1", None])
def test_rejects_a_radius_that_is_no_count_of_pixels(radius_px):
    with pytest.raises(ValueError, match=rf"expected a fuse_radius_px of 0, 1, 2, ... pixels, got {radius_px!r}"):
        fuse_lesions(two_spots(2), radius_px)
    with pytest.raises(ValueError, match=rf"expected a fuse_radius_px of 0, 1, 2, ... pixels, got {radius_px!r}"):
        FuseLesionsd(radius_px)


@pytest.mark.parametrize(("looked_for", "fused"), [([True] * 4, [True]), ([True, False, True, True], [False])])
def test_the_fused_lesion_was_looked_for_where_all_four_were(looked_for, fused):
    item = {"lesions": torch.tensor([[[0, 1, 4]]], dtype=torch.uint8), "looked_for": torch.tensor(looked_for)}
    assert FuseLesionsd(radius_px=0)(item)["looked_for"].tolist() == fused
    assert item["looked_for"].tolist() == looked_for
