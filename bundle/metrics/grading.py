"""How well grades are predicted: agreement, discrimination and calibration, beside the majority grade."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata
from sklearn.metrics import cohen_kappa_score

from bundle.labels import GRADES
from bundle.metrics.bootstrap import percentile_interval

CALIBRATION_BINS = 15


def grading_scores(
    probabilities_NC: np.ndarray, grades_N: np.ndarray, training_grades: Sequence[int] | None = None
) -> dict[str, float]:
    """Score the predicted probabilities of the five grades against the true grades.

    ``grade/accuracy``, ``grade/quadratic_kappa``, ``grade/recall_<grade>`` and ``grade/balanced_accuracy`` (their mean)
    are of the most probable grade; ``grade/auroc`` is the mean one-against-rest area over the grades that occur;
    ``grade/ece = sum_b n_b / N |accuracy_b - confidence_b|`` in 15 bins of equal width (Guo et al., ICML 2017);
    ``grade/brier = mean_n sum_c (p_nc - y_nc)^2``, 0 to 2. What is undefined is NaN.
    Always giving the most frequent grade scores ``grade/accuracy_majority`` (the most frequent here),
    ``grade/accuracy_training_majority`` (the most frequent in training) and ``grade/quadratic_kappa_majority``, 0.

    Args:
        probabilities_NC: ``(N, 5)``.
        grades_N: true grades ``(N,)``, integers 0-4.
        training_grades: grades of the training images, for the baseline that could have been known beforehand.

    Raises:
        ValueError: if a row is no probability distribution, a grade is not in 0-4, or the lengths differ or are 0.

    Example:
        >>> found = grading_scores(np.eye(5)[[0, 2, 2, 4]], np.array([0, 2, 3, 4]))
        >>> found["grade/accuracy"], found["grade/recall_3"], found["grade/accuracy_majority"]
        (0.75, 0.0, 0.25)
    """
    p, truth = _checked(probabilities_NC, grades_N)
    scores = _scores(p, truth) | {
        "grade/accuracy_majority": np.bincount(truth).max() / len(truth),
        "grade/quadratic_kappa_majority": 0.0,
    }
    if training_grades is not None:
        majority = Counter(training_grades).most_common(1)[0][0]
        scores["grade/accuracy_training_majority"] = np.mean(truth == majority)
    return {key: float(value) for key, value in scores.items()}


def grading_intervals(
    probabilities_NC: np.ndarray, grades_N: np.ndarray, seed: int = 0, resamples: int = 1000
) -> dict[str, tuple[float, float]]:
    """Return 95 % percentile intervals of the scores, by the bootstrap over images.

    A resample in which a score is undefined says nothing about that score.

    Raises:
        ValueError: as ``grading_scores``.
    """
    p, truth = _checked(probabilities_NC, grades_N)
    draws = np.random.default_rng(seed).integers(len(truth), size=(resamples, len(truth)))
    samples = [_scores(p[draw], truth[draw]) for draw in draws]
    return {key: percentile_interval(np.array([sample[key] for sample in samples])) for key in samples[0]}


def _checked(probabilities_NC: np.ndarray, grades_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    p, truth = np.asarray(probabilities_NC, dtype=np.float64), np.asarray(grades_N)
    if p.shape != (len(truth), len(GRADES)) or not len(truth):
        raise ValueError(f"expected probabilities (N, 5) and grades (N,) with N > 0, got {p.shape} and {truth.shape}")
    if not (np.isfinite(p).all() and (p >= 0).all() and np.allclose(p.sum(axis=1), 1, atol=1e-3)):
        raise ValueError("expected rows that are finite, not negative and sum to 1; apply softmax to logits first")
    if not np.isin(truth, GRADES).all():
        raise ValueError(f"expected grades 0-4, got {sorted(set(truth.tolist()) - set(GRADES))}")
    return p, truth.astype(np.int64)


def _scores(p: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    found = p.argmax(axis=1)
    recalls = {c: np.mean(found[truth == c] == c) if (truth == c).any() else np.nan for c in GRADES}
    return {
        "grade/accuracy": np.mean(found == truth),
        "grade/quadratic_kappa": _quadratic_kappa(truth, found),
        "grade/balanced_accuracy": np.nanmean(list(recalls.values())),
        "grade/auroc": _macro_auroc(p, truth),
        "grade/ece": _calibration_error(p.max(axis=1), found == truth),
        "grade/brier": np.mean(((p - np.eye(len(GRADES))[truth]) ** 2).sum(axis=1)),
        **{f"grade/recall_{c}": recall for c, recall in recalls.items()},
    }


def _quadratic_kappa(truth: np.ndarray, found: np.ndarray) -> float:
    """Return scikit-learn's kappa; with one grade in all, chance agrees wholly and kappa is undefined."""
    if len({*truth.tolist(), *found.tolist()}) < 2:
        return np.nan
    return cohen_kappa_score(truth, found, labels=GRADES, weights="quadratic")


def _macro_auroc(p: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean area over the grades that occur, each from its rank sum (Mann-Whitney U), fast to resample."""
    positive = np.bincount(truth, minlength=len(GRADES))
    pairs = positive * (len(truth) - positive)
    ranks = rankdata(p, axis=0)[np.arange(len(truth)), truth]
    rank_sum = np.bincount(truth, weights=ranks, minlength=len(GRADES))
    won = rank_sum - positive * (positive + 1) / 2
    return float(np.mean(won[pairs > 0] / pairs[pairs > 0])) if pairs.any() else np.nan


def _calibration_error(confidence: np.ndarray, right: np.ndarray) -> float:
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    gap = np.bincount(bins, weights=right - confidence, minlength=CALIBRATION_BINS)
    return np.abs(gap).sum() / len(right)
