"""The grades that lesions allow."""

from itertools import chain, combinations

import pytest
from bundle.grade_rules import consistent_grade, feasible_grades, lesions_ruled_out, rules_grade
from bundle.labels import GRADE_NAMES, GRADES, LESION_COLOURS, LESION_NAMES, LESIONS, QUADRANTS, lesions_large_enough
from bundle.transforms.outlines import LESION_PRIORITY
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


@pytest.mark.parametrize(
    ("quadrants", "grades", "rule"),
    [
        ((21, 21, 21, 21), {3, 4}, "R3"),
        ((90, 21, 40, 20), {2, 3, 4}, "R2"),  # not more than 20 in the last
        ((0, 300, 300, 300), {2, 3, 4}, "R2"),
        (None, {2, 3, 4}, "R2"),
    ],
)
def test_more_than_twenty_haemorrhages_in_each_quadrant_are_severe(quadrants, grades, rule):
    assert feasible_grades({"HE", "EX"}, quadrants=quadrants) == (frozenset(grades), rule)
    assert feasible_grades({"HE"}, annotated={"HE"}, disputed=(), quadrants=quadrants).rule == rule


def test_whatever_else_is_disputed_or_was_not_looked_for_severe_stays_severe():
    many = [21] * 4
    assert feasible_grades({"HE"}, {"HE", "EX"}, disputed={"EX"}, quadrants=many).grades == {3, 4}
    assert feasible_grades({"HE"}, in_doubt={"HE"}, quadrants=many).grades == {3, 4}
    assert feasible_grades({"MA"}, quadrants=many).rule == "R1"  # none is large enough to be there


@pytest.mark.parametrize("quadrants", [(21, 21, 21), (21, 21, 21, -1)])
def test_refuses_what_is_no_count_of_four_quadrants(quadrants):
    with pytest.raises(
        ValueError, match=rf"expected the number of haemorrhages in \['{QUADRANTS[0]}', .*, got \[21, 21"
    ):
        feasible_grades({"HE"}, quadrants=quadrants)


@pytest.mark.parametrize(
    ("probabilities", "feasible", "grade"),
    [
        ((0.4, 0.3, 0.1, 0.2, 0.0), {0}, 0),
        ((0.4, 0.3, 0.1, 0.2, 0.0), {1}, 1),
        ((0.4, 0.3, 0.1, 0.2, 0.0), {2, 3, 4}, 3),
        ((0.4, 0.3, 0.1, 0.1, 0.1), {2, 3, 4}, 2),  # the lowest of equals
        ((0.0, 1.0, 0.0, 0.0, 0.0), {2, 3, 4}, 2),  # no feasible grade has any: as the rules say
        ((0.0, 1.0, 0.0, 0.0, 0.0), {3, 4}, 3),
    ],
)
def test_both_tasks_together_give_the_most_probable_grade_that_lesions_allow(probabilities, feasible, grade):
    assert consistent_grade(probabilities, feasible) == grade


@given(st.lists(st.floats(0, 1), min_size=5, max_size=5), st.sets(st.sampled_from(GRADES), min_size=1))
def test_a_consistent_grade_is_feasible_and_is_the_likeliest_of_all_where_that_is(probabilities, feasible):
    found, likeliest = consistent_grade(probabilities, feasible), probabilities.index(max(probabilities))
    assert found in feasible
    assert found == likeliest or likeliest not in feasible
    assert consistent_grade([0.0] * 5, feasible) == rules_grade(feasible)


def test_the_rules_give_the_lowest_feasible_grade():
    assert [rules_grade(feasible_grades(one).grades) for one in (set(), {"MA"}, {"MA", "EX"})] == [0, 1, 2]
    assert rules_grade(feasible_grades({"HE"}, quadrants=[21] * 4).grades) == 3


@pytest.mark.parametrize(
    ("probabilities", "feasible", "message"),
    [
        ((0.5, 0.5), {2}, r"expected 5 probabilities, not negative, got \[0.5, 0.5\]"),
        ((float("nan"), 0, 0, 0, 0), {2}, "expected 5 probabilities, not negative, got .nan"),
        ((0.2,) * 5, (), r"expected feasible grades out of .*, one at least, got \[\]"),
        ((0.2,) * 5, {2, 5}, r"one at least, got \[2, 5\]"),
    ],
)
def test_refuses_what_leaves_no_consistent_grade(probabilities, feasible, message):
    with pytest.raises(ValueError, match=message):
        consistent_grade(probabilities, feasible)


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
    with pytest.raises(ValueError, match=r"min_area_ppm as one number of 0 or more, or one for each of .*, got -1"):
        lesions_large_enough({"MA": 3}, field_px=1e6, min_area_ppm=-1)
    with pytest.raises(ValueError, match=r"finite and not negative, got \{'field_px': nan\}"):
        lesions_large_enough({"MA": 3}, field_px=float("nan"), min_area_ppm=3.0)


def test_refuses_a_disputed_lesion_that_nobody_looked_for():
    with pytest.raises(ValueError, match=r"lesions \['SE'\] are disputed but not among the annotated ones"):
        feasible_grades({"MA"}, annotated={"MA", "EX"}, disputed={"SE"})


def test_healthy_eyes_show_no_lesion_and_mild_ones_at_most_microaneurysms():
    assert [lesions_ruled_out(grade) for grade in GRADES] == [LESIONS, ("HE", "EX", "SE"), (), (), ()]


@pytest.mark.parametrize("present", SUBSETS)
def test_no_grade_that_lesions_allow_rules_one_of_them_out(present):
    assert not any(set(lesions_ruled_out(grade)) & set(present) for grade in feasible_grades(present).grades)


def test_what_is_no_grade_rules_nothing_out():
    with pytest.raises(ValueError, match=r"expected a grade out of \[0, 1, 2, 3, 4\], got -1"):
        lesions_ruled_out(-1)
