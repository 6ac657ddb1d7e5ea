"""What happens to the labels while they are updated, as numbers for MLflow."""

# flake8: noqa: N803

from collections.abc import Sequence

import torch
from bundle.engines import Batch
from torch import Tensor

_NAMES = {
    "meta_loss": "labels/meta_loss", "movement": "labels/movement", "entropy": "labels/entropy",
    "changed": "labels/top_grade_changed", "correct": "labels/accuracy",
    "initially_correct": "labels/initial_accuracy",
}  # fmt: skip


def label_curves(batch: Batch, labels_NC: Tensor, meta_loss: Tensor) -> dict[str, Tensor]:
    """Describe each label of a batch: how far it moved (total variation), its entropy in nats, and its top grade.

    Accuracy is NaN where the true grade is not known.

    Example:
        >>> batch = {"initial": torch.tensor([[1.0, 0.0]]), "grade": torch.tensor([1])}
        >>> curves = label_curves(batch, torch.tensor([[0.25, 0.75]]), torch.tensor(2.0))
        >>> curves["movement"], curves["changed"], curves["correct"]
        (tensor([0.7500]), tensor([1.]), tensor([1.]))
    """
    initial, top, known = batch["initial"], labels_NC.argmax(dim=1), batch["grade"] >= 0
    return {
        "meta_loss": meta_loss.expand(len(labels_NC)),
        "movement": (labels_NC - initial).abs().sum(dim=1) / 2,
        "entropy": -torch.xlogy(labels_NC, labels_NC).sum(dim=1),
        "changed": (top != initial.argmax(dim=1)).float(),
        "correct": torch.where(known, (top == batch["grade"]).float(), torch.nan),
        "initially_correct": torch.where(known, (initial.argmax(dim=1) == batch["grade"]).float(), torch.nan),
        "top": top,
    }


def pooled(curves: Sequence[dict[str, Tensor]]) -> dict[str, float]:
    """Average over the images, accuracy over those of known grade, and count the grades that are the top of a label.

    Example:
        >>> batch = {"initial": torch.tensor([[1.0, 0.0], [1.0, 0.0]]), "grade": torch.tensor([1, -1])}
        >>> found = pooled([label_curves(batch, torch.tensor([[0.25, 0.75], [1.0, 0.0]]), torch.tensor(2.0))])
        >>> found["labels/movement"], found["labels/accuracy"], found["labels/grades_in_use"]  # one grade is known
        (0.375, 1.0, 2.0)
    """
    means = {metric: torch.cat([one[key] for one in curves]).nanmean().item() for key, metric in _NAMES.items()}
    in_use = float(torch.cat([one["top"] for one in curves]).unique().numel())
    return {metric: value for metric, value in means.items() if value == value} | {"labels/grades_in_use": in_use}
