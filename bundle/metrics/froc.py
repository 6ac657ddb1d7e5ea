"""FROC: which share of the outlined spots is found at how many false positives per photograph."""

# flake8: noqa: N803, N806

from collections.abc import Sequence
from typing import NamedTuple

import cv2
import numpy as np
from bundle.metrics.components import components
from monai.metrics.froc import compute_fp_tp_probs_nd, compute_froc_curve_data, compute_froc_score

RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)
"""False positives per photograph (Niemeijer et al., IEEE TMI 29(1):185-195, 2010)."""

LEAST_SCORE = 0.01
"""What is less probable is no candidate."""

APART = 0.004
"""Share of the shorter side that two candidates lie apart at least: half a microaneurysm of 125 um."""


class Candidates(NamedTuple):
    """The candidates of one photograph.

    Attributes:
        false_scores: of those outside of every outline.
        best_scores: the highest in each outlined component; 0 in one without a candidate.
    """

    false_scores: np.ndarray
    best_scores: np.ndarray


def candidates(scores_HW: np.ndarray, outline_HW: np.ndarray) -> Candidates:
    """Take the local maxima of a probability map for candidates, and match them with the outlined components.

    A candidate hits the component (8 neighbours) in which its pixel lies. The best of several in one component counts,
    the others are neither right nor wrong. A candidate outside of all components is a false positive.

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
    false, best, _ = compute_fp_tp_probs_nd(scores_HW[tuple(places.T)], places, components(outline_HW)[1])
    return Candidates(np.asarray(false, dtype=np.float32), np.asarray(best))


def local_maxima(scores_HW: np.ndarray, apart_px: int) -> np.ndarray:
    """Return row and column ``(n, 2)`` of each score that none within ``apart_px`` exceeds; a flat top has one.

    What ``skimage.feature.peak_local_max`` finds, in a tenth of its time where there are many, and without a second
    candidate on a top that softmax has made flat.

    Example:
        >>> scores = np.array([[0.9, 0.9, 0.9, 0.0, 0.4]], np.float32)
        >>> local_maxima(scores, apart_px=1).tolist()  # one of the flat top, its middle
        [[0, 1], [0, 4]]
        >>> local_maxima(scores, apart_px=2).tolist()
        [[0, 1]]
    """
    highest = cv2.dilate(scores_HW, np.ones((2 * apart_px + 1, 2 * apart_px + 1), np.uint8))
    tops_HW = (scores_HW == highest) & (scores_HW >= LEAST_SCORE)
    places, numbers = np.argwhere(tops_HW), components(tops_HW)[1][tops_HW]
    of_one_top = np.argsort(numbers, kind="stable")
    _, first, sizes = np.unique(numbers[of_one_top], return_index=True, return_counts=True)
    return places[of_one_top[first + sizes // 2]]  # its middle in reading order, which is not at its border


def sensitivities(found: Sequence[Candidates]) -> np.ndarray:
    """Return the share of components found at each of ``RATES``, ``(7,)``; NaN where no component is outlined.

    A candidate counts where its score reaches a threshold; all thresholds are tried. Between two numbers of false
    positives the curve is a straight line; beyond the last candidate it stays level.

    Args:
        found: one per photograph, also of those without an outline.

    Source:
        MONAI's FROC, which is that of CAMELYON16 (Ehteshami Bejnordi et al., JAMA 318(22), 2017).

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
    """Keep the false positives up to the highest rate; the curve costs their number squared.

    MONAI takes the lowest score of all for that of a missed component and tries no threshold there, hence the 0.
    """
    matter = int(RATES[-1] * images) + 1
    if len(false_scores) > matter:
        false_scores = false_scores[false_scores >= np.partition(false_scores, -matter)[-matter]]
    return np.append(false_scores, 0)
