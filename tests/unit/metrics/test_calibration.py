"""One temperature makes a grader as sure as it is right, and changes no grade."""

import numpy as np
import pytest
from bundle.metrics.calibration import TEMPERATURES, as_logits, calibrate, fit_temperature, reliability, scale
from bundle.metrics.grading import grading_scores
from hypothesis import given
from hypothesis import strategies as st

RIGHT = np.log([[0.5, 0.125, 0.125, 0.125, 0.125]] * 8)
"""Logits that say 1/2 of grade 0 and 1/8 of each other."""
GRADES = np.array([0, 0, 0, 0, 1, 2, 3, 4])
"""Grades of which just those shares are true."""


def predictions(seed, count=30, sharpness=1.0):
    rng = np.random.default_rng(seed)
    grades = rng.integers(0, 5, count)
    logits = rng.normal(size=(count, 5))
    logits[np.arange(count), grades] += 1
    return sharpness * logits, grades


@pytest.mark.parametrize("factor", [0.6, 1.0, 2.0, 5.0])
def test_logits_that_are_k_times_too_large_are_divided_by_k(factor):
    assert fit_temperature(factor * RIGHT, GRADES) == pytest.approx(factor, rel=1e-4)


def test_what_the_temperature_does_is_measured_out_of_sample():
    found = calibrate(
        np.tile(2 * RIGHT, (5, 1)), np.tile(GRADES, 5)
    )  # says 16 : 1 : 1 : 1 : 1, which is 0.8, of halves
    assert (found.temperature, found.images) == (pytest.approx(2, rel=1e-4), 40)
    assert found.nll == pytest.approx(-(np.log(0.8) + np.log(0.05)) / 2)
    assert found.ece == pytest.approx(0.3)
    # Each of the five parts has 4, 1, 1, 1 and 1 photographs of the grades: the others give it a temperature of 2.
    assert found.nll_scaled == pytest.approx(-(np.log(0.5) + np.log(0.125)) / 2)
    assert found.ece_scaled == pytest.approx(0, abs=1e-3)


def test_a_part_is_scaled_by_a_temperature_that_has_not_seen_it():
    logits, grades = np.tile([[6.0, 0, 0, 0, 0]], (10, 1)), np.array([0] * 9 + [1])  # 99 % sure, right in 9 of 10
    found = calibrate(logits, grades)
    assert found.nll_scaled > -(0.9 * np.log(0.9) + 0.1 * np.log(0.1 / 4))  # what the best temperature of all reaches
    # Of the part with the error, the others say: all right, take the lowest temperature. It costs 6 / 0.5 once.
    unseen = np.log(np.exp(12.0) + 4)
    assert found.nll_scaled > unseen / 10


@given(seed=st.integers(0, 10_000), count=st.integers(10, 40), sharpness=st.floats(0.1, 10))
def test_out_of_sample_is_never_better_than_in_sample(seed, count, sharpness):
    logits, grades = predictions(seed, count, sharpness)
    found = calibrate(logits, grades)
    in_sample = -np.log(scale(logits, found.temperature)[np.arange(count), grades]).mean()
    assert found.nll_scaled >= in_sample - 1e-6


def test_fewer_than_ten_photographs_measure_nothing_and_the_temperature_is_given_all_the_same():
    found = calibrate(2 * RIGHT, GRADES)
    assert (found.temperature, found.images) == (pytest.approx(2, rel=1e-4), 8)
    assert found.nll_scaled is found.ece_scaled is None
    logits, grades = predictions(0, count=10)
    assert calibrate(logits, grades).ece_scaled is not None


def test_the_shift_of_the_prior_is_there_before_and_after():
    weights = np.array([4.0, 1.0, 1.0, 1.0, 1.0])
    logits, grades = np.tile(2 * (RIGHT + np.log(weights) / 2), (5, 1)), np.tile(GRADES, 5)  # 2 log p + log w
    found = calibrate(logits, grades, np.log(weights))
    assert found.ece == pytest.approx(0.3)  # softmax(2 log p) says 0.8
    shifted = 2 * np.tile(RIGHT, (5, 1)) + 2 * np.log(weights)  # z / 2 - log w is log p
    assert fit_temperature(shifted, grades, np.log(weights)) == pytest.approx(2, rel=1e-4)
    exact = calibrate(shifted, grades, np.log(weights))
    assert exact.ece_scaled == pytest.approx(0, abs=1e-3)
    assert scale(shifted, 2.0, np.log(weights))[0] == pytest.approx([0.5, 0.125, 0.125, 0.125, 0.125])


