"""A handler that ends a diverged run as a failure."""

import torch
from ignite.engine import Engine, Events


class FailOnNonFinite:
    """Handler that raises as soon as a named output of the engine is NaN or infinite.

    Ignite's own ``TerminateOnNan`` ends the run as if it had finished; a run that diverged must end as a failure,
    so that it is never compared with the others.

    Args:
        key: key of the engine's output.

    Raises:
        RuntimeError: when called on a non-finite output.

    Example:
        >>> engine = Engine(lambda engine, batch: {"loss": batch})
        >>> FailOnNonFinite("loss").attach(engine)
        >>> engine.run([0.5, float("nan")])
        Traceback (most recent call last):
            ...
        RuntimeError: `loss` became nan at epoch 1, iteration 2; lower learning_rate, or set amp to false
    """

    def __init__(self, key: str = "loss") -> None:
        self.key = key

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.ITERATION_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        value = torch.as_tensor(engine.state.output[self.key])
        if not torch.isfinite(value).all():
            where = f"epoch {engine.state.epoch}, iteration {engine.state.iteration}"
            raise RuntimeError(
                f"`{self.key}` became {value.item()} at {where}; lower learning_rate, or set amp to false"
            )
