import math

import numpy as np
import pytest
from bundle.labels import LESIONS, feasible_grades
from bundle.metrics.joint import joint_intervals, joint_scores, rules_grade
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, cohen_kappa_score

NONE, SPOTS, MORE = feasible_grades(set()), feasible_grades({"MA"}), feasible_grades({"MA", "EX"})


def random_case(seed=0, count=40):
    rng = np.random.default_rng(seed)
    present = [{lesion for lesion in LESIONS if rng.random() < 0.3} for _ in range(count)]
    return rng.integers(5, size=count).tolist(), [feasible_grades(one) for one in present], rng.integers(5, size=count)


def test_the_rules_give_the_lowest_feasible_grade():
    assert [rules_grade(one) for one in (NONE, SPOTS, MORE)] == [0, 1, 2]


def test_scores_by_hand():
    found = joint_scores([0, 1, 2, 4, 0], [NONE, SPOTS, NONE, MORE, MORE], [0, 1, 2, 4, 2])
    assert found["joint/contradictions"] == pytest.approx(2 / 5)
    # each grade beside each photograph: 0 and 0 are allowed on 2 of 5, 1 on 1, 2 on 2, 4 on 2
    assert found["joint/contradictions_dealt"] == pytest.approx(1 - (2 + 2 + 1 + 2 + 2) / 25)
    assert found["joint/rules_accuracy"] == pytest.approx(3 / 5)  # 0, 1, 0, 2, 2
    assert found["joint/rules_accuracy_majority"] == pytest.approx(2 / 5)
    assert found["joint/rules_quadratic_kappa_majority"] == 0


def test_the_rules_never_contradict_themselves():
    _, feasible, truth = random_case()
    assert joint_scores([rules_grade(one) for one in feasible], feasible, truth)["joint/contradictions"] == 0


def test_one_grade_for_all_contradicts_as_often_as_when_dealt_out():
    _, feasible, truth = random_case()
    found = joint_scores([3] * 40, feasible, truth)
    assert found["joint/contradictions"] == pytest.approx(found["joint/contradictions_dealt"])
    assert 0 < found["joint/contradictions"] < 1


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_scores_equal_those_counted_one_by_one(seed):
    predicted, feasible, truth = random_case(seed)
    found = joint_scores(predicted, feasible, truth)
    by_rules = [0 if one.grades == {0} else 1 if one.grades == {1} else 2 for one in feasible]
    pairs = [[grade not in one.grades for one in feasible] for grade in predicted]
    assert found["joint/contradictions"] == pytest.approx(np.mean(np.diag(pairs)))
    assert found["joint/contradictions_dealt"] == pytest.approx(np.mean(pairs))
    assert found["joint/rules_accuracy"] == pytest.approx(accuracy_score(truth, by_rules))
    expected = cohen_kappa_score(truth, by_rules, weights="quadratic", labels=range(5))
    assert found["joint/rules_quadratic_kappa"] == pytest.approx(expected)


def test_one_grade_alone_has_no_kappa():
    assert math.isnan(joint_scores([0, 0], [NONE, NONE], [0, 0])["joint/rules_quadratic_kappa"])


def test_intervals_hold_the_scores_and_are_repeatable():
    case = random_case()
    found, intervals = joint_scores(*case), joint_intervals(*case, seed=2, resamples=100)
    assert intervals == joint_intervals(*case, seed=2, resamples=100)
    assert set(intervals) == {"joint/contradictions", "joint/rules_accuracy", "joint/rules_quadratic_kappa"}
    for key, (low, high) in intervals.items():
        assert low < found[key] < high


def test_rejects_what_cannot_be_scored():
    with pytest.raises(ValueError, match="of N > 0 photographs, got 2, 1 and 2"):
        joint_scores([0, 1], [NONE], [0, 1])
    with pytest.raises(ValueError, match="got 0, 0 and 0"):
        joint_scores([], [], [])
    with pytest.raises(ValueError, match=r"expected grades 0-4, got \[-1\]; leave photographs of unknown grade out"):
        joint_scores([0], [NONE], [-1])
