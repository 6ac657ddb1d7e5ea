"""Temperature scaling: one number that makes a grader as sure as it is right."""

# flake8: noqa: N803

from typing import NamedTuple

import numpy as np
from bundle.metrics.grading import CALIBRATION_BINS, grading_scores
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

TEMPERATURES = (0.1, 10.0)
"""Where the temperature is looked for. Where all are graded rightly none is best: the lowest is given."""


class Calibration(NamedTuple):
    """A fitted temperature, and what it does to the photographs that it was fitted on.

    Attributes:
        temperature: ``T``; 1 leaves everything as it is.
        images: how many photographs it was fitted on.
        nll: mean negative log-likelihood before.
        nll_scaled: and after.
        ece: expected calibration error before.
        ece_scaled: and after.
    """

    temperature: float
    images: int
    nll: float
    nll_scaled: float
    ece: float
    ece_scaled: float


class Reliability(NamedTuple):
    """How sure and how right a grader is, in bins of equal width of its confidence.

    Attributes:
        counts: photographs in each bin, ``(15,)``.
        confidence: their mean confidence; NaN in an empty bin.
        accuracy: share of them that is graded rightly; NaN in an empty bin.
    """

    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


def fit_temperature(logits_NC: np.ndarray, grades_N: np.ndarray) -> float:
    """Return the temperature ``T = argmin -1/N sum_n log softmax(z_n / T)[y_n]``, within ``TEMPERATURES``.

    The likelihood is never below that of ``T = 1``, and no photograph's most probable grade changes.

    Args:
        logits_NC: ``(N, 5)``, each row up to a constant; of photographs that were not trained on.
        grades_N: true grades ``(N,)``, integers 0-4.

    Raises:
        ValueError: if there is no photograph, a logit is not finite, or the lengths differ.

    Example:
        >>> logits = 2 * np.log([[0.75, 0.25]] * 4)  # right in three of four, yet 9 : 1 is said
        >>> round(fit_temperature(logits, np.array([0, 0, 0, 1])), 3)
        2.0

    Source:
        Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
    """
    logits, grades = _checked(logits_NC, grades_N)
    bounds = tuple(np.log(TEMPERATURES))
    found = minimize_scalar(
        lambda log_t: _nll(logits / np.exp(log_t), grades), bounds=bounds, method="bounded", options={"xatol": 1e-8}
    )
    return float(np.exp(found.x)) if found.fun < _nll(logits, grades) else 1.0


def calibrate(logits_NC: np.ndarray, grades_N: np.ndarray) -> Calibration:
    """Fit a temperature and measure what it does.

    Raises:
        ValueError: as :func:`fit_temperature` and :func:`bundle.metrics.grading.grading_scores`.

    Example:
        >>> logits = np.full((4, 5), -50.0)
        >>> logits[:, :2] = 2 * np.log([0.75, 0.25])  # right in three of four, yet 9 : 1 is said
        >>> found = calibrate(logits, np.array([0, 0, 0, 1]))
        >>> round(found.temperature, 3), round(found.ece, 3), round(found.ece_scaled, 3)
        (2.0, 0.15, 0.0)
    """
    logits, grades = _checked(logits_NC, grades_N)
    temperature = fit_temperature(logits, grades)
    ece, ece_scaled = (grading_scores(scale(logits, t), grades)["grade/ece"] for t in (1.0, temperature))
    nll, nll_scaled = (_nll(logits / t, grades) for t in (1.0, temperature))
    return Calibration(temperature, len(grades), nll, nll_scaled, ece, ece_scaled)


def scale(logits_NC: np.ndarray, temperature: float) -> np.ndarray:
    """Return the probabilities ``softmax(z / T)``.

    Example:
        >>> scale(np.log([[0.9, 0.1]]), temperature=2.0).round(3)  # the roots are as 3 to 1
        array([[0.75, 0.25]])
    """
    return softmax(np.asarray(logits_NC, dtype=np.float64) / temperature, axis=1)


def as_logits(probabilities_NC: np.ndarray) -> np.ndarray:
    """Return ``log p``: the logits less a constant of each row, which no temperature notices.

    A probability that is 0 in float32 counts as the smallest one that is not.

    Example:
        >>> scale(as_logits([[0.75, 0.25, 0.0]]), temperature=1.0).round(3)
        array([[0.75, 0.25, 0.  ]])
    """
    return np.log(np.maximum(np.asarray(probabilities_NC, dtype=np.float64), np.finfo(np.float32).tiny))


def reliability(probabilities_NC: np.ndarray, grades_N: np.ndarray) -> Reliability:
    """Return what a reliability diagram shows; ``sum_b n_b / N |accuracy_b - confidence_b|`` is ``grade/ece``.

    Example:
        >>> found = reliability(np.array([[0.9, 0.1, 0, 0, 0]] * 2), np.array([0, 1]))
        >>> [values[13].item() for values in found]  # 13/15 <= 0.9 < 14/15
        [2, 0.9, 0.5]
    """
    p, grades = np.asarray(probabilities_NC, dtype=np.float64), np.asarray(grades_N)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == grades
    bins = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    counts = np.bincount(bins, minlength=CALIBRATION_BINS)
    filled = np.where(counts > 0, counts, np.nan)
    sums = (np.bincount(bins, weights=values, minlength=CALIBRATION_BINS) for values in (confidence, right))
    return Reliability(counts, *(one / filled for one in sums))


def _checked(logits_NC: np.ndarray, grades_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    logits, grades = np.asarray(logits_NC, dtype=np.float64), np.asarray(grades_N)
    if logits.ndim != 2 or not len(grades) or len(logits) != len(grades):
        raise ValueError(f"expected logits (N, 5) and grades (N,) with N > 0, got {logits.shape} and {grades.shape}")
    if not np.isfinite(logits).all():
        raise ValueError("expected finite logits to fit a temperature on, got NaN or infinity; check the grader")
    return logits, grades


def _nll(logits: np.ndarray, grades: np.ndarray) -> float:
    return float(-log_softmax(logits, axis=1)[np.arange(len(grades)), grades].mean())
