import json

import numpy as np
import pytest
from bundle.grade_rules import Feasible, feasible_grades
from bundle.method.evidence import Evidence, Thresholds
from bundle.method.pseudo_labels import audit_row, combine, decide
from bundle.metrics.pseudo_labels import summarise

R1, R2 = feasible_grades({"MA"}), feasible_grades({"HE", "EX"})


def row(name, probabilities=(0.1, 0.1, 0.1, 0.6, 0.1), feasible=R2, present=("HE", "EX"), supported=(3,)):
    """Decide on the opinion of one grader, with heat maps that support these grades."""
    graders = np.array([probabilities])
    p, winner = combine(graders, "max_confidence")
    heat = [
        Evidence(grade=grade, energy=0.5, hit=0.5, optic_disc=None, coverage=0.5, lift=1.0, relative_lift=0.5,
                 relative_coverage=0.5, supported=grade in supported)
        for grade in range(5)
    ]  # fmt: skip
    decision = decide(p, feasible, heat, Thresholds(), present=present)
    return audit_row(
        name, decision, heat, feasible=feasible, present=present, probabilities=p, graders_GC=graders, winner=winner,
        largest_px=dict.fromkeys(present, 40),
    )  # fmt: skip


def test_the_summary_scores_proposals_and_decisions_by_hand():
    rows = [
        row("a"),  # 3 kept, truth 3
        row("b", (0.5, 0.1, 0.1, 0.2, 0.1)),  # 0 moved to 3, truth 3
        row("c", (0.9, 0.02, 0.02, 0.06, 0)),  # 0, abstained on 3, truth 1: not feasible
        row("d", (0.1, 0.9, 0, 0, 0), R1, ("MA",), ()),  # 1 kept, truth 1
        row("e"),  # truth unknown
    ]
    found = summarise(rows, {"a": 3, "b": 3, "c": 1, "d": 1, "elsewhere": 0}, resamples=50)
    assert (found["n"], found["n_known"], found["n_taught"]) == (5, 4, 3)
    assert (found["n_keep"], found["n_move"], found["n_abstain"]) == (3, 1, 1)
    assert found["proposed/accuracy"] == 0.5
    assert found["decided/accuracy"] == 0.75
    assert found["taught/accuracy"] == found["taught/quadratic_kappa"] == 1.0
    assert found["majority/accuracy"] == 0.5
    assert found["truth_feasible"] == 0.75
    assert (found["R2/n"], found["R2/n_known"], found["R2/truth_feasible"]) == (4, 3, pytest.approx(2 / 3))
    assert found["decided/quadratic_kappa"] == pytest.approx(0.5)  # 1 - (1/4) / (1/2), in units of two grades
    json.dumps(found, allow_nan=False)


def test_taught_scores_the_soft_label_and_not_the_decided_grade():
    moved = row("a", (0, 0, 0.7, 0.2, 0.1))  # decided 3, for its heat map lies on the lesions; taught 2
    assert (moved["decided"], moved["taught"], moved["changed_by_heat"]) == (3, 2, True)
    q = {grade: moved[f"soft_label_{grade}"] for grade in range(5)}
    abstained = row("b", (0.9, 0.02, 0.02, 0.06, 0))
    ruled_out = row("c")
    found = summarise([moved, abstained, ruled_out], {"a": 2, "b": 1, "c": 0}, resamples=50)
    assert abstained["taught"] is None
    assert (found["n_taught"], found["taught/accuracy"], found["decided/accuracy"]) == (2, 0.5, 0.0)
    assert found["taught/log_probability"] == pytest.approx((np.log(q[2]) + np.log(1e-6)) / 2)
    assert found["taught/log_probability_low"] <= found["taught/log_probability"] <= -0.3
    assert (found["n_supported"], found["n_changed_by_heat"]) == (3, 1)


def test_support_of_a_grade_that_is_not_feasible_is_not_counted():
    found = summarise([row("a", supported=(0, 1)), row("b", supported=())], {}, resamples=50)
    assert (found["n_supported"], found["n_changed_by_heat"], found["taught/log_probability"]) == (0, 0, None)


