"""Position of the eye in a photograph: field of view, square crop, and mapping back to native pixels."""

# flake8: noqa: N803

from collections.abc import Iterable
from typing import NamedTuple

import cv2
import numpy as np
import torch
from bundle.label_maps import most_probable_class
from bundle.manifest import PIXELS_MAX
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

SEARCHED_SIDE_PX = 256
SPECK = np.ones((3, 3), np.uint8)
"""Smaller bright regions are noise."""

BRIGHT_MIN = 24
"""Grey level of 0-255 that the brightest twentieth of the pixels reaches, even in a dark photograph."""

BLOCK_PX = 1 << 18
"""Native pixels that are labelled at a time: five scores for each fit into a processor's cache."""

UNSETTLED = 255
"""Label of a cell of the square whose corners have different classes."""

GATHERED_SHARE_MAX = 0.1
"""Largest share of unsettled pixels in a block; above it, interpolating the whole block is faster."""


class Crop(NamedTuple):
    """A square in native pixels, which may reach outside the photograph, and the photograph's size.

    Native ``(x, y)`` lies at ``((x - left) * S / side, (y - top) * S / side)`` of the crop resized to side ``S``.
    """

    left: int
    top: int
    side: int
    width: int
    height: int

    @classmethod
    def about(cls, box: tuple[int, int, int, int], width_px: int, height_px: int, reduction: int = 1) -> "Crop":
        """Return the smallest square that contains a box, centred on it, on whole decoded pixels.

        Args:
            box: left, top, right, bottom in decoded pixels, each ``reduction`` native pixels wide.
            width_px: width of the photograph.
            height_px: height of the photograph.
            reduction: 1 if the box is in native pixels.

        Raises:
            ValueError: if the square has more pixels than an image may have: a long strip would fill the memory.
        """
        left, top, right, bottom = box
        side = max(right - left, bottom - top)
        if side**2 > PIXELS_MAX:
            raise ValueError(
                f"expected a field of view in a square of at most {PIXELS_MAX} pixels, got one of "
                f"{right - left}x{bottom - top} px"
            )
        left, top = (left + right - side) // 2, (top + bottom - side) // 2
        return cls(reduction * left, reduction * top, reduction * side, width_px, height_px)

    @classmethod
    def of(cls, geometry: Iterable[float]) -> "Crop":
        """Read the five numbers of an item's ``geometry``."""
        return cls(*(round(float(number)) for number in geometry))

    def within(self, long_side_px: int) -> "Crop":
        """Return this crop for the photograph shrunk to a long side, in whole pixels; a small one is unchanged.

        Example:
            >>> Crop(left=10, top=-4, side=40, width=60, height=30).within(30)
            Crop(left=5, top=-2, side=20, width=30, height=15)
        """
        factor = min(1, long_side_px / max(self.width, self.height))
        left, top, side, width, height = (round(number * factor) for number in self)
        return Crop(left, top, max(side, 1), max(width, 1), max(height, 1))

    @property
    def visible(self) -> tuple[slice, slice]:
        """Rows and columns of the photograph that lie in the square."""
        return (
            slice(max(self.top, 0), max(min(self.top + self.side, self.height), 0)),
            slice(max(self.left, 0), max(min(self.left + self.side, self.width), 0)),
        )


