import math

import numpy as np
import pytest
from bundle.metrics.grading import grading_intervals, grading_scores
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, cohen_kappa_score, roc_auc_score, roc_curve


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


def ill_with(probabilities):
    """Rows whose probability of grade 3 is this, the rest being of grade 0."""
    p = np.asarray(probabilities)
    return np.column_stack([1 - p, 0 * p, 0 * p, p, 0 * p])


def test_sensitivity_at_a_specificity_by_hand():
    healthy, ill = [0.1] * 17 + [0.6, 0.7, 0.8], [0.05, 0.65, 0.75, 0.9]
    found = grading_scores(ill_with(healthy + ill), np.array([0] * 20 + [3] * 4))
    # two of twenty may pass at 0.9: a threshold above 0.6; one at 0.95: above 0.7
    assert found["grade/sensitivity_at_0.9_referable"] == 0.75
    assert found["grade/sensitivity_at_0.95_referable"] == 0.5
    assert found["grade/auroc_referable"] == pytest.approx((0 + 18 + 19 + 20) / 80)


def test_referable_begins_at_grade_2_and_vision_threatening_at_3():
    grades = np.array([0, 1, 2, 3])
    found = grading_scores(certain([0, 1, 2, 3]), grades)
    assert found["grade/auroc_referable"] == found["grade/auroc_vision_threatening"] == 1
    found = grading_scores(certain([0, 1, 3, 2]), grades)
    assert found["grade/auroc_referable"] == 1
    assert found["grade/auroc_vision_threatening"] == pytest.approx(1 / 3)  # two ties, one pair lost


@given(st.integers(0, 2**32 - 1), st.sampled_from([1, 4, 1000]))
@settings(max_examples=40, deadline=None)
def test_clinical_scores_equal_those_of_scikit_learn_with_ties(seed, steps):
    _, grades = random_case(seed, count=50)
    noise = np.random.default_rng(seed).random(50)
    score = np.round((0.2 * grades / 4 + 0.8 * noise) * steps) / steps
    found = grading_scores(ill_with(score), grades)
    for name, lowest in (("referable", 2), ("vision_threatening", 3)):
        passed, sensitivity, _ = roc_curve(grades >= lowest, score, drop_intermediate=False)
        assert found[f"grade/auroc_{name}"] == pytest.approx(roc_auc_score(grades >= lowest, score), abs=1e-9)
        for specificity in (0.9, 0.95):
            best = sensitivity[passed <= 1 - specificity + 1e-12].max()
            assert found[f"grade/sensitivity_at_{specificity:g}_{name}"] == pytest.approx(best, abs=1e-9)


def test_without_a_referable_photograph_there_is_nothing_to_find():
    found = grading_scores(certain([0, 1, 4]), np.array([0, 1, 1]))
    for key in ("auroc", "sensitivity_at_0.9", "sensitivity_at_0.95"):
        assert math.isnan(found[f"grade/{key}_referable"])
        assert math.isnan(found[f"grade/{key}_referable_majority"])
    assert math.isnan(grading_scores(certain([2, 3]), np.array([2, 4]))["grade/auroc_referable"])


def test_risk_and_coverage_by_hand():
    confidences = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    probabilities = np.column_stack([confidences, 1 - confidences, *[0 * confidences] * 3])
    found = grading_scores(probabilities, np.array([0, 0, 1, 0, 2]))  # right, right, wrong, right, wrong
    assert found["grade/aurc"] == pytest.approx((0 + 0 + 1 / 3 + 1 / 4 + 2 / 5) / 5)
    assert found["grade/accuracy_at_coverage_0.8"] == pytest.approx(3 / 4)


def test_what_is_equally_sure_shares_its_errors_whatever_the_order():
    probabilities = np.array([[0.6, 0.4, 0, 0, 0]] * 5)
    for grades in ([0, 0, 0, 1, 1], [1, 1, 0, 0, 0]):
        found = grading_scores(probabilities, np.array(grades))
        assert found["grade/aurc"] == pytest.approx(0.4)
        assert found["grade/accuracy_at_coverage_0.8"] == pytest.approx(0.6)


