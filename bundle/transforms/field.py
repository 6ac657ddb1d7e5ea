"""The field of view: where it is in a photograph, and the square about it."""

# flake8: noqa: N803

from collections.abc import Iterable
from typing import NamedTuple

import cv2
import numpy as np
from bundle.manifest import PIXELS_MAX
from bundle.transforms.pixels import brightest
from numpy.typing import NDArray
from scipy import ndimage

SEARCHED_SIDE_PX = 256

SPECK = np.ones((3, 3), np.uint8)
"""Smaller bright regions are noise."""

BRIGHT_MIN = 24
"""Grey level of 0-255 that the brightest twentieth of the pixels reaches, even in a dark photograph."""


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
    sampled = image[step // 2 :: step, step // 2 :: step]  # (h, w) or (h, w, 3)
    lit = _largest_lit(brightest(np.atleast_3d(sampled)))  # (h, w)
    rows, columns = ndimage.find_objects(lit.astype(np.uint8))[0]
    right, bottom = min(columns.stop * step, width), min(rows.stop * step, height)
    return columns.start * step, rows.start * step, right, bottom


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
    """Mark the largest region, of 4 neighbours, above a tenth of the bright level."""
    bright = np.percentile(grey, 95)
    lit = cv2.morphologyEx((grey > bright / 10).astype(np.uint8), cv2.MORPH_OPEN, SPECK, borderValue=0)  # (H, W)
    regions, count = ndimage.label(lit)  # (H, W) numbers from 1, and how many regions
    if bright < BRIGHT_MIN or not count:
        raise ValueError(f"expected a bright round field on black, got an image that is all but black ({bright:.0f})")
    return regions == np.bincount(regions.ravel())[1:].argmax() + 1
