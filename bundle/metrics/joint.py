"""Whether predicted grades and predicted lesions go together, and what the lesions alone would say."""

# flake8: noqa: N803

from collections.abc import Collection, Sequence

import numpy as np
from bundle.labels import GRADES, Feasible
from bundle.metrics.bootstrap import percentile_interval
from bundle.metrics.grading import quadratic_kappa


def rules_grade(feasible: Feasible) -> int:
    """Return the grade that the lesions alone give: {0} is 0, {1} is 1, and {2, 3, 4}, never told apart, is 2.

    Example:
        >>> rules_grade(Feasible(frozenset({2, 3, 4}), "R2"))
        2
    """
    return min(feasible.grades)


def joint_scores(
    predicted_N: Sequence[int], feasible_N: Sequence[Feasible], grades_N: Sequence[int]
) -> dict[str, float]:
    """Score predicted grades against the grades that the predicted lesions allow, and these against the true grades.

    ``joint/contradictions = mean_n 1[predicted_n not in F_n]``. ``joint/contradictions_dealt`` is what the same grades
    have on average when they are dealt out to the photographs at random. ``joint/rules_accuracy`` and
    ``joint/rules_quadratic_kappa`` are of :func:`rules_grade`, beside the most frequent grade for all.

    Args:
        predicted_N: the most probable grade of each photograph.
        feasible_N: what its predicted lesions allow.
        grades_N: its true grade.

    Raises:
        ValueError: if the lengths differ or are 0, or a grade is not in 0-4.

    Example:
        >>> found = joint_scores([0, 2], [Feasible(frozenset({0}), "R0"), Feasible(frozenset({1}), "R1")], [0, 2])
        >>> found["joint/contradictions"], found["joint/contradictions_dealt"], found["joint/rules_accuracy"]
        (0.5, 0.75, 0.5)
    """
    predicted, allowed, by_rules, truth = _checked(predicted_N, feasible_N, grades_N)
    trivial = {
        "joint/contradictions_dealt": 1
        - np.bincount(predicted, minlength=len(GRADES)) @ allowed.mean(axis=0) / len(truth),
        "joint/rules_accuracy_majority": np.bincount(truth).max() / len(truth),
        "joint/rules_quadratic_kappa_majority": 0.0,
    }
    return {key: float(value) for key, value in (_scores(predicted, allowed, by_rules, truth) | trivial).items()}


def joint_intervals(
    predicted_N: Sequence[int],
    feasible_N: Sequence[Feasible],
    grades_N: Sequence[int],
    seed: int = 0,
    resamples: int = 1000,
) -> dict[str, tuple[float, float]]:
    """Return 95 % percentile intervals of the scores, by the bootstrap over photographs.

    Raises:
        ValueError: as ``joint_scores``.

    Example:
        >>> found = joint_intervals([0, 2], [Feasible(frozenset({0}), "R0")] * 2, [0, 0], resamples=20)
        >>> found["joint/rules_accuracy"]
        (1.0, 1.0)
    """
    columns = _checked(predicted_N, feasible_N, grades_N)
    count = len(columns[0])
    draws = np.random.default_rng(seed).integers(count, size=(resamples, count))
    samples = [_scores(*(column[draw] for column in columns)) for draw in draws]
    return {key: percentile_interval(np.array([sample[key] for sample in samples])) for key in samples[0]}


def _scores(predicted: np.ndarray, allowed: np.ndarray, by_rules: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    return {
        "joint/contradictions": 1 - allowed[np.arange(len(predicted)), predicted].mean(),
        "joint/rules_accuracy": np.mean(by_rules == truth),
        "joint/rules_quadratic_kappa": quadratic_kappa(truth, by_rules),
    }


def _checked(
    predicted_N: Sequence[int], feasible_N: Sequence[Feasible], grades_N: Sequence[int]
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return predicted grades ``(N,)``, whether each grade is allowed ``(N, 5)``, rules' and true grades ``(N,)``."""
    lengths = {len(predicted_N), len(feasible_N), len(grades_N)}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(
            f"expected a predicted grade, a feasible set and a true grade of each of N > 0 photographs, got "
            f"{len(predicted_N)}, {len(feasible_N)} and {len(grades_N)}"
        )
    predicted, truth = _grades(predicted_N), _grades(grades_N)
    allowed = np.array([[grade in one.grades for grade in GRADES] for one in feasible_N])
    return predicted, allowed, np.array([rules_grade(one) for one in feasible_N]), truth


def _grades(grades: Collection[int]) -> np.ndarray:
    unknown = set(grades) - set(GRADES)
    if unknown:
        raise ValueError(f"expected grades 0-4, got {sorted(unknown)}; leave photographs of unknown grade out")
    return np.array(grades, dtype=np.int64)
