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


def upper_bits(grey: NDArray) -> NDArray[np.uint8]:
    """Scale 16-bit whole numbers to 8 bits.

    Raises:
        ValueError: if they are not whole numbers from 0 to 65535.

    Example:
        >>> upper_bits(np.array([255, 256, 65535], np.uint16)).tolist()
        [0, 1, 255]
    """
    if grey.dtype.kind not in "ui" or (grey.size and not (grey.min() >= 0 and grey.max() <= np.iinfo(np.uint16).max)):
        raise ValueError(f"expected channels of 8 or 16 bits, got {grey.dtype} from {grey.min()} to {grey.max()}")
    return (grey >> 8).astype(np.uint8)


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
