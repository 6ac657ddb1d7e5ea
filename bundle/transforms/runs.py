"""Masks and label maps as runs of pixels along their rows: lesions are small, so operations on runs are cheap."""

# flake8: noqa: N803

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int32]
"""32 bits are enough for any image that is opened, and twice as fast as 64."""


class Runs(NamedTuple):
    """Runs in raster order: row, first column, the column after the last, and class; ``(R,)`` each."""

    row: Indices
    start: Indices
    stop: Indices
    label: NDArray[np.uint8]


def runs_of(labels_HW: NDArray[np.bool_ | np.integer]) -> Runs:
    """List the runs of a mask, which are of class 1, or those of a label map, without the background 0.

    Example:
        >>> [part.tolist() for part in runs_of(np.array([[0, 2, 2], [2, 1, 0]]))]
        [[0, 1, 1], [1, 0, 1], [3, 1, 2], [2, 2, 1]]
    """
    width_px, flat = labels_HW.shape[1], labels_HW.reshape(-1)
    changes = np.ones(flat.size, bool)  # (H * W,) whether a run begins at a pixel, background included
    np.not_equal(flat[1:], flat[:-1], out=changes[1:])
    changes[::width_px] = True  # a run ends with its row
    begins = np.flatnonzero(changes)  # (all runs,) flat indices
    lengths = np.diff(begins, append=flat.size)  # (all runs,)
    lit = flat[begins] > 0  # (all runs,)
    row, start = np.divmod(begins[lit].astype(np.int32), np.int32(width_px))  # (R,) each
    return Runs(row, start, start + lengths[lit].astype(np.int32), flat[begins[lit]].astype(np.uint8))


def runs_of_bits(rows: NDArray[np.uint8], width_px: int) -> Runs:
    """List the runs of a mask with one bit per pixel, ``(H, ceil(width_px / 8))``, the first pixel in the highest bit.

    Example:
        >>> rows = np.array([[0b01100000, 0b10000000]], np.uint8)  # ten pixels a row
        >>> [part.tolist() for part in runs_of_bits(rows, width_px=10)]
        [[0, 0], [1, 8], [3, 9], [1, 1]]
    """
    lit = np.flatnonzero(rows.any(axis=1)).astype(np.int32)  # (h,) rows with a pixel: only these are unpacked
    runs = runs_of(np.unpackbits(rows[lit], axis=1, count=width_px))
    return runs._replace(row=lit[runs.row])
