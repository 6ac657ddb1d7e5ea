"""The interval of a mean over folds and seeds."""

import math

import pytest
from bundle.metrics.intervals import resampled_interval
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
