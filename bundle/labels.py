"""The words of the field: lesions, grades, their colours, and the grades that lesions allow."""

import math
from collections.abc import Collection, Mapping
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
) -> Feasible:
    """Tell which ICDRS grades the outlined lesions allow.

    R0 no lesion: {0}. R1 microaneurysms only: {1}. R2 any haemorrhage or exudate: {2, 3, 4}.
    R4 a lesion class was never annotated, so that absence proves nothing: all grades; yet
    a haemorrhage or exudate that *was* outlined is there, so R2 comes before R4.
    (Wilkinson et al., Ophthalmology 110(9), 2003, table 2; new vessels are not outlined in
    these data sets, hence 3 and 4 are never told from 2.)

    Two refinements of R2 are off unless asked for. R2' haemorrhages that may be microaneurysms, and no
    exudate: {1, 2, 3, 4}. R2'' exudates without any red lesion: still {2, 3, 4}, but under a name of its own,
    for drusen or a vein occlusion look like this. There is no R3 (more than 20 haemorrhages in each quadrant
    about the fovea: {3, 4}), for it needs the place of the fovea, which manifests do not hold.

    R6 several experts outlined, and some marked a lesion of which no pixel is outlined: it may be there or not. All
    grades that the rules allow without it, and with it; of several disputed lesions, with any of them. Where that is no
    wider, the rule of the outlines stands.

    Args:
        present: lesions with at least one outlined component.
        annotated: lesions that the annotators looked for.
        in_doubt: ``HE`` where the haemorrhages may be microaneurysms.
        name_atypical: whether R2'' is told apart from R2.
        disputed: lesions that some expert marked, but too few for an outline.

    Raises:
        ValueError: if a name is not one of ``LESIONS``, or a present or disputed lesion was not annotated.

    Example:
        >>> sorted(feasible_grades({"MA", "EX"}).grades), feasible_grades({"MA"}).rule
        ([2, 3, 4], 'R1')
        >>> sorted(feasible_grades(set(), annotated={"EX"}).grades)
        [0, 1, 2, 3, 4]
        >>> sorted(feasible_grades(set(), disputed={"EX"}).grades)
        [0, 2, 3, 4]
    """
    unknown = (set(present) | set(annotated) | set(disputed)) - set(LESIONS)
    if unknown:
        raise ValueError(f"expected lesions out of {list(LESIONS)}, got {sorted(unknown)}")
    for lesions, what in ((present, "outlined"), (disputed, "disputed")):
        if not set(lesions) <= set(annotated):
            raise ValueError(
                f"lesions {sorted(set(lesions) - set(annotated))} are {what} but not among the annotated ones"
            )
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


def lesions_large_enough(largest_px: Mapping[str, int], field_px: float, min_area_ppm: float) -> tuple[str, ...]:
    """Name the lesions whose largest component is large enough to count as present, in the order of ``LESIONS``.

    A component counts from ``max(1, min_area_ppm 1e-6 field_px)`` pixels on: a share of the field of view means the
    same at every resolution, and what has no pixel is never there.

    Args:
        largest_px: native pixels of the largest component of each lesion; one that is left out has none.
        field_px: native pixels of the field of view.
        min_area_ppm: smallest component that counts, in millionths of the field of view.

    Raises:
        ValueError: if a name is not one of ``LESIONS``, or an area is negative or not finite.

    Example:
        >>> areas_px = {"EX": 30, "MA": 29}
        >>> lesions_large_enough(areas_px, field_px=1e7, min_area_ppm=3.0)  # 30 px
        ('EX',)
        >>> lesions_large_enough(areas_px, field_px=1e7, min_area_ppm=0.0)
        ('MA', 'EX')
    """
    unknown = set(largest_px) - set(LESIONS)
    if unknown:
        raise ValueError(f"expected lesions out of {list(LESIONS)}, got {sorted(unknown)}")
    sizes = {**largest_px, "field_px": field_px, "min_area_ppm": min_area_ppm}
    wrong = {name: size for name, size in sizes.items() if not 0 <= size < math.inf}
    if wrong:
        raise ValueError(f"expected areas that are finite and not negative, got {wrong}")
    needed_px = max(1.0, min_area_ppm * field_px / 1e6)
    return tuple(lesion for lesion in LESIONS if largest_px.get(lesion, 0) >= needed_px)
