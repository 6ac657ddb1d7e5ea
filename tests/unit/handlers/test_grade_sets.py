"""Limits of the sets of likely grades, fitted on an evaluation, and sets scored by them."""

import pytest
import torch
from bundle.handlers.fitting import FitGradeSets
from bundle.handlers.scores import ScoreGrades
from bundle.networks.weights import grade_set_quantiles, save_weights
from ignite.engine import Engine

UNSURE = torch.tensor([0.5, 0.25, 0.125, 0.125, 0.0])
"""The set takes 1 at 0.5, 2 at 0.75, 3 at 0.875, 4 at 1."""


def evaluate(scorer, grades):
    """Say the same of every photograph; their ids count from 0."""
    engine = Engine(lambda engine, batch: {"grade": UNSURE.expand(len(grades), 5)})
    scorer.attach(engine)
    return engine.run([{"id": [str(n) for n in range(len(grades))], "grade": torch.tensor(grades)}]).metrics


def test_the_limits_of_the_fold_stand_in_the_weights_file(tmp_path):
    fit = FitGradeSets([str(n) for n in range(40)], subset="fold 0")
    grades = [0] * 17 + [1] * 3 + [2] * 20 + [3] * 2 + [4]  # the last three are not among the ids
    found = evaluate(fit, grades)
    assert found["grade_sets/quantile_2"] == 0.75
    assert fit.facts()["grade_sets"] == {
        "coverage": 0.9, "quantiles": [0.5, 0.5, 0.75, 0.5, 0.5],  # the 19th of 20 each: 3 of the others have 0.5
        "fitted_together": [[0, 1, 3, 4], [2]], "fitted_on": "40 photographs of fold 0",
    }  # fmt: skip
    save_weights(tmp_path / "model.pt", torch.nn.Linear(2, 3), fit.facts())
    assert grade_set_quantiles(tmp_path / "model.pt") == (0.5, 0.5, 0.75, 0.5, 0.5)


def test_a_smaller_coverage_gives_lower_limits():
    fit = FitGradeSets([str(n) for n in range(40)], subset="train", coverage=0.5)
    evaluate(fit, [0] * 25 + [1] * 15)
    assert fit.facts()["grade_sets"]["quantiles"][0] == 0
    assert fit.facts()["grade_sets"]["coverage"] == 0.5


def test_sets_are_scored_where_limits_are_known_and_otherwise_left_out():
    scored = evaluate(ScoreGrades(["0", "1"], set_quantiles=[0.5] * 5, task="grade_with_copies"), [1, 2])
    assert scored["grade_with_copies/set_coverage"] == 0.5
    assert scored["grade_with_copies/set_size"] == 2
    scorer = ScoreGrades(["0", "1"])
    assert not [key for key in evaluate(scorer, [1, 2]) if "/set_" in key]
    assert not [key for key in scorer.intervals() if "/set_" in key]


def test_every_score_of_sets_has_an_interval():
    scorer = ScoreGrades(["0", "1", "2"], set_quantiles=[0.5] * 5)
    found = evaluate(scorer, [0, 1, 3])
    assert {key for key in scorer.intervals() if "/set_" in key} == {key for key in found if "/set_" in key}


@pytest.mark.parametrize("subset", ["test", "all", "none"])
def test_nothing_is_fitted_on_a_test(subset):
    with pytest.raises(ValueError, match=f"expected a held-out fold or a training part to fit sets .*, got {subset}"):
        FitGradeSets(["0"], subset=subset)


def test_a_coverage_in_percent_is_refused_before_the_network_runs():
    with pytest.raises(ValueError, match=r"expected coverage as a share between 0 and 1, such as 0\.9, got 90"):
        FitGradeSets(["0"], subset="fold 0", coverage=90)


def test_a_fold_without_grades_is_refused():
    with pytest.raises(ValueError, match="expected graded photographs in fold 1 to fit sets of grades on, found none"):
        evaluate(FitGradeSets(["0"], subset="fold 1"), [-1])
