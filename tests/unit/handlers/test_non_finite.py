"""A run whose loss is no number ends as a failure, at once."""

import pytest
import torch
from bundle.handlers.monitors import FailOnNonFinite
from ignite.engine import Engine


def run(losses, handler):
    """Run two epochs over these losses; return the engine."""
    engine = Engine(lambda engine, loss: {"loss": torch.tensor(loss), "accuracy": loss})
    handler.attach(engine)
    engine.run(losses, max_epochs=2)
    return engine


def test_finite_losses_run_to_the_end():
    assert run([1.0, -2.0, 0.0], FailOnNonFinite()).state.iteration == 6


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_the_first_loss_that_is_no_number_ends_the_run_and_is_located(value):
    with pytest.raises(RuntimeError, match=rf"`loss` became {value} at epoch 1, iteration 2; lower learning_rate"):
        run([1.0, value, 2.0], FailOnNonFinite())


def test_another_output_can_be_watched_and_need_be_no_tensor():
    with pytest.raises(RuntimeError, match="`accuracy` became nan"):
        run([float("nan")], FailOnNonFinite("accuracy"))
