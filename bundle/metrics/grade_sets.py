"""Sets of likely grades: split-conformal, so that they contain the true grade as often as was asked for."""

# flake8: noqa: N803

import math
from collections.abc import Sequence

import numpy as np
from bundle.labels import GRADES, checked_quantiles
from bundle.metrics.grading import checked_predictions
from bundle.metrics.intervals import Patients, binomial_interval, patients_of, percentile_intervals, resampled_indices
from numpy.typing import ArrayLike, NDArray


def ordinal_scores(probabilities_NC: ArrayLike) -> NDArray[np.float64]:
    """Compute for each grade the probability that a growing set has before it takes that grade, ``(N, 5)``, in [0, 1].

    The set begins with the most probable grade, whose score is 0, and takes the more probable of its two neighbours,
    the lower one on ties, until it has all grades. So the grades below any limit are consecutive.

    Args:
        probabilities_NC: ``(N, 5)``.

    Example:
        >>> ordinal_scores([[0.1, 0.05, 0.5, 0.25, 0.1]]).round(2)  # 2, then 3, 4, 1, 0
        array([[0.9 , 0.85, 0.  , 0.5 , 0.75]])

    Source:
        Lu, Angelopoulos & Pomerantz, "Improving Trustworthiness of AI Disease Severity Rating in Medical Imaging with
        Ordinal Conformal Prediction Sets", MICCAI 2022 (Ordinal APS).
    """
    return np.array([_ordinal_scores(p) for p in np.asarray(probabilities_NC, dtype=np.float64)])


def _ordinal_scores(p: NDArray[np.float64]) -> NDArray[np.float64]:
    scores = np.zeros(len(p))
    low = high = int(p.argmax())
    while high - low < len(p) - 1:
        mass = min(1.0, p[low : high + 1].sum())
        if low > 0 and (high == len(p) - 1 or p[low - 1] >= p[high + 1]):
            low -= 1
            scores[low] = mass
        else:
            high += 1
            scores[high] = mass
    return scores


def grade_sets(probabilities_NC: ArrayLike, quantiles: Sequence[float]) -> NDArray[np.bool_]:
    """Return which grades are in the set of each photograph, ``(N, 5)``.

    ``{c : s_c <= q_c}`` with the :func:`ordinal_scores` ``s``, and the grades between two of these. A set is a run of
    consecutive grades that has the most probable one, so it is never empty.

    Args:
        probabilities_NC: ``(N, 5)``.
        quantiles: ``q``, from :func:`fit_quantiles`, one for each grade.

    Raises:
        ValueError: if there are not five quantiles in [0, 1].

    Example:
        >>> p = [[0.1, 0.05, 0.5, 0.25, 0.1]]  # the scores are 0.9, 0.85, 0, 0.5, 0.75
        >>> grade_sets(p, [0.6] * 5)
        array([[False, False,  True,  True, False]])
        >>> grade_sets(p, [0.6, 0.6, 0.6, 0.4, 0.8])  # 3 is between 2 and 4
        array([[False, False,  True,  True,  True]])
    """
    reached = ordinal_scores(probabilities_NC) <= np.array(checked_quantiles(quantiles))  # (N, 5)
    from_below, from_above = (np.logical_or.accumulate(one, axis=1) for one in (reached, reached[:, ::-1]))
    return from_below & from_above[:, ::-1]


def conformal_quantile(scores: ArrayLike, coverage: float) -> float:
    """Return the k-th smallest of n scores, with ``k = ceil((n + 1) coverage)``; 1, the largest score, if ``k > n``.

    The score of one more photograph, exchangeable with these, is not above it with a probability of at least
    ``coverage``, on average over the n photographs.

    Args:
        scores: ``(n,)``, in [0, 1].
        coverage: in (0, 1).

    Example:
        >>> scores = [0.3, 0.1, 0.2, 0.4]  # n = 4
        >>> conformal_quantile(scores, coverage=0.5), conformal_quantile(scores, coverage=0.9)  # k = 3, k = 5
        (0.3, 1.0)

    Source:
        Vovk, Gammerman & Shafer, "Algorithmic Learning in a Random World", 2005; Papadopoulos et al., ECML 2002.
    """
    ordered = np.sort(np.asarray(scores, dtype=np.float64))
    rank = _rank(len(ordered), coverage)
    return float(ordered[rank - 1]) if rank <= len(ordered) else 1.0


