"""A pixel is a lesion where its probability is above the lesion's threshold, at any size it is looked at."""

import pytest
import torch
from bundle.transforms import native_labels, to_native
from bundle.transforms.lesion_decision import decision_in_words, lesion_decision, most_probable_class
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

THRESHOLDS = (0.2, 0.35, 0.45, 0.3)


def smooth(seed, size=(12, 12), coarse=4):
    noise = torch.randn(1, 5, coarse, coarse, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(noise * 2, size, mode="bicubic").softmax(dim=1)[0]


def test_a_rare_lesion_that_the_most_probable_class_starves_is_found_above_its_threshold():
    pixels = torch.tensor([[0.7, 0.3, 0, 0, 0], [0.8, 0.2, 0, 0, 0], [0.5, 0.1, 0.4, 0, 0], [0.4, 0.25, 0.35, 0, 0]])
    probabilities = pixels.T.reshape(5, 1, 4)
    assert most_probable_class(lesion_decision(probabilities, None)).tolist() == [[0, 0, 0, 0]]
    # 0.2 is not above 0.2; 0.4 / 0.35 is ahead of 0.1 / 0.2; 0.25 / 0.2 is ahead of 0.35 / 0.35
    assert most_probable_class(lesion_decision(probabilities, THRESHOLDS)).tolist() == [[1, 0, 2, 1]]


def test_without_thresholds_the_probabilities_are_what_decides():
    probabilities = smooth(0, (6, 9))
    assert lesion_decision(probabilities, None) is probabilities


def test_a_batch_is_decided_as_its_photographs_are_and_stays_as_it_is():
    batch = torch.stack([smooth(1, (6, 9)), smooth(2, (6, 9))])
    before = batch.clone()
    found = lesion_decision(batch, THRESHOLDS)
    assert torch.equal(found, torch.stack([lesion_decision(one, THRESHOLDS) for one in batch]))
    assert torch.equal(batch, before)


@given(st.integers(0, 999), st.integers(-20, 20), st.integers(-20, 20), st.integers(8, 80))
def test_interpolating_the_scores_decides_as_interpolated_probabilities_do(seed, left, top, side):
    probabilities, geometry = smooth(seed), (left, top, side, 50, 31)
    later = lesion_decision(to_native(probabilities, geometry), THRESHOLDS)
    scores = lesion_decision(probabilities, THRESHOLDS)
    assert torch.allclose(to_native(scores, geometry), later, atol=1e-5)
    first, second = later.topk(2, dim=0).values
    for labels in (most_probable_class(to_native(scores, geometry)), torch.from_numpy(native_labels(scores, geometry))):
        differs = labels != most_probable_class(later)
        assert not (differs & (first - second > 1e-5)).any()


def test_outside_of_the_square_is_background_whatever_the_thresholds():
    labels = native_labels(lesion_decision(torch.full((5, 4, 4), 0.2), [1e-3, 0.1, 0.1, 0.1]), (2, 0, 4, 9, 6))
    assert labels[:4, 2:6].tolist() == [[1] * 4] * 4
    assert labels.sum() == 16


@given(st.integers(0, 999), st.floats(0.05, 0.95), st.floats(0.01, 0.04))
def test_a_lower_threshold_takes_no_pixel_away_from_the_only_lesion(seed, threshold, lower):
    probabilities = smooth(seed, (6, 9))[:2] / smooth(seed, (6, 9))[:2].sum(dim=0)
    high, low = (most_probable_class(lesion_decision(probabilities, [t])) for t in (threshold, threshold - lower))
    assert (high <= low).all()


@pytest.mark.parametrize(
    "wrong", [(0.2, 0.3), (0.0, 0.5, 0.5, 0.5), (0.5, 0.5, 0.5, 1.01), (0.5, 0.5, 0.5, "0.5"), {"MA": 0.2}]
)
def test_thresholds_that_are_not_one_number_a_lesion_are_refused(wrong):
    with pytest.raises(ValueError, match=r"expected lesion thresholds in \(0, 1\], one for each of 4 classes, got \["):
        lesion_decision(smooth(0), wrong)


def test_not_a_number_is_no_threshold():
    with pytest.raises(ValueError, match=r"got \[0.5, nan, 0.5, 0.5\]; give these, or null for the most"):
        lesion_decision(smooth(0), (0.5, float("nan"), 0.5, 0.5))


def test_one_class_for_all_lesions_has_one_threshold_and_a_name_of_its_own():
    assert decision_in_words([0.25], ["lesion"]) == "lesion above 0.25"


def test_the_axis_of_the_classes_may_be_the_second_and_the_first_class_wins_ties():
    batch = torch.stack([smooth(0), smooth(1)])
    batch[0, :, 0, 0] = 0.2
    found = most_probable_class(batch, dim=1)
    assert found.dtype == torch.uint8
    assert torch.equal(found.long(), batch.argmax(dim=1))
    assert found[0, 0, 0] == 0
