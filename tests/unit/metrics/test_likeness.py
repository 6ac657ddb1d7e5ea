"""Distances from the training photographs, and what becomes of them in a weights file."""

import dataclasses
import json

import numpy as np
import pytest
from bundle.metrics.likeness import AXES, Likeness, fit_likeness, in_words, likeness_of

RNG = np.random.default_rng(0)
WIDE = RNG.normal(size=(200, 6)) * [9, 1, 1, 1, 1, 1] + 5


def by_hand(limit=2.0):
    """One axis with a variance of 4, and a variance of 1 in the other direction."""
    return Likeness(
        np.array([1.0, 1.0]), np.array([1.0, 10.0]), np.array([[1.0, 0.0]]), np.array([4.0]), rest=1.0, limit=limit
    )


def test_a_distance_is_in_standard_deviations_along_each_direction():
    found = by_hand().unlikeness(np.array([[1.0, 1.0], [7.0, 1.0], [1.0, 31.0], [7.0, 31.0]]))
    assert found == pytest.approx([0, 3 / 2, 3 / 2, np.sqrt(18) / 2])


def test_few_photographs_are_beyond_the_limit_held_out_or_not():
    fresh = RNG.normal(size=(2000, 6)) * [9, 1, 1, 1, 1, 1] + 5
    for likeness in (fit_likeness(WIDE), fit_likeness(WIDE, fresh[:80])):
        assert 0.005 < (likeness.unlikeness(fresh) > 1).mean() < 0.05


def test_held_out_photographs_count_for_the_limit_and_for_nothing_else():
    alone, far = fit_likeness(WIDE), fit_likeness(WIDE, np.full((80, 6), 99.0))
    assert far.limit > 5 * alone.limit
    assert np.array_equal(far.axes, alone.axes)


def test_what_is_far_in_a_narrow_direction_is_unlike_and_in_the_wide_one_is_not():
    likeness = fit_likeness(WIDE)
    wide, narrow = likeness.unlikeness(5 + np.array([[9.0, 0, 0, 0, 0, 0], [0, 0, 9.0, 0, 0, 0]]))
    assert wide < 1 < narrow


def test_units_of_a_feature_do_not_matter():
    units = np.array([1000, 1, 0.001, 1, 1, 1])
    others = RNG.normal(size=(9, 6))
    assert fit_likeness(WIDE * units).unlikeness(others * units) == pytest.approx(fit_likeness(WIDE).unlikeness(others))


def test_more_features_than_photographs_and_one_that_never_varies():
    many = RNG.normal(size=(40, 100))
    many[:, 3] = 2.0
    likeness = fit_likeness(many)
    assert likeness.axes.shape == (AXES, 100)
    other = many[:1].copy()
    other[0, 3] = 3.0
    assert likeness.unlikeness(other)[0] > 10
    assert len(fit_likeness(many[:12, :4]).axes) == 2  # half of what 12 photographs in 4 features give


def test_a_likeness_is_read_from_json_as_it_was(tmp_path):
    likeness = fit_likeness(WIDE)
    read = likeness_of(json.loads(json.dumps(likeness.facts())))
    others = RNG.normal(size=(9, 6))
    assert read.unlikeness(others) == pytest.approx(likeness.unlikeness(others), rel=1e-3)
    assert (in_words(read), in_words(None)[:10]) == ("marked", "not marked")


@pytest.mark.parametrize(
    "broken",
    [
        [1.0],
        {},
        {"mean": "far"},
        {"limit": 0.0},
        {"limit": float("nan")},
        {"axes": [[1.0, 0.0, 0.0]]},
        {"variances": [-1.0]},
        {"scale": [1.0]},
        {"more": 1.0},
    ],
    ids=str,
)
def test_other_facts_are_refused_with_the_file(broken):
    facts = broken if isinstance(broken, list) or not broken else {**by_hand().facts(), **broken}
    with pytest.raises(ValueError, match=r"expected a likeness of features in old\.pt, got others; fit it again"):
        likeness_of(facts, "old.pt")


def test_features_of_another_network_and_too_few_photographs_are_refused():
    with pytest.raises(ValueError, match=r"expected features \(N, 2\), as the likeness has, got \(1, 3\)"):
        by_hand().unlikeness(np.zeros((1, 3)))
    with pytest.raises(ValueError, match=r"expected features of 10 photographs or more, \(N, D\), got \(9, 6\)"):
        fit_likeness(WIDE[:9])
    with pytest.raises(ValueError, match="expected finite features, got NaN"):
        fit_likeness(np.where(WIDE.max() == WIDE, np.nan, WIDE))


def test_nothing_can_be_changed_after_fitting():
    with pytest.raises(dataclasses.FrozenInstanceError):
        by_hand().limit = 3.0
