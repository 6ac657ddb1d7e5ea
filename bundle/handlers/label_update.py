"""Alternation of the two networks of stage 2: when meta steps are taken, on which batches, and what they change."""

from collections.abc import Iterable
from itertools import chain, repeat

import torch
from bundle.distributed import mean_over_ranks
from bundle.handlers.label_table import LabelTable
from bundle.method.meta_step import MetaStep
from bundle.steps import Batch, explain_out_of_memory, to_device
from ignite.engine import Engine, Events
from monai.engines.utils import IterationEvents
from torch import Tensor
from torch.utils.data import DistributedSampler

ALTERNATIONS = ("epoch", "step")
SMALLEST_SHARE = 1 / 256
"""Smallest share of a pass of meta steps that is kept; if labels still move too far, the whole pass is undone."""


class LabelUpdateHandler:
    """Handler that takes meta steps while the multi-task network trains, and teaches the new labels after each pass.

    - ``epoch``: after each epoch of training, one pass of meta steps over the photographs (Algorithm 1, lines 13-18).
    - ``step``: in every training step, between backward pass and optimiser. The virtual step uses the gradient that
      training has just computed for the batch, which saves a second pass.

    After a pass, the label of every photograph is computed once, without augmentation, and put into the table that
    training reads. Labels stay the same within an epoch, and curves show the labels that the next training step uses.
    If a pass moved the label of any photograph by more than ``movement_max`` (total variation), the parameter change of
    the pass is halved until no label moves that far. A shared encoder continues to learn with the multi-task network,
    and the labels follow it; that part of their movement is not bounded.

    Args:
        step: one meta step.
        table: table of the taught labels.
        photographs: batches of all photographs of the table that have outlines, not augmented; other labels are not
            updated.
        loader: the batches of a pass, for ``epoch``.
        alternation: ``epoch`` or ``step``.
        every: epochs of training per pass of meta steps, or training steps per meta step.
        graded: batches of photographs with true grades, repeated without end; for the objective ``graded``.
        movement_max: largest total variation by which the label of a photograph may move in a pass.

    Raises:
        ValueError: if ``alternation`` is unknown, ``every`` is below 1, ``movement_max`` is not in (0, 1], or graded
            photographs are missing for the objective ``graded`` or given for another one.
    """

    def __init__(
        self,
        step: MetaStep,
        table: LabelTable,
        photographs: Iterable[Batch],
        loader: Iterable[Batch],
        alternation: str = "epoch",
        every: int = 1,
        graded: Iterable[Batch] | None = None,
        movement_max: float = 0.1,
    ) -> None:
        if alternation not in ALTERNATIONS:
            raise ValueError(f"expected alternation in {list(ALTERNATIONS)}, got {alternation!r}")
        if every < 1 or not 0 < movement_max <= 1:
            raise ValueError(
                f"expected meta_every of 1 or more and label_movement_max in (0, 1], got {every} and {movement_max}"
            )
        needs_graded, has_graded = step.objective == "graded", graded is not None
        if needs_graded != has_graded:
            raise ValueError(
                f"expected graded photographs for meta_objective 'graded' and for no other, got {step.objective!r} "
                f"and {'some' if has_graded else 'none'}"
            )
        self.step, self.table, self.photographs, self.loader = step, table, photographs, loader
        self.alternation, self.every, self.graded, self.movement_max = alternation, every, graded, movement_max
        self._meta_losses: list[Tensor] = []

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.STARTED, self.start)
        if self.alternation == "epoch":
            engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.every), self.run_pass)
        else:
            engine.add_event_handler(Events.EPOCH_STARTED, self.start_pass)
            engine.add_event_handler(IterationEvents.BACKWARD_COMPLETED, self.run_step)
            engine.add_event_handler(Events.EPOCH_COMPLETED, self.finish_pass)

    def start(self, engine: Engine) -> None:
        """Teach the labels of the untrained label update network; a resumed run already has its labels."""
        if engine.state.epoch == 0:
            self.table.replace(self.labels(engine))

    def run_pass(self, engine: Engine) -> None:
        """Run one pass of meta steps over the loader."""
        self.start_pass(engine)
        sampler = getattr(self.loader, "sampler", None)
        if isinstance(sampler, DistributedSampler):  # as MONAI does for the sampler of training
            sampler.set_epoch(engine.state.epoch)
        for batch in self.loader:
            self._take(engine, batch, gradients=None)
        self.finish_pass(engine)

    def run_step(self, engine: Engine) -> None:
        """Take one meta step with the gradients that the training step has just computed."""
        if engine.state.iteration % self.every == 0:
            parameters = self.step.tasks.named_parameters()
            gradients = {name: torch.zeros_like(p) if p.grad is None else p.grad for name, p in parameters}
            self._take(engine, engine.state.batch, gradients)

    def start_pass(self, engine: Engine) -> None:
        """Restart the draw of graded photographs, so that a resumed run draws the same ones in each pass."""
        self._meta_losses = []
        self._before = [p.detach().clone() for p in self._parameters()]
        self._draws = None if self.graded is None else chain.from_iterable(repeat(self.graded))  # without end

    def finish_pass(self, engine: Engine) -> None:
        """Teach the new labels, and write their curves to ``engine.state.metrics``."""
        self.table.replace(self._bounded_labels(engine))
        if self._meta_losses:
            (mean,) = mean_over_ranks([torch.stack(self._meta_losses).mean()])
            engine.state.metrics["labels/meta_loss"] = mean.item()
        engine.state.metrics.update(self.table.curves())

    def _bounded_labels(self, engine: Engine) -> Tensor:
        """Return the labels after the pass; undo as much of the pass as the bound on their movement requires."""
        after, share = [p.detach().clone() for p in self._parameters()], 1.0
        labels = self.labels(engine)
        while share > 0 and self.table.movement(labels).max() > self.movement_max:
            share = share / 2 if share > SMALLEST_SHARE else 0.0
            with torch.no_grad():
                for parameter, old, new in zip(self._parameters(), self._before, after, strict=True):
                    parameter.copy_(old.lerp(new, share))
            labels = self.labels(engine)
        return labels

    def labels(self, engine: Engine) -> Tensor:
        """Return the labels of the table's photographs from the current label update network, ``(M, 5)``."""
        labels_M5 = self.table.initial_M5.clone()
        for batch in self.photographs:
            on_device = to_device(batch, engine.state.device)
            with torch.no_grad():
                labels_M5[self.table.places(batch["id"])] = self.step.labels(on_device).to(labels_M5)
        # Kernels round, so processes may differ; the mean gives all of them the same labels.
        (mean,) = mean_over_ranks([labels_M5.to(engine.state.device)])
        return mean.cpu()

    def _parameters(self) -> list[torch.nn.Parameter]:
        return [p for p in self.step.label_update.parameters() if p.requires_grad]

    @explain_out_of_memory
    def _take(self, engine: Engine, batch: Batch, gradients: dict[str, Tensor] | None) -> None:
        batch = to_device(batch, engine.state.device)
        graded = to_device(next(self._draws), engine.state.device) if self._draws is not None else None
        self._meta_losses.append(self.step(batch, graded, gradients))
