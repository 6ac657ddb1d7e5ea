"""One meta step: an update of the label update network on one batch, by the exact gradient."""

# flake8: noqa: N815

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from bundle.distributed import mean_over_ranks
from bundle.method.hypergradient import Parameters, call_with, label_gradient, label_tangents, loss_gradients
from bundle.method.label_pulls import LabelPulls
from bundle.method.losses import CategoricalFocalLoss, GradeWeight, LesionLoss, class_terms
from bundle.networks.multitask_unet import BothTasks, GradeTask
from monai.networks.utils import train_mode
from torch import Tensor, nn
from torch.nn import functional as F

OBJECTIVES = ("segmentation", "initial", "segmentation+initial", "graded", "literal")

Batch = Mapping[str, Any]

CHECKED_STEPS = 8
"""Number of meta steps that are checked; a single one might miss a rare random draw."""

SAME_TWICE = 1e-3
"""Largest allowed difference between two passes, relative to the largest loss; GPU kernels round at random."""


class LabelGradients(NamedTuple):
    """Result of one virtual step for the labels of a batch.

    Attributes:
        labels_NC: ``dL_meta(theta+)/du``, exact.
        meta_loss: ``L_meta(theta+)``.
    """

    labels_NC: Tensor
    meta_loss: Tensor


