import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, cohen_kappa_score, roc_auc_score

from bundle.metrics.grading import grading_intervals, grading_scores


def certain(grades):
    return np.eye(5)[grades]


def random_case(seed=0, count=60):
    rng = np.random.default_rng(seed)
    grades = rng.integers(5, size=count)
    probabilities = rng.dirichlet(np.ones(5), size=count) + 0.4 * np.eye(5)[grades]
    return probabilities / probabilities.sum(axis=1, keepdims=True), grades


def test_accuracy_recall_and_kappa_by_hand():
    found = grading_scores(certain([0, 0, 4, 4]), np.array([0, 4, 4, 4]))
    assert found["grade/accuracy"] == 0.75
    assert found["grade/recall_0"] == 1.0
    assert found["grade/recall_4"] == pytest.approx(2 / 3)
    assert found["grade/balanced_accuracy"] == pytest.approx(5 / 6)
    assert found["grade/quadratic_kappa"] == pytest.approx(0.5)  # 1 - (1/4) / (1/2)


def test_calibration_error_and_brier_by_hand():
    probabilities = np.array([[0.8, 0.2, 0, 0, 0], [0.8, 0.2, 0, 0, 0]])
    found = grading_scores(probabilities, np.array([0, 1]))
    assert found["grade/ece"] == pytest.approx(0.3)  # half are right at a confidence of 0.8
    assert found["grade/brier"] == pytest.approx((0.2**2 + 0.2**2 + 0.8**2 + 0.8**2) / 2)


def test_calibration_error_sums_the_gaps_of_its_bins():
    probabilities = np.array([[0.9, 0.1, 0, 0, 0], [0.5, 0.3, 0.2, 0, 0]])
    assert grading_scores(probabilities, np.array([0, 1]))["grade/ece"] == pytest.approx((0.1 + 0.5) / 2)


def test_a_certain_and_right_grader_is_perfect():
    found = grading_scores(certain([0, 1, 2, 3, 4]), np.arange(5))
    perfect = {"grade/accuracy": 1, "grade/quadratic_kappa": 1, "grade/auroc": 1, "grade/ece": 0, "grade/brier": 0}
    assert {key: found[key] for key in perfect} == perfect


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_scores_equal_those_of_scikit_learn(seed):
    probabilities, grades = random_case(seed)
    predicted = probabilities.argmax(axis=1)
    found = grading_scores(probabilities, grades)
    kappa = cohen_kappa_score(grades, predicted, weights="quadratic", labels=range(5))
    assert found["grade/quadratic_kappa"] == pytest.approx(kappa)
    assert found["grade/balanced_accuracy"] == pytest.approx(balanced_accuracy_score(grades, predicted))
    areas = [roc_auc_score(grades == grade, probabilities[:, grade]) for grade in np.unique(grades)]
    assert found["grade/auroc"] == pytest.approx(np.mean(areas))


def test_tied_probabilities_have_the_area_of_scikit_learn():
    probabilities = np.array([[0.5, 0.5, 0, 0, 0], [0.5, 0.5, 0, 0, 0], [1, 0, 0, 0, 0], [0, 1, 0, 0, 0]])
    grades = np.array([0, 1, 0, 0])
    expected = np.mean([roc_auc_score(grades == grade, probabilities[:, grade]) for grade in (0, 1)])
    assert grading_scores(probabilities, grades)["grade/auroc"] == pytest.approx(expected)


def test_always_giving_the_majority_scores_the_baselines():
    grades = np.array([2, 2, 2, 0, 4])
    found = grading_scores(certain([2] * 5), grades, training_grades=[0, 0, 2])
    assert found["grade/accuracy"] == found["grade/accuracy_majority"] == pytest.approx(0.6)
    assert found["grade/quadratic_kappa"] == found["grade/quadratic_kappa_majority"] == 0
    assert found["grade/auroc"] == 0.5
    assert found["grade/accuracy_training_majority"] == pytest.approx(0.2)


def test_grades_that_do_not_occur_have_no_recall_and_no_weight():
    found = grading_scores(certain([1, 2, 2]), np.array([1, 1, 2]))
    assert math.isnan(found["grade/recall_3"])
    assert found["grade/balanced_accuracy"] == 0.75
    assert "grade/accuracy_training_majority" not in found


def test_one_grade_alone_has_neither_kappa_nor_area():
    found = grading_scores(certain([3, 3]), np.array([3, 3]))
    assert math.isnan(found["grade/quadratic_kappa"])
    assert math.isnan(found["grade/auroc"])


def test_intervals_hold_the_scores_and_are_repeatable():
    probabilities, grades = random_case()
    intervals = grading_intervals(probabilities, grades, seed=3, resamples=100)
    assert intervals == grading_intervals(probabilities, grades, seed=3, resamples=100)
    found = grading_scores(probabilities, grades)
    assert {"grade/accuracy", "grade/quadratic_kappa", "grade/recall_2", "grade/auroc"} <= set(intervals)
    for key in ("grade/accuracy", "grade/quadratic_kappa", "grade/auroc", "grade/brier"):
        low, high = intervals[key]
        assert low < found[key] < high


def test_the_interval_of_a_grade_that_does_not_occur_is_nan():
    intervals = grading_intervals(certain([1, 2, 2]), np.array([1, 1, 2]), resamples=20)
    assert all(math.isnan(end) for end in intervals["grade/recall_3"])


def test_rejects_what_cannot_be_scored():
    with pytest.raises(ValueError, match=r"got \(2, 4\) and \(2,\)"):
        grading_scores(np.full((2, 4), 0.25), np.array([0, 1]))
    with pytest.raises(ValueError, match=r"with N > 0, got \(0, 5\)"):
        grading_scores(np.empty((0, 5)), np.array([]))
    with pytest.raises(ValueError, match="sum to 1; apply softmax to logits first"):
        grading_scores(np.full((2, 5), 0.9), np.array([0, 1]))
    with pytest.raises(ValueError, match=r"expected grades 0-4, got \[5\]"):
        grading_scores(certain([0, 1]), np.array([0, 5]))
