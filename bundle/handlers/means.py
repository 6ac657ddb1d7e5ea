"""Means of the step outputs over an epoch."""

from collections.abc import Mapping
from operator import itemgetter

from ignite.engine import Engine
from ignite.metrics import Average


class MeanOutputs:
    """Handler that averages named outputs of the engine's steps into its metrics.

    Args:
        names: maps each key of the step's output to the name of its metric.

    Example:
        >>> engine = Engine(lambda engine, batch: {"loss": batch})
        >>> MeanOutputs({"loss": "train_loss"}).attach(engine)
        >>> engine.run([1.0, 2.0]).metrics
        {'train_loss': 1.5}
    """

    def __init__(self, names: Mapping[str, str]) -> None:
        self.names = dict(names)

    def attach(self, engine: Engine) -> None:
        for key, name in self.names.items():
            Average(output_transform=itemgetter(key)).attach(engine, name)
