"""The interval of a mean over folds and seeds, and which photographs the bootstrap draws."""

import math

import numpy as np
import pytest
from bundle.metrics.intervals import clusters, image_weights, patients_of, resampled_indices, resampled_interval
from hypothesis import given
from hypothesis import strategies as st


def test_without_overlap_it_is_students_interval():
    # s² = 1, t_{2, 0.975} = 4.302653 (any table), sqrt(1/3) = 0.577350
    assert resampled_interval([0.0, 1.0, 2.0], 0.0) == pytest.approx((1 - 2.484138, 1 + 2.484138), abs=1e-6)


def test_five_folds_add_a_quarter_of_the_variance():
    # s² = 2.5, t_{4, 0.975} = 2.776445: half = 2.776445 sqrt((1/5 + 1/4) 2.5) = 2.944865
    assert resampled_interval([1, 2, 3, 4, 5], 1 / 4) == pytest.approx((3 - 2.944865, 3 + 2.944865), abs=1e-5)


def test_one_value_has_no_interval():
    assert all(math.isnan(end) for end in resampled_interval([0.5], 0.25))


@given(st.lists(st.floats(0, 1), min_size=2, max_size=9), st.floats(0, 1), st.floats(-3, 3))
def test_overlap_only_widens_it_and_it_moves_with_the_values(values, share, shift):
    plain, wide = resampled_interval(values, 0.0), resampled_interval(values, share)
    assert wide[0] <= plain[0] <= plain[1] <= wide[1]
    moved = resampled_interval([value + shift for value in values], share)
    assert moved == pytest.approx((wide[0] + shift, wide[1] + shift), abs=1e-9)


@pytest.mark.parametrize(
    ("values", "share", "message"),
    [
        ([0.1, math.nan], 0.0, "expected finite values, got"),
        ([0.1, 0.2], -0.5, "expected test_share >= 0, got -0.5"),
        ([0.1, 0.2], math.nan, "expected test_share >= 0, got nan"),
    ],
)
def test_what_is_no_number_or_no_share_is_refused(values, share, message):
    with pytest.raises(ValueError, match=message):
        resampled_interval(values, share)


# the bootstrap

PAIRS = ["a", "a", "b", "b"]


def test_two_patients_of_two_photographs_are_drawn_as_two():
    """Of two patients, (2, 0), (1, 1) and (0, 2) are drawn with the shares 1/4, 1/2 and 1/4."""
    weights = np.array(list(image_weights(PAIRS, seed=0, resamples=4000)))
    assert (weights[:, 0] == weights[:, 1]).all()
    assert (weights[:, 2] == weights[:, 3]).all()
    assert set(weights.sum(axis=1)) == {4}
    assert np.bincount(weights[:, 0]) / 4000 == pytest.approx([0.25, 0.5, 0.25], abs=0.03)


def test_a_drawn_patient_brings_all_photographs():
    for draw in resampled_indices(["a", "b", None, "a", "c", "a"], seed=0, resamples=50):
        times = np.bincount(draw, minlength=6)
        assert times[0] == times[3] == times[5]
        assert times[0] + times[[1, 2, 4]].sum() == 4  # clusters


@given(st.integers(1, 30), st.integers(0, 99))
def test_patients_of_one_photograph_are_drawn_as_photographs_with_the_same_random_numbers(images, seed):
    rng = np.random.default_rng(seed)
    former = [rng.multinomial(images, np.full(images, 1 / images)) for _ in range(3)]
    indices = np.random.default_rng(seed).integers(images, size=(3, images))
    for patients in ([None] * images, list(range(images))):
        assert np.array_equal(list(image_weights(patients, seed, 3)), former)
        assert np.array_equal(resampled_indices(patients, seed, 3), indices)


@given(st.lists(st.sampled_from(["p", "q", "r", None]), min_size=1, max_size=20), st.integers(0, 9))
def test_both_ways_to_draw_keep_patients_whole(patients, seed):
    number = clusters(patients)
    times = [np.bincount(draw, minlength=len(number)) for draw in resampled_indices(patients, seed, 5)]
    for weights in [*times, *image_weights(patients, seed, 5)]:
        assert all(len(set(weights[number == one])) == 1 for one in set(number))


def test_refuses_patients_of_other_photographs():
    with pytest.raises(ValueError, match="expected the patient of each of 3 photographs, or None, got 2"):
        patients_of(3, ["a", "b"])