def _rank(count: int, coverage: float) -> int:
    return math.ceil((count + 1) * coverage - 1e-9)  # - 1e-9: rounding must not turn 18.000000000000004 into 19


def grades_fitted_together(counts: Sequence[int], coverage: float) -> list[tuple[int, ...]]:
    """Divide the grades into groups that each get a quantile of their own.

    A grade stands alone if its photographs are enough: if the quantile is not their largest score, so that a single
    wrong grade among them cannot decide it. That takes ``2 / (1 - coverage) - 1``, 19 for 0.9. The others share one
    quantile; the next rarest grades join them until they are enough together.

    Args:
        counts: number of photographs of each grade.
        coverage: in (0, 1).

    Example:
        >>> grades_fitted_together([27, 4, 27, 15, 10], coverage=0.9)
        [(0,), (1, 3, 4), (2,)]
        >>> grades_fitted_together([27, 4, 27, 19, 20], coverage=0.9)  # 4 is too few, and 4 + 19 are enough
        [(0,), (1, 3), (2,), (4,)]
    """
    rarest_first = sorted(GRADES, key=lambda grade: counts[grade])
    together: list[int] = []
    for grade in rarest_first:
        in_group = sum(counts[one] for one in together)
        if _are_enough(counts[grade], coverage) and (not together or _are_enough(in_group, coverage)):
            break
        together.append(grade)
    alone = [(grade,) for grade in GRADES if grade not in together]
    return sorted([*alone, tuple(sorted(together))] if together else alone)


def _are_enough(count: int, coverage: float) -> bool:
    return _rank(count, coverage) < count


def check_coverage(coverage: float) -> None:
    """Refuse a coverage that is not between 0 and 1.

    Example:
        >>> check_coverage(90)
        Traceback (most recent call last):
            ...
        ValueError: expected coverage as a share between 0 and 1, such as 0.9, got 90
    """
    if not 0 < coverage < 1:
        raise ValueError(f"expected coverage as a share between 0 and 1, such as 0.9, got {coverage}")


def fit_quantiles(probabilities_NC: np.ndarray, grades_N: np.ndarray, coverage: float) -> tuple[float, ...]:
    """Return the limit of each grade's score: the :func:`conformal_quantile` of the true grades' scores in its group.

    For photographs that are exchangeable with these, sets contain the true grade with a probability of at least
    ``coverage`` in each group of :func:`grades_fitted_together`, and so over all.

    Args:
        probabilities_NC: of photographs outside the training set, ``(N, 5)``.
        grades_N: true grades ``(N,)``, integers 0-4.
        coverage: in (0, 1).

    Raises:
        ValueError: as :func:`check_coverage` and :func:`bundle.metrics.grading.grading_scores`.

    Example:
        >>> p = np.array([[0.6, 0.4, 0, 0, 0], [0.3, 0.7, 0, 0, 0]])  # the truth, 0, has the scores 0 and 0.7
        >>> fit_quantiles(p, np.array([0, 0]), coverage=0.5)
        (0.7, 0.7, 0.7, 0.7, 0.7)
    """
    check_coverage(coverage)
    p, truth = checked_predictions(probabilities_NC, grades_N)
    scores = ordinal_scores(p)[np.arange(len(truth)), truth]  # (N,), of the true grades
    quantiles: dict[int, float] = {}
    for group in grades_fitted_together(np.bincount(truth, minlength=len(GRADES)).tolist(), coverage):
        quantile = conformal_quantile(scores[np.isin(truth, group)], coverage)
        quantiles |= dict.fromkeys(group, quantile)
    return tuple(quantiles[grade] for grade in GRADES)


