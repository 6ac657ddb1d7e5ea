"""An epoch's metric is the mean of its iterations, and of no other epoch's."""

import torch
from bundle.handlers.monitors import MeanOutputs
from ignite.engine import Engine, Events


def test_each_epoch_has_the_mean_of_its_own_iterations_under_the_given_name():
    seen = []
    engine = Engine(lambda engine, x: {"loss": torch.tensor(x * engine.state.epoch), "accuracy": torch.tensor(0.5)})
    MeanOutputs({"loss": "both/loss", "accuracy": "grade/accuracy"}).attach(engine)
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: seen.append(dict(engine.state.metrics)))
    engine.run([1.0, 2.0, 6.0], max_epochs=2)
    assert seen == [{"both/loss": 3.0, "grade/accuracy": 0.5}, {"both/loss": 6.0, "grade/accuracy": 0.5}]


def test_means_are_plain_numbers_so_that_they_can_be_logged():
    engine = Engine(lambda engine, x: {"loss": torch.tensor(x)})
    MeanOutputs({"loss": "loss"}).attach(engine)
    engine.run([1.0, 2.0])
    assert type(engine.state.metrics["loss"]) is float
