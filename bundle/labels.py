"""Lesions and grades: names, colours, and the rules for which grades a set of lesions allows."""

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import chain, combinations
from typing import NamedTuple

LESIONS = ("MA", "HE", "EX", "SE")
"""Microaneurysm, haemorrhage, hard exudate, soft exudate: classes 1 to 4 of a label map; 0 is background."""

LESION_COUNT = len(LESIONS)

LESION_NAMES = {"MA": "microaneurysm", "HE": "haemorrhage", "EX": "hard exudate", "SE": "soft exudate"}

LESION_PRIORITY = ("MA", "SE", "HE", "EX")
"""Where outlines overlap, the pixel gets the class that comes first in this order."""

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

HAEMORRHAGES_MODERATE = 20
"""Up to this number in a quadrant may still be moderate; more in each of the four quadrants is severe."""


class Feasible(NamedTuple):
    """The grades that a set of annotated lesions allows, and the rule that applied.

    Example:
        >>> feasible_grades(set())
        Feasible(grades=frozenset({0}), rule='R0')
    """

    grades: frozenset[int]
    rule: str


def feasible_grades(
    present: Collection[str],
    annotated: Collection[str] = LESIONS,
    *,
    in_doubt: Collection[str] = (),
    name_atypical: bool = False,
    disputed: Collection[str] = (),
    quadrants: Sequence[int] | None = None,
) -> Feasible:
    """Return the ICDRS grades that the outlined lesions allow.

    R0 no lesion: {0}. R1 microaneurysms only: {1}. R2 any haemorrhage or exudate: {2, 3, 4}.
    R3 more than 20 haemorrhages in each of the four quadrants, if the quadrants are known: {3, 4}.
    R4 a lesion class was never annotated, so its absence proves nothing: all grades. R2 comes before R4,
    because a haemorrhage or exudate that *was* outlined is present.
    (Wilkinson et al., Ophthalmology 110(9), 2003, table 2; new vessels are not outlined in
    these data sets, so R2 never rules out 3 and 4, and R3 never rules out 4.)

    Two refinements of R2 are off by default. R2' haemorrhages that may be microaneurysms, and no
    exudate: {1, 2, 3, 4}. R2'' exudates without any red lesion: still {2, 3, 4}, but under a separate name,
    because drusen or a vein occlusion look like this.

    R6 several experts outlined, and some marked a lesion that has no outlined pixel, so it may or may not be present:
    all grades that the rules allow without it or with it; with several disputed lesions, with any combination of them.
    If this adds no grade, the rule of the outlines applies.

    Args:
        present: lesions with at least one outlined component.
        annotated: lesions that the annotators looked for.
        in_doubt: ``HE`` if the haemorrhages may be microaneurysms.
        name_atypical: whether R2'' is reported separately from R2.
        disputed: lesions that some experts marked, but too few experts for an outline.
        quadrants: number of haemorrhages in each of ``QUADRANTS``; None if the quadrants are unknown.

    Raises:
        ValueError: if a name is not one of ``LESIONS``, a present or disputed lesion was not annotated, or
            ``quadrants`` are not four counts.

    Example:
        >>> sorted(feasible_grades({"MA", "EX"}).grades), feasible_grades({"MA"}).rule
        ([2, 3, 4], 'R1')
        >>> sorted(feasible_grades(set(), annotated={"EX"}).grades)
        [0, 1, 2, 3, 4]
        >>> sorted(feasible_grades(set(), disputed={"EX"}).grades)
        [0, 2, 3, 4]
        >>> feasible_grades({"HE"}, quadrants=(21, 21, 21, 20)).rule, feasible_grades({"HE"}, quadrants=[21] * 4).rule
        ('R2', 'R3')
    """
    unknown = (set(present) | set(annotated) | set(disputed)) - set(LESIONS)
    if unknown:
        raise ValueError(f"expected lesions out of {list(LESIONS)}, got {sorted(unknown)}")
    for lesions, what in ((present, "outlined"), (disputed, "disputed")):
        if not set(lesions) <= set(annotated):
            raise ValueError(
                f"lesions {sorted(set(lesions) - set(annotated))} are {what} but not among the annotated ones"
            )
    if quadrants is not None and (len(quadrants) != len(QUADRANTS) or min(quadrants) < 0):
        raise ValueError(f"expected the number of haemorrhages in {list(QUADRANTS)}, got {list(quadrants)}")
    # The first clause of the 4-2-1 rule; further lesions do not affect it.
    if "HE" in present and quadrants is not None and min(quadrants) > HAEMORRHAGES_MODERATE:
        return Feasible(frozenset({3, 4}), "R3")
    outlined = _by_outlines(present, annotated, in_doubt, name_atypical)
    doubts = chain.from_iterable(combinations(disputed, size) for size in range(len(disputed) + 1))
    allowed = [_by_outlines({*present, *some}, annotated, in_doubt, name_atypical).grades for some in doubts]
    grades = frozenset().union(*allowed)
    return outlined if grades == outlined.grades else Feasible(grades, "R6")


