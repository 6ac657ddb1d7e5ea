"""Stage 2's second pass: move the label update network so that the next training step helps segmentation."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from ignite.engine import Engine, Events
from monai.networks.utils import train_mode
from torch import Tensor, nn
from torch.func import functional_call

from bundle.distributed import mean_over_ranks
from bundle.engines import Batch, to_device
from bundle.hypergradient import Parameters, label_objective, label_tangents
from bundle.losses import CategoricalFocalLoss, class_terms
from bundle.networks.multitask_unet import BothTasks, GradeTask

OBJECTIVES = ("segmentation", "initial", "segmentation+initial")


class LabelUpdateHandler:
    """After each epoch of training, one pass of meta steps over the same data (Algorithm 1, lines 13-18).

    A meta step asks how the soft labels should change so that, after one virtual gradient step on
    ``L_S + beta L_C(u)``, the meta loss falls; see :mod:`bundle.hypergradient`. The label update network learns from

        L_meta(theta+) / virtual_lr + kl_weight * KL(initial label || u)

    where the division makes ``kl_weight`` mean the same at every ``virtual_lr``. The multi-task network, its
    buffers, gradients and optimiser are left as they are.

    Args:
        tasks: the multi-task network, bare (not wrapped for DDP).
        label_update: the network that learns; with several processes wrapped for DDP, which averages its gradients.
        optimizer: of ``label_update``.
        loss: the categorical focal loss of both tasks.
        loader: the training batches.
        beta: weight of the grading loss.
        virtual_lr: size of the virtual step.
        objective: ``segmentation`` (MAXL: the loss with true labels), ``initial`` (grading against the initial labels)
            or ``segmentation+initial``.
        kl_weight: pull towards the initial label.
        every: epochs of training per pass of meta steps.

    Raises:
        ValueError: if the objective is another word or a number is out of its range.
    """

    def __init__(
        self,
        tasks: BothTasks,
        label_update: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss: CategoricalFocalLoss,
        loader: Iterable[Batch],
        beta: float,
        virtual_lr: float = 1e-2,
        objective: str = "segmentation",
        kl_weight: float = 0.0,
        every: int = 1,
    ) -> None:
        if objective not in OBJECTIVES:
            raise ValueError(f"expected meta_objective in {list(OBJECTIVES)}, got {objective!r}")
        if not virtual_lr > 0 or kl_weight < 0:
            raise ValueError(f"expected virtual_lr > 0 and kl_weight >= 0, got {virtual_lr} and {kl_weight}")
        if every < 1:
            raise ValueError(f"expected meta_every of 1 or more, got {every}")
        self.tasks, self.grade_task, self.label_update = tasks, GradeTask(tasks.network), label_update
        self.optimizer, self.loss, self.loader = optimizer, loss, loader
        self.beta, self.virtual_lr, self.objective, self.kl_weight = beta, virtual_lr, objective, kl_weight
        self.every = every

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED(every=self.every), self)

    def __call__(self, engine: Engine) -> None:
        """Run one pass of meta steps and put the label curves into ``engine.state.metrics``."""
        curves = [self.meta_step(to_device(batch, engine.state.device)) for batch in self.loader]
        engine.state.metrics.update(_pooled(curves))

    def meta_step(self, batch: Batch) -> dict[str, Tensor]:
        """Update the label update network on one batch and return what happened to each label."""
        with train_mode(self.tasks, self.label_update):
            tangents, meta_loss = self.tangents(batch)
            labels = self.label_update(batch["image"], batch["initial"], batch["feasible"])
        objective = label_objective(labels, tangents, batch["weight"], self.beta, self.virtual_lr)
        loss = objective / self.virtual_lr + self.kl_weight * divergence(batch["initial"], labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return {"meta_loss": meta_loss.expand(len(labels)), **_curves(batch, labels.detach())}

    def tangents(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return ``<v, grad l_nc>`` for the batch and the meta loss at ``theta+``, in the precision of the weights."""
        with torch.no_grad():
            labels = self.label_update(batch["image"], batch["initial"], batch["feasible"])

        def training_loss(parameters: Parameters) -> Tensor:
            tasks = self._call(self.tasks, parameters, batch)
            lesion_loss = self.loss(tasks["lesions"], batch["lesions"])
            return lesion_loss + self.beta * self.loss(tasks["grade"], labels, batch["weight"])

        def meta_loss(parameters: Parameters) -> Tensor:
            return self._meta_loss(self._call(self.tasks, parameters, batch), batch)

        def class_losses(parameters: Parameters) -> Tensor:
            return class_terms(self.loss, self._call(self.grade_task, parameters, batch))

        parameters = dict(self.tasks.named_parameters())
        label_parameters = self.grade_task.label_parameters()
        return label_tangents(
            training_loss, meta_loss, class_losses, parameters, label_parameters, self.virtual_lr, mean_over_ranks
        )

    def _meta_loss(self, tasks: Mapping[str, Tensor], batch: Batch) -> Tensor:
        terms: dict[str, Callable[[], Tensor]] = {
            "segmentation": lambda: self.loss(tasks["lesions"], batch["lesions"]),
            "initial": lambda: self.beta * self.loss(tasks["grade"], batch["initial"], batch["weight"]),
        }
        return torch.stack([terms[name]() for name in self.objective.split("+")]).sum()

    def _call(self, module: nn.Module, parameters: Parameters, batch: Batch) -> Any:  # noqa: ANN401
        """Call a module with other parameters; clones of its buffers take the batch norm updates."""
        buffers = {name: value.clone() for name, value in module.named_buffers()}
        return functional_call(module, {**dict(parameters), **buffers}, (batch["image"],))


def divergence(initial: Tensor, labels: Tensor) -> Tensor:
    """Mean ``KL(initial || labels)`` over the images; grades without initial mass do not count."""
    tiny = torch.finfo(labels.dtype).tiny
    return (torch.xlogy(initial, initial) - initial * labels.clamp(min=tiny).log()).sum(dim=1).mean()


def _curves(batch: Batch, labels: Tensor) -> dict[str, Tensor]:
    """Describe each label: how far it moved (total variation), its entropy in nats, and its top grade."""
    initial, top = batch["initial"], labels.argmax(dim=1)
    return {
        "movement": (labels - initial).abs().sum(dim=1) / 2,
        "entropy": -torch.xlogy(labels, labels).sum(dim=1),
        "changed": (top != initial.argmax(dim=1)).float(),
        "correct": torch.where(batch["grade"] >= 0, (top == batch["grade"]).float(), torch.nan),
        "initially_correct": torch.where(
            batch["grade"] >= 0, (initial.argmax(dim=1) == batch["grade"]).float(), torch.nan
        ),
    }


def _pooled(curves: list[dict[str, Tensor]]) -> dict[str, float]:
    """Average over the images; accuracy over those whose true grade is known."""
    names = {
        "meta_loss": "labels/meta_loss", "movement": "labels/movement", "entropy": "labels/entropy",
        "changed": "labels/top_grade_changed", "correct": "labels/accuracy",
        "initially_correct": "labels/initial_accuracy",
    }  # fmt: skip
    means = {metric: torch.cat([one[key] for one in curves]).nanmean().item() for key, metric in names.items()}
    return {metric: value for metric, value in means.items() if value == value}
