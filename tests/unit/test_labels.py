"""The grades that lesions allow."""

from itertools import chain, combinations

import pytest
from bundle.labels import (
    GRADE_NAMES,
    GRADES,
    LESION_COLOURS,
    LESION_NAMES,
    LESION_PRIORITY,
    LESIONS,
    feasible_grades,
    lesions_large_enough,
)
from hypothesis import given
from hypothesis import strategies as st

SUBSETS = list(chain.from_iterable(combinations(LESIONS, size) for size in range(5)))


@pytest.mark.parametrize(
    ("present", "annotated", "grades", "rule"),
    [
        (set(), LESIONS, {0}, "R0"),
        ({"MA"}, LESIONS, {1}, "R1"),
        ({"HE"}, LESIONS, {2, 3, 4}, "R2"),
        ({"MA", "SE"}, LESIONS, {2, 3, 4}, "R2"),
        ({"EX"}, {"EX"}, {2, 3, 4}, "R2"),
        ({"MA"}, {"MA", "EX"}, {0, 1, 2, 3, 4}, "R4"),
        (set(), (), {0, 1, 2, 3, 4}, "R4"),
    ],
)
def test_each_rule_allows_its_grades(present, annotated, grades, rule):
    assert feasible_grades(present, annotated) == (frozenset(grades), rule)


@pytest.mark.parametrize("present", SUBSETS)
def test_looking_for_fewer_lesions_never_rules_out_more(present):
    for annotated in SUBSETS:
        if set(present) <= set(annotated):
            assert feasible_grades(present).grades <= feasible_grades(present, annotated).grades


@pytest.mark.parametrize(
    ("present", "in_doubt", "grades", "rule"),
    [
        ({"HE"}, {"HE"}, {1, 2, 3, 4}, "R2'"),
        ({"MA", "HE"}, {"HE"}, {1, 2, 3, 4}, "R2'"),
        ({"HE", "EX"}, {"HE"}, {2, 3, 4}, "R2"),
        ({"EX", "SE"}, (), {2, 3, 4}, "R2''"),
        ({"MA", "EX"}, (), {2, 3, 4}, "R2"),
        ({"MA"}, (), {1}, "R1"),
    ],
)
def test_refinements_of_r2_are_told_where_they_are_asked_for(present, in_doubt, grades, rule):
    assert feasible_grades(present, in_doubt=in_doubt, name_atypical=True) == (frozenset(grades), rule)
    if in_doubt != {"HE"}:
        assert feasible_grades(present).rule == rule.rstrip("'")


def test_a_haemorrhage_in_doubt_still_rules_grade_0_out_where_not_all_was_looked_for():
    assert feasible_grades({"HE"}, {"HE"}, in_doubt={"HE"}).grades == {1, 2, 3, 4}


@pytest.mark.parametrize(
    ("present", "disputed", "grades", "rule"),
    [
        (set(), {"EX"}, {0, 2, 3, 4}, "R6"),
        (set(), {"MA"}, {0, 1}, "R6"),
        (set(), {"MA", "HE"}, {0, 1, 2, 3, 4}, "R6"),  # each of them may be there or not
        ({"MA"}, {"SE"}, {1, 2, 3, 4}, "R6"),
        ({"HE"}, {"EX", "MA"}, {2, 3, 4}, "R2"),  # what is outlined settles it
        (set(), (), {0}, "R0"),
    ],
)
def test_disputed_lesions_widen_what_the_outlines_allow(present, disputed, grades, rule):
    assert feasible_grades(present, disputed=disputed) == (frozenset(grades), rule)


@pytest.mark.parametrize("present", SUBSETS)
def test_a_dispute_never_rules_a_grade_out(present):
    for disputed in SUBSETS:
        for annotated in (LESIONS, sorted({*present, *disputed})):
            alone, widened = feasible_grades(present, annotated), feasible_grades(present, annotated, disputed=disputed)
            assert alone.grades <= widened.grades
            assert feasible_grades({*present, *disputed}, annotated).grades <= widened.grades


def test_every_table_of_words_is_complete():
    assert set(LESION_NAMES) == set(LESION_COLOURS) == set(LESION_PRIORITY) == set(LESIONS)
    assert len(GRADE_NAMES) == len(GRADES)


def test_refuses_an_unknown_lesion():
    with pytest.raises(ValueError, match=r"expected lesions out of .*, got \['NV'\]"):
        feasible_grades({"NV"})


def test_refuses_a_lesion_that_nobody_looked_for():
    with pytest.raises(ValueError, match=r"lesions \['HE'\] are outlined but not among the annotated"):
        feasible_grades({"HE"}, annotated={"MA"})


def test_a_lesion_is_there_from_its_share_of_the_field_on():
    largest_px = {"SE": 31, "MA": 30, "EX": 29, "HE": 0}
    assert lesions_large_enough(largest_px, field_px=1e7, min_area_ppm=3.0) == ("MA", "SE")  # 30 px
    assert lesions_large_enough(largest_px, field_px=1e6, min_area_ppm=3.0) == ("MA", "EX", "SE")  # 3 px
    assert lesions_large_enough({}, field_px=1e7, min_area_ppm=3.0) == ()


def test_whatever_the_share_a_lesion_has_at_least_one_pixel():
    assert lesions_large_enough({"MA": 0, "EX": 1}, field_px=1e4, min_area_ppm=3.0) == ("EX",)  # 0.03 px
    assert lesions_large_enough({"MA": 0, "EX": 1}, field_px=0, min_area_ppm=0) == ("EX",)


areas = st.dictionaries(st.sampled_from(LESIONS), st.integers(0, 2000))


@given(areas, st.integers(1, 100), st.floats(0, 1e3), st.floats(0, 1e3))
def test_a_larger_threshold_never_finds_more_and_resolution_does_not_matter(largest_px, times, ppm, more_ppm):
    found = lesions_large_enough(largest_px, field_px=1e6, min_area_ppm=ppm)
    assert set(lesions_large_enough(largest_px, field_px=1e6, min_area_ppm=ppm + more_ppm)) <= set(found)
    finer = {lesion: area * times for lesion, area in largest_px.items()}
    assert set(found) <= set(lesions_large_enough(finer, field_px=times * 1e6, min_area_ppm=ppm * (1 - 1e-9)))


def test_areas_that_are_none_are_refused():
    with pytest.raises(ValueError, match=r"expected lesions out of .*, got \['NV'\]"):
        lesions_large_enough({"NV": 3}, field_px=1e6, min_area_ppm=3.0)
    with pytest.raises(ValueError, match=r"finite and not negative, got \{'min_area_ppm': -1\}"):
        lesions_large_enough({"MA": 3}, field_px=1e6, min_area_ppm=-1)
    with pytest.raises(ValueError, match=r"finite and not negative, got \{'field_px': nan\}"):
        lesions_large_enough({"MA": 3}, field_px=float("nan"), min_area_ppm=3.0)


def test_refuses_a_disputed_lesion_that_nobody_looked_for():
    with pytest.raises(ValueError, match=r"lesions \['SE'\] are disputed but not among the annotated ones"):
        feasible_grades({"MA"}, annotated={"MA", "EX"}, disputed={"SE"})
