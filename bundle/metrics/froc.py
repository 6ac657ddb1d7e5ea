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
    places = local_maxima(scores_HW, max(1, round(APART * min(scores_HW.shape))))
    false, best, _ = compute_fp_tp_probs_nd(scores_HW[tuple(places.T)], places, numbered_components(outline_HW)[1])
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
    highest = cv2.dilate(scores_HW, np.ones((2 * apart_px + 1, 2 * apart_px + 1), np.uint8))
    tops_HW = (scores_HW == highest) & (scores_HW >= LEAST_SCORE)
    places, numbers = np.argwhere(tops_HW), numbered_components(tops_HW)[1][tops_HW]  # (t, 2) and (t,) for t top pixels
    of_one_top = np.argsort(numbers, kind="stable")
    _, first, sizes = np.unique(numbers[of_one_top], return_index=True, return_counts=True)
    return places[of_one_top[first + sizes // 2]]  # the middle pixel of each top in reading order, away from its border


def sensitivities(found: Sequence[Candidates]) -> np.ndarray:
    """Compute the share of components found at each of ``RATES``, ``(7,)``; NaN if no component is outlined.

    A candidate counts if its score reaches a threshold; all thresholds are tried. The curve is interpolated linearly
    between two numbers of false positives and is constant beyond the last candidate.

    Args:
        found: one per photograph, including photographs without an outline.

    Source:
        MONAI's FROC, as in CAMELYON16 (Ehteshami Bejnordi et al., JAMA 318(22), 2017).

    Example:
        >>> one = Candidates(false_scores=np.array([0.8]), best_scores=np.array([0.9, 0.7]))
        >>> sensitivities([one, Candidates(np.array([]), np.array([]))]).tolist()  # half a false positive a photograph
        [0.5, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0]
    """
    best = np.concatenate([one.best_scores for one in found])
    if not len(best):
        return np.full(len(RATES), np.nan)
    false = _that_matter(np.concatenate([one.false_scores for one in found]), len(found))
    curve = compute_froc_curve_data(false, best, len(best), len(found))
    return np.array([compute_froc_score(*curve, eval_thresholds=(rate,)) for rate in RATES])


def _that_matter(false_scores: np.ndarray, images: int) -> np.ndarray:
    """Keep the false positives up to the highest rate, because the cost of the curve is quadratic in their number.

    MONAI treats the lowest score as the score of a missed component and tries no threshold there, hence the added 0.
    """
    matter = int(RATES[-1] * images) + 1
    if len(false_scores) > matter:
        false_scores = false_scores[false_scores >= np.partition(false_scores, -matter)[-matter]]
    return np.append(false_scores, 0)