def test_the_gain_is_decided_minus_proposed_on_the_same_resamples():
    helped = [row(f"helped{index}", (0.5, 0.1, 0.1, 0.2, 0.1)) for index in range(4)]  # 0 moved to 3
    same = [row(f"same{index}") for index in range(4)]  # 3 kept
    rows = [*helped, *same, row("missed", (0.1, 0.1, 0.2, 0.5, 0.1))]
    truth = {one["id"]: 3 for one in [*helped, *same]} | {"missed": 2}
    found = summarise(rows, truth, seed=3, resamples=400)
    assert found["gain/accuracy"] == pytest.approx(4 / 9)
    assert found["gain/accuracy"] == pytest.approx(found["decided/accuracy"] - found["proposed/accuracy"])
    draws = np.random.default_rng(3).integers(9, size=(400, 9))
    gains = (draws < 4).mean(axis=1)  # the first four were helped
    low, high = np.percentile(gains, [2.5, 97.5])
    assert (found["gain/accuracy_low"], found["gain/accuracy_high"]) == pytest.approx((low, high))
    kappa = found["decided/quadratic_kappa"] - found["proposed/quadratic_kappa"]
    assert found["gain/quadratic_kappa"] == pytest.approx(kappa)
    assert found["gain/quadratic_kappa_low"] <= kappa <= found["gain/quadratic_kappa_high"]


def test_where_no_decision_differs_the_gain_is_exactly_nothing():
    rows = [row(str(index), np.roll((0.1, 0.1, 0.1, 0.6, 0.1), index % 2), supported=()) for index in range(8)]
    found = summarise(rows, {str(index): 3 + index % 2 for index in range(8)}, resamples=50)
    assert [found[f"gain/accuracy{end}"] for end in ("", "_low", "_high")] == [0, 0, 0]
    assert [found[f"gain/quadratic_kappa{end}"] for end in ("", "_low", "_high")] == [0, 0, 0]


def test_intervals_of_the_summary_are_wilsons_and_repeatable():
    rows = [row(str(index)) for index in range(10)]
    truth = {str(index): 3 if index < 8 else 2 for index in range(10)}
    found = summarise(rows, truth, seed=5, resamples=50)
    assert (found["decided/accuracy_low"], found["decided/accuracy_high"]) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert found == summarise(rows, truth, seed=5, resamples=50)


def test_the_interval_of_kappa_holds_it():
    names = [str(index) for index in range(30)]
    rows = [
        row(name, np.roll((0.6, 0.1, 0.1, 0.1, 0.1), i % 5), Feasible(frozenset(range(5)), "R4"), (), ())
        for i, name in enumerate(names)
    ]
    truth = {name: (i + (i % 3 == 0)) % 5 for i, name in enumerate(names)}
    found = summarise(rows, truth, resamples=100)
    assert (
        found["decided/quadratic_kappa_low"] < found["decided/quadratic_kappa"] < found["decided/quadratic_kappa_high"]
    )


def test_a_summary_without_known_grades_is_undefined_but_counts():
    found = summarise([row("a")], {})
    assert (found["n"], found["n_known"], found["R2/n"]) == (1, 0, 1)
    assert found["decided/accuracy"] is None
    assert found["decided/quadratic_kappa_low"] is None
    assert found["truth_feasible"] is None
    assert found["gain/accuracy"] is found["gain/quadratic_kappa_high"] is None


def test_kappa_and_gain_are_drawn_by_patients():
    """One patient's labels are right and moved there, the other's are wrong and stay: the gain is 0 to 1."""
    moved, kept = (0.5, 0.1, 0.1, 0.2, 0.1), (0.1, 0.1, 0.1, 0.6, 0.1)
    rows = [row(name, moved if name < "e" else kept) for name in "abcdefgh"]
    truth = {name: 3 if name < "e" else 2 for name in "abcdefgh"}
    found = summarise(rows, truth, patients=dict(zip("abcdefgh", "ppppqqqq", strict=True)))
    assert [found[f"gain/accuracy{end}"] for end in ("", "_low", "_high")] == [0.5, 0, 1]
    alone = summarise(rows, truth)
    assert 0 < alone["gain/accuracy_low"] < alone["gain/accuracy_high"] < 1
    assert summarise(rows, truth, patients={name: name for name in truth}) == alone
