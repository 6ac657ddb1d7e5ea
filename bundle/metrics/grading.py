"""Scores of predicted grades: agreement, discrimination, calibration and abstention, next to the majority grade's."""

# flake8: noqa: N803

from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np
from bundle.labels import GRADES
from bundle.metrics.intervals import Patients, patients_of, percentile_intervals, resampled_indices

CALIBRATION_BINS = 15

CLINICAL = {"referable": 2, "vision_threatening": 3}
"""The lowest referable grade and the lowest sight-threatening grade."""

SPECIFICITIES = (0.9, 0.95)
COVERAGE = 0.8
"""Share of the photographs, those with the highest confidence, that a grader answers when it may abstain."""


def grading_scores(
    probabilities_NC: np.ndarray,
    grades_N: np.ndarray,
    training_grades: Sequence[int] | None = None,
    taught_grades: Collection[int] | None = None,
) -> dict[str, float]:
    """Score the predicted probabilities of the five grades against the true grades.

    ``grade/accuracy``, ``grade/quadratic_kappa``, ``grade/recall_<grade>`` and ``grade/balanced_accuracy`` (their mean)
    refer to the most probable grade; ``grade/auroc`` is the mean one-against-rest area over the grades that occur;
    ``grade/ece = sum_b n_b / N |accuracy_b - confidence_b|`` in 15 bins of equal width (Guo et al., ICML 2017);
    ``grade/brier = mean_n sum_c (p_nc - y_nc)^2``, 0 to 2. Undefined scores are NaN.

    ``grade/auroc_referable`` separates grades 2-4 from 0-1 by ``p_2 + p_3 + p_4``, ``grade/auroc_vision_threatening``
    grades 3-4 from the rest by ``p_3 + p_4``; ``grade/sensitivity_at_0.9_<...>`` is the highest sensitivity of a
    threshold whose specificity on these photographs is 0.9 or more.
    ``grade/aurc = 1/N sum_k (errors among the k most confident) / k`` is the area under the risk-coverage curve
    (Geifman et al., ICLR 2019), ``grade/accuracy_at_coverage_0.8`` the accuracy on the most confident 80 %, rounded up.
    Photographs of equal confidence share their errors.

    Always predicting the most frequent grade gives ``grade/accuracy_majority`` (most frequent in these photographs),
    ``grade/accuracy_training_majority`` (most frequent in training) and ``grade/quadratic_kappa_majority``, 0.
    ``grade/accuracy_ceiling`` is the share of photographs whose grade is among the taught grades: the best accuracy
    that a network can reach if it is taught only those.

    Args:
        probabilities_NC: ``(N, 5)``.
        grades_N: true grades ``(N,)``, integers 0-4.
        training_grades: grades of the training images, for the baseline that does not depend on the scored photographs;
            None or empty if unknown.
        taught_grades: all grades that a training label may have; None if unknown.

    Raises:
        ValueError: if a row is not a probability distribution, a grade is not in 0-4, or the lengths differ or are 0.

    Example:
        >>> scores = grading_scores(np.eye(5)[[0, 2, 2, 4]], np.array([0, 2, 3, 4]))
        >>> scores["grade/accuracy"], scores["grade/recall_3"], scores["grade/accuracy_majority"]
        (0.75, 0.0, 0.25)
    """
    p, truth = checked_predictions(probabilities_NC, grades_N)
    scores = _scores(p, truth) | {
        "grade/accuracy_majority": np.bincount(truth).max() / len(truth),
        "grade/quadratic_kappa_majority": 0.0,
    }
    scores |= _of_the_majority(truth)
    if taught_grades is not None:
        ceiling = np.isin(truth, list(taught_grades)).mean()
        scores = {"grade/accuracy": scores["grade/accuracy"], "grade/accuracy_ceiling": ceiling} | scores
    if training_grades:
        majority = Counter(training_grades).most_common(1)[0][0]
        scores["grade/accuracy_training_majority"] = np.mean(truth == majority)
    return {key: float(value) for key, value in scores.items()}


