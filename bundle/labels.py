"""Lesions and grades: names, colours, the area from which a lesion counts as present, and sets of grades."""

import math
from collections.abc import Mapping, Sequence

LESIONS = ("MA", "HE", "EX", "SE")
"""Microaneurysm, haemorrhage, hard exudate, soft exudate: classes 1 to 4 of a label map; 0 is background."""

LESION_COUNT = len(LESIONS)

LESION_NAMES = {"MA": "microaneurysm", "HE": "haemorrhage", "EX": "hard exudate", "SE": "soft exudate"}

LESION_COLOURS = {"MA": (255, 64, 255), "HE": (255, 48, 48), "EX": (255, 224, 32), "SE": (64, 208, 255)}
"""RGB, 0-255; easy to distinguish on a red-brown photograph and in print."""

GRADES = (0, 1, 2, 3, 4)
"""International clinical diabetic retinopathy severity scale (ICDRS)."""

PROBABILITY_TOLERANCE = 1e-4
"""How far a probability, or a sum of probabilities, may exceed 1 through rounding."""

GRADE_NAMES = ("no DR", "mild", "moderate", "severe", "proliferative")

LEAST_PPM = 3.0
"""Smallest component that counts if no value was fitted, in millionths of the field of view: 25 pixels in IDRiD."""

QUADRANTS = ("upper_left", "upper_right", "lower_left", "lower_right")
"""As seen on the photograph, divided by the horizontal and vertical lines through the fovea."""


def smallest_area_px(field_px: float, min_area_ppm: float) -> float:
    """Return the smallest area of a component that counts, in native pixels: ``max(1, min_area_ppm 1e-6 field_px)``.

    Example:
        >>> smallest_area_px(field_px=1e7, min_area_ppm=3.0), smallest_area_px(field_px=1e4, min_area_ppm=3.0)
        (30.0, 1.0)
    """
    return max(1.0, min_area_ppm * field_px / 1e6)


def lesions_large_enough(
    largest_px: Mapping[str, int], field_px: float, min_area_ppm: float | Mapping[str, float]
) -> tuple[str, ...]:
    """Return the lesions whose largest component is large enough to count as present, in the order of ``LESIONS``.

    A component counts if it has at least :func:`smallest_area_px` pixels. A share of the field of view means the
    same at every resolution. A lesion without a pixel is never present.

    Args:
        largest_px: native pixels of the largest component of each lesion; 0 for a lesion that is left out.
        field_px: native pixels of the field of view.
        min_area_ppm: smallest component that counts, in millionths of the field of view; one number, or one per lesion.

    Raises:
        ValueError: if a name is not one of ``LESIONS``, an area is negative or not finite, or a lesion has no
            smallest area.

    Example:
        >>> areas_px = {"EX": 30, "MA": 29}
        >>> lesions_large_enough(areas_px, field_px=1e7, min_area_ppm=3.0)  # 30 px
        ('EX',)
        >>> lesions_large_enough(areas_px, field_px=1e7, min_area_ppm=0.0)
        ('MA', 'EX')
        >>> lesions_large_enough(areas_px, field_px=1e7, min_area_ppm={"MA": 2.0, "HE": 0.0, "EX": 9.0, "SE": 0.0})
        ('MA',)
    """
    unknown = set(largest_px) - set(LESIONS)
    if unknown:
        raise ValueError(f"expected lesions out of {list(LESIONS)}, got {sorted(unknown)}")
    smallest_ppm = smallest_areas_ppm(min_area_ppm)
    sizes = {**largest_px, "field_px": field_px}
    wrong = {name: size for name, size in sizes.items() if not 0 <= size < math.inf}
    if wrong:
        raise ValueError(f"expected areas that are finite and not negative, got {wrong}")
    return tuple(
        lesion for lesion in LESIONS if largest_px.get(lesion, 0) >= smallest_area_px(field_px, smallest_ppm[lesion])
    )


def smallest_areas_ppm(min_area_ppm: float | Mapping[str, float]) -> dict[str, float]:
    """Return the smallest component that counts, one number for each of ``LESIONS``.

    Args:
        min_area_ppm: one number for all, or one per lesion, in millionths of the field of view.

    Raises:
        ValueError: if a lesion is missing, a name is unknown, or a number is negative or not finite.

    Example:
        >>> smallest_areas_ppm(3.0)
        {'MA': 3.0, 'HE': 3.0, 'EX': 3.0, 'SE': 3.0}
        >>> smallest_areas_ppm({"MA": 3.0})
        Traceback (most recent call last):
            ...
        ValueError: expected min_area_ppm as one number of 0 or more, or one for each of MA, HE, EX, SE, got {'MA': 3.0}
    """
    areas = dict(min_area_ppm) if isinstance(min_area_ppm, Mapping) else dict.fromkeys(LESIONS, min_area_ppm)
    numbers = all(isinstance(area, (int, float)) and 0 <= area < math.inf for area in areas.values())
    if set(areas) != set(LESIONS) or not numbers:
        raise ValueError(
            f"expected min_area_ppm as one number of 0 or more, or one for each of {', '.join(LESIONS)}, "
            f"got {min_area_ppm}"
        )
    return {lesion: float(areas[lesion]) for lesion in LESIONS}


def checked_quantiles(quantiles: Sequence[float]) -> tuple[float, ...]:
    """Return the limits of the sets of likely grades (:func:`bundle.metrics.grade_sets.fit_quantiles`) as floats.

    Raises:
        ValueError: if there is not one number in [0, 1] for each grade.

    Example:
        >>> checked_quantiles([1, 0.5, 0.5, 0.5, 1])
        (1.0, 0.5, 0.5, 0.5, 1.0)
    """
    numbers = isinstance(quantiles, (list, tuple)) and all(
        isinstance(q, (int, float)) and 0 <= q <= 1 for q in quantiles
    )
    if not numbers or len(quantiles) != len(GRADES):
        raise ValueError(
            f"expected grade_set_quantiles as {len(GRADES)} numbers in [0, 1], one a grade, got {quantiles}"
        )
    return tuple(float(quantile) for quantile in quantiles)


def grades_in_words(grades: Sequence[int]) -> str:
    """Name the grades of a set, in the given order.

    Example:
        >>> grades_in_words((2,)), grades_in_words((2, 3)), grades_in_words((1, 2, 3)), grades_in_words(GRADES)
        ('moderate', 'moderate or severe', 'mild, moderate or severe', 'any grade')
    """
    *others, last = (GRADE_NAMES[grade] for grade in grades)
    if len(grades) == len(GRADES):
        return "any grade"
    return f"{', '.join(others)} or {last}" if others else last
