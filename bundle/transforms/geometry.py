"""Where the eye is in a photograph: its round field, the square cut about it, and the way back to native pixels."""

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
"""What is smaller is noise."""

BRIGHT_MIN = 24
"""Grey level of 0-255 that the brightest twentieth of a photograph reaches, even of a dark one."""

BLOCK_PX = 1 << 18
"""Native pixels that are labelled at a time: five scores of them stay in a processor's cache."""

UNSETTLED = 255
"""Marks a cell of the square whose corners have different classes."""

GATHERED_SHARE_MAX = 0.1
"""Of unsettled pixels in a block; where there are more, interpolating all of the block is faster."""


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
        """Cut the smallest square that holds a box, centred on it, on whole decoded pixels.

        Args:
            box: left, top, right, bottom in pixels of ``reduction`` native pixels a side.
            width_px: of the photograph.
            height_px: of the photograph.
            reduction: 1 where the box is in native pixels.

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
        """Read the five numbers that an item carries as ``geometry``."""
        return cls(*(round(float(number)) for number in geometry))

    def within(self, long_side_px: int) -> "Crop":
        """Return the same cut of the photograph shrunk to a long side, to whole pixels; a small one stays as it is.

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
    """Find the box of the bright round field on black: the largest region above a tenth of the bright level.

    Noise and compression artefacts of the border are dark or small, and neither counts.

    Args:
        image: ``(H, W)`` grey or ``(H, W, 3)``.

    Returns:
        ``(left, top, right, bottom)``, right and bottom exclusive, in pixels of the image.

    Raises:
        ValueError: if the image is all but black.

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
    """Return the brightest channel; in pairs, for numpy reduces a last axis of three slowly."""
    return image if image.ndim == 2 else np.maximum(np.maximum(image[..., 0], image[..., 1]), image[..., 2])


def field_mask(grey: NDArray[np.integer | np.floating]) -> NDArray[np.bool_]:
    """Mark the pixels of the field of view, dark lesions inside it included.

    Args:
        grey: the brightest channel, ``(H, W)``, 0-255 or in [0, 1].

    Raises:
        ValueError: if the image is all but black.

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

    What lies outside of the square is background: 1 in channel 0, and 0 in the others. One channel is enlarged at a
    time, so that little more than the result is in memory.

    Args:
        scores: ``(C, S, S)``, of a floating type.
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
    """Where native rows, or columns, lie between the pixels of the square, as ``F.interpolate`` places them."""

    low: Tensor  # (n,) int64
    high: Tensor  # (n,) int64
    weight: Tensor  # (n,) of ``high``

    @classmethod
    def of(cls, size: int, side: int, seen: range) -> "_Places":
        at = ((torch.tensor(seen, dtype=torch.float32) + 0.5) * (size / side) - 0.5).clamp_(min=0)
        low = at.long().clamp_(max=size - 1)
        return cls(low, (low + 1).clamp_(max=size - 1), at - low)

    def part(self, which: slice | Tensor) -> "_Places":
        return _Places(*(one[which] for one in self))


def native_labels(scores: Tensor, geometry: Iterable[float]) -> NDArray[np.uint8]:
    """Return the class of every pixel of the photograph: ``to_native(scores, geometry).argmax(0)``, but for ties.

    Interpolated scores are means, with the same weights for every class, of those at four corners. Where one class is
    the largest at all four, it is the largest between them. So only pixels between unlike corners are interpolated,
    a block of rows at a time: no array of native scores is made.

    Args:
        scores: ``(C, S, S)``, float32, on the CPU; fewer than 255 classes.
        geometry: left, top, side, width, height in native pixels.

    Returns:
        ``(height, width)``, 0 outside of the square.

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
    """Return the class of each cell between a pixel and the next ones, or ``UNSETTLED``; the last have no next."""
    settled, own = labels_SS.clone(), labels_SS
    settled[:, :-1].masked_fill_(own[:, :-1] != own[:, 1:], UNSETTLED)
    settled[:-1].masked_fill_((own[:-1] != own[1:]) | (settled[1:] == UNSETTLED), UNSETTLED)
    return settled


def _block_labels(scores: Tensor, settled: Tensor, y: _Places, x: _Places) -> Tensor:
    """Fill in what is not settled in some rows."""
    open_at = (settled == UNSETTLED).flatten().nonzero()[:, 0]
    if not len(open_at):
        return settled
    if len(open_at) > GATHERED_SHARE_MAX * settled.numel():
        return most_probable_class(_interpolated_rows(scores, y, x))
    row, column = open_at // settled.shape[1], open_at % settled.shape[1]
    settled.view(-1)[open_at] = most_probable_class(_interpolated_pixels(scores, y.part(row), x.part(column)))
    return settled


def _interpolated_rows(scores: Tensor, y: _Places, x: _Places) -> Tensor:
    """Return ``(C, rows, columns)``."""
    upright = torch.lerp(scores[:, y.low], scores[:, y.high], y.weight[:, None])
    return torch.lerp(upright[:, :, x.low], upright[:, :, x.high], x.weight)


def _interpolated_pixels(scores: Tensor, y: _Places, x: _Places) -> Tensor:
    """Return ``(C, pixels)``."""
    flat, size = scores.flatten(1), scores.shape[-1]
    left, right = (
        torch.lerp(flat[:, y.low * size + column], flat[:, y.high * size + column], y.weight)
        for column in (x.low, x.high)
    )
    return torch.lerp(left, right, x.weight)
