"""Stage 2's second network in turn with the first: when meta steps are taken, and on what."""

from collections.abc import Iterable, Iterator

import torch
from bundle.distributed import joined_over_ranks
from bundle.engines import Batch, to_device
from bundle.handlers.label_curves import label_curves, pooled
from bundle.handlers.meta_step import MetaStep
from bundle.memory import says_what_to_lower
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from torch import Tensor

ALTERNATIONS = ("epoch", "step")


class LabelUpdateHandler:
    """Take meta steps while the multi-task network trains, and put the label curves into its engine's metrics.

    - ``epoch``: after each epoch of training, one pass of meta steps over the same data (Algorithm 1, lines 13-18).
    - ``step``: in every training step, between backward pass and optimiser; the gradient of the batch that training has
      just computed is the virtual step's, so that there is no second pass for it.

    Args:
        step: one meta step.
        loader: the training batches.
        alternation: ``epoch`` or ``step``.
        every: epochs of training per pass of meta steps, or training steps per meta step.
        graded: batches of photographs with true grades, drawn without end; for the objective ``graded``.

    Raises:
        ValueError: if ``alternation`` is another word, ``every`` is below 1, or graded photographs are missing or not
            asked for.
    """

    def __init__(
        self,
        step: MetaStep,
        loader: Iterable[Batch],
        alternation: str = "epoch",
        every: int = 1,
        graded: Iterable[Batch] | None = None,
    ) -> None:
        if alternation not in ALTERNATIONS:
            raise ValueError(f"expected alternation in {list(ALTERNATIONS)}, got {alternation!r}")
        if every < 1:
            raise ValueError(f"expected meta_every of 1 or more, got {every}")
        if (graded is None) == (step.objective == "graded"):
            raise ValueError(
                f"expected graded photographs for meta_objective 'graded' and for no other, got {step.objective!r} "
                f"and {'none' if graded is None else 'some'}"
            )
        self.step, self.loader, self.alternation, self.every, self.graded = step, loader, alternation, every, graded
        self._curves: list[dict[str, Tensor]] = []

    def attach(self, engine: Engine) -> None:
        if self.alternation == "epoch":
            engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.every), self.run_pass)
        else:
            engine.add_event_handler(Events.EPOCH_STARTED, self.start_epoch)
            engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self.run_step)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self.finish_epoch)

    def run_pass(self, engine: Engine) -> None:
        """Run one pass of meta steps over the loader."""
        self.start_epoch(engine)
        for batch in self.loader:
            self._take(engine, batch, gradients=None)
        self.finish_epoch(engine)

    def run_step(self, engine: Engine) -> None:
        """Take one meta step with the gradients that the training step has just left."""
        if engine.state.iteration % self.every == 0:
            parameters = self.step.tasks.named_parameters()
            gradients = {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in parameters}
            self._take(engine, engine.state.batch, gradients)

    def start_epoch(self, engine: Engine) -> None:
        """Begin to draw graded photographs anew, so that an epoch draws the same ones after a cut as without it."""
        self._curves = []
        self._draws = _endless(self.graded) if self.graded is not None else None

    def finish_epoch(self, engine: Engine) -> None:
        """Put the label curves of the epoch into ``engine.state.metrics``."""
        if self._curves:
            engine.state.metrics.update(pooled(joined_over_ranks(self._curves)))

    @says_what_to_lower
    def _take(self, engine: Engine, batch: Batch, gradients: dict[str, Tensor] | None) -> None:
        batch = to_device(batch, engine.state.device)
        graded = to_device(next(self._draws), engine.state.device) if self._draws is not None else None
        moved = self.step(batch, graded, gradients)
        curves = label_curves(batch, moved.labels_NC, moved.meta_loss)
        self._curves.append({name: value.cpu() for name, value in curves.items()})


def _endless(loader: Iterable[Batch]) -> Iterator[Batch]:
    while True:
        yield from loader
