"""A likeness is fitted on the features of an evaluation, and kept with what it rests on."""

import numpy as np
import pytest
import torch
from bundle.handlers.fitting import FitLikeness
from bundle.metrics.likeness import fit_likeness, likeness_of
from bundle.networks.weights import fact, save_weights, say_also
from ignite.engine import Engine
from torch import nn

COUNT = 60
FEATURES = np.random.default_rng(0).normal(size=(COUNT, 4))
IDS = [str(number) for number in range(COUNT)]


def evaluate(fit, count=COUNT, batch_size=8):
    engine = Engine(lambda engine, batch: {"features": torch.from_numpy(FEATURES[batch["rows"]])})
    fit.attach(engine)
    rows = [list(range(count))[start : start + batch_size] for start in range(0, count, batch_size)]
    return engine.run([{"id": [str(row) for row in one], "rows": one} for one in rows]).metrics


def test_training_and_held_out_photographs_are_told_apart_and_others_do_not_count():
    fit = FitLikeness(training=IDS[:30], held_out=IDS[30:50])
    metrics = evaluate(fit)
    likeness, expected = likeness_of(fit.facts()["likeness"]), fit_likeness(FEATURES[:30], FEATURES[30:50])
    assert metrics["likeness/limit"] == pytest.approx(expected.limit)
    assert likeness.unlikeness(FEATURES) == pytest.approx(expected.unlikeness(FEATURES), rel=1e-3)
    assert fit.facts()["likeness_fitted_on"] == "30 training photographs, its limit also on 20 held-out ones"


def test_without_held_out_photographs_the_training_ones_give_the_limit():
    fit = FitLikeness(training=IDS[:30], held_out=[])
    evaluate(fit)
    assert fit.facts()["likeness_fitted_on"] == "30 training photographs"


def test_an_evaluation_that_is_repeated_gives_the_same():
    fit = FitLikeness(training=IDS[:30], held_out=IDS[30:])
    first = evaluate(fit)
    assert evaluate(fit) == first
    assert fit.intervals() == {}


def test_a_weights_file_keeps_it_and_one_without_says_so(tmp_path):
    fit = FitLikeness(training=IDS[:30], held_out=IDS[30:])
    assert fit.facts() == {"likeness": None, "likeness_fitted_on": None}
    evaluate(fit)
    save_weights(tmp_path / "model.pt", nn.Linear(2, 3), {})
    assert likeness_of(fact(tmp_path / "model.pt", "likeness")) is None
    say_also(tmp_path / "model.pt", tmp_path / "model.pt", fit.facts())
    found = likeness_of(fact(tmp_path / "model.pt", "likeness"))
    assert found.unlikeness(FEATURES) == pytest.approx(fit.likeness.unlikeness(FEATURES), rel=1e-3)


def test_of_too_few_training_photographs_nothing_is_fitted():
    fit = FitLikeness(training=IDS[:9], held_out=IDS[30:])
    assert "likeness/limit" not in evaluate(fit)
    assert fit.facts() == {"likeness": None, "likeness_fitted_on": None}
