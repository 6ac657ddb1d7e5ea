import math

import numpy as np
import pytest
from bundle.grade_rules import consistent_grade, feasible_grades, rules_grade
from bundle.labels import LESIONS
from bundle.metrics.joint import joint_intervals, joint_scores
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, cohen_kappa_score

NONE, SPOTS, MORE = feasible_grades(set()), feasible_grades({"MA"}), feasible_grades({"MA", "EX"})


def random_case(seed=0, count=40):
    rng = np.random.default_rng(seed)
    present = [{lesion for lesion in LESIONS if rng.random() < 0.3} for _ in range(count)]
    return rng.dirichlet(np.ones(5), count), [feasible_grades(one) for one in present], rng.integers(5, size=count)


def certain(*grades):
    """Probability 1 for one grade of each photograph."""
    return np.eye(5)[list(grades)]


def by_chance(found, truth):
    """Sum of squared differences that the same grades have on average when dealt out."""
    return sum((one - other) ** 2 for one in found for other in truth) / len(truth)


def test_scores_by_hand():
    found = joint_scores(certain(0, 1, 2, 4, 0), [NONE, SPOTS, NONE, MORE, MORE], [0, 1, 2, 4, 2])
    assert found["joint/contradictions"] == pytest.approx(2 / 5)
    # each grade beside each photograph: 0 and 0 are allowed on 2 of 5, 1 on 1, 2 on 2, 4 on 2
    assert found["joint/contradictions_dealt"] == pytest.approx(1 - (2 + 2 + 1 + 2 + 2) / 25)
    assert found["joint/rules_accuracy"] == pytest.approx(3 / 5)  # 0, 1, 0, 2, 2
    for answer in ("head", "consistent", "rules"):
        assert found[f"joint/{answer}_accuracy_majority"] == pytest.approx(2 / 5)
        assert found[f"joint/{answer}_quadratic_kappa_majority"] == 0


def test_three_answers_by_hand():
    """The head is right on the first and last; lesions move the second to a right grade, and the third to a wrong one.

    On the third the head is right, and the lesions that it is told with are not.
    """
    probabilities = np.array(
        [[0.6, 0.1, 0.1, 0.1, 0.1], [0.5, 0.1, 0.1, 0.3, 0.0], [0.1, 0.2, 0.6, 0.1, 0.0], [0.0, 0.1, 0.2, 0.2, 0.5]]
    )
    found = joint_scores(probabilities, [NONE, MORE, NONE, MORE], [0, 3, 2, 4])
    assert found["joint/head_accuracy"] == 3 / 4  # 0, 0, 2, 4
    assert found["joint/consistent_accuracy"] == 3 / 4  # 0, 3, 0, 4
    assert found["joint/rules_accuracy"] == 1 / 4  # 0, 2, 0, 2
    # weighted disagreement: head 9 of (0-3)^2, consistent 4 of (2-0)^2; dealt at random, (sum of squares) / 4
    assert found["joint/head_quadratic_kappa"] == pytest.approx(1 - 9 / by_chance((0, 0, 2, 4), (0, 3, 2, 4)))
    assert found["joint/consistent_quadratic_kappa"] == pytest.approx(1 - 4 / by_chance((0, 3, 0, 4), (0, 3, 2, 4)))
    assert found["joint/consistent_gain_accuracy"] == 0
    gain = found["joint/consistent_quadratic_kappa"] - found["joint/head_quadratic_kappa"]
    assert found["joint/consistent_gain_quadratic_kappa"] == gain > 0


def test_a_head_without_probability_on_feasible_grades_leaves_it_to_the_rules():
    found = joint_scores(certain(0, 0, 4), [SPOTS, MORE, NONE], [1, 2, 0])
    assert [found[f"joint/{answer}_accuracy"] for answer in ("head", "consistent", "rules")] == [0, 1, 1]


def test_the_rules_never_contradict_themselves():
    _, feasible, truth = random_case()
    found = joint_scores(certain(*(rules_grade(one.grades) for one in feasible)), feasible, truth)
    assert found["joint/contradictions"] == 0
    assert found["joint/consistent_gain_accuracy"] == 0


def test_one_grade_for_all_contradicts_as_often_as_when_dealt_out():
    _, feasible, truth = random_case()
    found = joint_scores(certain(*[3] * 40), feasible, truth)
    assert found["joint/contradictions"] == pytest.approx(found["joint/contradictions_dealt"])
    assert 0 < found["joint/contradictions"] < 1


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_scores_equal_those_counted_one_by_one(seed):
    probabilities, feasible, truth = random_case(seed)
    found = joint_scores(probabilities, feasible, truth)
    predicted = probabilities.argmax(axis=1)
    together = [consistent_grade(p, one.grades) for p, one in zip(probabilities, feasible, strict=True)]
    assert found["joint/consistent_accuracy"] == pytest.approx(accuracy_score(truth, together))
    by_rules = [0 if one.grades == {0} else 1 if one.grades == {1} else 2 for one in feasible]
    pairs = [[grade not in one.grades for one in feasible] for grade in predicted]
    assert found["joint/contradictions"] == pytest.approx(np.mean(np.diag(pairs)))
    assert found["joint/contradictions_dealt"] == pytest.approx(np.mean(pairs))
    assert found["joint/rules_accuracy"] == pytest.approx(accuracy_score(truth, by_rules))
    expected = cohen_kappa_score(truth, by_rules, weights="quadratic", labels=range(5))
    assert found["joint/rules_quadratic_kappa"] == pytest.approx(expected)


def test_one_grade_alone_has_no_kappa():
    assert math.isnan(joint_scores(certain(0, 0), [NONE, NONE], [0, 0])["joint/rules_quadratic_kappa"])


def test_intervals_hold_the_scores_and_are_repeatable():
    case = random_case()
    found, intervals = joint_scores(*case), joint_intervals(*case, seed=2, resamples=100)
    assert intervals == joint_intervals(*case, seed=2, resamples=100)
    answers = ("head", "consistent", "consistent_gain", "rules")
    assert set(intervals) == {"joint/contradictions"} | {
        f"joint/{answer}_{score}" for answer in answers for score in ("accuracy", "quadratic_kappa")
    }
    for key, (low, high) in intervals.items():
        assert low < found[key] < high


def test_rejects_what_cannot_be_scored():
    with pytest.raises(ValueError, match="of N > 0 photographs, got 2, 1 and 2"):
        joint_scores(certain(0, 1), [NONE], [0, 1])
    with pytest.raises(ValueError, match="got 0, 0 and 0"):
        joint_scores(np.zeros((0, 5)), [], [])
    with pytest.raises(ValueError, match=r"expected grades 0-4, got \[-1\]; leave photographs of unknown grade out"):
        joint_scores(certain(0), [NONE], [-1])
    with pytest.raises(ValueError, match=r"expected 5 probabilities, not negative, got \[0.5, 0.5\]"):
        joint_scores(np.array([[0.5, 0.5]]), [NONE], [0])


def test_two_photographs_of_a_patient_are_drawn_together():
    """One patient is always right, the other never: all right and all wrong are a quarter of the draws each."""
    case = certain(*[0] * 4, *[2] * 4), [NONE] * 8, [0] * 4 + [1] * 4
    assert joint_intervals(*case, patients=[*"aaaabbbb"])["joint/head_accuracy"] == (0, 1)
    low, high = joint_intervals(*case)["joint/head_accuracy"]
    assert 0 < low < 0.5 < high < 1
    with pytest.raises(ValueError, match="expected the patient of each of 8 photographs, or None, got 1"):
        joint_intervals(*case, patients=["a"])