def set_scores(probabilities_NC: np.ndarray, grades_N: np.ndarray, quantiles: Sequence[float]) -> dict[str, float]:
    """Score the sets of likely grades against the true grades.

    ``grade/set_coverage`` is the share of sets that contain the true grade, ``grade/set_size`` the mean number of
    grades in a set, ``grade/set_single`` the share of sets with one grade. ``grade/set_coverage_<grade>`` and
    ``grade/set_size_<grade>`` are those of the photographs with this true grade, NaN if there are none.

    Args:
        probabilities_NC: ``(N, 5)``.
        grades_N: true grades ``(N,)``, integers 0-4.
        quantiles: from :func:`fit_quantiles`, on other photographs.

    Raises:
        ValueError: as :func:`grade_sets` and :func:`bundle.metrics.grading.grading_scores`.

    Example:
        >>> p = np.array([[0.6, 0.4, 0, 0, 0], [0.1, 0.2, 0.7, 0, 0]])  # sets {0, 1} and {2} below a limit of 0.65
        >>> scores = set_scores(p, np.array([1, 1]), [0.65] * 5)
        >>> scores["grade/set_coverage"], scores["grade/set_size"], scores["grade/set_single"]
        (0.5, 1.5, 0.5)
    """
    p, truth = checked_predictions(probabilities_NC, grades_N)
    return {key: float(value) for key, value in _scores(grade_sets(p, quantiles), truth).items()}


def set_intervals(
    probabilities_NC: np.ndarray,
    grades_N: np.ndarray,
    quantiles: Sequence[float],
    seed: int = 0,
    resamples: int = 1000,
    patients: Patients | None = None,
) -> dict[str, tuple[float, float]]:
    """Compute 95 % intervals of :func:`set_scores`: binomial for shares, by the bootstrap for sizes.

    A share of 1 has no width in the bootstrap. The binomial interval takes photographs as independent, also those of
    one patient.

    Args:
        probabilities_NC: as in :func:`set_scores`.
        grades_N: likewise.
        quantiles: likewise.
        seed: random seed of the bootstrap.
        resamples: number of resamples.
        patients: as in :func:`bundle.metrics.grading.grading_intervals`.

    Raises:
        ValueError: as ``set_scores``, or if there is not one patient or None for each image.

    Example:
        >>> p = np.array([[0.6, 0.4, 0, 0, 0]] * 4)
        >>> intervals = set_intervals(p, np.array([0, 0, 0, 2]), [0.65] * 5, resamples=20)
        >>> [round(end, 3) for end in intervals["grade/set_coverage"]], intervals["grade/set_size"]  # 3 of 4; 2 each
        ([0.194, 0.994], (2.0, 2.0))
    """
    p, truth = checked_predictions(probabilities_NC, grades_N)
    sets_NC = grade_sets(p, quantiles)
    draws = resampled_indices(patients_of(len(truth), patients), seed, resamples)
    of_bootstrap = percentile_intervals([_scores(sets_NC[draw], truth[draw]) for draw in draws])
    covered, single = sets_NC[np.arange(len(truth)), truth], sets_NC.sum(axis=1) == 1  # (N,) each
    shares = {"grade/set_coverage": covered, "grade/set_single": single}
    shares |= {f"grade/set_coverage_{c}": covered[truth == c] for c in GRADES}
    return of_bootstrap | {key: binomial_interval(int(hits.sum()), len(hits)) for key, hits in shares.items()}


def _scores(sets_NC: NDArray[np.bool_], truth: NDArray[np.int64]) -> dict[str, float]:
    covered, sizes = sets_NC[np.arange(len(truth)), truth], sets_NC.sum(axis=1)  # (N,) each
    of_grade = {c: truth == c for c in GRADES}
    return {
        "grade/set_coverage": covered.mean(),
        "grade/set_size": sizes.mean(),
        "grade/set_single": np.mean(sizes == 1),
        **{f"grade/set_coverage_{c}": covered[of].mean() if of.any() else np.nan for c, of in of_grade.items()},
        **{f"grade/set_size_{c}": sizes[of].mean() if of.any() else np.nan for c, of in of_grade.items()},
    }
