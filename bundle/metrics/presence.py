"""Smallest area at which a predicted lesion counts as present, fitted on photographs whose grade rules it out."""

# flake8: noqa: N803

import math
from collections.abc import Sequence

import numpy as np
from bundle.grade_rules import lesions_ruled_out
from bundle.labels import GRADES, LEAST_PPM, LESIONS
from numpy.typing import NDArray

FALSE_SHARE = 0.05
"""Share of the photographs whose grade rules a lesion out that may still show it."""


def areas_that_count_ppm(
    largest_ppm_NL: NDArray[np.floating],
    grades_N: Sequence[int],
    false_share: float = FALSE_SHARE,
    least_ppm: float = LEAST_PPM,
) -> dict[str, float]:
    """Return for each lesion the smallest component area at which it counts as present.

    This is the smallest number, at least ``least_ppm``, such that at most ``false_share`` of the photographs whose true
    grade rules the lesion out (:func:`bundle.grade_rules.lesions_ruled_out`) have a component of that size or larger. A
    lesion that is not ruled out on any of these photographs is not in the result.

    Args:
        largest_ppm_NL: largest predicted component of each of ``LESIONS`` on each photograph, in millionths of its
            field of view; 0 if nothing is predicted.
        grades_N: true grade of each photograph.
        false_share: share of photographs that may be wrong, in [0, 1).
        least_ppm: lower limit of the result; smaller components never count.

    Raises:
        ValueError: if the shapes differ, an area is negative or not finite, or a grade or a setting is invalid.

    Example:
        >>> largest = np.array([[2.0, 0, 0, 0], [5.0, 0, 0, 0], [90.0, 40, 0, 0]])
        >>> areas_ppm = areas_that_count_ppm(largest, [0, 0, 2])  # MA beyond 5 on a healthy eye, HE on none
        >>> {lesion: round(area, 3) for lesion, area in areas_ppm.items()}
        {'MA': 5.0, 'HE': 3.0, 'EX': 3.0, 'SE': 3.0}
        >>> areas_ppm["MA"] > 5
        True
    """
    largest, grades = np.asarray(largest_ppm_NL, np.float64), np.asarray(grades_N)
    if largest.shape != (len(grades), len(LESIONS)) or not np.all(np.isfinite(largest) & (largest >= 0)):
        raise ValueError(f"expected finite areas of 0 or more, ({len(grades)}, {len(LESIONS)}), got {largest.shape}")
    if not set(grades.tolist()) <= set(GRADES):
        raise ValueError(f"expected grades out of {list(GRADES)}, got {sorted(set(grades.tolist()) - set(GRADES))}")
    if not 0 <= false_share < 1 or not 0 <= least_ppm < math.inf:
        raise ValueError(f"expected false_share in [0, 1) and least_ppm of 0 or more, got {false_share}, {least_ppm}")
    absent = {lesion: [grade for grade in GRADES if lesion in lesions_ruled_out(grade)] for lesion in LESIONS}
    false = {lesion: largest[np.isin(grades, absent[lesion]), column] for column, lesion in enumerate(LESIONS)}
    return {lesion: max(least_ppm, _beyond(areas, false_share)) for lesion, areas in false.items() if len(areas)}


def _beyond(areas: NDArray[np.floating], false_share: float) -> float:
    """Return the smallest number that at most ``false_share`` of the areas reach."""
    allowed = int(false_share * len(areas))
    return float(np.nextafter(np.sort(areas)[::-1][allowed], math.inf))
