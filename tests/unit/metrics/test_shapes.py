"""Components, border distances and candidates of lesions."""

import math

import numpy as np
import pytest
import torch
from bundle.labels import LESIONS
from bundle.metrics import shapes as module
from bundle.metrics.shapes import LesionShapes, hd95_px, touched_components
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import compute_hausdorff_distance
from scipy.ndimage import binary_erosion
from scipy.spatial.distance import cdist
from skimage.measure import label


def mask(*rows):
    return np.array(rows, dtype=bool)


# --- components


OUTLINE = mask([1, 0, 0, 0, 1], [0, 1, 0, 0, 1], [0, 0, 0, 0, 0], [0, 0, 1, 0, 0])
"""Three components; the first is diagonal."""


def test_one_pixel_finds_a_component_and_what_it_covers_besides_does_not_count():
    assert touched_components(mask(*[[0, 0, 1, 1, 1]] * 4), OUTLINE) == (2, 3)
    assert touched_components(mask([1, 0, 0, 0, 0], *[[0] * 5] * 3), OUTLINE) == (1, 3)


def test_next_to_a_component_is_not_in_it():
    assert touched_components(mask([0, 1, 1, 1, 0], *[[0] * 5] * 3), OUTLINE) == (0, 3)


def test_empty_and_full_masks():
    nothing, everywhere = np.zeros_like(OUTLINE), np.ones_like(OUTLINE)
    assert touched_components(everywhere, OUTLINE) == (3, 3)
    assert touched_components(nothing, OUTLINE) == (0, 3)
    assert touched_components(everywhere, nothing) == (0, 0)
    assert touched_components(everywhere, everywhere) == (1, 1)


@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_counts_equal_those_of_scikit_image_one_component_at_a_time(seed, share, outlined):
    rng = np.random.default_rng(seed)
    predicted, outline = rng.random((13, 19)) < share, rng.random((13, 19)) < outlined
    numbers = label(outline, connectivity=2)
    hits = sum(bool(predicted[numbers == number].any()) for number in range(1, numbers.max() + 1))
    assert touched_components(predicted, outline) == (hits, numbers.max())


# --- border distances


def by_all_pairs(predicted, outline):
    borders = [np.argwhere(one & ~binary_erosion(one)) for one in (predicted, outline)]
    distances = cdist(*borders)
    return max(np.percentile(distances.min(axis=axis), 95) for axis in (0, 1))


def by_monai(predicted, outline):
    one, other = (torch.from_numpy(each)[None, None] for each in (predicted, outline))
    return compute_hausdorff_distance(one, other, include_background=True, percentile=95).item()


def test_distance_by_hand():
    outline = np.zeros((9, 40), dtype=bool)
    predicted = outline.copy()
    outline[4, :20] = predicted[4, :21] = True
    # of 21 predicted pixels one lies a pixel outside: the 95th percentile is the 20th of them, which lies inside
    assert hd95_px(predicted, outline) == 0
    predicted[0, 0] = True
    # of 22, the 95th percentile lies 0.95 of the way from the 20th to the 21st value, 0 and 1
    assert hd95_px(predicted, outline) == pytest.approx(0.95)


def test_the_distance_is_between_borders_and_the_same_both_ways():
    outline = np.ones((11, 17), dtype=bool)
    point = np.zeros_like(outline)
    point[5, 8] = True
    assert hd95_px(point, outline) == pytest.approx(by_all_pairs(point, outline))
    assert hd95_px(point, outline) == hd95_px(outline, point) > 5


def test_without_one_of_the_masks_there_is_no_distance():
    something, nothing = mask([1, 0, 0]), mask([0, 0, 0])
    for pair in ((something, nothing), (nothing, something), (nothing, nothing)):
        assert math.isnan(hd95_px(*pair))


def test_full_masks_are_no_distance_apart():
    assert hd95_px(np.ones((7, 12), dtype=bool), np.ones((7, 12), dtype=bool)) == 0


@given(st.integers(0, 2**32 - 1), st.sampled_from([0.02, 0.3, 0.8, 1]), st.sampled_from([0.02, 0.3, 0.8, 1]))
@settings(max_examples=50, deadline=None)
def test_distances_equal_those_of_all_pairs_and_of_monai(seed, share, outlined):
    rng = np.random.default_rng(seed)
    predicted, outline = rng.random((15, 22)) < share, rng.random((15, 22)) < outlined
    predicted[3, 4] = outline[11, 20] = True
    found = hd95_px(predicted, outline)
    assert found == pytest.approx(by_all_pairs(predicted, outline), abs=1e-6)
    assert found == pytest.approx(by_monai(predicted, outline), abs=1e-5)  # which is in float32


