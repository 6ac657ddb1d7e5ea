"""One meta step: move the label update network on one batch, by the exact gradient."""

# flake8: noqa: N815

from typing import NamedTuple

import torch
from bundle.distributed import mean_over_ranks
from bundle.engines import Batch, called_with, mixed_precision
from bundle.hypergradient import Parameters, Tangents, label_objective, label_tangents, loss_gradients
from bundle.losses import CategoricalFocalLoss, class_terms
from bundle.networks.multitask_unet import BothTasks, GradeTask
from monai.networks.utils import train_mode
from torch import Tensor, nn
from torch.nn import functional as F

OBJECTIVES = ("segmentation", "initial", "segmentation+initial", "graded", "literal")


class Moved(NamedTuple):
    """What a meta step found and did.

    Attributes:
        meta_loss: at ``theta+``, before the step.
        labels_NC: that the label update network gave before the step.
    """

    meta_loss: Tensor
    labels_NC: Tensor


class MetaStep:
    """Ask how the soft labels should change so that, after one virtual gradient step, the meta loss falls.

    The virtual step is ``theta+ = theta - virtual_lr * grad (L_S + beta L_C(u))``, see :mod:`bundle.hypergradient`.
    The label update network learns from

        L_meta(theta+) / virtual_lr + kl_weight * KL(initial label || u)

    where the division makes ``kl_weight`` mean the same at every ``virtual_lr``. The meta loss is, by ``objective``,

    - ``segmentation``: ``L_S``, which has true labels (what MAXL does);
    - ``initial``: ``beta L_C`` against the initial labels; ``segmentation+initial``: both;
    - ``graded``: ``beta L_C`` of a batch of photographs with true grades;
    - ``literal``: ``beta L_C`` against the network's own labels, Algorithm 1 of the paper as it is printed: here ``u``
      is also the target, so its gradient has a direct term, ``beta w_n l_nc(theta+) / (N C)``.

    The multi-task network, its buffers, gradients and optimiser are left as they are.

    Args:
        tasks: the multi-task network, bare (not wrapped for DDP).
        label_update: the network that learns; with several processes wrapped for DDP, which averages its gradients.
        optimizer: of ``label_update``.
        loss: the categorical focal loss of both tasks.
        beta: weight of the grading loss.
        virtual_lr: size of the virtual step.
        objective: what the meta loss is.
        kl_weight: pull towards the initial label.
        amp: bfloat16 in forward passes, as in training; the Jacobian-vector product is in float32 in any case.

    Raises:
        ValueError: if the objective is another word, a number is out of its range, or the encoder or the grade head
            drops activations at random: the two passes of the gradient would not see the same network.
        RuntimeError: when called, if the loss is not finite.

    Reference:
        Liu et al., "Self-Supervised Generalisation with Meta Auxiliary Learning", NeurIPS 2019.
    """

    def __init__(
        self,
        tasks: BothTasks,
        label_update: nn.Module,
        optimizer: torch.optim.Optimizer,
        loss: CategoricalFocalLoss,
        beta: float,
        virtual_lr: float = 1e-2,
        objective: str = "segmentation",
        kl_weight: float = 0.0,
        amp: bool = False,
    ) -> None:
        if objective not in OBJECTIVES:
            raise ValueError(f"expected meta_objective in {list(OBJECTIVES)}, got {objective!r}")
        if not virtual_lr > 0 or kl_weight < 0:
            raise ValueError(f"expected virtual_lr > 0 and kl_weight >= 0, got {virtual_lr} and {kl_weight}")
        self.tasks, self.grade_task, self.label_update = tasks, GradeTask(tasks.network), label_update
        self.optimizer, self.loss, self.beta, self.virtual_lr = optimizer, loss, beta, virtual_lr
        self.objective, self.kl_weight, self.amp = objective, kl_weight, amp
        _refuse_dropout(tasks.network)

    def __call__(self, batch: Batch, graded: Batch | None = None, gradients: Parameters | None = None) -> Moved:
        """Update the label update network on one batch.

        Args:
            batch: on the device.
            graded: photographs with true grades, for the objective ``graded``.
            gradients: of the training loss of this very batch by parameter name, where training has them already.
        """
        with train_mode(self.tasks, self.label_update):
            found = self.tangents(batch, graded, gradients)
            labels = self._labels(batch)
        loss = self._objective(batch, labels, found) / self.virtual_lr
        loss = loss + self.kl_weight * divergence(batch["initial"], labels)
        if not torch.isfinite(loss + found.meta_loss):
            raise RuntimeError(
                f"the meta loss became {found.meta_loss.item()} and the label update {loss.item()}; lower virtual_lr, "
                f"label_learning_rate or learning_rate, or set amp to false"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        return Moved(found.meta_loss, labels.detach())

    def tangents(self, batch: Batch, graded: Batch | None = None, gradients: Parameters | None = None) -> Tangents:
        """Return ``<v, grad l_nc>`` for the batch and the meta loss at ``theta+``."""
        parameters = dict(self.tasks.named_parameters())
        labels = None
        if gradients is None or self.objective == "literal":
            with torch.no_grad():
                labels = self._labels(batch)
        if gradients is None:
            gradients = loss_gradients(self._training_loss(parameters, batch, labels), parameters, mean_over_ranks)

        def meta_loss(stepped: Parameters) -> tuple[Tensor, Tensor | None]:
            return self._meta_loss(stepped, batch, labels, graded)

        def class_losses(primal: Parameters) -> Tensor:
            return class_terms(self.loss, called_with(self.grade_task, primal, batch["image"], amp=False))

        label_parameters = self.grade_task.label_parameters()
        return label_tangents(
            gradients, meta_loss, class_losses, parameters, label_parameters, self.virtual_lr, mean_over_ranks
        )

    def _training_loss(self, parameters: Parameters, batch: Batch, labels: Tensor | None) -> Tensor:
        with torch.enable_grad():
            tasks = called_with(self.tasks, parameters, batch["image"], self.amp)
            lesion_loss = self.loss(tasks["lesions"], batch["lesions"])
            return lesion_loss + self.beta * self.loss(tasks["grade"], labels, batch["weight"])

    def _meta_loss(
        self, stepped: Parameters, batch: Batch, labels: Tensor | None, graded: Batch | None
    ) -> tuple[Tensor, Tensor | None]:
        """Return the meta loss, and for ``literal`` its derivative by the labels at fixed ``theta+``."""
        if self.objective == "graded":
            return self._graded_loss(stepped, graded), None
        if self.objective == "literal":
            return self._literal_loss(stepped, batch, labels)
        network = self.tasks if "segmentation" in self.objective else self.grade_task
        found = called_with(network, stepped, batch["image"], self.amp)
        tasks = found if isinstance(found, dict) else {"grade": found}
        terms = []
        if "segmentation" in self.objective:
            terms.append(self.loss(tasks["lesions"], batch["lesions"]))
        if "initial" in self.objective:
            terms.append(self.beta * self.loss(tasks["grade"], batch["initial"], batch["weight"]))
        return torch.stack(terms).sum(), None

    def _graded_loss(self, stepped: Parameters, graded: Batch | None) -> Tensor:
        if graded is None:
            raise ValueError("expected a batch of graded photographs for meta_objective 'graded', got none")
        logits = called_with(self.grade_task, stepped, graded["image"], self.amp)
        true = F.one_hot(graded["grade"], logits.shape[1]).to(logits.dtype)
        return self.beta * self.loss(logits, true)

    def _literal_loss(self, stepped: Parameters, batch: Batch, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        assert labels is not None
        logits = called_with(self.grade_task, stepped, batch["image"], self.amp)
        direct = self.beta * batch["weight"].unsqueeze(1) * class_terms(self.loss, logits.to(labels.dtype))
        return (labels * direct).mean(), direct / direct.numel()

    def _objective(self, batch: Batch, labels: Tensor, found: Tangents) -> Tensor:
        through_step = label_objective(labels, found.inner_NC, batch["weight"], self.beta, self.virtual_lr)
        return through_step if found.kept is None else through_step + (labels * found.kept).sum()

    def _labels(self, batch: Batch) -> Tensor:
        with mixed_precision(batch["image"].device, self.amp):
            return self.label_update(batch["image"], batch["initial"], batch["feasible"])


def divergence(initial: Tensor, labels: Tensor) -> Tensor:
    """Mean ``KL(initial || labels)`` over the images; grades without initial mass do not count.

    Example:
        >>> divergence(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.5, 0.5]]))  # log 2
        tensor(0.6931)
    """
    tiny = torch.finfo(labels.dtype).tiny
    return (torch.xlogy(initial, initial) - initial * labels.clamp(min=tiny).log()).sum(dim=1).mean()


def _refuse_dropout(network: nn.Module) -> None:
    found = [
        name
        for name, one in network.named_modules()
        if isinstance(one, nn.modules.dropout._DropoutNd) and one.p > 0 and name.startswith(("encoder.", "grade_head"))
    ]
    if found:
        raise ValueError(
            f"expected no dropout in encoder and grade head for the label update, got {found[0]}: the meta gradient "
            f"would be wrong; set its rate to 0, or label_update to false"
        )
