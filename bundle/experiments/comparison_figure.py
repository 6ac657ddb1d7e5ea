"""Figure of a suite: each row's mean and 95 % interval, next to the trivial predictors."""

import math
import os
from typing import Any

from bundle.experiments.comparison import Comparison
from bundle.experiments.suites import Row
from bundle.files import written_whole
from bundle.metrics.trivial import BASELINES
from bundle.reporting.style import BLUE, DPI, GRID, INK, QUIET
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

PANELS = {"lesions/dice_mean": "mean Dice of the lesions", "grade/accuracy": "accuracy of the grades"}
TRIVIAL_COLOURS = {
    "_predicting_nothing": "#c2571a",
    "_predicting_everywhere": "#8a6d00",
    "_majority": "#c2571a",
    "_training_majority": "#8a6d00",
}
RUN: dict[str, Any] = {"color": QUIET, "marker": "o", "markersize": 4, "markeredgewidth": 0, "linestyle": ""}
MEAN: dict[str, Any] = {"color": BLUE, "linewidth": 2, "markersize": 8}
RUNS_BELOW = 0.22
"""Distance of the single runs below their row's mean, in rows."""

ROW_INCH, PANEL_INCH, FRAME_INCH = 0.5, 5.28, 2.16


def write_comparison_figure(path: str | os.PathLike, comparison: Comparison) -> None:
    """Draw one panel per task: a dot per row with its interval, a small dot per run, a dashed line per trivial score.

    A panel shows only the rows that learn its task. Intervals are clipped at the axis limits.

    Args:
        path: picture to write.
        comparison: the runs.

    Raises:
        ValueError: if no run has either of the two scores.
    """
    rows = {key: [row for row in comparison.suite.rows if comparison.values(row, key)] for key in PANELS}
    keys = [key for key, found in rows.items() if found]
    if not keys:
        raise ValueError(f"expected runs with {' or '.join(PANELS)}, got none among {len(comparison.runs)}")
    height = FRAME_INCH + ROW_INCH * max(len(rows[key]) for key in keys)
    figure = Figure(figsize=(2.88 + PANEL_INCH * len(keys), height), facecolor="white", layout="constrained")
    for axes, key in zip(figure.subplots(1, len(keys), squeeze=False)[0], keys, strict=True):
        _draw_panel(axes, comparison, rows[key], key)
    marks = [Line2D([], [], **MEAN, marker="o", label="mean and 95 % interval"), Line2D([], [], **RUN, label="one run")]
    figure.legend(handles=marks, loc="outside lower left", ncols=2, fontsize=10, frameon=False, labelcolor=INK)
    with written_whole(path) as beside:
        figure.savefig(beside, dpi=DPI)


def _draw_panel(axes: Axes, comparison: Comparison, rows: list[Row], key: str) -> None:
    for place, row in enumerate(rows):
        runs = list(comparison.values(row, key).values())
        axes.plot(runs, [place + RUNS_BELOW] * len(runs), **RUN)
        estimate = comparison.estimate(row, key)
        if math.isfinite(estimate.low):
            axes.plot([estimate.low, estimate.high], [place, place], **MEAN, solid_capstyle="butt")
        axes.plot(estimate.mean, place, marker="o", **MEAN)
    for ending, value in comparison.trivial(key).items():
        colour = TRIVIAL_COLOURS.get(ending, QUIET)
        axes.axvline(value, color=colour, linewidth=1.2, linestyle="--", zorder=1, label=BASELINES[ending])
    axes.set_yticks(range(len(rows)), [row.title for row in rows], size=11, color=INK)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(_limits(comparison, rows, key))
    axes.set_title(PANELS[key], size=13, color=INK, loc="left")
    axes.grid(axis="x", color=GRID, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(labelsize=11, color=QUIET, length=0)
    if comparison.trivial(key):
        axes.legend(loc="upper left", bbox_to_anchor=(0, -0.08), fontsize=10, frameon=False, labelcolor=INK)


def _limits(comparison: Comparison, rows: list[Row], key: str) -> tuple[float, float]:
    """Return axis limits that show every dot and line, and the part of each interval between 0 and 1."""
    found = [comparison.estimate(row, key) for row in rows]
    ends = [end for one in found for end in (one.low, one.high) if math.isfinite(end)]
    shown = [min(max(end, 0.0), 1.0) for end in ends]
    values = [value for row in rows for value in comparison.values(row, key).values()]
    every = [*shown, *values, *comparison.trivial(key).values()]
    margin = 0.04 * max(max(every) - min(every), 0.05)
    return min(every) - margin, max(every) + margin
