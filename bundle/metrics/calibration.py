"""Temperature scaling: one number that makes a grader's confidence match its accuracy."""

# flake8: noqa: N803

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from bundle.metrics.grading import CALIBRATION_BINS, confidence_bins, grading_scores
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

TEMPERATURES = (0.5, 10.0)
"""Bounds of the temperature, chosen by us. On a few photographs that are all graded correctly, the best temperature
would go to 0; with the lower bound, the logits are at most doubled."""

PARTS = 5
"""Number of parts of the fold; each part is scaled by a temperature that was fitted on the others."""

IMAGES_MIN = 2 * PARTS
"""Fewer photographs give parts of one, too small to measure anything."""


class Calibration(NamedTuple):
    """A fitted temperature and its effect on photographs that it was not fitted on.

    All values refer to ``softmax(z / T - s)``, with the prior shift ``s``, if any.

    Attributes:
        temperature: ``T``, fitted on all photographs; 1 before scaling.
        images: number of photographs that it was fitted on.
        nll: mean negative log-likelihood before scaling.
        nll_scaled: the same after scaling, out of sample: each photograph is scaled by a temperature that was fitted
            without its part of the fold (cross-fitted). None for fewer than ``IMAGES_MIN`` photographs.
        ece: expected calibration error before scaling.
        ece_scaled: the same after scaling, out of sample in the same way.
    """

    temperature: float
    images: int
    nll: float
    nll_scaled: float | None
    ece: float
    ece_scaled: float | None


class Reliability(NamedTuple):
    """Confidence and accuracy of a grader, in confidence bins of equal width.

    Attributes:
        counts: photographs in each bin, ``(15,)``.
        confidence: their mean confidence; NaN in an empty bin.
        accuracy: share of them that is graded correctly; NaN in an empty bin.
    """

    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray


def fit_temperature(logits_NC: np.ndarray, grades_N: np.ndarray, prior_shift: Sequence[float] = (0.0,)) -> float:
    """Compute the temperature ``T = argmin -1/N sum_n log softmax(z_n / T - s)[y_n]``, within ``TEMPERATURES``.

    The likelihood is never below that of ``T = 1``. Without a shift, no photograph's most probable grade changes.

    Args:
        logits_NC: ``(N, 5)``, each row up to a constant; of photographs outside the training set.
        grades_N: true grades ``(N,)``, integers 0-4.
        prior_shift: ``s``, the log of the class weights in training, ``(5,)``, or a single 0 for none.

    Raises:
        ValueError: if there are no photographs, a logit is not finite, or the lengths differ.

    Example:
        >>> logits = 2 * np.log([[0.75, 0.25]] * 4)  # right in three of four, at a confidence of 0.9
        >>> round(fit_temperature(logits, np.array([0, 0, 0, 1])), 3)
        2.0

    Source:
        Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
    """
    logits, grades = _checked(logits_NC, grades_N)
    bounds, shift = tuple(np.log(TEMPERATURES)), np.asarray(prior_shift)
    best = minimize_scalar(
        lambda log_t: _nll(logits / np.exp(log_t) - shift, grades), bounds=bounds, method="bounded",
        options={"xatol": 1e-8},
    )  # fmt: skip
    return float(np.exp(best.x)) if best.fun < _nll(logits - shift, grades) else 1.0


def calibrate(logits_NC: np.ndarray, grades_N: np.ndarray, prior_shift: Sequence[float] = (0.0,)) -> Calibration:
    """Fit a temperature on a fold, and measure its effect out of sample.

    The returned temperature is fitted on the whole fold, and scores on the same fold would be too optimistic. So the
    fold is divided into ``PARTS``, stratified by grade in the given order, and each part is scaled by the temperature
    of the others.

    Args:
        logits_NC: as for :func:`fit_temperature`.
        grades_N: true grades, as for :func:`fit_temperature`.
        prior_shift: of the logits, as for :func:`fit_temperature`; applied both before and after scaling.

    Raises:
        ValueError: as :func:`fit_temperature` and :func:`bundle.metrics.grading.grading_scores`.

    Example:
        >>> logits = np.full((20, 5), -50.0)
        >>> logits[:, :2] = 2 * np.log([0.75, 0.25])  # right in three of four, at a confidence of 0.9
        >>> fitted = calibrate(logits, np.array([0, 0, 0, 1] * 5))  # as in each part
        >>> round(fitted.temperature, 3), round(fitted.ece, 3), round(fitted.ece_scaled, 3)
        (2.0, 0.15, 0.0)
    """
    logits, grades = _checked(logits_NC, grades_N)
    ece, nll = _errors(logits - np.asarray(prior_shift), grades)
    ece_scaled = nll_scaled = None
    if len(grades) >= IMAGES_MIN:
        ece_scaled, nll_scaled = _errors(_cross_fitted(logits, grades, prior_shift), grades)
    temperature = fit_temperature(logits, grades, prior_shift)
    return Calibration(temperature, len(grades), nll, nll_scaled, ece, ece_scaled)


