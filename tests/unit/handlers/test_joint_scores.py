"""Grades are scored against the lesions of the same prediction, at the photograph's own size."""

import pytest
import torch
from bundle.handlers.joint_scores import ScoreJoint
from ignite.engine import Engine

GEOMETRY = torch.tensor([2.0, 0.0, 8.0, 12, 8])


def lesions_of(classes, index, channels=5):
    """Probabilities of a square that is background but for two by two pixels of one class."""
    lesions = torch.zeros(channels, 8, 8)
    lesions[0] = 1
    if classes:
        lesions[0, 2:4, 2:4], lesions[index, 2:4, 2:4] = 0, 1
    return lesions


def batch(channels=5):
    """No lesion and grade 0; exudates and grade 1, where 2 is true; microaneurysms and grade 1; unknown."""
    drawn = [(False, 0), (True, min(3, channels - 1)), (True, 1), (True, 1)]
    output = {
        "lesions": torch.stack([lesions_of(*one, channels) for one in drawn]),
        "grade": torch.eye(5)[[0, 1, 1, 4]],
    }
    facts = {
        "id": ["a", "b", "c", "d"], "grade": torch.tensor([0, 2, 1, -1]), "geometry": GEOMETRY.expand(4, 5),
        "field_px": torch.full((4,), 1000),
    }  # fmt: skip
    return facts, output


def evaluate(scorer, one=None, times=1):
    def step(engine, pair):
        engine.state.batch, output = pair
        return output

    engine = Engine(step)
    scorer.attach(engine)
    for _ in range(times):
        engine.run([one or batch()])
    return engine.state.metrics


def test_a_grade_that_the_predicted_lesions_rule_out_is_a_contradiction():
    found = evaluate(ScoreJoint(["a", "b", "c", "d"]))
    assert found["joint/contradictions"] == pytest.approx(1 / 3)  # the fourth has no true grade
    assert found["joint/rules_accuracy"] == 1
    assert found["joint/head_accuracy"] == pytest.approx(2 / 3)
    assert found["joint/consistent_accuracy"] == 1  # exudates move the second from 1 to 2
    assert found["joint/rules_quadratic_kappa"] == 1


def test_photographs_that_do_not_count_are_passed_over():
    assert evaluate(ScoreJoint(["b"]))["joint/contradictions"] == 1
    assert evaluate(ScoreJoint([])) == {}
    assert ScoreJoint([]).intervals() == {}


def test_one_class_for_all_lesions_allows_no_grade_to_be_told():
    scorer = ScoreJoint(["a", "b", "c"], fuse=True)
    assert evaluate(scorer, batch(channels=2)) == {}
    assert (scorer.intervals(), len(scorer.ids)) == ({}, 0)


def test_a_second_evaluation_does_not_remember_the_first():
    assert evaluate(ScoreJoint(["a", "b"]), times=2) == evaluate(ScoreJoint(["a", "b"]))


def test_intervals_are_of_the_last_evaluation():
    scorer = ScoreJoint(["a", "b", "c"])
    evaluate(scorer)
    low, high = scorer.intervals()["joint/contradictions"]
    assert low <= 1 / 3 <= high
    assert scorer.intervals()["joint/rules_accuracy"] == (1, 1)


def test_a_component_below_the_smallest_area_makes_no_grade_infeasible():
    """The components have 4 of the field's 1000 pixels: 4000 millionths."""
    large = evaluate(ScoreJoint(["a", "b", "c"], min_area_ppm=4000))
    small = evaluate(ScoreJoint(["a", "b", "c"], min_area_ppm=4001))
    assert large["joint/contradictions"] == pytest.approx(1 / 3)  # exudates and grade 1
    assert small["joint/contradictions"] == pytest.approx(2 / 3)  # no lesion and grade 1, twice


def test_thresholds_decide_which_lesions_are_there():
    facts, output = batch()
    faint = {**output, "lesions": 0.3 * output["lesions"]}
    faint["lesions"][:, 0] += 0.7
    assert evaluate(ScoreJoint(["b"]), (facts, faint))["joint/rules_accuracy"] == 0  # no lesion: grade 0, 2 is true
    found = evaluate(ScoreJoint(["b"], thresholds=(0.5, 0.5, 0.2, 0.5)), (facts, faint))
    assert found["joint/rules_accuracy"] == 1


def test_intervals_are_over_patients_where_they_are_known():
    scorer = ScoreJoint(["a", "b", "c"], patient_of={"a": "p", "b": "p", "c": "p"})
    accuracy = evaluate(scorer)["joint/head_accuracy"]
    assert scorer.intervals()["joint/head_accuracy"] == pytest.approx((accuracy, accuracy))  # one patient
    unknown = ScoreJoint(["a", "b", "c"])
    evaluate(unknown)
    assert unknown.intervals()["joint/head_accuracy"] == (0, 1)  # each is 1 / 27 of the draws or more
