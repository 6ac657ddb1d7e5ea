"""Sets of likely grades have the true grade as often as was asked for, and are runs of grades that are never empty."""

import numpy as np
import pytest
from bundle.metrics.grade_sets import (
    conformal_quantile,
    fit_quantiles,
    grade_sets,
    grades_fitted_together,
    ordinal_scores,
    set_intervals,
    set_scores,
)
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

SHARES = [0.33, 0.05, 0.33, 0.19, 0.1]
"""Of the grades, as in IDRiD."""


def predictions(rng, count, sharpness=2.0):
    """Draw photographs, one exchangeable with the other, and a grader that is right more often than not."""
    grades = rng.choice(5, count, p=SHARES)
    logits = rng.normal(size=(count, 5)) - sharpness * np.abs(np.arange(5) - grades[:, None])
    return softmax(logits, axis=1), grades


def in_set(p, grades, quantiles):
    return grade_sets(p, quantiles)[np.arange(len(grades)), grades]


probabilities = st.lists(st.floats(0, 1), min_size=5, max_size=5).filter(lambda p: sum(p) > 0.1)
limits = st.lists(st.floats(0, 1), min_size=5, max_size=5)


def test_a_set_takes_the_more_probable_neighbour_until_it_has_enough():
    p = [[0.1, 0.05, 0.5, 0.25, 0.1], [0.0, 0.25, 0.25, 0.5, 0.0]]
    # 2, then 3 at 0.5, 4 at 0.75, 1 at 0.85, 0 at 0.9; 3, then 2 at 0.5, 1 at 0.75, 0 at 1 (before 4, on a tie), 4 at 1
    assert ordinal_scores(p) == pytest.approx(np.array([[0.9, 0.85, 0, 0.5, 0.75], [1, 0.75, 0.5, 0, 1]]))
    assert grade_sets(p, [0.75] * 5).tolist() == [[False, False, True, True, True], [False, True, True, True, False]]


@pytest.mark.parametrize(
    ("count", "rank"),
    [(8, None), (9, 9), (10, 10), (18, 18), (19, 18), (28, 27), (29, 27), (76, 70)],  # ceil((n + 1) * 0.9)
)
def test_the_quantile_is_that_of_a_finite_sample(count, rank):
    scores = np.random.default_rng(0).permutation(count) / 100
    assert conformal_quantile(scores, 0.9) == (1 if rank is None else (rank - 1) / 100)


def test_a_grade_stands_alone_from_19_photographs_on_and_the_others_share():
    assert grades_fitted_together([27, 4, 27, 15, 10], 0.9) == [(0,), (1, 3, 4), (2,)]
    assert grades_fitted_together([19, 18, 19, 1, 19], 0.9) == [(0,), (1, 3), (2,), (4,)]
    assert grades_fitted_together([19, 0, 19, 1, 19], 0.9) == [(0, 1, 3), (2,), (4,)]  # one alone is not enough
    assert grades_fitted_together([20] * 5, 0.9) == [(0,), (1,), (2,), (3,), (4,)]
    assert grades_fitted_together([38, 39, 1, 39, 39], 0.95) == [(0, 2), (1,), (3,), (4,)]  # there it takes 39
    assert grades_fitted_together([3, 0, 0, 2, 0], 0.9) == [(0, 1, 2, 3, 4)]


def test_each_group_has_the_quantile_of_its_own_true_grades():
    p = np.repeat([[0.75, 0.25, 0, 0, 0], [0.5, 0.25, 0.25, 0, 0]], [20, 20], axis=0)
    grades = np.repeat([0, 2], 20)
    # grade 0: all scores 0; grade 2: before it, the set has 0 and 1. No photograph has another grade: they join 0.
    assert fit_quantiles(p, grades, 0.9) == (0, 0, 0.75, 0, 0)


def test_fewer_than_nine_photographs_say_nothing_and_any_grade_is_likely():
    p, grades = np.eye(5)[[0, 1, 2, 3, 4, 0, 1, 2]], np.array([0, 1, 2, 3, 4, 0, 1, 2])
    assert fit_quantiles(p, grades, 0.9) == (1,) * 5
    assert grade_sets(p, fit_quantiles(p, grades, 0.9)).all()


def test_exchangeable_photographs_are_covered_as_often_as_was_asked_for():
    rng, covered = np.random.default_rng(0), []
    for _ in range(200):
        p, grades = predictions(rng, 76 + 40)
        quantiles = fit_quantiles(p[:76], grades[:76], 0.9)
        covered.append([in_set(p[76:], grades[76:], quantiles)[grades[76:] == grade] for grade in range(5)])
    shares = [np.concatenate([one[grade] for one in covered]).mean() for grade in range(5)]
    assert np.concatenate([hits for one in covered for hits in one]).mean() >= 0.9
    assert min(shares[0], shares[2]) >= 0.885  # nearly always alone; of 200 folds: a standard error of 0.007


