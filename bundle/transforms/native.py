"""Back to the photograph's own pixels: the class of each pixel, and scores at native size."""

# flake8: noqa: N803

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from bundle.labels import LESIONS
from bundle.transforms.field import Crop
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

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
    """
    if thresholds is None:
        return MOST_PROBABLE
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


BLOCK_PX = 1 << 18
"""Native pixels that are labelled at a time: five scores for each fit into a processor's cache."""

UNSETTLED = 255
"""Label of a cell of the square whose corners have different classes."""

GATHERED_SHARE_MAX = 0.1
"""Largest share of unsettled pixels in a block; above it, interpolating the whole block is faster."""


def to_native(scores: Tensor, geometry: Iterable[float]) -> Tensor:
    """Map class scores of the square back to the photograph they came from, bilinearly.

    Pixels outside the square are background: 1 in channel 0, and 0 in the others. Channels are enlarged one at a time,
    so that memory holds little more than the result.

    Args:
        scores: ``(C, S, S)``, floating point.
        geometry: left, top, side, width, height in native pixels.

    Returns:
        ``(C, height, width)``.

    Example:
        >>> scores = torch.zeros(2, 4, 4)
        >>> scores[1] = 1
        >>> to_native(scores, [1, 0, 2, 4, 2])[1]  # the square covers columns 1 and 2 of a photograph of 4 x 2
        tensor([[0., 1., 1., 0.],
                [0., 1., 1., 0.]])
    """
    crop = Crop.of(geometry)
    rows, columns = crop.visible
    native = scores.new_zeros(len(scores), crop.height, crop.width)
    native[0] = 1
    for channel, score in zip(native, scores, strict=True):
        size = (crop.side, crop.side)
        square = F.interpolate(score[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]  # (side, side)
        channel[rows, columns] = square[
            rows.start - crop.top : rows.stop - crop.top, columns.start - crop.left : columns.stop - crop.left
        ]
    return native


class _Places(NamedTuple):
    """Positions of native rows or columns between the pixels of the square, as in ``F.interpolate``."""

    low: Tensor  # (n,) int64
    high: Tensor  # (n,) int64
    weight: Tensor  # (n,) weight of ``high``

    @classmethod
    def of(cls, size: int, side: int, seen: range) -> "_Places":
        at = ((torch.tensor(seen, dtype=torch.float32) + 0.5) * (size / side) - 0.5).clamp_(min=0)  # (n,)
        low = at.long().clamp_(max=size - 1)  # (n,)
        return cls(low, (low + 1).clamp_(max=size - 1), at - low)

    def part(self, which: slice | Tensor) -> "_Places":
        """Return some of the positions, by a slice or their indices."""
        return _Places(*(one[which] for one in self))


def native_labels(scores: Tensor, geometry: Iterable[float]) -> NDArray[np.uint8]:
    """Return the class of every pixel of the photograph: ``to_native(scores, geometry).argmax(0)``, except for ties.

    An interpolated score is a mean of the scores at four corners, with the same weights for every class. A class that
    is the largest at all four corners is the largest between them. So only pixels between corners of different classes
    are interpolated, a block of rows at a time, without an array of native scores.

    Args:
        scores: ``(C, S, S)``, float32, on the CPU; fewer than 255 classes.
        geometry: left, top, side, width, height in native pixels.

    Returns:
        ``(height, width)``, 0 outside the square.

    Example:
        >>> scores = torch.tensor([0.2, 0.1, 0.7]).reshape(3, 1, 1).expand(3, 4, 4)
        >>> native_labels(scores, [1, 0, 2, 4, 2])
        array([[0, 2, 2, 0],
               [0, 2, 2, 0]], dtype=uint8)
    """
    crop, size = Crop.of(geometry), scores.shape[-1]
    rows, columns = crop.visible
    labels = np.zeros((crop.height, crop.width), np.uint8)
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return labels
    y = _Places.of(size, crop.side, range(rows.start - crop.top, rows.stop - crop.top))  # (rows,) each
    x = _Places.of(size, crop.side, range(columns.start - crop.left, columns.stop - crop.left))  # (columns,) each
    settled = _settled(most_probable_class(scores))[:, x.low]  # (S, S), then (S, columns)
    inside = torch.from_numpy(labels[rows, columns])  # (rows, columns), the same memory as labels
    step = max(1, BLOCK_PX // len(x.low))  # rows of a block
    for start in range(0, len(y.low), step):
        block = y.part(slice(start, start + step))
        inside[start : start + step] = _block_labels(scores, settled[block.low], block, x)
    return labels


def _settled(labels_SS: Tensor) -> Tensor:
    """Return the class of each cell between a pixel and its right and lower neighbours, if any, or ``UNSETTLED``."""
    settled, own = labels_SS.clone(), labels_SS  # (S, S) each
    settled[:, :-1].masked_fill_(own[:, :-1] != own[:, 1:], UNSETTLED)  # the right neighbour differs
    # The lower neighbour differs, or its own right neighbour does.
    settled[:-1].masked_fill_((own[:-1] != own[1:]) | (settled[1:] == UNSETTLED), UNSETTLED)
    return settled


def _block_labels(scores: Tensor, settled: Tensor, y: _Places, x: _Places) -> Tensor:
    """Fill in the unsettled labels of a block of rows, ``(rows, columns)``."""
    open_at = (settled == UNSETTLED).flatten().nonzero()[:, 0]  # (n,) flat indices
    if not len(open_at):
        return settled
    if len(open_at) > GATHERED_SHARE_MAX * settled.numel():
        return most_probable_class(_interpolated_rows(scores, y, x))
    row, column = open_at // settled.shape[1], open_at % settled.shape[1]  # (n,) each
    settled.view(-1)[open_at] = most_probable_class(_interpolated_pixels(scores, y.part(row), x.part(column)))
    return settled


def _interpolated_rows(scores: Tensor, y: _Places, x: _Places) -> Tensor:
    """Return the scores ``(C, rows, columns)``."""
    upright = torch.lerp(scores[:, y.low], scores[:, y.high], y.weight[:, None])  # (C, rows, S)
    return torch.lerp(upright[:, :, x.low], upright[:, :, x.high], x.weight)


def _interpolated_pixels(scores: Tensor, y: _Places, x: _Places) -> Tensor:
    """Return the scores ``(C, pixels)``."""
    flat, size = scores.flatten(1), scores.shape[-1]  # (C, S * S)
    # (C, pixels) each
    left, right = (
        torch.lerp(flat[:, y.low * size + column], flat[:, y.high * size + column], y.weight)
        for column in (x.low, x.high)
    )
    return torch.lerp(left, right, x.weight)
