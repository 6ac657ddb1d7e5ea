"""Categorical focal loss on hard classes and on soft labels; it is linear in the label."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def focal_terms(logits: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Return the loss that each class would cost if it were the label.

    ``l_c = -alpha (1 - p_c)^gamma log p_c`` with ``p = softmax(logits)`` over dimension 1.

    Shape:
        - logits: ``(N, C, ...)``.
        - output: as ``logits``.

    Example:
        >>> focal_terms(torch.zeros(1, 2), alpha=1.0, gamma=2.0)  # (1 - 1/2)^2 log 2
        tensor([[0.1733, 0.1733]])
    """
    log_p = F.log_softmax(logits, dim=1)
    return -alpha * (1 - log_p.exp()) ** gamma * log_p


class CategoricalFocalLoss(nn.Module):
    """Mean over all elements of ``label * focal_terms``, the class dimension included.

    ``L = mean_{n,c,...} w_n y_nc l_nc``, as Keras ``segmentation_models`` computes it, which the paper's
    authors used. Soft labels ``y`` enter linearly: the exact meta gradient rests on that.

    Args:
        alpha: factor of every term.
        gamma: how strongly well-classified elements are played down; 0 is cross entropy.

    Raises:
        ValueError: if alpha is not positive or gamma is negative, or shapes do not match.

    Shape:
        - logits: ``(N, C, ...)``.
        - label: class indices ``(N, 1, ...)`` of an integer type, or soft labels ``(N, C, ...)``.
        - weight: ``(N,)`` or None.
        - output: ``()``, in float32.

    Example:
        >>> loss = CategoricalFocalLoss(alpha=1.0, gamma=0.0)
        >>> round(loss(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])).item(), 4)  # log(2) / 2
        0.3466

    Reference:
        Lin et al., "Focal Loss for Dense Object Detection", ICCV 2017.
    """

    def __init__(self, alpha: float = 0.25, gamma: float = 2.0) -> None:
        super().__init__()
        if not alpha > 0 or gamma < 0:
            raise ValueError(f"expected alpha > 0 and gamma >= 0, got alpha {alpha} and gamma {gamma}")
        self.alpha, self.gamma = alpha, gamma

    def forward(self, logits: Tensor, label: Tensor, weight: Tensor | None = None) -> Tensor:
        logits = logits.float()
        terms = self._soft(logits, label) if label.is_floating_point() else self._hard(logits, label)
        if weight is not None:
            terms = terms * weight.reshape(-1, *[1] * (terms.ndim - 1))
        return terms.sum() / logits.numel()

    def _soft(self, logits: Tensor, label: Tensor) -> Tensor:
        if label.shape != logits.shape:
            raise ValueError(f"expected soft labels of shape {tuple(logits.shape)}, got {tuple(label.shape)}")
        return label * focal_terms(logits, self.alpha, self.gamma)

    def _hard(self, logits: Tensor, label: Tensor) -> Tensor:
        """Compute the one term per element that a one-hot label would keep."""
        expected = (logits.shape[0], 1, *logits.shape[2:])
        if label.shape != expected:
            raise ValueError(f"expected class indices of shape {expected}, got {tuple(label.shape)}")
        log_p = F.log_softmax(logits, dim=1).gather(1, label.long())
        return -self.alpha * (1 - log_p.exp()) ** self.gamma * log_p


def class_terms(loss: CategoricalFocalLoss, logits: Tensor) -> Tensor:
    """Return ``l_nc`` of a loss for grade logits ``(N, C)``, in the precision of the logits.

    Example:
        >>> class_terms(CategoricalFocalLoss(alpha=1.0, gamma=0.0), torch.zeros(1, 2))  # log 2
        tensor([[0.6931, 0.6931]])
    """
    return focal_terms(logits, loss.alpha, loss.gamma)


def class_weights(classes: list[int], num_classes: int) -> Tensor:
    """Weigh classes by the inverse square root of their frequency, with mean 1 over the examples.

    A class without an example gets weight 0.

    Raises:
        ValueError: if there is no example.

    Example:
        >>> class_weights([0, 0, 0, 0, 1], 3)
        tensor([0.8333, 1.6667, 0.0000])
    """
    if not classes:
        raise ValueError("expected at least one class label to weigh, got none")
    counts = torch.bincount(torch.tensor(classes), minlength=num_classes).float()
    raw = torch.where(counts > 0, counts.clamp(min=1).rsqrt(), torch.zeros(()))
    return raw * counts.sum() / (raw * counts).sum()