def test_one_limit_for_all_would_not_cover_a_hard_grade():
    """Of grade 2 the grader knows nothing: by itself it is covered, which one limit for all grades does not do."""
    rng, alone, shared = np.random.default_rng(1), [], []
    for _ in range(40):
        p, grades = predictions(rng, 400)
        hard = grades == 2
        p[hard] = rng.dirichlet(np.ones(5), hard.sum())
        fit, rest = slice(0, 200), slice(200, 400)
        limit = conformal_quantile(ordinal_scores(p[fit])[np.arange(200), grades[fit]], 0.9)
        for found, quantiles in ((alone, fit_quantiles(p[fit], grades[fit], 0.9)), (shared, [limit] * 5)):
            found.append(in_set(p[rest], grades[rest], quantiles)[grades[rest] == 2].mean())
    assert np.mean(alone) >= 0.885 > np.mean(shared) + 0.05


@given(p=probabilities, quantiles=limits)
def test_a_set_is_a_run_of_grades_with_the_most_probable_one(p, quantiles):
    (found,) = grade_sets([np.array(p) / sum(p)], quantiles)
    grades = np.flatnonzero(found)
    assert found[np.argmax(np.array(p) / sum(p))]
    assert grades.tolist() == list(range(grades[0], grades[-1] + 1))


@given(seed=st.integers(0, 10_000), less=st.floats(0.05, 0.98), more=st.floats(0.05, 0.98))
def test_a_larger_coverage_gives_a_superset_where_the_grades_stay_together(seed, less, more):
    less, more = sorted([less, more])
    p, grades = predictions(np.random.default_rng(seed), 60)
    scores = ordinal_scores(p)[np.arange(60), grades]
    smaller, larger = (grade_sets(p, [conformal_quantile(scores, one)] * 5) for one in (less, more))
    assert (larger >= smaller).all()


@given(seed=st.integers(0, 10_000), count=st.integers(20, 60))
def test_photographs_that_were_fitted_on_are_covered(seed, count):
    p, grades = predictions(np.random.default_rng(seed), count)
    assert in_set(p, grades, fit_quantiles(p, grades, 0.9)).mean() >= 0.9


def test_sets_are_scored_over_all_and_by_grade():
    p = np.array([[0.6, 0.4, 0, 0, 0], [0.9, 0.1, 0, 0, 0], [0, 0.2, 0.5, 0.3, 0]])
    scores = set_scores(p, np.array([1, 1, 4]), [0.7] * 5)  # {0, 1}, {0}, {2, 3}
    assert (scores["grade/set_coverage"], scores["grade/set_single"]) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert scores["grade/set_size"] == pytest.approx(5 / 3)
    assert (scores["grade/set_coverage_1"], scores["grade/set_coverage_4"]) == (0.5, 0)
    assert (scores["grade/set_size_1"], scores["grade/set_size_4"]) == (1.5, 2)
    assert np.isnan([scores["grade/set_coverage_0"], scores["grade/set_size_0"]]).all()


def test_the_interval_of_a_share_is_binomial_also_where_all_are_right():
    p = np.tile([[0.6, 0.4, 0, 0, 0]], (10, 1))
    found = set_intervals(p, np.zeros(10, int), [0.7] * 5, resamples=20, patients=["a"] * 5 + ["b"] * 5)
    assert found["grade/set_coverage"] == pytest.approx((0.025 ** (1 / 10), 1))  # p^10 = 0.025
    assert found["grade/set_size"] == (2, 2)
    assert np.isnan(found["grade/set_coverage_4"]).all()
    assert set(found) == set(set_scores(p, np.zeros(10, int), [0.7] * 5))


@pytest.mark.parametrize("coverage", [0, 1, 90, -0.1, float("nan")])
def test_a_coverage_that_is_no_share_is_refused(coverage):
    with pytest.raises(ValueError, match=r"expected coverage as a share between 0 and 1, such as 0\.9, got"):
        fit_quantiles(np.eye(5), np.arange(5), coverage)


@pytest.mark.parametrize("quantiles", [[0.5] * 4, [0.5] * 4 + [1.1], [0.5] * 4 + [float("nan")], ["0.5"] * 5, 0.5])
def test_limits_that_are_none_are_refused(quantiles):
    with pytest.raises(ValueError, match=r"expected grade_set_quantiles as 5 numbers in \[0, 1\], one a grade, got"):
        grade_sets(np.eye(5), quantiles)


def test_logits_and_unknown_grades_are_refused():
    with pytest.raises(ValueError, match="apply softmax to logits first"):
        fit_quantiles(np.full((3, 5), -2.0), np.array([0, 1, 2]), 0.9)
    with pytest.raises(ValueError, match=r"expected grades 0-4, got \[-1\]"):
        set_scores(np.eye(5), np.array([0, 1, 2, 3, -1]), [0.5] * 5)
