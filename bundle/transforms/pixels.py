"""Levels of any depth and opacity as 8-bit RGB on black."""

from functools import reduce

import numpy as np
from numpy.typing import NDArray


def brightest(levels: NDArray) -> NDArray:
    """Reduce ``(H, W, C)`` to the largest of the channels, ``(H, W)``.

    Example:
        >>> brightest(np.array([[[0, 0, 0], [9, 200, 0]]], np.uint8)).tolist()
        [[0, 200]]
    """
    # Channel by channel: several times faster than a maximum along a short last axis.
    return reduce(np.maximum, np.moveaxis(levels, -1, 0))


DEPTHS_BITS = (8, 10, 12, 14, 16)
"""Depths of cameras; all but the first are stored in 16 bits."""


def bits_in_use(levels: NDArray) -> int:
    """Return the smallest depth of a camera that holds the largest value.

    Many cameras store 12 bits in files of 16, which do not say so.

    Raises:
        ValueError: if the values are not whole numbers from 0 to 65535.

    Example:
        >>> bits_in_use(np.array([0, 4095], np.uint16)), bits_in_use(np.array([0, 4096], np.uint16))
        (12, 14)
    """
    lowest, highest = (levels.min(), levels.max()) if levels.size else (0, 0)
    if levels.dtype.kind not in "ui" or lowest < 0 or highest >= 2 ** DEPTHS_BITS[-1]:
        raise ValueError(f"expected channels of 8 or 16 bits, got {levels.dtype} from {lowest} to {highest}")
    return next(bits for bits in DEPTHS_BITS if highest < 2**bits)


def upper_bits(levels: NDArray) -> NDArray[np.uint8]:
    """Scale whole numbers of up to 16 bits to 8 bits, from the depth in use (:func:`bits_in_use`).

    Raises:
        ValueError: as :func:`bits_in_use`.

    Example:
        >>> upper_bits(np.array([255, 256, 65535], np.uint16)).tolist()
        [0, 1, 255]
        >>> upper_bits(np.array([0, 2048, 4095], np.uint16)).tolist()  # 12 bits in 16
        [0, 128, 255]
    """
    return (levels >> (bits_in_use(levels) - 8)).astype(np.uint8)


def scaled_from_bits(levels: NDArray) -> int | None:
    """Return from how many bits :func:`upper_bits` scales; None if from 16, or if the values have no more than 8.

    Example:
        >>> scaled_from_bits(np.array([0, 4095], np.uint16)), scaled_from_bits(np.array([0, 65535], np.uint16))
        (12, None)
    """
    bits = DEPTHS_BITS[-1] if levels.itemsize == 1 else bits_in_use(levels)
    return None if bits == DEPTHS_BITS[-1] else bits


def on_black(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Composite RGBA ``(..., 4)`` on black and return RGB ``(..., 3)``.

    Example:
        >>> on_black(np.array([[200, 100, 0, 128]], np.uint8)).tolist()  # half transparent
        [[100, 50, 0]]
    """
    if (rgba[..., 3] == 255).all():
        return np.ascontiguousarray(rgba[..., :3])
    weighted = rgba[..., :3].astype(np.uint16) * rgba[..., 3:]
    return ((weighted + 127) // 255).astype(np.uint8)
