"""A handler that ends a run as a failure if its labels have collapsed."""

from bundle.handlers.label_table import LabelTable, entropy
from ignite.engine import Engine, Events

ENTROPY_MIN = 0.05
"""Mean entropy of the labels that can move, in nats; below it they count as certain. About 0.99 against 0.01."""

SPREAD_MIN = 1e-4
"""Standard deviation over photographs, maximum over grades; below it all labels count as the same."""


class FailOnLabelCollapse:
    """Handler that raises when movable labels become certain, or the same for all photographs, and were not at first.

    This happens with an objective that follows its own labels, and with too high a learning rate. The curves of such a
    run look like a result, so it must end as a failure and is never compared with others. Attach this handler after
    :class:`bundle.handlers.label_update.LabelUpdateHandler`.

    Args:
        table: table of the taught labels.

    Raises:
        RuntimeError: after an epoch, naming the kind of collapse.
    """

    def __init__(self, table: LabelTable) -> None:
        self.table = table

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        free = self.table.free_M
        if free.sum() < 2:
            return
        initial, now = self.table.initial_M5[free], self.table.current_M5[free]
        certain = entropy(now).mean() < ENTROPY_MIN < entropy(initial).mean() / 2
        alike = now.std(dim=0).max() < SPREAD_MIN < initial.std(dim=0).max() / 2
        if certain or alike:
            what = "become certain" if certain else "become the same for all photographs"
            raise RuntimeError(
                f"the labels have {what} at epoch {engine.state.epoch} (mean entropy {entropy(now).mean():.3f} nats, "
                f"{entropy(initial).mean():.3f} at first): they teach nothing; lower label_learning_rate or "
                f"label_movement_max, raise kl_weight, or choose another meta_objective"
            )
