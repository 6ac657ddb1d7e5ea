"""Agreement of predicted grades with predicted lesions, and the accuracy of grades derived from the lesions."""

# flake8: noqa: N803

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from bundle.grade_rules import Feasible, consistent_grade, rules_grade
from bundle.labels import GRADES
from bundle.metrics.grading import quadratic_kappa
from bundle.metrics.intervals import Patients, patients_of, percentile_intervals, resampled_indices

ANSWERS = ("head", "consistent", "rules")
"""The grade head alone; the head among the grades that the predicted lesions allow; the predicted lesions alone."""


class _Columns(NamedTuple):
    """Whether each grade is allowed on each photograph, ``(N, 5)``, the grade of each answer, and the true grade."""

    allowed: np.ndarray
    head: np.ndarray
    consistent: np.ndarray
    rules: np.ndarray
    truth: np.ndarray


def joint_scores(
    probabilities_NC: np.ndarray, feasible_N: Sequence[Feasible], grades_N: Sequence[int]
) -> dict[str, float]:
    """Score predicted grades against the grades that the predicted lesions allow, and both tasks against the truth.

    ``joint/contradictions = mean_n 1[argmax_c p_nc not in F_n]``. ``joint/contradictions_dealt`` is the mean of this
    score if the same grades are assigned to the photographs at random.

    Three answers are compared with the true grades on the same photographs, next to always giving the most frequent
    grade: ``joint/head_*`` is the most probable grade, ``joint/consistent_*`` the most probable grade that the lesions
    allow (:func:`consistent_grade`), ``joint/rules_*`` the grade from the lesions alone (:func:`rules_grade`). Each has
    an ``accuracy`` and a ``quadratic_kappa``. ``joint/consistent_gain_*`` is consistent minus head.

    Args:
        probabilities_NC: of the grades, ``(N, 5)``.
        feasible_N: the grades that the predicted lesions of each photograph allow.
        grades_N: true grade of each photograph.

    Raises:
        ValueError: if the lengths differ or are 0, a photograph does not have five probabilities of 0 or more, or a
            grade is not in 0-4.

    Example:
        >>> feasible = [Feasible(frozenset({0}), "R0"), Feasible(frozenset({1}), "R1")]
        >>> scores = joint_scores(np.eye(5)[[0, 2]], feasible, [0, 1])
        >>> scores["joint/contradictions"], scores["joint/contradictions_dealt"], scores["joint/rules_accuracy"]
        (0.5, 0.75, 1.0)
        >>> scores["joint/head_accuracy"], scores["joint/consistent_accuracy"], scores["joint/consistent_gain_accuracy"]
        (0.5, 1.0, 0.5)
    """
    columns = _checked(probabilities_NC, feasible_N, grades_N)
    count = len(columns.truth)
    shares = np.bincount(columns.head, minlength=len(GRADES)) / count
    trivial = {"joint/contradictions_dealt": 1 - shares @ columns.allowed.mean(axis=0)}
    for answer in ANSWERS:
        trivial[f"joint/{answer}_accuracy_majority"] = np.bincount(columns.truth).max() / count
        trivial[f"joint/{answer}_quadratic_kappa_majority"] = 0.0
    return {key: float(value) for key, value in (_scores(columns) | trivial).items()}


def joint_intervals(
    probabilities_NC: np.ndarray,
    feasible_N: Sequence[Feasible],
    grades_N: Sequence[int],
    seed: int = 0,
    resamples: int = 1000,
    patients: Patients | None = None,
) -> dict[str, tuple[float, float]]:
    """Compute 95 % percentile intervals by the bootstrap; all answers use the same resamples.

    Args:
        probabilities_NC: as in :func:`joint_scores`.
        feasible_N: likewise.
        grades_N: likewise.
        seed: random seed of the bootstrap.
        resamples: number of resamples.
        patients: as in :func:`bundle.metrics.grading.grading_intervals`.

    Raises:
        ValueError: as ``joint_scores``, or if there is not one patient or None for each photograph.

    Example:
        >>> intervals = joint_intervals(np.eye(5)[[0, 2]], [Feasible(frozenset({0}), "R0")] * 2, [0, 0], resamples=20)
        >>> intervals["joint/rules_accuracy"]
        (1.0, 1.0)
    """
    columns = _checked(probabilities_NC, feasible_N, grades_N)
    draws = resampled_indices(patients_of(len(columns.truth), patients), seed, resamples)
    return percentile_intervals([_scores(_Columns(*(column[draw] for column in columns))) for draw in draws])


def _scores(columns: _Columns) -> dict[str, float]:
    allowed, truth = columns.allowed, columns.truth
    scores = {"joint/contradictions": 1 - allowed[np.arange(len(truth)), columns.head].mean()}
    for answer in ANSWERS:
        grades = getattr(columns, answer)
        scores[f"joint/{answer}_accuracy"] = np.mean(grades == truth)
        scores[f"joint/{answer}_quadratic_kappa"] = quadratic_kappa(truth, grades)
    for score in ("accuracy", "quadratic_kappa"):
        scores[f"joint/consistent_gain_{score}"] = scores[f"joint/consistent_{score}"] - scores[f"joint/head_{score}"]
    return scores


def _checked(probabilities_NC: np.ndarray, feasible_N: Sequence[Feasible], grades_N: Sequence[int]) -> _Columns:
    lengths = {len(probabilities_NC), len(feasible_N), len(grades_N)}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(
            f"expected probabilities, a feasible set and a true grade of each of N > 0 photographs, got "
            f"{len(probabilities_NC)}, {len(feasible_N)} and {len(grades_N)}"
        )
    unknown = set(grades_N) - set(GRADES)
    if unknown:
        raise ValueError(f"expected grades 0-4, got {sorted(unknown)}; leave photographs of unknown grade out")
    return _Columns(
        allowed=np.array([[grade in feasible.grades for grade in GRADES] for feasible in feasible_N]),  # (N, 5)
        consistent=np.array([consistent_grade(p, f.grades) for p, f in zip(probabilities_NC, feasible_N, strict=True)]),
        head=np.asarray(probabilities_NC).argmax(axis=1),
        rules=np.array([rules_grade(feasible.grades) for feasible in feasible_N]),
        truth=np.array(grades_N, dtype=np.int64),
    )
