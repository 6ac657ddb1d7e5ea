"""Losses: a focal loss for soft grades, linear in the label, and two for lesions that ignore those not looked for."""

# flake8: noqa: N803

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

BALANCES = ("fixed", "norm")
RATIO_KEPT = 0.5
"""Weight of the previous mean in the moving mean of the gradient ratio."""


def focal_terms(logits: Tensor, alpha: float = 0.25, gamma: float = 2.0) -> Tensor:
    """Return the loss of each class as if it were the label.

    ``l_c = -alpha (1 - p_c)^gamma log p_c`` with ``p = softmax(logits)`` over dimension 1.

    Shape:
        - logits: ``(N, C, ...)``.
        - output: as ``logits``.

    Example:
        >>> focal_terms(torch.zeros(1, 2), alpha=1.0, gamma=2.0)  # (1 - 1/2)^2 log 2
        tensor([[0.1733, 0.1733]])
    """
    return _terms(F.log_softmax(logits, dim=1), alpha, gamma)


def _terms(log_p: Tensor, alpha: float, gamma: float) -> Tensor:
    # At p = 1 a gamma below 1 has an infinite slope; times log p = 0 this is NaN. So p stays one step below 1.
    short_of_1 = (-torch.expm1(log_p)).clamp(min=torch.finfo(log_p.dtype).eps)
    return -alpha * short_of_1**gamma * log_p


class CategoricalFocalLoss(nn.Module):
    """Mean of ``label * focal_terms`` over all elements, including the class dimension.

    ``L = mean_{n,c,...} w_n y_nc l_nc``, as Keras ``segmentation_models`` computes it, which the paper's
    authors used. Soft labels ``y`` enter linearly, which the exact meta gradient relies on.

    Args:
        alpha: factor of every term.
        gamma: how strongly well-classified elements are down-weighted; 0 is cross entropy.

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
        """Compute the single term per element that a one-hot label selects."""
        expected = (logits.shape[0], 1, *logits.shape[2:])
        if label.shape != expected:
            raise ValueError(f"expected class indices of shape {expected}, got {tuple(label.shape)}")
        return _terms(F.log_softmax(logits, dim=1).gather(1, label.long()), self.alpha, self.gamma)  # (N, 1, ...)


class LesionLoss(CategoricalFocalLoss):
    """Categorical focal loss of a label map that ignores lesions not looked for.

    If a lesion was not looked for, a pixel without an outline is *background or that lesion*: its probability is
    ``p_0 + sum_{c not looked for} p_c``, the likelihood of a partial label. The logits of these lesions are held
    constant, so their gradient is exactly zero and the network learns nothing about them. The mean is over the
    elements of the photographs on which at least one lesion was looked for, and 0 if the batch has none.

    Args:
        alpha: as in :class:`CategoricalFocalLoss`.
        gamma: as in :class:`CategoricalFocalLoss`.

    Raises:
        ValueError: as in :class:`CategoricalFocalLoss`, or if ``looked_for`` has another shape.

    Shape:
        - logits: ``(N, 1 + C, H, W)``, channel 0 is background.
        - label_map: class indices ``(N, 1, H, W)`` of an integer type.
        - looked_for: ``(N, C)`` boolean.
        - output: ``()``, in float32.

    Example:
        >>> logits = torch.zeros(1, 3, 1, 1, requires_grad=True)
        >>> background, first_only = torch.zeros(1, 1, 1, 1, dtype=torch.long), torch.tensor([[True, False]])
        >>> loss = LesionLoss(alpha=1.0, gamma=0.0)(logits, background, first_only)
        >>> round(loss.item(), 4)  # -log(2/3) / 3
        0.1352
        >>> torch.autograd.grad(loss, logits)[0].flatten()[2]
        tensor(0.)

    Reference:
        Cour et al., "Learning from Partial Labels", JMLR 2011, for the likelihood.
    """

    def forward(self, logits: Tensor, label_map: Tensor, looked_for: Tensor) -> Tensor:  # type: ignore[override]
        logits, label_map, looked_for = looked_at(logits, label_map, looked_for)
        return self._hard(merged_into_background(logits, looked_for), label_map).sum() / max(logits.numel(), 1)


class DiceLesionLoss(nn.Module):
    """Cross entropy plus soft Dice of a label map; lesions not looked for are treated as in :class:`LesionLoss`.

    ``L = mean_p -log p_label + dice_weight mean_c (1 - Dice_c)`` with, over all pixels of the batch on which lesion
    ``c`` was looked for, ``Dice_c = (2 sum p_c y_c + 1) / (sum p_c^2 + sum y_c^2 + 1)``. The Dice of a lesion does not
    depend on how rare it is; the focal loss is dominated by the background.

    Args:
        dice_weight: weight of the second term.
        where_absent: whether the mean includes lesions that have no pixel in the batch. Their Dice falls as soon as a
            single pixel is predicted, which suppresses a lesion that few photographs have.

    Raises:
        ValueError: if the weight is negative, or shapes do not match.

    Shape:
        - as :class:`LesionLoss`.

    Example:
        >>> logits, label_map = torch.zeros(1, 2, 1, 2), torch.tensor([[[[0, 1]]]])
        >>> round(DiceLesionLoss(dice_weight=0.0)(logits, label_map, torch.tensor([[True]])).item(), 4)  # log 2
        0.6931
        >>> round(DiceLesionLoss()(logits, label_map, torch.tensor([[True]])).item(), 4)  # and 1 - (1 + 1) / (0.5 + 2)
        0.8931

    Reference:
        Milletari et al., "V-Net", 3DV 2016, for the squared denominator.
    """

    def __init__(self, dice_weight: float = 1.0, where_absent: bool = True) -> None:
        super().__init__()
        if not 0 <= dice_weight < math.inf:
            raise ValueError(f"expected dice_weight >= 0, got {dice_weight}")
        self.dice_weight, self.where_absent = dice_weight, where_absent

    def forward(self, logits: Tensor, label_map: Tensor, looked_for: Tensor) -> Tensor:
        logits, label_map, looked_for = looked_at(logits, label_map, looked_for)
        if not len(logits):
            return logits.sum()  # 0, with a gradient of 0
        log_p = F.log_softmax(merged_into_background(logits, looked_for), dim=1)
        cross_entropy = -log_p.gather(1, label_map.long()).mean()
        return cross_entropy + self.dice_weight * self._dice(log_p.exp()[:, 1:], label_map, looked_for)

    def _dice(self, lesions: Tensor, label_map: Tensor, looked_for: Tensor) -> Tensor:
        """Return ``mean_c (1 - Dice_c)`` over the lesions that were looked for in the batch; 0 if there are none."""
        # truth is (N, C, H, W), the sums per photograph are (N, C), and those over the batch (C,).
        truth = label_map == torch.arange(1, lesions.shape[1] + 1, device=lesions.device).view(1, -1, 1, 1)
        per_photograph = [values.flatten(2).sum(dim=2) for values in (lesions * truth, lesions.square(), truth)]
        both, predicted, true = ((sums * looked_for).sum(dim=0) for sums in per_photograph)
        counts = looked_for.any(dim=0) & (true > 0 if not self.where_absent else True)
        lost_C = 1 - (2 * both + 1) / (predicted + true + 1)
        return lost_C[counts].sum() / counts.sum().clamp(min=1)


def looked_at(logits: Tensor, label_map: Tensor, looked_for: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the photographs of a batch on which at least one lesion was looked for, with logits in float32.

    Raises:
        ValueError: if ``looked_for`` is not ``(N, C)`` for logits ``(N, 1 + C, ...)``.

    Example:
        >>> some = torch.tensor([[True, False], [False, False]])
        >>> [len(part) for part in looked_at(torch.zeros(2, 3, 1, 1), torch.zeros(2, 1, 1, 1), some)]
        [1, 1, 1]
    """
    expected = (len(logits), logits.shape[1] - 1)
    if looked_for.shape != expected:
        raise ValueError(f"expected looked_for of shape {expected}, got {tuple(looked_for.shape)}")
    counts = looked_for.any(dim=1)
    return logits[counts].float(), label_map[counts], looked_for[counts]


