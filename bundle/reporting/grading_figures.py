"""Two figures on grading: the confusion matrix, and accuracy against confidence."""

# flake8: noqa: N803, N806

import os
from collections.abc import Sequence

import numpy as np
from bundle.files import written_whole
from bundle.labels import GRADE_NAMES, GRADES
from bundle.metrics.calibration import Reliability, as_logits, reliability, scale
from bundle.metrics.grading import grading_scores
from bundle.reporting.style import BLUE, DPI, GRID, INK, QUIET
from bundle.reporting.tables import number
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator


def write_confusion(path: str | os.PathLike, probabilities_NC: np.ndarray, grades_N: np.ndarray) -> None:
    """Draw the confusion matrix of the grades; each row is coloured by its shares.

    Args:
        path: picture to write.
        probabilities_NC: ``(N, 5)``; the most probable grade counts.
        grades_N: true grades ``(N,)``.

    Raises:
        ValueError: as :func:`bundle.metrics.grading.grading_scores`.
    """
    scores = grading_scores(probabilities_NC, grades_N)
    figure = Figure(figsize=(7.68, 7.2), facecolor="white", layout="constrained")
    axes = figure.add_subplot()
    _draw_counts(axes, confusion(probabilities_NC, grades_N))
    axes.set_title(
        f"{_photographs(len(grades_N))}: accuracy {number(scores['grade/accuracy'])}, "
        f"quadratic kappa {number(scores['grade/quadratic_kappa'])}",
        size=13, color=INK, pad=14,
    )  # fmt: skip
    _save(figure, path)


def write_reliability(
    path: str | os.PathLike,
    probabilities_NC: np.ndarray,
    grades_N: np.ndarray,
    temperature: float,
    prior_shift: Sequence[float] = (0.0,),
) -> None:
    """Draw accuracy against confidence, as trained and as scaled for stage 1.

    Args:
        path: picture to write.
        probabilities_NC: ``(N, 5)``, as trained.
        grades_N: true grades ``(N,)``.
        temperature: divisor of the logits in the second diagram.
        prior_shift: subtracted from the divided logits: the log of the class weights of the training.

    Raises:
        ValueError: as :func:`bundle.metrics.grading.grading_scores`.
    """
    scaled = scale(as_logits(probabilities_NC), temperature, prior_shift)
    figure = Figure(figsize=(12.48, 6.72), facecolor="white", layout="constrained")
    figure.suptitle(f"Reliability on {_photographs(len(grades_N))} of the validation fold", size=14, color=INK)
    boxes = figure.subplots(2, 2, sharex=True, sharey="row", height_ratios=(4, 1))
    for column, (name, p) in enumerate({"as trained": probabilities_NC, f"T = {temperature:.2f}": scaled}.items()):
        scores, found = grading_scores(p, grades_N), reliability(p, grades_N)
        heading = f"{name}: expected calibration error {number(scores['grade/ece'])}"
        boxes[0, column].set_title(heading, size=13, color=INK)
        _draw_accuracy(boxes[0, column], found)
        _draw_histogram(boxes[1, column], found)
    boxes[0, 0].set_ylabel("share graded rightly", color=INK, size=12)
    boxes[1, 0].set_ylabel("photographs", color=INK, size=12)
    _save(figure, path)


def confusion(probabilities_NC: np.ndarray, grades_N: np.ndarray) -> np.ndarray:
    """Count photographs by true grade (rows) and most probable grade (columns), ``(5, 5)``.

    Example:
        >>> confusion(np.eye(5)[[0, 2, 2]], np.array([0, 2, 3])).sum(axis=0).tolist()
        [1, 0, 2, 0, 0]
    """
    counts = np.zeros((len(GRADES), len(GRADES)), dtype=np.int64)
    np.add.at(counts, (np.asarray(grades_N), np.asarray(probabilities_NC).argmax(axis=1)), 1)
    return counts


def _draw_counts(axes: Axes, counts_CC: np.ndarray) -> None:
    shares_CC = counts_CC / np.maximum(counts_CC.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares_CC, cmap="Blues", vmin=0, vmax=1)
    for (truth, found), count in np.ndenumerate(counts_CC):
        dark = shares_CC[truth, found] > 0.5
        share = f"\n{shares_CC[truth, found]:.0%}" if count else ""
        axes.text(found, truth, f"{count}{share}", ha="center", va="center", size=12, color="white" if dark else INK)
    names = [f"{grade}\n{GRADE_NAMES[grade]}" for grade in GRADES]
    axes.set_xticks(GRADES, names, size=11)
    axes.set_yticks(GRADES, names, size=11)
    axes.set_xlabel("predicted grade", color=INK, size=12)
    axes.set_ylabel("true grade", color=INK, size=12)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


def _draw_accuracy(axes: Axes, found: Reliability) -> None:
    edges = np.linspace(0, 1, len(found.counts) + 1)
    centres, width = (edges[:-1] + edges[1:]) / 2, edges[1]
    filled = found.counts > 0
    axes.bar(centres[filled], found.accuracy[filled], width, color=BLUE, edgecolor="white")
    axes.plot([0, 1], [0, 1], color=QUIET, linewidth=1, linestyle="--")
    # Drawn at the mean confidence of the bin: the calibration error adds up the distances to the diagonal.
    axes.plot(found.confidence[filled], found.accuracy[filled], "o", color=INK, markersize=5, clip_on=False)
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    _plain(axes)


def _draw_histogram(axes: Axes, found: Reliability) -> None:
    edges = np.linspace(0, 1, len(found.counts) + 1)
    axes.stairs(found.counts, edges, fill=True, color=GRID)
    axes.set_xlabel("confidence", color=INK, size=12)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=3, integer=True))
    _plain(axes)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=11, color=QUIET)


def _photographs(count: int) -> str:
    return f"{count} photograph" + "s" * (count != 1)


def _save(figure: Figure, path: str | os.PathLike) -> None:
    with written_whole(path) as beside:
        figure.savefig(beside, dpi=DPI)