def field_of_view(image: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """Find the bounding box of the bright round field on black: the largest region above a tenth of the bright level.

    Noise and compression artefacts at the border are ignored, because they are dark or small.

    Args:
        image: ``(H, W)`` grey or ``(H, W, 3)``.

    Returns:
        ``(left, top, right, bottom)``, right and bottom exclusive, in pixels of the image.

    Raises:
        ValueError: if the image is nearly black.

    Example:
        >>> image = np.full((40, 60), 3, np.uint8)
        >>> image[5:35, 10:50] = 120
        >>> field_of_view(image)
        (10, 5, 50, 35)
    """
    height, width = image.shape[:2]
    step = max(1, min(height, width) // SEARCHED_SIDE_PX)
    sampled = image[step // 2 :: step, step // 2 :: step]
    lit = _largest_lit(_brightest(sampled))
    rows, columns = ndimage.find_objects(lit.astype(np.uint8))[0]
    right, bottom = min(columns.stop * step, width), min(rows.stop * step, height)
    return columns.start * step, rows.start * step, right, bottom


def _brightest(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the brightest channel, pairwise, because numpy reduces a last axis of three slowly."""
    return image if image.ndim == 2 else np.maximum(np.maximum(image[..., 0], image[..., 1]), image[..., 2])


def field_mask(grey: NDArray[np.integer | np.floating]) -> NDArray[np.bool_]:
    """Mark the pixels of the field of view, dark lesions inside it included.

    Args:
        grey: the brightest channel, ``(H, W)``, 0-255 or in [0, 1].

    Raises:
        ValueError: if the image is nearly black.

    Example:
        >>> grey = np.zeros((40, 60), np.uint8)
        >>> grey[5:35, 10:50] = 120
        >>> grey[20, 20] = 0  # a dark lesion
        >>> int(field_mask(grey).sum())  # 30 * 40
        1200
    """
    scale = 255 if np.issubdtype(grey.dtype, np.floating) else 1
    return ndimage.binary_fill_holes(_largest_lit(grey * scale))


def _largest_lit(grey: NDArray) -> NDArray[np.bool_]:
    """Mark the largest region above a tenth of the bright level."""
    bright = np.percentile(grey, 95)
    lit = cv2.morphologyEx((grey > bright / 10).astype(np.uint8), cv2.MORPH_OPEN, SPECK, borderValue=0)
    regions, count = ndimage.label(lit)
    if bright < BRIGHT_MIN or not count:
        raise ValueError(f"expected a bright round field on black, got an image that is all but black ({bright:.0f})")
    return regions == np.bincount(regions.ravel())[1:].argmax() + 1


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
        square = F.interpolate(score[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]
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
        at = ((torch.tensor(seen, dtype=torch.float32) + 0.5) * (size / side) - 0.5).clamp_(min=0)
        low = at.long().clamp_(max=size - 1)
        return cls(low, (low + 1).clamp_(max=size - 1), at - low)

    def part(self, which: slice | Tensor) -> "_Places":
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
    y = _Places.of(size, crop.side, range(rows.start - crop.top, rows.stop - crop.top))
    x = _Places.of(size, crop.side, range(columns.start - crop.left, columns.stop - crop.left))
    settled = _settled(most_probable_class(scores))[:, x.low]  # (S, columns)
    inside = torch.from_numpy(labels[rows, columns])
    step = max(1, BLOCK_PX // len(x.low))
    for start in range(0, len(y.low), step):
        block = y.part(slice(start, start + step))
        inside[start : start + step] = _block_labels(scores, settled[block.low], block, x)
    return labels


def _settled(labels_SS: Tensor) -> Tensor:
    """Return the class of each cell between a pixel and its right and lower neighbours, if any, or ``UNSETTLED``."""
    settled, own = labels_SS.clone(), labels_SS
    settled[:, :-1].masked_fill_(own[:, :-1] != own[:, 1:], UNSETTLED)
    settled[:-1].masked_fill_((own[:-1] != own[1:]) | (settled[1:] == UNSETTLED), UNSETTLED)
    return settled


def _block_labels(scores: Tensor, settled: Tensor, y: _Places, x: _Places) -> Tensor:
    """Fill in the unsettled labels of a block of rows."""
    open_at = (settled == UNSETTLED).flatten().nonzero()[:, 0]  # (n,) flat indices
    if not len(open_at):
        return settled
    if len(open_at) > GATHERED_SHARE_MAX * settled.numel():
        return most_probable_class(_interpolated_rows(scores, y, x))
    row, column = open_at // settled.shape[1], open_at % settled.shape[1]
    settled.view(-1)[open_at] = most_probable_class(_interpolated_pixels(scores, y.part(row), x.part(column)))
    return settled


def _interpolated_rows(scores: Tensor, y: _Places, x: _Places) -> Tensor:
    """Return the scores ``(C, rows, columns)``."""
    upright = torch.lerp(scores[:, y.low], scores[:, y.high], y.weight[:, None])  # (C, rows, S)
    return torch.lerp(upright[:, :, x.low], upright[:, :, x.high], x.weight)


def _interpolated_pixels(scores: Tensor, y: _Places, x: _Places) -> Tensor:
    """Return the scores ``(C, pixels)``."""
    flat, size = scores.flatten(1), scores.shape[-1]  # (C, S * S)
    left, right = (
        torch.lerp(flat[:, y.low * size + column], flat[:, y.high * size + column], y.weight)
        for column in (x.low, x.high)
    )
    return torch.lerp(left, right, x.weight)