def merged_into_background(logits: Tensor, looked_for_NC: Tensor) -> Tensor:
    """Add the probability of lesions not looked for to the background, holding their logits constant.

    Their own logits become minus infinity. ``softmax`` of the result sums to 1 over the background and the lesions
    looked for.

    Shape:
        - logits, output: ``(N, 1 + C, ...)``.
        - looked_for_NC: ``(N, C)`` boolean.

    Example:
        >>> merged_into_background(torch.zeros(1, 3), torch.tensor([[True, False]])).softmax(dim=1)
        tensor([[0.6667, 0.3333, 0.0000]])
    """
    if bool(looked_for_NC.all()):
        return logits
    unlooked = ~looked_for_NC.reshape(*looked_for_NC.shape, *[1] * (logits.ndim - 2))  # (N, C, 1, ...)
    background, lesions = logits[:, :1], logits[:, 1:]
    unlooked_logits = lesions.detach().masked_fill(~unlooked, -torch.inf)
    merged = torch.cat([background, unlooked_logits], dim=1).logsumexp(dim=1, keepdim=True)  # (N, 1, ...)
    return torch.cat([merged, lesions.masked_fill(unlooked, -torch.inf)], dim=1)


class GradeWeight:
    """Weight of the grading loss in ``L = L_S + weight L_C``: fixed, or set to balance the gradients of both tasks.

    - ``fixed``: ``beta``, as in the paper.
    - ``norm``: ``beta |g_S| / |g_C|``, with the norms of the gradients of both losses on the shared parameters, as a
      moving geometric mean of the values passed to :meth:`see`; ``beta`` before the first value.

    Args:
        beta: weight of the grading loss.
        balance: ``fixed`` or ``norm``.

    Raises:
        ValueError: if beta is negative, or ``balance`` is unknown.

    Example:
        >>> weight = GradeWeight(beta=0.8, balance="norm")
        >>> weight.see(norm_ratio=4.0)  # the grading loss pulls four times as hard
        >>> float(weight)
        0.2
    """

    def __init__(self, beta: float, balance: str = "fixed") -> None:
        if beta < 0:
            raise ValueError(f"expected beta >= 0, got {beta}")
        if balance not in BALANCES:
            raise ValueError(f"expected balance in {list(BALANCES)}, got {balance!r}")
        self.beta, self.balance = beta, balance
        self._log_ratio: float | None = None

    def see(self, norm_ratio: float) -> None:
        """Record ``|g_C| / |g_S|``; anything but a positive finite number is ignored."""
        if not 0 < norm_ratio < math.inf:
            return
        log_ratio = math.log(norm_ratio)
        kept = log_ratio if self._log_ratio is None else self._log_ratio
        self._log_ratio = RATIO_KEPT * kept + (1 - RATIO_KEPT) * log_ratio

    def __float__(self) -> float:
        if self.balance == "fixed" or self._log_ratio is None:
            return float(self.beta)
        return self.beta / math.exp(self._log_ratio)

    def state_dict(self) -> dict[str, float | None]:
        """Return the state that a resumed run needs."""
        return {"log_ratio": self._log_ratio}

    def load_state_dict(self, state: Mapping[str, float | None]) -> None:
        """Restore the state returned by :meth:`state_dict`."""
        self._log_ratio = state["log_ratio"]


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