class MetaStep:
    """Step that changes the soft labels so that the meta loss falls after one virtual gradient step.

    The virtual step is ``theta+ = theta - eps * grad (L_S + beta L_C(u))``, see :mod:`bundle.method.hypergradient`. The
    exact gradient of the meta loss by each label is scaled to 1 and averaged over passes (:class:`LabelPulls`). The
    label update network then takes one step of its optimiser to lower

        mean_n sum_c u_nc pull_nc + kl_weight * mean_n KL(initial label_n || u_n)

    so that ``kl_weight`` has the same effect at the start of training, when gradients are large, and at its end. The
    meta loss depends on ``objective``:

    - ``segmentation``: ``L_S``, which has true labels (as in MAXL);
    - ``initial``: ``beta L_C`` against the initial labels; ``segmentation+initial``: both;
    - ``graded``: ``beta L_C`` of a batch of photographs with true grades;
    - ``literal``: ``beta L_C`` against the network's own labels, Algorithm 1 of the paper as printed. ``u`` is also the
      target, so its gradient has a direct term, ``beta w_n l_nc(theta+) / (N C)``.

    Everything is in float32, even if training uses bfloat16: the gradient by a label is a small difference, and its
    error after rounding to eight bits is as large as itself. The multi-task network, its buffers, gradients and
    optimiser are left unchanged.

    Args:
        tasks: the multi-task network, bare (not wrapped for DDP).
        label_update: the network that learns; with several processes, wrapped for DDP, which averages its gradients.
        optimizer: optimiser of ``label_update``.
        lesion_loss: ``L_S``; may be any loss of outlines.
        grade_loss: ``L_C``; linear in the soft label.
        beta: weight of the grading loss.
        virtual_lr: ``eps``; None uses the current learning rate of the first group of ``training_optimizer``, the
            encoder.
        objective: which meta loss to use, see above.
        kl_weight: strength of the pull towards the initial label, relative to label pulls of 1.
        training_optimizer: optimiser of the multi-task network; only its learning rate is read.
        pulls: averages of earlier passes.

    Raises:
        ValueError: if the objective is unknown or a number is out of range; in the first ``CHECKED_STEPS`` calls, if
            the grade losses of one batch differ between passes (dropout, stochastic depth), or the grade depends on a
            parameter outside ``shared_modules`` and ``grade_head``: the gradient would be wrong.
        RuntimeError: when called, if the loss is not finite.

    Reference:
        Liu et al., "Self-Supervised Generalisation with Meta Auxiliary Learning", NeurIPS 2019.
    """

    def __init__(
        self,
        tasks: BothTasks,
        label_update: nn.Module,
        optimizer: torch.optim.Optimizer,
        lesion_loss: LesionLoss,
        grade_loss: CategoricalFocalLoss,
        beta: float | GradeWeight,
        virtual_lr: float | None = None,
        objective: str = "segmentation",
        kl_weight: float = 0.0,
        training_optimizer: torch.optim.Optimizer | None = None,
        pulls: LabelPulls | None = None,
    ) -> None:
        if objective not in OBJECTIVES:
            raise ValueError(f"expected meta_objective in {list(OBJECTIVES)}, got {objective!r}")
        if (virtual_lr is not None and not virtual_lr > 0) or kl_weight < 0:
            raise ValueError(f"expected virtual_lr > 0 or null, and kl_weight >= 0, got {virtual_lr} and {kl_weight}")
        if virtual_lr is None and training_optimizer is None:
            raise ValueError("expected a virtual_lr, or an optimiser whose rate is taken, got neither")
        self.tasks, self.grade_task, self.label_update = tasks, GradeTask(tasks.network), label_update
        self.optimizer, self.lesion_loss, self.grade_loss, self.beta = optimizer, lesion_loss, grade_loss, beta
        self._virtual_lr, self.objective, self.kl_weight = virtual_lr, objective, kl_weight
        self.training_optimizer, self.pulls = training_optimizer, pulls or LabelPulls()
        self._unchecked = CHECKED_STEPS

    @property
    def virtual_lr(self) -> float:
        """The size of the virtual step."""
        if self._virtual_lr is not None:
            return self._virtual_lr
        assert self.training_optimizer is not None
        return float(self.training_optimizer.param_groups[0]["lr"])

    def __call__(self, batch: Batch, graded: Batch | None = None, gradients: Parameters | None = None) -> Tensor:
        """Update the label update network on one batch and return the meta loss before the update, ``()``.

        Args:
            batch: batch on the device.
            graded: photographs with true grades, for the objective ``graded``.
            gradients: gradients of the training loss of the same batch, by parameter name, if already computed.
        """
        if self._unchecked:
            self._check(batch["image"])
        labels_NC, meta_loss = self.label_gradients(batch, graded, gradients)
        bare: Any = getattr(self.label_update, "module", self.label_update)  # not wrapped for DDP
        pulls_NC = self.pulls.update(batch["id"], labels_NC, bare.kept(batch["feasible"]))
        labels = self.labels(batch)
        loss = (labels * pulls_NC).sum(dim=1).mean() + self.kl_weight * divergence(batch["initial"], labels)
        if not torch.isfinite(loss + meta_loss):
            raise RuntimeError(
                f"the meta loss became {meta_loss.item()} and the label update {loss.item()}; lower virtual_lr, "
                f"label_learning_rate or learning_rate"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return meta_loss

    def labels(self, batch: Batch) -> Tensor:
        """Return the labels of a batch from the current label update network, ``(N, 5)``."""
        with torch.autocast(batch["image"].device.type, enabled=False):
            return self.label_update(batch["image"], batch["initial"], batch["feasible"])

    def label_gradients(
        self, batch: Batch, graded: Batch | None = None, gradients: Parameters | None = None
    ) -> LabelGradients:
        """Return ``dL_meta(theta+)/du`` at the labels of the current label update network."""
        parameters = dict(self.tasks.named_parameters())
        with torch.no_grad():
            labels = self.labels(batch)

        def meta_loss(stepped: Parameters) -> tuple[Tensor, Tensor | None]:
            return self._meta_loss(stepped, batch, labels, graded)

        with train_mode(self.tasks), torch.autocast(batch["image"].device.type, enabled=False):
            if gradients is None:
                gradients = loss_gradients(self._training_loss(parameters, batch, labels), parameters, mean_over_ranks)
            tangents = label_tangents(
                gradients, meta_loss, lambda primal: self._class_losses(primal, batch["image"]), parameters,
                self.grade_task.label_parameters(), self.virtual_lr, mean_over_ranks,
            )  # fmt: skip
        labels_NC = label_gradient(tangents.inner_NC, batch["weight"], float(self.beta), self.virtual_lr)
        if tangents.direct_NC is not None:
            labels_NC = labels_NC + tangents.direct_NC
        return LabelGradients(labels_NC, tangents.meta_loss)

    def _class_losses(self, primal: Parameters, image: Tensor) -> Tensor:
        return class_terms(self.grade_loss, call_with(self.grade_task, primal, image))

    def _check(self, image: Tensor) -> None:
        """Refuse a network whose gradient would be wrong."""
        parameters = dict(self.grade_task.named_parameters())
        with train_mode(self.tasks), torch.enable_grad():
            first, second = (self._class_losses(parameters, image) for _ in range(2))
        apart = float((first - second).detach().abs().max() / first.detach().abs().max())
        if apart > SAME_TWICE:
            raise ValueError(
                f"expected the same grade losses from two passes of the same network, got {apart:.2g} apart: something "
                f"on the way to the grade is drawn at random, such as dropout or stochastic depth, and the meta "
                f"gradient would be wrong; set its rate to 0, or label_update to false"
            )
        if others := self._other_parameters_of_the_grade(first, parameters):
            raise ValueError(
                f"expected a grade that reads shared_modules() and grade_head alone, got one that reads "
                f"{others[0]} too: the meta gradient would be wrong; name its module in shared_modules() of "
                f"{type(self.tasks.network).__name__}"
            )
        self._unchecked -= 1

    def _other_parameters_of_the_grade(self, losses_NC: Tensor, parameters: Parameters) -> list[str]:
        """Return the names of the parameters that the grade depends on but is not differentiated by."""
        own = self.grade_task.label_parameters()
        others = {name: p for name, p in parameters.items() if name not in own and p.requires_grad}
        if not others:
            return []
        gradients = torch.autograd.grad(losses_NC.sum(), list(others.values()), allow_unused=True)
        return [name for name, gradient in zip(others, gradients, strict=True) if gradient is not None]

    def _training_loss(self, parameters: Parameters, batch: Batch, labels: Tensor) -> Tensor:
        with torch.enable_grad():
            tasks = call_with(self.tasks, parameters, batch["image"])
            lesion_loss = self.lesion_loss(tasks["lesions"], batch["lesions"], batch["looked_for"])
            return lesion_loss + float(self.beta) * self.grade_loss(tasks["grade"], labels, batch["weight"])

    def _meta_loss(
        self, stepped: Parameters, batch: Batch, labels: Tensor, graded: Batch | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the meta loss, and for ``literal`` its derivative by the labels at fixed ``theta+``."""
        if self.objective == "graded":
            return self._graded_loss(stepped, graded), None
        if self.objective == "literal":
            return self._literal_loss(stepped, batch, labels)
        network = self.tasks if "segmentation" in self.objective else self.grade_task
        logits = call_with(network, stepped, batch["image"])
        tasks = logits if isinstance(logits, dict) else {"grade": logits}
        terms = []
        if "segmentation" in self.objective:
            terms.append(self.lesion_loss(tasks["lesions"], batch["lesions"], batch["looked_for"]))
        if "initial" in self.objective:
            terms.append(float(self.beta) * self.grade_loss(tasks["grade"], batch["initial"], batch["weight"]))
        return torch.stack(terms).sum(), None

    def _graded_loss(self, stepped: Parameters, graded: Batch | None) -> Tensor:
        if graded is None:
            raise ValueError("expected a batch of graded photographs for meta_objective 'graded', got none")
        logits = call_with(self.grade_task, stepped, graded["image"])
        true = F.one_hot(graded["grade"], logits.shape[1]).to(logits.dtype)  # (N, C)
        return float(self.beta) * self.grade_loss(logits, true)

    def _literal_loss(self, stepped: Parameters, batch: Batch, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = call_with(self.grade_task, stepped, batch["image"])
        terms = class_terms(self.grade_loss, logits.to(labels.dtype))  # (N, C)
        direct = float(self.beta) * batch["weight"].unsqueeze(1) * terms  # (N, C)
        return (labels * direct).mean(), direct / direct.numel()


def divergence(initial: Tensor, labels: Tensor) -> Tensor:
    """Return the mean ``KL(initial || labels)`` over the images; grades without initial mass do not count.

    Example:
        >>> divergence(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.5]]))  # log 2
        tensor(0.6931)
    """
    tiny = torch.finfo(labels.dtype).tiny
    return (torch.xlogy(initial, initial) - initial * labels.clamp(min=tiny).log()).sum(dim=1).mean()