def test_the_fold_is_dealt_in_the_same_way_each_time():
    logits, grades = predictions(4)
    assert calibrate(logits, grades) == calibrate(logits, grades)


@given(seed=st.integers(0, 10_000), count=st.integers(1, 40), sharpness=st.floats(0.01, 100))
def test_no_grade_changes_and_the_likelihood_does_not_fall(seed, count, sharpness):
    logits, grades = predictions(seed, count, sharpness)
    temperature = fit_temperature(logits, grades)
    before, after = (-np.log(scale(logits, t)[np.arange(count), grades] + 1e-300).mean() for t in (1.0, temperature))
    assert TEMPERATURES[0] <= temperature <= TEMPERATURES[1]
    assert after <= before + 1e-9
    assert (scale(logits, temperature).argmax(axis=1) == logits.argmax(axis=1)).all()


@given(seed=st.integers(0, 10_000), factor=st.floats(0.7, 2))
def test_a_factor_of_the_logits_is_a_factor_of_the_temperature(seed, factor):
    logits, grades = predictions(seed, count=200, sharpness=1.5)
    temperature = fit_temperature(logits, grades)
    assert fit_temperature(factor * logits, grades) == pytest.approx(factor * temperature, rel=1e-3)


def test_a_tiny_fold_that_is_graded_rightly_makes_a_grader_at_most_twice_as_sure():
    assert fit_temperature(np.eye(5), np.arange(5)) == pytest.approx(0.5, rel=1e-3)


def test_where_all_are_graded_wrongly_the_highest_temperature_is_given():
    assert fit_temperature(10 * np.eye(5), np.roll(np.arange(5), 1)) == pytest.approx(TEMPERATURES[1], rel=1e-3)


def test_logits_that_say_nothing_keep_temperature_1():
    assert fit_temperature(np.zeros((3, 5)), np.array([0, 1, 2])) == 1


def test_the_logarithm_of_probabilities_does_for_logits():
    logits, grades = predictions(0)
    assert fit_temperature(as_logits(scale(logits, 1.0)), grades) == pytest.approx(fit_temperature(logits, grades))
    assert np.isfinite(as_logits(np.eye(5))).all()


def test_a_reliability_diagram_shows_the_calibration_error():
    found = reliability(np.array([[0.7, 0.3, 0, 0, 0], [0.7, 0.3, 0, 0, 0], [0, 1, 0, 0, 0]]), np.array([0, 1, 1]))
    assert found.counts.tolist() == [0] * 10 + [2, 0, 0, 0, 1]
    assert found.accuracy[[10, 14]].tolist() == [0.5, 1.0]
    assert found.confidence[[10, 14]].tolist() == [0.7, 1.0]
    assert np.isnan(found.accuracy[0])
    logits, grades = predictions(1)
    p = scale(logits, 1.0)
    bins = reliability(p, grades)
    gaps = np.nansum(bins.counts * np.abs(bins.accuracy - bins.confidence))
    assert gaps / len(grades) == pytest.approx(grading_scores(p, grades)["grade/ece"])


def test_arrays_are_left_as_they_were():
    logits, grades = predictions(2)
    before = logits.copy()
    calibrate(logits, grades)
    assert (logits == before).all()


@pytest.mark.parametrize(
    ("logits", "grades", "message"),
    [
        (np.zeros((0, 5)), np.zeros(0, int), r"with N > 0, got \(0, 5\) and \(0,\)"),
        (np.zeros((2, 5)), np.array([1]), r"got \(2, 5\) and \(1,\)"),
        (np.full((1, 5), np.nan), np.array([1]), "expected finite logits .*check the grader"),
    ],
)
def test_what_no_temperature_can_be_fitted_on_is_refused(logits, grades, message):
    with pytest.raises(ValueError, match=message):
        fit_temperature(logits, grades)
