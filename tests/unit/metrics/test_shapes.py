import math

import numpy as np
import pytest
from bundle.labels import LESIONS
from bundle.metrics.shapes import LesionShapes

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
    shapes.add(predicted, outlines, scores)


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
