import math

import numpy as np
import pytest
import torch
from bundle.metrics import shapes
from bundle.metrics.shapes import hd95_px
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import compute_hausdorff_distance
from scipy.ndimage import binary_erosion
from scipy.spatial.distance import cdist


def mask(*rows):
    return np.array(rows, dtype=bool)


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
    monkeypatch.setattr(shapes, "DENSE", 0)
    assert [hd95_px(*pair) for pair in pairs] == pytest.approx(by_tree, rel=1e-6)
    assert min(by_tree) > 1
