import numpy as np
import pytest
from bundle.metrics.froc import RATES, Candidates, candidates, local_maxima, sensitivities
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.feature import peak_local_max


def scores_with(places, shape=(40, 60)):
    """A probability map of zeros with single bright pixels."""
    scores = np.zeros(shape, dtype=np.float32)
    for place, score in places.items():
        scores[place] = score
    return scores


def outline_of(*boxes, shape=(40, 60)):
    outline = np.zeros(shape, dtype=bool)
    for top, left, bottom, right in boxes:
        outline[top:bottom, left:right] = True
    return outline


def test_a_candidate_hits_the_component_that_it_lies_in():
    scores = scores_with({(5, 5): 0.9, (5, 8): 0.6, (30, 50): 0.7, (20, 20): 0.4})
    found = candidates(scores, outline_of((4, 4, 7, 10), (18, 40, 22, 44), (19, 19, 22, 22)))
    assert found.false_scores.tolist() == pytest.approx([0.7])
    assert sorted(found.best_scores) == pytest.approx([0, 0.4, 0.9])  # none in one; the better of two in another


def test_what_is_less_probable_than_a_hundredth_is_no_candidate():
    found = candidates(scores_with({(5, 5): 0.009, (5, 20): 0.011}), outline_of((4, 4, 7, 7)))
    assert found.false_scores.tolist() == pytest.approx([0.011])
    assert found.best_scores.tolist() == [0]


def test_candidates_at_the_border_count_and_empty_photographs_have_none():
    found = candidates(scores_with({(0, 0): 0.8}), outline_of((0, 0, 1, 2)))
    assert found.best_scores.tolist() == pytest.approx([0.8])
    found = candidates(scores_with({}), outline_of())
    assert (len(found.false_scores), len(found.best_scores)) == (0, 0)


def test_the_outlines_may_cover_all_and_the_scores_may_be_flat():
    everywhere = candidates(scores_with({(7, 9): 0.5}), np.ones((40, 60), dtype=bool))
    assert everywhere.false_scores.tolist() == []
    assert everywhere.best_scores.tolist() == [0.5]
    flat = candidates(np.ones((40, 60), dtype=np.float32), outline_of((1, 1, 3, 3)))
    assert (flat.false_scores.tolist(), flat.best_scores.tolist()) == ([1], [0])


def test_a_flat_top_is_one_candidate_in_its_middle():
    scores = scores_with({(row, column): 0.9 for row in range(8, 13) for column in range(20, 27)})
    assert local_maxima(scores, 2).tolist() == [[10, 23]]


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_local_maxima_are_those_of_scikit_image(seed, apart_px):
    scores = np.random.default_rng(seed).random((23, 31)).astype(np.float32)
    expected = peak_local_max(scores, min_distance=apart_px, threshold_abs=0.01, exclude_border=False)
    assert sorted(local_maxima(scores, apart_px).tolist()) == sorted(expected.tolist())


def test_maxima_nearer_than_half_a_microaneurysm_are_one_candidate():
    scores = scores_with({(500, 500): 0.9, (500, 503): 0.8, (500, 510): 0.7}, shape=(1000, 1500))  # 4 px apart at least
    assert sorted(candidates(scores, np.zeros(scores.shape, dtype=bool)).false_scores) == pytest.approx([0.7, 0.9])


def test_sensitivities_by_hand():
    one = Candidates(np.array([0.8, 0.3]), np.array([0.9, 0.7, 0.0]))
    other = Candidates(np.array([0.5]), np.array([0.4]))
    # thresholds downwards: 1/4 at 0 false positives, 1/4 at 1/2, 2/4 at 1/2, 2/4 at 1, 3/4 at 1, 3/4 at 3/2
    assert sensitivities([one, other]).tolist() == [0.25, 0.25, 0.5, 0.75, 0.75, 0.75, 0.75]


def test_finding_all_before_the_first_false_positive_is_perfect_and_finding_none_is_0():
    perfect = Candidates(np.array([0.2]), np.array([0.9, 0.3]))
    assert sensitivities([perfect]).tolist() == [1] * len(RATES)
    assert sensitivities([Candidates(np.array([]), np.array([0.4]))]).tolist() == [1] * len(RATES)
    assert sensitivities([Candidates(np.array([0.9]), np.array([0.0]))]).tolist() == [0] * len(RATES)
    assert sensitivities([Candidates(np.array([]), np.array([0.0, 0.0]))]).tolist() == [0] * len(RATES)


def test_without_an_outline_there_is_no_sensitivity():
    assert np.isnan(sensitivities([Candidates(np.array([0.9]), np.array([]))])).all()


def by_brute_force(found):
    """Every threshold, every false positive; between two rates a straight line."""
    false = np.concatenate([one.false_scores for one in found])
    best = np.concatenate([one.best_scores for one in found])
    points = {0.0: [0.0]}
    for threshold in {*false, *best} - {0}:
        points.setdefault((false >= threshold).sum() / len(found), []).append((best >= threshold).mean())
    rates = sorted(points)
    values = []
    for rate in RATES:
        below = max(one for one in rates if one <= rate)
        above = min((one for one in rates if one > rate), default=None)
        start = max(points[below])
        rise = 0 if above is None else (min(points[above]) - start) * (rate - below) / (above - below)
        values.append(start + rise)
    return values


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_sensitivities_equal_those_of_all_thresholds(seed):
    """With ties, missed components, and photographs with many false positives or none."""
    rng = np.random.default_rng(seed)

    def drawn(count):
        return rng.integers(1, 40, size=count) / 40

    found = [
        Candidates(drawn(rng.choice([0, 3, 60])), drawn(count) * (rng.random(count) < 0.7))
        for count in [2, *rng.integers(0, 9, size=3)]
    ]
    assert sensitivities(found).tolist() == pytest.approx(by_brute_force(found), abs=1e-9)