def test_dense_borders_have_the_same_distance_by_a_distance_transform(monkeypatch):
    rng = np.random.default_rng(0)
    pairs = [(rng.random((40, 70)) < share, rng.random((40, 70)) < 0.01) for share in (0.01, 0.3, 1)]
    by_tree = [hd95_px(*pair) for pair in pairs]
    monkeypatch.setattr(module, "DENSE", 0)
    assert [hd95_px(*pair) for pair in pairs] == pytest.approx(by_tree, rel=1e-6)
    assert min(by_tree) > 1


# --- the accumulator

SHAPE = (30, 44)
EVERY = np.array([1, 1])


def box(*corners):
    mask = np.zeros(SHAPE, dtype=bool)
    for top, left, bottom, right in corners:
        mask[top:bottom, left:right] = True
    return mask


def add(shapes, predicted, outlines):
    """Add a photograph whose scores are 0.9 in the middle of each predicted region of one pixel."""
    scores = {lesion: 0.9 * mask.astype(np.float32) for lesion, mask in predicted.items()}
    shapes.update(predicted, outlines, scores)


@pytest.fixture
def shapes():
    """Of three microaneurysms one is found; of two exudates one on each photograph; soft ones only in one outline."""
    found, nothing = LesionShapes(LESIONS), box()
    add(
        found,
        {"MA": box((3, 3, 4, 4), (20, 20, 21, 21)), "HE": nothing, "EX": box((5, 5, 9, 9)), "SE": nothing},
        {
            "MA": box((2, 2, 5, 5), (10, 10, 12, 12), (2, 30, 4, 32)),
            "HE": nothing,
            "EX": box((5, 5, 9, 9)),
            "SE": box((1, 1, 3, 3)),
        },
    )
    add(found, {"EX": box((5, 7, 9, 11))}, {"EX": box((5, 5, 9, 9))})
    return found


def test_components_are_pooled_over_the_photographs(shapes):
    found = shapes.scores(EVERY)
    assert found["lesions/component_recall_MA"] == pytest.approx(1 / 3)
    assert found["lesions/component_recall_EX"] == 1
    assert found["lesions/component_recall_SE"] == 0
    assert math.isnan(found["lesions/component_recall_HE"])
    assert found["lesions/component_recall_mean"] == pytest.approx((1 / 3 + 1 + 0) / 3)


def test_distances_are_a_mean_over_the_photographs_where_both_masks_are_there(shapes):
    found, further = shapes.scores(EVERY), shapes.further_scores()
    assert found["lesions/hd95_px_EX"] == pytest.approx((0 + 2) / 2)
    assert further["lesions/images_hd95_px_EX"] == 2
    assert math.isnan(found["lesions/hd95_px_SE"])
    assert further["lesions/images_hd95_px_SE"] == 0
    assert "lesions/hd95_px_MA" not in found


def test_a_photograph_counts_as_often_as_it_weighs(shapes):
    assert shapes.scores(np.array([0, 3]))["lesions/hd95_px_EX"] == pytest.approx(2)
    assert math.isnan(shapes.scores(np.array([0, 3]))["lesions/component_recall_MA"])


def test_microaneurysms_have_a_froc_of_the_photographs_on_which_they_were_annotated(shapes):
    found = shapes.further_scores()  # one photograph: one of three found before one false positive of the same score
    assert found["lesions/sensitivity_at_1_fp_MA"] == pytest.approx(1 / 3)
    assert found["lesions/sensitivity_at_0.125_fp_MA"] == pytest.approx(1 / 24)  # a line from nothing
    assert found["lesions/froc_MA"] == pytest.approx((0.875 + 1 + 1 + 1 + 1) / 3 / 7)
    assert found["lesions/froc_MA_predicting_nothing"] == 0


def test_trivial_recalls_are_there_where_a_component_is(shapes):
    found = shapes.further_scores()
    assert found["lesions/component_recall_EX_predicting_everywhere"] == 1
    assert found["lesions/component_recall_EX_predicting_nothing"] == 0
    assert math.isnan(found["lesions/component_recall_HE_predicting_everywhere"])


def test_one_fused_class_has_components_and_distances_but_no_froc():
    fused = LesionShapes(["lesion"])
    add(fused, {"lesion": box((5, 5, 9, 9))}, {"lesion": box((5, 7, 9, 11), (20, 20, 24, 24))})
    found = fused.scores(np.array([1])) | fused.further_scores()
    assert found["lesions/component_recall_lesion"] == 0.5
    assert found["lesions/hd95_px_lesion"] > 10
    assert not [key for key in found if "MA" in key or "mean" in key or "froc" in key]


def test_microaneurysms_alone_have_no_distance_and_where_none_was_looked_for_no_froc():
    alone = LesionShapes(["MA"])
    add(alone, {}, {})
    assert set(alone.scores(np.array([1]))) == {"lesions/component_recall_MA"}
    assert math.isnan(alone.further_scores()["lesions/froc_MA"])
