"""Handlers that watch a training: mean losses, non-finite numbers, labels that collapse, the pull of each task."""

from collections.abc import Mapping
from operator import itemgetter
from statistics import median
from typing import Any

import torch
from bundle.distributed import mean_over_ranks
from bundle.handlers.label_table import LabelTable, entropy
from bundle.method.hypergradient import call_with, loss_gradients
from bundle.method.losses import CategoricalFocalLoss, GradeWeight, LesionLoss
from bundle.networks.multitask_unet import BothTasks, shared_parameters
from bundle.steps import Batch, to_device
from ignite.engine import Engine, Events
from ignite.metrics import Average
from monai.networks.utils import train_mode
from torch import Tensor
from torch.nn.functional import cosine_similarity


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


class GradientBalance:
    """Handler that compares both tasks' gradients on the shared parameters after each epoch, on its last batch.

    With ``g_S = grad L_S`` and ``g_C = grad L_C`` with respect to the shared parameters, ``balance/cosine`` is
    ``<g_S, g_C> / (|g_S| |g_C|)``, below 0 where the tasks pull against each other. ``balance/norm_ratio`` is
    ``weight |g_C| / |g_S|``. ``balance/weight`` is the weight of the grading loss, which is updated with the ratio of
    the norms. The grading loss uses the initial labels, so that the curves are comparable with and without label
    updates. Everything is in float32; the network and its gradients are left unchanged. Several processes average their
    gradients.

    Args:
        tasks: the multi-task network, bare.
        lesion_loss: ``L_S``.
        grade_loss: ``L_C``.
        weight: weight of the grading loss.

    Reference:
        Du et al., "Adapting Auxiliary Losses Using Gradient Similarity", 2018, for the cosine; Chen et al., "GradNorm",
        ICML 2018, for the norms.
    """

    def __init__(
        self, tasks: BothTasks, lesion_loss: LesionLoss, grade_loss: CategoricalFocalLoss, weight: GradeWeight
    ) -> None:
        self.tasks, self.lesion_loss, self.grade_loss, self.weight = tasks, lesion_loss, grade_loss, weight
        self._history: list[dict[str, float]] = []

    def attach(self, engine: Engine) -> None:
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine: Engine) -> None:
        """Write the numbers to ``engine.state.metrics``.

        Nothing is written if the grade is not taught, or the last batch has no outlines.
        """
        if self.weight.beta == 0:
            return
        lesions, grade = self.gradients(to_device(engine.state.batch, engine.state.device))
        if not lesions.any():
            return
        ratio = (grade.norm() / lesions.norm()).item()
        balance = {
            "balance/cosine": cosine_similarity(lesions, grade, dim=0).item(),
            "balance/norm_ratio": float(self.weight) * ratio,
            "balance/weight": float(self.weight),
        }
        self._history.append(balance)
        engine.state.metrics.update(balance)
        self.weight.see(ratio)

    def gradients(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return ``g_S`` and ``g_C``, each as one vector."""
        shared, parameters = shared_parameters(self.tasks), dict(self.tasks.named_parameters())
        of_task = {}
        for task in ("lesions", "grade"):
            with train_mode(self.tasks), torch.enable_grad():
                logits = call_with(self.tasks, parameters, batch["image"])[task]
                if task == "lesions":
                    loss = self.lesion_loss(logits, batch["lesions"], batch["looked_for"])
                else:
                    loss = self.grade_loss(logits, batch["initial"], batch["weight"])
                gradients = loss_gradients(loss, shared, mean_over_ranks)
                of_task[task] = torch.cat([gradient.flatten() for gradient in gradients.values()])
        return of_task["lesions"], of_task["grade"]

    def facts(self) -> dict[str, float]:
        """Return facts for the weights file: medians of ratio and cosine over the epochs, and the last weight."""
        if not self._history:
            return {}
        names = ("balance/norm_ratio", "balance/cosine")
        medians = {name.replace("/", "_"): median(epoch[name] for epoch in self._history) for name in names}
        return {**medians, "balance_weight": self._history[-1]["balance/weight"]}

    def state_dict(self) -> dict[str, Any]:
        """Return the state that a resumed run needs."""
        return {"history": [dict(epoch) for epoch in self._history], "weight": self.weight.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state from :meth:`state_dict`."""
        self._history = [dict(epoch) for epoch in state["history"]]
        self.weight.load_state_dict(state["weight"])
