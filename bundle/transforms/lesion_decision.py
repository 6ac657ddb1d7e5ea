"""Which lesion a pixel is: the most probable class, or the lesion that is furthest above its threshold.

Thresholds are fitted in :mod:`bundle.handlers.fitting` and kept in the weights file.
"""

# flake8: noqa: N803

from collections.abc import Sequence

import torch
from bundle.labels import LESIONS
from torch import Tensor

MOST_PROBABLE = "the most probable class"


"""Description of the decision without thresholds."""


def check_thresholds(thresholds: Sequence[float], lesion_classes: int) -> None:
    """Refuse thresholds that are not one number in (0, 1] per lesion class.

    Example:
        >>> check_thresholds([0.2, 1.5], lesion_classes=2)  # doctest: +NORMALIZE_WHITESPACE
        Traceback (most recent call last):
            ...
        ValueError: expected lesion thresholds in (0, 1], one for each of 2 classes, got [0.2, 1.5]; give these, or null
            for the most probable class
    """
    numbers = all(isinstance(one, (int, float)) and 0 < one <= 1 for one in thresholds)
    if len(thresholds) != lesion_classes or not numbers:
        raise ValueError(
            f"expected lesion thresholds in (0, 1], one for each of {lesion_classes} classes, got {list(thresholds)}; "
            f"give these, or null for {MOST_PROBABLE}"
        )


def lesion_decision(probabilities: Tensor, thresholds: Sequence[float] | None) -> Tensor:
    """Return scores whose argmax is the class: ``[1, p_1 / t_1, .., p_C / t_C]`` instead of ``[p_0, p_1, .., p_C]``.

    A pixel is lesion c if ``p_c > t_c`` and no other lesion is further above its own threshold, else background.
    Most pixels are background, so the lesion is seldom the most probable class at the pixels of a rare lesion.
    The scores are linear in ``p``: interpolating them gives the same decision as interpolating the probabilities.

    Args:
        probabilities: ``(C + 1, H, W)`` or ``(N, C + 1, H, W)``, background first; not modified.
        thresholds: one for each of the ``C`` lesions; None returns the probabilities, so the most probable class wins.

    Raises:
        ValueError: if there is not one threshold in (0, 1] per lesion.

    Example:
        >>> probabilities = torch.tensor([[0.7, 0.9], [0.3, 0.1]]).reshape(2, 1, 2)
        >>> lesion_decision(probabilities, [0.2])
        tensor([[[1.0000, 1.0000]],
        <BLANKLINE>
                [[1.5000, 0.5000]]])
        >>> most_probable_class(probabilities), most_probable_class(lesion_decision(probabilities, [0.2]))
        (tensor([[0, 0]], dtype=torch.uint8), tensor([[1, 0]], dtype=torch.uint8))
    """
    if thresholds is None:
        return probabilities
    check_thresholds(thresholds, probabilities.shape[-3] - 1)
    scores = probabilities / probabilities.new_tensor([1, *thresholds]).view(-1, 1, 1)
    scores[..., 0, :, :] = 1
    return scores


def decision_in_words(thresholds: Sequence[float] | None, classes: Sequence[str] = LESIONS) -> str:
    """Describe the decision in words.

    Example:
        >>> decision_in_words([0.2, 0.35, 0.45, 0.5]), decision_in_words(None)
        ('MA above 0.20, HE above 0.35, EX above 0.45, SE above 0.50', 'the most probable class')

    Raises:
        ValueError: if there is not one threshold in (0, 1] per lesion.
    """
    if thresholds is None:
        return MOST_PROBABLE
    check_thresholds(thresholds, len(classes))
    return ", ".join(f"{name} above {one:.2f}" for name, one in zip(classes, thresholds, strict=True))


def most_probable_class(scores: Tensor, dim: int = 0) -> Tensor:
    """Return the argmax over an axis as uint8, the first on ties; seven times as fast as ``Tensor.argmax``.

    Args:
        scores: scores of fewer than 256 classes, such as ``(C, H, W)``.
        dim: the axis of the classes; 1 for ``(N, C, H, W)``.

    Example:
        >>> most_probable_class(torch.tensor([[0.2, 0.5], [0.7, 0.5], [0.1, 0.0]]))
        tensor([1, 0], dtype=torch.uint8)
    """
    first, *others = scores.unbind(dim)
    best, winner = first.clone(), torch.zeros_like(first, dtype=torch.uint8)
    for value, other in enumerate(others, start=1):
        winner.masked_fill_(other > best, value)
        torch.maximum(best, other, out=best)
    return winner
