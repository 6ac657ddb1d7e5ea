"""Scores of the pseudo-labels on the photographs whose true grade is known."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from bundle.labels import GRADES
from bundle.metrics.grading import quadratic_kappa
from bundle.metrics.intervals import Patients, percentile_interval, resampled_indices
from scipy.stats import binomtest

SHARE_MIN = 1e-6
"""Smallest share of a grade in a logarithm of a soft label: a photograph whose true grade is ruled out costs 13.8."""

Row = Mapping[str, Any]
"""Audit row of one image (:func:`bundle.method.pseudo_labels.audit_row`)."""


class _Scored(NamedTuple):
    """Scores of one column; accuracy and kappa are for the images themselves first, then for each resample."""

    images: int
    hits: int
    accuracy: np.ndarray
    kappa: np.ndarray


def summarise(
    rows: Sequence[Row],
    true_grades: Mapping[str, int],
    seed: int = 0,
    resamples: int = 1000,
    patients: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Score the pseudo-labels on the images with a known true grade.

    ``proposed/*`` and ``decided/*`` cover all images of known grade. ``taught/*`` covers those without abstention: the
    likeliest grade of their soft label, and ``taught/log_probability``, the mean log of its share for the true grade,
    with shares below ``SHARE_MIN`` raised to it. ``majority/accuracy`` is the accuracy of always answering the most
    frequent true grade. ``gain/*`` is decided minus proposed on the same images. ``n_supported`` counts the images with
    a feasible grade whose heat map lies on the lesions, ``n_changed_by_heat`` those whose decided grade would be
    different without heat maps. ``truth_feasible`` is the share of images whose true grade is feasible, also per rule.
    ``*_low`` and ``*_high`` bound 95 % intervals: Wilson's for proportions, which takes images for independent, and for
    kappa and the gain, whose two sides share each resample, the bootstrap over patients, or images of unknown patients.
    Undefined values are None.

    Args:
        rows: from ``audit_row``.
        true_grades: image id to grade; images of unknown grade may be missing.
        seed: random seed of the bootstrap.
        resamples: number of resamples of the bootstrap.
        patients: image id to patient, where it is known.

    Example:
        >>> row = {"id": "7", "proposed": 0, "decided": 2, "taught": 2, "soft_label_2": 0.5, "action": "move"}
        >>> row |= {"weight": 0.5, "rule": "R2", "feasible_2": True, "changed_by_heat": False}
        >>> found = summarise([row], true_grades={"7": 2}, resamples=10)
        >>> found["n_move"], found["gain/accuracy"], found["R2/truth_feasible"]
        (1, 1.0, 1.0)
        >>> round(found["taught/log_probability"], 3)  # log 0.5
        -0.693
    """
    known = [row for row in rows if row["id"] in true_grades]
    taught = [row for row in known if row["weight"] > 0]
    of_image = patients or {}
    known_draws, taught_draws = (
        _draws([of_image.get(row["id"]) for row in group], seed, resamples) for group in (known, taught)
    )
    proposed, decided = (_score(known, column, true_grades, known_draws) for column in ("proposed", "decided"))
    scored = {"proposed": proposed, "decided": decided, "taught": _score(taught, "taught", true_grades, taught_draws)}
    summary: dict[str, Any] = {"n": len(rows), "n_known": len(known), "n_taught": len(taught), **_counts(rows)}
    for name, scores in scored.items():
        summary |= _proportion(f"{name}/accuracy", scores.hits, scores.images)
        summary |= _with_bounds(f"{name}/quadratic_kappa", scores.kappa)
    summary |= _with_bounds("taught/log_probability", _log_probabilities(taught, true_grades, taught_draws))
    summary |= _with_bounds("gain/accuracy", decided.accuracy - proposed.accuracy)
    summary |= _with_bounds("gain/quadratic_kappa", decided.kappa - proposed.kappa)
    truths = Counter(true_grades[row["id"]] for row in known)
    summary |= _proportion("majority/accuracy", max(truths.values(), default=0), len(known))
    return summary | _feasibility(rows, known, true_grades)


def _counts(rows: Sequence[Row]) -> dict[str, int]:
    actions = Counter(row["action"] for row in rows)
    counts = {f"n_{action}": actions[action] for action in ("keep", "move", "abstain")}
    counts["n_supported"] = sum(
        any(row.get(f"supported_{grade}") and row.get(f"feasible_{grade}") for grade in GRADES) for row in rows
    )
    counts["n_changed_by_heat"] = sum(bool(row["changed_by_heat"]) for row in rows)
    return counts


def _draws(patients: Patients, seed: int, resamples: int) -> list[np.ndarray]:
    """Return the indices of all images, then those of each resample."""
    everything = np.arange(len(patients))
    return [everything, *(resampled_indices(patients, seed, resamples) if len(patients) else ())]


def _score(rows: Sequence[Row], column: str, true_grades: Mapping[str, int], draws: Sequence[np.ndarray]) -> _Scored:
    if not rows:
        return _Scored(0, 0, np.array([np.nan]), np.array([np.nan]))
    truth = np.array([true_grades[row["id"]] for row in rows], dtype=int)  # (N,)
    answer = np.array([row[column] for row in rows], dtype=int)  # (N,)
    hits = truth == answer
    kappa = np.array([quadratic_kappa(truth[draw], answer[draw]) for draw in draws])  # (1 + resamples,)
    accuracy = np.array([hits[draw].mean() for draw in draws])  # (1 + resamples,)
    return _Scored(len(rows), int(hits.sum()), accuracy, kappa)


def _log_probabilities(rows: Sequence[Row], true_grades: Mapping[str, int], draws: Sequence[np.ndarray]) -> np.ndarray:
    if not rows:
        return np.array([np.nan])
    shares = np.array([row[f"soft_label_{true_grades[row['id']]}"] for row in rows])  # (N,)
    logs = np.log(np.maximum(shares, SHARE_MIN))  # (N,)
    return np.array([logs[draw].mean() for draw in draws])


def _with_bounds(key: str, samples: np.ndarray) -> dict[str, float | None]:
    """Return the first sample, and bounds from the other samples in which the score is defined."""
    values = float(samples[0]), *percentile_interval(samples[1:])
    keys = key, f"{key}_low", f"{key}_high"
    return {key: value if math.isfinite(value) else None for key, value in zip(keys, values, strict=True)}


def _feasibility(rows: Sequence[Row], known: Sequence[Row], true_grades: Mapping[str, int]) -> dict[str, Any]:
    """Count the images whose true grade is feasible, of all rules together and of each rule."""
    hits = [(row["rule"], row[f"feasible_{true_grades[row['id']]}"]) for row in known]
    scores: dict[str, Any] = _proportion("truth_feasible", sum(hit for _, hit in hits), len(hits))
    for rule, count in sorted(Counter(row["rule"] for row in rows).items()):
        of_rule = [hit for name, hit in hits if name == rule]
        scores |= {f"{rule}/n": count, f"{rule}/n_known": len(of_rule)}
        scores |= _proportion(f"{rule}/truth_feasible", sum(of_rule), len(of_rule))
    return scores


def _proportion(key: str, hits: int, total: int) -> dict[str, float | None]:
    if total == 0:
        return {key: None, f"{key}_low": None, f"{key}_high": None}
    interval = binomtest(hits, total).proportion_ci(method="wilson")
    return {key: hits / total, f"{key}_low": float(interval.low), f"{key}_high": float(interval.high)}
