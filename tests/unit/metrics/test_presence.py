"""How large a lesion must be to count: no larger than healthy eyes ask for."""

import numpy as np
import pytest
from bundle.grade_rules import lesions_ruled_out
from bundle.labels import LESIONS
from bundle.metrics.presence import areas_that_count_ppm
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

HEALTHY = np.array([[float(size), 0, 0, 0] for size in range(1, 41)])


def test_one_healthy_eye_in_twenty_may_show_what_it_has_not():
    found = areas_that_count_ppm(HEALTHY, [0] * 40)
    assert 38 < found["MA"] < 38.001  # 39 and 40 are beyond it
    assert found["HE"] == 3


def test_microaneurysms_on_a_mild_eye_are_no_error_and_haemorrhages_are():
    largest = np.array([[90.0, 70, 0, 0]])
    assert areas_that_count_ppm(largest, [0])["MA"] > 90
    assert "MA" not in areas_that_count_ppm(largest, [1])
    assert areas_that_count_ppm(largest, [1])["HE"] > 70


def test_diseased_eyes_alone_say_nothing():
    assert areas_that_count_ppm(HEALTHY, [2, 3, 4, 2] * 10) == {}


@given(
    arrays(np.float64, (12, 4), elements=st.floats(0, 1e6)),
    st.lists(st.integers(0, 4), min_size=12, max_size=12),
    st.floats(0, 0.9),
)
def test_no_more_than_the_share_is_beyond_and_less_would_let_more_through(largest, grades, share):
    found = areas_that_count_ppm(largest, grades, share, least_ppm=3.0)
    for column, lesion in enumerate(LESIONS):
        absent = np.array([lesion in lesions_ruled_out(grade) for grade in grades])
        assert (lesion in found) == absent.any()
        if lesion in found:
            false = largest[absent, column]
            assert np.count_nonzero(false >= found[lesion]) <= share * len(false)
            below = np.nextafter(found[lesion], 0)
            assert found[lesion] == 3 or np.count_nonzero(false >= below) > int(share * len(false))


@pytest.mark.parametrize(
    ("largest", "grades", "share", "message"),
    [
        (np.zeros((2, 3)), [0, 0], 0.05, r"expected finite areas of 0 or more, \(2, 4\), got \(2, 3\)"),
        (np.zeros((2, 4)), [0], 0.05, r"expected finite areas of 0 or more, \(1, 4\), got \(2, 4\)"),
        (np.full((1, 4), np.nan), [0], 0.05, "expected finite areas"),
        (np.zeros((1, 4)), [5], 0.05, r"expected grades out of \[0, 1, 2, 3, 4\], got \[5\]"),
        (np.zeros((1, 4)), [0], 1.0, r"expected false_share in \[0, 1\) .*, got 1.0, 3.0"),
    ],
)
def test_what_is_no_area_or_no_share_is_refused(largest, grades, share, message):
    with pytest.raises(ValueError, match=message):
        areas_that_count_ppm(largest, grades, share)
