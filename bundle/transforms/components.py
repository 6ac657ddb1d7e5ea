"""Connected components of a label map, for all classes at once: their number and areas."""

# flake8: noqa: N803

from collections.abc import Mapping
from typing import NamedTuple

import cv2
import numpy as np
from bundle.labels import LESIONS
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components


class Components(NamedTuple):
    """Class and area of each component."""

    classes: NDArray[np.uint8]
    areas_px: NDArray[np.int64]


class _Runs(NamedTuple):
    """Stretches of one class along a row; positions are counted as if every row had two more background pixels."""

    classes: NDArray[np.uint8]
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]


def components(labels_HW: NDArray[np.uint8]) -> Components:
    """Find the components (8 neighbours) of every class except 0.

    The runs of one class along the rows are joined where they touch. Few pixels of a photograph are lesions, so there
    are few runs, and this is many times faster than labelling all pixels class by class.

    Example:
        >>> found = components(np.array([[1, 0, 2], [0, 1, 2]], np.uint8))
        >>> found.classes.tolist(), found.areas_px.tolist()
        ([1, 2], [2, 2])
    """
    runs = _runs(labels_HW)
    above, below = _touching(runs, labels_HW.shape[1] + 2)
    number = len(runs.classes)
    graph = coo_array((np.ones(len(above), np.int8), (above, below)), shape=(number, number))
    count, component = connected_components(graph, directed=False)
    classes = np.zeros(count, np.uint8)
    classes[component] = runs.classes
    return Components(classes, np.bincount(component, runs.ends - runs.starts, minlength=count).astype(np.int64))


def numbered_components(mask_HW: NDArray[np.bool_]) -> tuple[int, NDArray]:
    """Count the connected components (8 neighbours) of a bool mask and number their pixels ``(H, W)``, from 1.

    Example:
        >>> count, numbers = numbered_components(np.array([[1, 0, 0, 1], [0, 1, 0, 1]], dtype=bool))
        >>> count, numbers.tolist()
        (2, [[1, 0, 0, 2], [0, 1, 0, 2]])
    """
    count, numbers_HW = cv2.connectedComponents(np.ascontiguousarray(mask_HW).view(np.uint8), connectivity=8)
    return count - 1, np.asarray(numbers_HW)


def lesion_areas_px(labels_HW: NDArray[np.uint8]) -> dict[str, NDArray[np.int64]]:
    """Return the area in pixels of every component of each lesion.

    Example:
        >>> found = lesion_areas_px(np.array([[1, 0, 3], [0, 1, 3], [0, 0, 0], [3, 0, 0]], np.uint8))
        >>> {lesion: sorted(areas_px.tolist()) for lesion, areas_px in found.items()}
        {'MA': [2], 'HE': [], 'EX': [1, 2], 'SE': []}
    """
    found = components(labels_HW)
    return {lesion: found.areas_px[found.classes == value] for value, lesion in enumerate(LESIONS, start=1)}


def largest_px(areas_px: Mapping[str, NDArray[np.int64]]) -> dict[str, int]:
    """Return the area in pixels of the largest component of each lesion; 0 for a lesion without components.

    Example:
        >>> largest_px({"MA": np.array([4, 9]), "EX": np.array([], np.int64)})
        {'MA': 9, 'EX': 0}
    """
    return {lesion: int(each.max(initial=0)) for lesion, each in areas_px.items()}


def _runs(labels_HW: NDArray[np.uint8]) -> _Runs:
    width = labels_HW.shape[1]
    flat = labels_HW.ravel()
    ends_here = flat[1:] != flat[:-1]
    ends_here[width - 1 :: width] = True  # a run also ends with its row
    starts = np.concatenate([[0], np.flatnonzero(ends_here) + 1])
    ends = np.append(starts[1:], flat.size)
    lesion = flat[starts] > 0
    starts, ends = starts[lesion], ends[lesion]
    moved = 2 * (starts // width)
    return _Runs(flat[starts], starts + moved, ends + moved)


def _touching(runs: _Runs, stride: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pair each run with the runs of its class that it touches in the next row, corners included."""
    first = np.searchsorted(runs.ends, runs.starts + stride - 1, side="right")
    last = np.searchsorted(runs.starts, runs.ends + stride, side="right")
    count = np.maximum(last - first, 0)
    # (pairs,) each: run i in above is paired with the runs first[i], ..., last[i] - 1 in below
    above = np.repeat(np.arange(len(first)), count)
    below = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + np.repeat(first, count)
    same = runs.classes[above] == runs.classes[below]
    return above[same], below[same]
