"""FROC: the share of outlined components found at given numbers of false positives per photograph."""

# flake8: noqa: N803, N806

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from bundle.transforms.components import numbered_components
from monai.metrics.froc import compute_fp_tp_probs_nd, compute_froc_curve_data, compute_froc_score

RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False positives per photograph (Niemeijer et al., IEEE TMI 29(1):185-195, 2010)."""

LEAST_SCORE = 0.01
"""Smallest probability of a candidate."""

APART = 0.004
"""Smallest distance of two candidates, as a share of the shorter side: half a microaneurysm of 125 um."""


class Candidates(NamedTuple):
    """The candidates of one photograph.

    Attributes:
        false_scores: scores of the candidates outside all outlines.
        best_scores: highest score in each outlined component; 0 for a component without a candidate.
    """

    false_scores: np.ndarray
    best_scores: np.ndarray


def candidates(scores_HW: np.ndarray, outline_HW: np.ndarray) -> Candidates:
    """Find candidates, the local maxima of a probability map, and match them with the outlined components.

    A candidate hits the component (8 neighbours) that contains its pixel. The best of several in one component counts;
    the others are neither true nor false positives. A candidate outside all components is a false positive.

    Args:
        scores_HW: probabilities of the lesion, float32.
        outline_HW: bool.

    Example:
        >>> scores = np.array([[0.75, 0.0, 0.0, 0.5, 0.0, 0.625]], np.float32)
        >>> outline = np.array([[True, True, False, True, False, False]])
        >>> found = candidates(scores, outline)
        >>> found.false_scores.tolist(), found.best_scores.tolist()
        ([0.625], [0.75, 0.5])
    """
    places = local_maxima(scores_HW, max(1, round(APART * min(scores_HW.shape))))  # (n, 2): row and column
    scores = scores_HW[tuple(places.T)]  # (n,)
    false, best, _ = compute_fp_tp_probs_nd(scores, places, numbered_components(outline_HW)[1])
    return Candidates(np.asarray(false, dtype=np.float32), np.asarray(best))


def local_maxima(scores_HW: np.ndarray, apart_px: int) -> np.ndarray:
    """Return row and column ``(n, 2)`` of each score that is the highest within ``apart_px``; one per flat top.

    Like ``skimage.feature.peak_local_max``, but ten times faster if there are many maxima, and without a second
    candidate on a top that is flat because softmax saturates.

    Example:
        >>> scores = np.array([[0.9, 0.9, 0.9, 0.0, 0.4]], np.float32)
        >>> local_maxima(scores, apart_px=1).tolist()  # one of the flat top, its middle
        [[0, 1], [0, 4]]
        >>> local_maxima(scores, apart_px=2).tolist()
        [[0, 1]]
    """
    highest_HW = cv2.dilate(scores_HW, np.ones((2 * apart_px + 1, 2 * apart_px + 1), np.uint8))
    tops_HW = (scores_HW == highest_HW) & (scores_HW >= LEAST_SCORE)
    places = np.argwhere(tops_HW)  # (pixels, 2), of all top pixels in reading order
    top_of_pixel = numbered_components(tops_HW)[1][tops_HW]  # (pixels,), from 1
    by_top = np.argsort(top_of_pixel, kind="stable")  # (pixels,), the pixels of one top one after another
    _, first, sizes = np.unique(top_of_pixel[by_top], return_index=True, return_counts=True)  # (tops,) each
    return places[by_top[first + sizes // 2]]  # (tops, 2): the middle pixel of each top, away from its border


def sensitivities(of_images: Sequence[Candidates]) -> np.ndarray:
    """Compute the share of components found at each of ``RATES``, ``(7,)``; NaN if no component is outlined.

    A candidate counts if its score reaches a threshold; all thresholds are tried. The curve is interpolated linearly
    between two numbers of false positives and is constant beyond the last candidate.

    Args:
        of_images: one per photograph, including photographs without an outline.

    Source:
        MONAI's FROC, as in CAMELYON16 (Ehteshami Bejnordi et al., JAMA 318(22), 2017).

    Example:
        >>> first = Candidates(false_scores=np.array([0.8]), best_scores=np.array([0.9, 0.7]))
        >>> second = Candidates(false_scores=np.array([]), best_scores=np.array([]))
        >>> sensitivities([first, second]).tolist()  # half a false positive per photograph
        [0.5, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0]
    """
    best = np.concatenate([image.best_scores for image in of_images])  # (components,)
    if not len(best):
        return np.full(len(RATES), np.nan)
    false = np.concatenate([image.false_scores for image in of_images])
    # The cost of the curve is quadratic in the false positives, so only those up to the highest rate are kept.
    matter = int(RATES[-1] * len(of_images)) + 1
    if len(false) > matter:
        false = false[false >= np.partition(false, -matter)[-matter]]
    # MONAI takes the lowest score for that of a missed component, and tries no threshold there, hence the added 0.
    curve = compute_froc_curve_data(np.append(false, 0), best, len(best), len(of_images))
    return np.array([compute_froc_score(*curve, eval_thresholds=(rate,)) for rate in RATES])