def grading_intervals(
    probabilities_NC: np.ndarray,
    grades_N: np.ndarray,
    seed: int = 0,
    resamples: int = 1000,
    patients: Patients | None = None,
) -> dict[str, tuple[float, float]]:
    """Compute 95 % percentile intervals of the scores, by the bootstrap over patients, or images of unknown patients.

    A resample in which a score is undefined is skipped for that score.

    Args:
        probabilities_NC: as in :func:`grading_scores`.
        grades_N: likewise.
        seed: random seed of the bootstrap.
        resamples: number of resamples.
        patients: patient of each image, ``(N,)``, None where unknown; None if all are unknown.

    Raises:
        ValueError: as ``grading_scores``, or if there is not one patient or None for each image.

    Example:
        >>> intervals = grading_intervals(np.eye(5)[[0, 2, 2, 4]], np.array([0, 2, 2, 4]), resamples=20)
        >>> intervals["grade/accuracy"]  # right in each photograph, so right in each resample
        (1.0, 1.0)
    """
    p, truth = checked_predictions(probabilities_NC, grades_N)
    draws = resampled_indices(patients_of(len(truth), patients), seed, resamples)
    return percentile_intervals([_scores(p[draw], truth[draw]) for draw in draws])


def checked_predictions(probabilities_NC: np.ndarray, grades_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities ``(N, 5)`` in float64 and true grades ``(N,)``, if they can be scored.

    Raises:
        ValueError: if a row is not a probability distribution, a grade is not in 0-4, or the lengths differ or are 0.
    """
    p, truth = np.asarray(probabilities_NC, dtype=np.float64), np.asarray(grades_N)
    if p.shape != (len(truth), len(GRADES)) or not len(truth):
        raise ValueError(f"expected probabilities (N, 5) and grades (N,) with N > 0, got {p.shape} and {truth.shape}")
    if not (np.isfinite(p).all() and (p >= 0).all() and np.allclose(p.sum(axis=1), 1, atol=1e-3)):
        raise ValueError("expected rows that are finite, not negative and sum to 1; apply softmax to logits first")
    if not np.isin(truth, GRADES).all():
        raise ValueError(f"expected grades 0-4, got {sorted(set(truth.tolist()) - set(GRADES))}")
    return p, truth.astype(np.int64)


def _scores(p: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    predicted = p.argmax(axis=1)
    recalls = {c: np.mean(predicted[truth == c] == c) if (truth == c).any() else np.nan for c in GRADES}
    confidence, right = p.max(axis=1), predicted == truth  # (N,) each
    gaps = np.bincount(confidence_bins(confidence), weights=right - confidence, minlength=CALIBRATION_BINS)  # (bins,)
    return {
        "grade/accuracy": np.mean(right),
        "grade/quadratic_kappa": quadratic_kappa(truth, predicted),
        "grade/balanced_accuracy": np.nanmean(list(recalls.values())),
        "grade/auroc": _mean_auroc(p, truth),
        "grade/ece": np.abs(gaps).sum() / len(truth),
        "grade/brier": np.mean(((p - np.eye(len(GRADES))[truth]) ** 2).sum(axis=1)),
        **{f"grade/recall_{c}": recall for c, recall in recalls.items()},
        **_clinical_scores(p, truth),
        **_abstaining_scores(confidence, right),
    }


def _of_the_majority(truth: np.ndarray) -> dict[str, float]:
    """Score one grade and one confidence for all photographs; accuracy and kappa are in ``grading_scores`` already."""
    accuracy = np.bincount(truth).max() / len(truth)
    scores = {"grade/aurc_majority": 1 - accuracy, f"grade/accuracy_at_coverage_{COVERAGE:g}_majority": accuracy}
    for name, lowest in CLINICAL.items():
        defined = 1.0 if 0 < np.sum(truth >= lowest) < len(truth) else np.nan
        scores[f"grade/auroc_{name}_majority"] = 0.5 * defined
        scores |= {
            f"grade/sensitivity_at_{specificity:g}_{name}_majority": 0 * defined for specificity in SPECIFICITIES
        }
    return scores


def _clinical_scores(p: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    scores = {}
    for name, lowest in CLINICAL.items():
        score, ill = p[:, lowest:].sum(axis=1), truth >= lowest
        of_ill, of_healthy = score[ill], np.sort(score[~ill])
        scores[f"grade/auroc_{name}"] = auroc(of_ill, of_healthy)
        for specificity in SPECIFICITIES:
            scores[f"grade/sensitivity_at_{specificity:g}_{name}"] = _sensitivity(of_ill, of_healthy, specificity)
    return scores


def _mean_auroc(p: np.ndarray, truth: np.ndarray) -> float:
    """Compute the mean one-against-rest area over the grades that occur; NaN if only one grade occurs."""
    areas = [auroc(p[truth == c, c], np.sort(p[truth != c, c])) for c in GRADES]
    defined = [area for area in areas if not np.isnan(area)]
    return float(np.mean(defined)) if defined else np.nan


def auroc(of_ill: np.ndarray, of_healthy: np.ndarray) -> float:
    """Compute the share of pairs in which the ill score is higher, ties counting half; ``of_healthy`` is sorted.

    Two binary searches instead of scikit-learn's curve, because the bootstrap computes seven areas per resample.
    """
    if not len(of_ill) or not len(of_healthy):
        return np.nan
    below, not_above = (np.searchsorted(of_healthy, of_ill, side=side).sum() for side in ("left", "right"))
    return (below + not_above) / (2 * len(of_ill) * len(of_healthy))


def _sensitivity(of_ill: np.ndarray, of_healthy: np.ndarray, specificity: float) -> float:
    """Compute the share of the ill above the lowest threshold with the given specificity; ``of_healthy`` is sorted."""
    if not len(of_ill) or not len(of_healthy):
        return np.nan
    may_pass = int((1 - specificity) * len(of_healthy) + 1e-9)  # + 1e-9: (1 - 0.9) * 10 must give 1
    return np.mean(of_ill > of_healthy[-1 - may_pass])


def _abstaining_scores(confidence: np.ndarray, right: np.ndarray) -> dict[str, float]:
    """Score the most confident photographs; ties share their hits equally, so their order does not matter."""
    _, tie, sizes = np.unique(-confidence, return_inverse=True, return_counts=True)
    hits = (np.bincount(tie, weights=right) / sizes)[np.sort(tie)]  # (N,), by falling confidence
    accuracies = hits.cumsum() / np.arange(1, len(hits) + 1)
    covered = int(np.ceil(COVERAGE * len(hits) - 1e-9))
    return {"grade/aurc": 1 - accuracies.mean(), f"grade/accuracy_at_coverage_{COVERAGE:g}": accuracies[covered - 1]}


def quadratic_kappa(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Compute ``1 - sum(w * observed) / sum(w * expected)``, with ``w`` the squared difference of two grades.

    It is undefined if only one grade occurs, because chance agreement is then perfect. scikit-learn gives the same
    number, but checks its input for a millisecond at each of the 4,000 calls of an evaluation.

    Example:
        >>> truth = np.array([0, 4])
        >>> [float(quadratic_kappa(truth, predicted)) for predicted in (truth, truth[::-1], np.array([4, 4]))]
        [1.0, -1.0, 0.0]
    """
    if len({*truth.tolist(), *predicted.tolist()}) < 2:
        return np.nan
    num = len(GRADES)
    observed = np.bincount(num * truth + predicted, minlength=num * num).reshape(num, num)  # (true, predicted)
    expected = np.outer(observed.sum(axis=0), observed.sum(axis=1)) / len(truth)  # (predicted, true), by chance
    weights = np.subtract.outer(GRADES, GRADES) ** 2  # (5, 5)
    return float(1 - (weights * observed).sum() / (weights * expected).sum())


def confidence_bins(confidence: np.ndarray) -> np.ndarray:
    """Return the bin of each confidence, 0 to 14; bin ``b`` begins at ``b / 15``.

    Example:
        >>> confidence_bins(np.array([0.2, 0.95, 1.0]))
        array([ 3, 14, 14])
    """
    return np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
