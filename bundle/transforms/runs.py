"""Masks as runs of pixels along their rows: lesions are small, so operations on runs are cheap."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

Indices = NDArray[np.int32]
"""32 bits are enough for any image that is opened, and twice as fast as 64."""

WORD_BYTES = 8


class Runs(NamedTuple):
    """Runs in raster order: row, first column, and the column after the last; ``(R,)`` each."""

    row: Indices
    start: Indices
    stop: Indices


def runs_of(mask: NDArray[np.bool_]) -> Runs:
    """List the runs of a mask ``(H, W)``.

    Example:
        >>> [part.tolist() for part in runs_of(np.array([[False, True, True], [True, False, False]]))]
        [[0, 1], [1, 0], [3, 1]]
    """
    flat = np.ascontiguousarray(mask).reshape(-1).view(np.uint8)
    return _joined(_set_bytes(flat), mask.shape[1])


def runs_of_bits(rows: NDArray[np.uint8], width_px: int) -> Runs:
    """List the runs of a mask with one bit per pixel, ``(H, ceil(width_px / 8))``, the first pixel in the highest bit.

    Example:
        >>> rows = np.array([[0b01100000, 0b10000000]], np.uint8)  # ten pixels a row
        >>> [part.tolist() for part in runs_of_bits(rows, width_px=10)]
        [[0, 0], [1, 8], [3, 9]]
    """
    flat = np.ascontiguousarray(rows).reshape(-1)
    lit = _set_bytes(flat)
    bits = np.flatnonzero(np.unpackbits(flat[lit]).view(bool)).astype(np.int32)  # positions in the lit bytes
    pixel = (lit[bits >> 3] << 3) + (bits & 7)
    if width_px % 8:  # the last byte of a row is padded
        row, column = np.divmod(pixel, rows.shape[1] * 8)
        inside = column < width_px
        pixel = row[inside] * width_px + column[inside]
    return _joined(pixel, width_px)


def _joined(pixel: Indices, width_px: int) -> Runs:
    """Join neighbouring flat pixel indices, given in ascending order, into runs; a run ends with its row."""
    if not len(pixel):
        return Runs(pixel, pixel, pixel)
    row, column = np.divmod(pixel, width_px)
    begins = np.flatnonzero((np.diff(pixel, prepend=np.int32(-2)) > 1) | (column == 0))
    ends = np.append(begins[1:], len(pixel)) - 1
    return Runs(row[begins], column[begins], column[ends] + 1)


def _set_bytes(flat: NDArray[np.uint8]) -> Indices:
    """Return the indices of the bytes that are not 0, skipping empty words of eight bytes."""
    whole = flat.size // WORD_BYTES * WORD_BYTES
    words = np.flatnonzero(flat[:whole].view(np.uint64))
    inside = np.flatnonzero(flat[:whole].reshape(-1, WORD_BYTES)[words])
    found = words[inside // WORD_BYTES] * WORD_BYTES + inside % WORD_BYTES
    return np.concatenate([found, whole + np.flatnonzero(flat[whole:])]).astype(np.int32)


def components_of(runs: Runs) -> tuple[Indices, int]:
    """Number the connected components (8 neighbours) of the runs, in raster order.

    Returns:
        ``(R,)`` number of each run's component, from 0; and the number of components.

    Example:
        >>> labels, number = components_of(runs_of(np.array([[True, False, True], [False, True, False]])))
        >>> labels.tolist(), number  # they touch at corners
        ([0, 0, 0], 1)
    """
    if not len(runs.row):
        return np.zeros(0, np.int32), 0
    # One key orders all runs. Its stride is two columns more than any run reaches, so that rows never touch.
    stride = int(runs.stop.max()) + 2
    first = np.searchsorted(runs.row * stride + runs.stop, (runs.row + 1) * stride + runs.start, side="left")
    after = np.searchsorted(runs.row * stride + runs.start, (runs.row + 1) * stride + runs.stop, side="right")
    count = after - first
    # (pairs,) each: run i in above is linked to the runs first[i], ..., after[i] - 1 in below
    above = np.repeat(np.arange(len(runs.row)), count)
    below = np.arange(count.sum()) + np.repeat(first - np.cumsum(count) + count, count)
    links = sparse.coo_array((np.ones(len(above), np.int8), (above, below)), (len(runs.row), len(runs.row)))
    number, labels = connected_components(links, directed=False)
    return labels, int(number)


def centre_of(runs: Runs) -> tuple[float, float]:
    """Return the mean column and row of the pixels of a mask.

    Raises:
        ValueError: if the mask is empty.

    Example:
        >>> centre_of(runs_of(np.array([[False, True, True], [False, True, True]])))
        (1.5, 0.5)
    """
    if not len(runs.row):
        raise ValueError("expected a mask with a pixel, got an empty one: it has no centre")
    centres = _centres(runs, np.zeros(len(runs.row), np.int32), number=1)
    return float(centres.x_px[0]), float(centres.y_px[0])


class _Centres(NamedTuple):
    """Area, mean column and mean row of each component."""

    area_px: NDArray[np.float64]
    x_px: NDArray[np.float64]
    y_px: NDArray[np.float64]


def _centres(runs: Runs, labels: Indices, number: int) -> _Centres:
    length = (runs.stop - runs.start).astype(np.float64)
    area_px, sum_x, sum_y = (
        np.bincount(labels, weights, minlength=number).astype(np.float64)
        for weights in (length, length * (runs.start + runs.stop - 1) / 2, length * runs.row)
    )
    return _Centres(area_px, sum_x / area_px, sum_y / area_px)


def components_by_quadrant(runs: Runs, about_px: tuple[float, float], min_area_px: float = 1.0) -> list[int]:
    """Count the connected components (8 neighbours) of a mask by the quadrant of their centroid.

    Args:
        runs: runs of the mask.
        about_px: column of the vertical and row of the horizontal line between the quadrants; a centroid on a line
            belongs to the right or the lower quadrant.
        min_area_px: smaller components are not counted.

    Returns:
        Four counts, in the order of ``bundle.labels.QUADRANTS``.

    Example:
        >>> mask = np.array([[True, False, True, False], [False, False, False, False], [True, True, False, True]])
        >>> components_by_quadrant(runs_of(mask), about_px=(1.5, 1.0))
        [1, 1, 1, 1]
        >>> components_by_quadrant(runs_of(mask), about_px=(1.5, 1.0), min_area_px=2)
        [0, 0, 1, 0]
    """
    found = _centres(runs, *components_of(runs))
    counted = found.area_px >= min_area_px
    quadrant = 2 * (found.y_px >= about_px[1]) + (found.x_px >= about_px[0])
    return np.bincount(quadrant[counted], minlength=4).tolist()


def largest_component_px(runs: Runs) -> int:
    """Return the area of the largest connected component (8 neighbours) of a mask; 0 for an empty one.

    Example:
        >>> largest_component_px(runs_of(np.array([[True, False, True, True], [False, True, False, False]])))
        4
        >>> largest_component_px(runs_of(np.zeros((2, 3), dtype=bool)))
        0
    """
    labels, number = components_of(runs)
    return int(np.bincount(labels, runs.stop - runs.start, minlength=max(number, 1)).max())
