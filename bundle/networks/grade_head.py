"""A grade head fitted to true grades on the features of a trained network, of which nothing else changes."""

# flake8: noqa: N803, N806

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from bundle.labels import GRADES
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor
from torch.nn import functional as F

STRENGTHS = tuple(10.0 ** (half / 2) for half in range(-8, 3))
"""Weights ``C`` of the photographs against the penalty, out of which the one with the least left-out loss is taken."""

NEVER = -30.0
"""Logit of a grade that no photograph has, below the others': its probability is some 1e-13."""

STEPS_MAX = 5000

Rows = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class GradeHead:
    """A linear layer from pooled features to grades, and how it was fitted.

    Attributes:
        weight: ``(5, D)``.
        bias: ``(5,)``.
        strength: the ``C`` that was taken.
        log_loss: mean negative log-probability of the true grades of photographs left out in turn, at this ``C``.
    """

    weight: Rows
    bias: Rows
    strength: float
    log_loss: float

    def tensors(self) -> dict[str, Tensor]:
        """Return the layer as float32, by its names in a network of stage 2."""
        layer = {"grade_head.weight": self.weight, "grade_head.bias": self.bias}
        return {name: torch.from_numpy(value).float() for name, value in layer.items()}


def fit_grade_head(features_ND: Rows, grades: Sequence[int], folds: Sequence[int]) -> GradeHead:
    """Fit multinomial logistic regression to features that are standardised first.

    ``min_W,b  sum_i -log softmax(W z_i + b)[y_i] + |W|^2 / (2 C)``, with ``z = (x - mean) / deviation``; the strength
    ``C`` is that of ``STRENGTHS`` with the least mean loss on each fold, fitted on the others. Mean and deviation are
    folded into the layer, which takes ``x``.

    Args:
        features_ND: features of each photograph, ``(N, D)``.
        grades: their true grades; those that none of them has get no probability.
        folds: their folds, which never part copies or patients.

    Raises:
        ValueError: if there are fewer than two grades or two folds, or the lengths differ.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> grades = np.arange(60) % 3
        >>> features = np.eye(3)[grades] + 0.1 * rng.normal(size=(60, 3))
        >>> head = fit_grade_head(features, grades.tolist(), folds=(np.arange(60) // 3 % 4).tolist())
        >>> (features @ head.weight.T + head.bias).argmax(axis=1).tolist() == grades.tolist()
        True
    """
    if not len(features_ND) == len(grades) == len(folds):
        raise ValueError(
            f"expected a grade and a fold for each photograph, got {len(features_ND)}, {len(grades)} and {len(folds)}"
        )
    if len(set(grades)) < 2 or len(set(folds)) < 2:
        raise ValueError(
            f"expected photographs of two grades and two folds or more to fit a grade head on, got grades "
            f"{sorted(set(grades))} and folds {sorted(set(folds))}"
        )
    x, y, fold_of = np.asarray(features_ND, float), np.asarray(grades), np.asarray(folds)
    losses = {strength: _left_out_loss(x, y, fold_of, strength) for strength in STRENGTHS}
    best = min(losses, key=lambda strength: losses[strength])
    weight, bias = _fitted(x, y, best)
    return GradeHead(weight, bias, best, losses[best])


def _left_out_loss(x: Rows, y: NDArray[np.int_], fold_of: NDArray[np.int_], strength: float) -> float:
    losses = np.empty(len(y))
    for fold in np.unique(fold_of):
        out = fold_of == fold
        weight, bias = _fitted(x[~out], y[~out], strength)
        logits = torch.from_numpy(x[out] @ weight.T + bias)
        losses[out] = F.cross_entropy(logits, torch.from_numpy(y[out]), reduction="none").numpy()
    return float(losses.mean())


def _fitted(x: Rows, y: NDArray[np.int_], strength: float) -> tuple[Rows, Rows]:
    """Return weight ``(5, D)`` and bias ``(5,)`` for features as they are."""
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    deviation[deviation == 0] = 1  # a constant feature tells nothing, and gets no weight
    regression = LogisticRegression(C=strength, max_iter=STEPS_MAX)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        regression.fit((x - mean) / deviation, y)
    coefficients, intercepts = regression.coef_, regression.intercept_
    if len(regression.classes_) == 2:  # scikit-learn gives the logit of the second over the first
        coefficients, intercepts = np.vstack([0 * coefficients, coefficients]), np.append(0.0, intercepts)
    # weight (5, D) and bias (5,), with rows for the grades that occur.
    weight = np.zeros((len(GRADES), x.shape[1]))
    bias = np.full(len(GRADES), intercepts.min() + NEVER)
    weight[regression.classes_] = coefficients / deviation
    bias[regression.classes_] = intercepts - (coefficients / deviation) @ mean
    return weight, bias
