"""Back to the photograph's own pixels: scores and classes at native size."""

# flake8: noqa: N803

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from bundle.transforms.field import Crop
from bundle.transforms.lesion_decision import most_probable_class
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

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