def _by_outlines(
    present: Collection[str], annotated: Collection[str], in_doubt: Collection[str], name_atypical: bool
) -> Feasible:
    if set(present) & ({"HE", "EX", "SE"} - set(in_doubt)):
        atypical = name_atypical and not set(present) & {"MA", "HE"}
        return Feasible(frozenset({2, 3, 4}), "R2''" if atypical else "R2")
    if "HE" in present:
        return Feasible(frozenset({1, 2, 3, 4}), "R2'")
    if set(annotated) != set(LESIONS):
        return Feasible(frozenset(GRADES), "R4")
    return Feasible(frozenset({1}), "R1") if present else Feasible(frozenset({0}), "R0")


def lesions_ruled_out(grade: int) -> tuple[str, ...]:
    """Return the lesions that cannot occur on a photograph with this true grade, by :func:`feasible_grades`.

    A lesion is ruled out if no set of lesions that contains it allows the grade: grade 0 has no lesions, grade 1 only
    microaneurysms. So a grade, which is cheap, replaces the outlining of absent lesions.

    Args:
        grade: on the ICDRS.

    Raises:
        ValueError: if it is not a grade.

    Example:
        >>> [lesions_ruled_out(grade) for grade in GRADES]
        [('MA', 'HE', 'EX', 'SE'), ('HE', 'EX', 'SE'), (), (), ()]
    """
    if grade not in GRADES:
        raise ValueError(f"expected a grade out of {list(GRADES)}, got {grade}")
    sets = [set(some) for size in range(1, LESION_COUNT + 1) for some in combinations(LESIONS, size)]
    allowed = set().union(*(some for some in sets if grade in feasible_grades(some).grades))
    return tuple(lesion for lesion in LESIONS if lesion not in allowed)


def rules_grade(feasible: Collection[int]) -> int:
    """Return the lowest grade that the lesions allow: 2 for {2, 3, 4}, which lesions alone do not separate.

    Example:
        >>> rules_grade({2, 3, 4})
        2
    """
    return min(feasible)


def consistent_grade(probabilities: Sequence[float], feasible: Collection[int]) -> int:
    """Return the most probable of the grades that the lesions allow, which combines both tasks.

    ``argmax_{c in F} p_c``, the lowest on ties. If no grade of F has any probability, the result is that of
    :func:`rules_grade`; if the most probable of all grades is in F, the result is that grade.

    Args:
        probabilities: of the five grades.
        feasible: F, the grades that the lesions allow.

    Raises:
        ValueError: if there are not five numbers of 0 or more, or F is empty or contains anything but grades.

    Example:
        >>> consistent_grade((0.5, 0.1, 0.1, 0.3, 0.0), {2, 3, 4})  # 0 is more probable, and ruled out
        3
        >>> consistent_grade((0.5, 0.5, 0.0, 0.0, 0.0), {2, 3, 4})
        2
    """
    if len(probabilities) != len(GRADES) or not all(p >= 0 for p in probabilities):
        raise ValueError(f"expected {len(GRADES)} probabilities, not negative, got {[float(p) for p in probabilities]}")
    if not feasible or not set(feasible) <= set(GRADES):
        raise ValueError(f"expected feasible grades out of {list(GRADES)}, one at least, got {sorted(feasible)}")
    return max(sorted(feasible), key=lambda grade: probabilities[grade])


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
