"""The rules between lesions and grades, both ways: grades that outlines allow, and lesions that a grade rules out."""

from collections.abc import Collection, Sequence
from itertools import chain, combinations
from typing import NamedTuple

from bundle.labels import GRADES, LESION_COUNT, LESIONS, QUADRANTS

HAEMORRHAGES_MODERATE = 20
"""Up to this number in a quadrant may still be moderate; more in each of the four quadrants is severe."""

RULES = {
    "R0": "all four lesions were looked for, none is there: grade 0",
    "R1": "all four were looked for, only microaneurysms are there: grade 1",
    "R2": "a haemorrhage or an exudate is there: grades 2, 3, 4",
    "R2'": "a few tiny haemorrhages, which may be microaneurysms, and no exudate: grades 1, 2, 3, 4",
    "R2''": "exudates without any red lesion, which is atypical of diabetes: grades 2, 3, 4",
    "R3": "more than 20 haemorrhages in each quadrant about the fovea, or else the disc: grades 3, 4",
    "R4": "some lesion was never looked for, and what is outlined rules nothing out: all grades",
    "R6": "some expert marked a lesion that too few others did: the grades without it, and with it",
}
"""The rules of :func:`feasible_grades` in words."""

REMARKS = {
    "R2'": ", so few and small that they may be microaneurysms",
    "R2''": " without any red lesion, which is atypical of diabetes",
    "R3": f", more than {HAEMORRHAGES_MODERATE} haemorrhages in each quadrant",
    "R4": ", though not every lesion was looked for",
    "R6": ", though some expert marked what too few others did",
}
"""What a rule adds to the list of lesions, in words."""


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
