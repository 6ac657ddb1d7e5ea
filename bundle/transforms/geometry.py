"""Where the eye is in a photograph: its round field, the square cut about it, and the way back to native pixels."""

from collections.abc import Iterable
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

SEARCHED_SIDE_PX = 256
SPECK = np.ones((3, 3), np.uint8)
"""What is smaller is noise."""

BRIGHT_MIN = 24
"""Grey level of 0-255 that the brightest twentieth of a photograph reaches, even of a dark one."""


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
        """
        left, top, right, bottom = box
        side = max(right - left, bottom - top)
        left, top = (left + right - side) // 2, (top + bottom - side) // 2
        return cls(reduction * left, reduction * top, reduction * side, width_px, height_px)

    @classmethod
    def of(cls, geometry: Iterable[float]) -> "Crop":
        """Read the five numbers that an item carries as ``geometry``."""
        return cls(*(round(float(number)) for number in geometry))


def field_of_view(image: NDArray[np.uint8]) -> tuple[int, int, int, int]:
    """Find the box of the bright round field on black: the largest region above a tenth of the bright level.

    Noise and compression artefacts of the border are dark or small, and neither counts.

    Args:
        image: ``(H, W)`` grey or ``(H, W, 3)``.

    Returns:
        ``(left, top, right, bottom)``, right and bottom exclusive, in pixels of the image.

    Raises:
        ValueError: if the image is all but black.
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
    """
    crop = Crop.of(geometry)
    rows = slice(max(crop.top, 0), min(crop.top + crop.side, crop.height))
    columns = slice(max(crop.left, 0), min(crop.left + crop.side, crop.width))
    native = scores.new_zeros(len(scores), crop.height, crop.width)
    native[0] = 1
    for channel, score in zip(native, scores, strict=True):
        size = (crop.side, crop.side)
        square = F.interpolate(score[None, None], size=size, mode="bilinear", align_corners=False)[0, 0]
        channel[rows, columns] = square[
            rows.start - crop.top : rows.stop - crop.top, columns.start - crop.left : columns.stop - crop.left
        ]
    return native