@given(st.integers(0, 2**32 - 1), st.sampled_from([7, 1000]))
@settings(max_examples=20, deadline=None)
def test_risk_and_coverage_are_those_of_many_orders_of_ties(seed, steps):
    probabilities, grades = random_case(seed, count=12)
    top = np.round(probabilities.max(axis=1) * steps) / steps
    coarse = np.zeros_like(probabilities)
    coarse[np.arange(12), probabilities.argmax(axis=1)] = np.clip(top, 0.55, 1)
    coarse[np.arange(12), (probabilities.argmax(axis=1) + 1) % 5] = 1 - np.clip(top, 0.55, 1)
    confidence, right = coarse.max(axis=1), coarse.argmax(axis=1) == grades
    # The mean over orders of a tie is the mean over its first place, for each of its photographs is there as often.
    risks = []
    for k in range(1, 13):
        border = np.sort(confidence)[::-1][k - 1]
        above, tied = confidence > border, confidence == border
        risks.append((np.sum(~right[above]) + (k - above.sum()) * np.mean(~right[tied])) / k)
    found = grading_scores(coarse, grades)
    assert found["grade/aurc"] == pytest.approx(np.mean(risks), abs=1e-9)
    assert found["grade/accuracy_at_coverage_0.8"] == pytest.approx(1 - risks[10 - 1], abs=1e-9)  # of 9.6, ten


def test_the_trivial_grader_that_cannot_tell_scores_the_new_baselines():
    grades = np.array([2, 2, 2, 0, 4])
    found = grading_scores(certain([2] * 5), grades)
    for key in ("aurc", "accuracy_at_coverage_0.8", "auroc_referable", "sensitivity_at_0.9_vision_threatening"):
        assert found[f"grade/{key}"] == pytest.approx(found[f"grade/{key}_majority"])


def test_intervals_hold_the_scores_and_are_repeatable():
    probabilities, grades = random_case()
    intervals = grading_intervals(probabilities, grades, seed=3, resamples=100)
    assert intervals == grading_intervals(probabilities, grades, seed=3, resamples=100)
    found = grading_scores(probabilities, grades)
    assert {"grade/accuracy", "grade/quadratic_kappa", "grade/recall_2", "grade/auroc"} <= set(intervals)
    new = "grade/aurc", "grade/accuracy_at_coverage_0.8"
    for key in ("grade/accuracy", "grade/quadratic_kappa", "grade/auroc", "grade/brier", *new):
        low, high = intervals[key]
        assert low < found[key] < high


def test_clinical_scores_have_intervals_too():
    noise, grades = np.random.default_rng(0).random(60), random_case()[1]
    probabilities = ill_with(0.3 * grades / 4 + 0.7 * noise)
    found, intervals = grading_scores(probabilities, grades), grading_intervals(probabilities, grades, resamples=100)
    for key in ("grade/auroc_referable", "grade/sensitivity_at_0.9_referable", "grade/auroc_vision_threatening"):
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


def test_the_ceiling_is_the_share_of_photographs_whose_grade_was_taught():
    probabilities, truth = np.eye(5)[[2, 2, 4, 3]], np.array([0, 2, 4, 1])
    found = grading_scores(probabilities, truth, taught_grades=[2, 3, 4])
    assert found["grade/accuracy"] == found["grade/accuracy_ceiling"] == 0.5
    assert list(found)[:2] == ["grade/accuracy", "grade/accuracy_ceiling"]  # they stand beside each other
    assert "grade/accuracy_ceiling" not in grading_scores(probabilities, truth)


def test_a_second_photograph_just_like_the_first_tells_nothing_new_of_a_patient():
    """Drawn as photographs, the twins would make the interval narrower by the root of two."""
    probabilities, grades = random_case()
    patients = [str(number) for number in range(len(grades))]
    once = grading_intervals(probabilities, grades, resamples=200)
    assert grading_intervals(probabilities, grades, resamples=200, patients=patients) == once
    twins = {"probabilities_NC": probabilities.repeat(2, axis=0), "grades_N": grades.repeat(2), "resamples": 200}
    as_patients = grading_intervals(**twins, patients=np.repeat(patients, 2).tolist())
    apart = grading_intervals(**twins)
    for key in ("grade/accuracy", "grade/quadratic_kappa", "grade/auroc", "grade/brier"):
        assert as_patients[key] == pytest.approx(once[key])
        assert np.diff(apart[key]) < 0.85 * np.diff(once[key])


def test_of_two_patients_right_and_wrong_the_accuracy_lies_between_all_and_nothing():
    """A quarter of the draws holds the right one alone; of eight photographs, one in 256 holds the right four alone."""
    p, grades = certain([0, 2, 2, 3, 1, 1, 1, 1]), np.array([0, 2, 2, 3, 4, 4, 4, 4])
    assert grading_intervals(p, grades, patients=[*"aaaabbbb"])["grade/accuracy"] == (0, 1)
    low, high = grading_intervals(p, grades)["grade/accuracy"]
    assert 0 < low < 0.5 < high < 1
    with pytest.raises(ValueError, match="expected the patient of each of 8 photographs, or None, got 2"):
        grading_intervals(p, grades, patients=["a", "b"])
