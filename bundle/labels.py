"""The words of the field: lesions, grades, their colours, and the grades that lesions allow."""

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import chain, combinations
from typing import NamedTuple

LESIONS = ("MA", "HE", "EX", "SE")
"""Microaneurysm, haemorrhage, hard exudate, soft exudate: classes 1 to 4 of a label map; 0 is background."""

LESION_COUNT = len(LESIONS)

LESION_NAMES = {"MA": "microaneurysm", "HE": "haemorrhage", "EX": "hard exudate", "SE": "soft exudate"}

LESION_PRIORITY = ("MA", "SE", "HE", "EX")
"""Where outlines overlap, the first of these gives the pixel its class."""

LESION_COLOURS = {"MA": (255, 64, 255), "HE": (255, 48, 48), "EX": (255, 224, 32), "SE": (64, 208, 255)}
"""RGB, 0-255, told apart on a red-brown photograph and in print."""

GRADES = (0, 1, 2, 3, 4)
"""International clinical diabetic retinopathy severity scale (ICDRS)."""

PROBABILITY_TOLERANCE = 1e-4
"""How far rounding may take a probability, or a sum of probabilities, beyond 1."""

GRADE_NAMES = ("no DR", "mild", "moderate", "severe", "proliferative")

LEAST_PPM = 3.0
"""Millionths of the field of view from which a component counts where nothing was fitted: 25 pixels in IDRiD."""

QUADRANTS = ("upper_left", "upper_right", "lower_left", "lower_right")
"""As the photograph shows them, parted by the horizontal and the vertical line through the fovea."""

HAEMORRHAGES_MODERATE = 20
"""As many in a quadrant may still be moderate; more than these in each of the four are severe."""


class Feasible(NamedTuple):
    """The grades that a set of annotated lesions allows, and the rule that says so.

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
    """Tell which ICDRS grades the outlined lesions allow.

    R0 no lesion: {0}. R1 microaneurysms only: {1}. R2 any haemorrhage or exudate: {2, 3, 4}.
    R3 more than 20 haemorrhages in each of the four quadrants, where they can be told: {3, 4}.
    R4 a lesion class was never annotated, so that absence proves nothing: all grades; yet
    a haemorrhage or exudate that *was* outlined is there, so R2 comes before R4.
    (Wilkinson et al., Ophthalmology 110(9), 2003, table 2; new vessels are not outlined in
    these data sets, hence R2 never rules 3 and 4 out, and R3 never 4.)

    Two refinements of R2 are off unless asked for. R2' haemorrhages that may be microaneurysms, and no
    exudate: {1, 2, 3, 4}. R2'' exudates without any red lesion: still {2, 3, 4}, but under a name of its own,
    for drusen or a vein occlusion look like this.

    R6 several experts outlined, and some marked a lesion of which no pixel is outlined: it may be there or not. All
    grades that the rules allow without it, and with it; of several disputed lesions, with any of them. Where that is no
    wider, the rule of the outlines stands.

    Args:
        present: lesions with at least one outlined component.
        annotated: lesions that the annotators looked for.
        in_doubt: ``HE`` where the haemorrhages may be microaneurysms.
        name_atypical: whether R2'' is told apart from R2.
        disputed: lesions that some expert marked, but too few for an outline.
        quadrants: number of haemorrhages in each of ``QUADRANTS``; None where nobody knows where these lie.

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
    if _severe(present, quadrants):
        return Feasible(frozenset({3, 4}), "R3")
    outlined = _by_outlines(present, annotated, in_doubt, name_atypical)
    doubts = chain.from_iterable(combinations(disputed, size) for size in range(len(disputed) + 1))
    allowed = [_by_outlines({*present, *some}, annotated, in_doubt, name_atypical).grades for some in doubts]
    grades = frozenset().union(*allowed)
    return outlined if grades == outlined.grades else Feasible(grades, "R6")


def _severe(present: Collection[str], quadrants: Sequence[int] | None) -> bool:
    """Tell whether the first clause of the 4-2-1 rule holds; a further lesion would change nothing about it."""
    return "HE" in present and quadrants is not None and min(quadrants) > HAEMORRHAGES_MODERATE


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
    """Name the lesions that are on no photograph of a true grade, by :func:`feasible_grades`.

    A lesion is ruled out where no set of lesions that holds it allows the grade: 0 has none, and 1 has microaneurysms
    alone. So a grade, which is cheap, stands for the outlines of what is not there.

    Args:
        grade: on the ICDRS.

    Raises:
        ValueError: if it is no grade.

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
    """Return the grade that the lesions alone give, the lowest that they allow: of {2, 3, 4}, never told apart, 2.

    Example:
        >>> rules_grade({2, 3, 4})
        2
    """
    return min(feasible)


def consistent_grade(probabilities: Sequence[float], feasible: Collection[int]) -> int:
    """Return the most probable of the grades that the lesions allow: both tasks answer together.

    ``argmax_{c in F} p_c``, the lowest of equals. So where no grade of F has any probability, it is that of
    :func:`rules_grade`; where the most probable grade of all is in F, it is that one.

    Args:
        probabilities: of the five grades.
        feasible: F, grades that the lesions allow.

    Raises:
        ValueError: if these are not five numbers of 0 or more, or F is empty or holds what is no grade.

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
    """Return how many native pixels a component needs to count: ``max(1, min_area_ppm 1e-6 field_px)``.

    Example:
        >>> smallest_area_px(field_px=1e7, min_area_ppm=3.0), smallest_area_px(field_px=1e4, min_area_ppm=3.0)
        (30.0, 1.0)
    """
    return max(1.0, min_area_ppm * field_px / 1e6)


def lesions_large_enough(
    largest_px: Mapping[str, int], field_px: float, min_area_ppm: float | Mapping[str, float]
) -> tuple[str, ...]:
    """Name the lesions whose largest component is large enough to count as present, in the order of ``LESIONS``.

    A component counts from :func:`smallest_area_px` on: a share of the field of view means the
    same at every resolution, and what has no pixel is never there.

    Args:
        largest_px: native pixels of the largest component of each lesion; one that is left out has none.
        field_px: native pixels of the field of view.
        min_area_ppm: smallest component that counts, in millionths of the field of view; one number, or one a lesion.

    Raises:
        ValueError: if a name is not one of ``LESIONS``, an area is negative or not finite, or a lesion has none.

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
    """Spell out the smallest component that counts, one number for each of ``LESIONS``.

    Args:
        min_area_ppm: one number for all, or one a lesion, in millionths of the field of view.

    Raises:
        ValueError: if a lesion has none, there is another name, or a number is negative or not finite.

    Example:
        >>> smallest_areas_ppm(3.0)
        {'MA': 3.0, 'HE': 3.0, 'EX': 3.0, 'SE': 3.0}
        >>> smallest_areas_ppm({"MA": 3.0})
        Traceback (most recent call last):
            ...
        ValueError: expected min_area_ppm as one number of 0 or more, or one for each of MA, HE, EX, SE, got {'MA': 3.0}
    """
    found = dict(min_area_ppm) if isinstance(min_area_ppm, Mapping) else dict.fromkeys(LESIONS, min_area_ppm)
    numbers = all(isinstance(area, (int, float)) and 0 <= area < math.inf for area in found.values())
    if set(found) != set(LESIONS) or not numbers:
        raise ValueError(
            f"expected min_area_ppm as one number of 0 or more, or one for each of {', '.join(LESIONS)}, "
            f"got {min_area_ppm}"
        )
    return {lesion: float(found[lesion]) for lesion in LESIONS}