def _errors(logits: np.ndarray, grades: np.ndarray) -> tuple[float, float]:
    return grading_scores(scale(logits, 1.0), grades)["grade/ece"], _nll(logits, grades)


def _cross_fitted(logits: np.ndarray, grades: np.ndarray, prior_shift: Sequence[float]) -> np.ndarray:
    """Divide the logits of each part by a temperature fitted on all other parts, and subtract the shift."""
    # Each photograph goes to a part, 0 to PARTS - 1, round-robin in order of grade: the grades are spread evenly.
    parts = np.empty(len(grades), dtype=int)  # (N,)
    parts[np.argsort(grades, kind="stable")] = np.arange(len(grades)) % PARTS
    others = [parts != part for part in range(PARTS)]
    temperatures = np.array([fit_temperature(logits[rest], grades[rest], prior_shift) for rest in others])
    return logits / temperatures[parts, None] - np.asarray(prior_shift)  # (N, 5) / (N, 1) - (5,) or (1,)


def scale(logits_NC: np.ndarray, temperature: float, prior_shift: Sequence[float] = (0.0,)) -> np.ndarray:
    """Compute the probabilities ``softmax(z / T - s)``.

    Example:
        >>> scale(np.log([[0.9, 0.1]]), temperature=2.0).round(3)  # the roots are as 3 to 1
        array([[0.75, 0.25]])
    """
    return softmax(np.asarray(logits_NC, dtype=np.float64) / temperature - np.asarray(prior_shift), axis=1)


def as_logits(probabilities_NC: np.ndarray) -> np.ndarray:
    """Compute ``log p``: the logits minus a constant per row, which does not affect temperature scaling.

    A probability of 0 is replaced by the smallest normal float32 number.

    Example:
        >>> scale(as_logits([[0.75, 0.25, 0.0]]), temperature=1.0).round(3)
        array([[0.75, 0.25, 0.  ]])
    """
    return np.log(np.maximum(np.asarray(probabilities_NC, dtype=np.float64), np.finfo(np.float32).tiny))


def reliability(probabilities_NC: np.ndarray, grades_N: np.ndarray) -> Reliability:
    """Compute the data of a reliability diagram; ``sum_b n_b / N |accuracy_b - confidence_b|`` is ``grade/ece``.

    Example:
        >>> bins = reliability(np.array([[0.9, 0.1, 0, 0, 0]] * 2), np.array([0, 1]))
        >>> [values[13].item() for values in bins]  # 13/15 <= 0.9 < 14/15
        [2, 0.9, 0.5]
    """
    p, grades = np.asarray(probabilities_NC, dtype=np.float64), np.asarray(grades_N)  # (N, 5) and (N,)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == grades  # (N,) each
    bins = confidence_bins(confidence)  # (N,)
    counts = np.bincount(bins, minlength=CALIBRATION_BINS)  # (15,)
    filled = np.where(counts > 0, counts, np.nan)
    sums = (np.bincount(bins, weights=values, minlength=CALIBRATION_BINS) for values in (confidence, right))
    return Reliability(counts, *(total / filled for total in sums))


def _checked(logits_NC: np.ndarray, grades_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    logits, grades = np.asarray(logits_NC, dtype=np.float64), np.asarray(grades_N)
    if logits.ndim != 2 or not len(grades) or len(logits) != len(grades):
        raise ValueError(f"expected logits (N, 5) and grades (N,) with N > 0, got {logits.shape} and {grades.shape}")
    if not np.isfinite(logits).all():
        raise ValueError("expected finite logits to fit a temperature on, got NaN or infinity; check the grader")
    return logits, grades


def _nll(logits: np.ndarray, grades: np.ndarray) -> float:
    return float(-log_softmax(logits, axis=1)[np.arange(len(grades)), grades].mean())
