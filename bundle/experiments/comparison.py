"""Means over folds and seeds, paired differences and trivial scores for the rows of a suite, and their tables."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
from bundle.experiments.paper import NAMES, printed
from bundle.experiments.runs import Evaluated, Repeat
from bundle.experiments.suites import Row, Suite
from bundle.labels import LESION_NAMES
from bundle.metrics.intervals import resampled_interval
from bundle.metrics.trivial import BASELINES
from bundle.reporting.tables import MISSING, Table, interval, markdown_table, number, percent, signed

LESION_SCORES = {
    **{f"lesions/dice_{lesion}": f"Dice {lesion}" for lesion in LESION_NAMES},
    "lesions/dice_mean": "mean Dice",
    "lesions/iou_mean": "mean IoU",
    "lesions/average_precision_mean": "mean average precision",
}
GRADE_SCORES = {
    "grade/accuracy": "accuracy",
    "grade/accuracy_ceiling": "its ceiling",
    "grade/quadratic_kappa": "quadratic kappa",
    "grade/balanced_accuracy": "balanced accuracy",
    "grade/auroc": "AUROC",
    "grade/ece": "calibration error",
}
PAPER_SCORES = {"lesions/paper_dice": "Dice", "lesions/paper_iou": "IoU", "grade/accuracy": "accuracy"}
EXTERNAL_SCORES = {
    **{f"external/lesions/presence_auroc_{lesion}": f"presence of {lesion}, AUROC" for lesion in LESION_NAMES},
    "external/lesions/presence_auroc_mean": "their mean",
    **{f"external/lesions/average_precision_{lesion}": f"average precision {lesion}" for lesion in LESION_NAMES},
    "external/lesions/average_precision_mean": "mean average precision",
}
"""On another data set: whether a lesion is there, per photograph, and where, per pixel."""

SCORES = LESION_SCORES | PAPER_SCORES | GRADE_SCORES | EXTERNAL_SCORES
COMPARED = {
    "lesions": {"lesions/dice_mean": "mean Dice", "lesions/paper_dice": "Dice as in the paper, points"},
    "grade": {"grade/accuracy": "accuracy", "grade/quadratic_kappa": "quadratic kappa"},
}
"""Scores whose paired differences are shown, by task; the paper's Dice in percentage points, as in the paper."""

LABEL_CURVES = {
    "labels/initial_accuracy": "accuracy before",
    "labels/accuracy": "accuracy after",
    "labels/gain": "gain",
    "labels/movement": "movement",
    "labels/entropy": "entropy, nats",
    "labels/top_grade_changed": "top grade changed",
    "labels/grades_in_use": "grades in use",
}

COLUMNS = (
    "suite", "row", "title", "metric", "n", "mean", "sd", "low", "high", "paper", "difference", "difference_low",
    "difference_high",
)  # fmt: skip


class Estimate(NamedTuple):
    """Mean over runs: their number, standard deviation and the 95 % interval of the mean; undefined values are NaN."""

    n: int
    mean: float
    sd: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Means and differences over the runs of a suite.

    Args:
        name: name of the suite.
        suite: its rows, in order.
        runs: one per row, fold and seed.

    Example:
        >>> rows = [Row(name="unet", title="U-Net", tasks=["lesions"]), Row(name="pldmlt", title="PLDMLT")]
        >>> unknown = {"subsets": {}, "labels": {}, "settings": {}, "commit": "", "started_ms": 0, "duration_s": 0.0}
        >>> runs = [
        ...     Evaluated(row=row, repeat=Repeat(fold=0, seed=seed), scores={"lesions/dice_mean": dice}, **unknown)
        ...     for row, seed, dice in [("unet", 0, 0.5), ("unet", 1, 0.75), ("pldmlt", 0, 0.75)]
        ... ]
        >>> comparison = Comparison("table1", Suite(title="Table 1", baseline="unet", rows=rows), runs)
        >>> comparison.estimate(rows[0], "lesions/dice_mean").mean  # of both seeds
        0.625
        >>> comparison.difference(rows[1], "lesions/dice_mean").mean  # of the one pair of the same seed
        0.25
    """

    name: str
    suite: Suite
    runs: Sequence[Evaluated]

    @cached_property
    def folds(self) -> list[int]:
        return sorted({run.repeat.fold for run in self.runs})

    @property
    def test_share(self) -> float:
        """``n_test / n_train`` of :func:`resampled_interval`: 0 on a single split, else that of the folds that ran.

        If some folds of a cross-validation were not run, the true share is smaller and the interval too wide.
        """
        return 1 / (len(self.folds) - 1) if len(self.folds) > 1 else 0.0

    def values(self, row: Row, key: str) -> dict[Repeat, float]:
        """Return a score or label curve for each run of a row; empty if the row does not learn the task."""
        task = key.removeprefix("external/").split("/")[0]
        if task != "labels" and task not in row.tasks:
            return {}
        found = {run.repeat: _value(run, key) for run in self.runs if run.row == row.name}
        return {repeat: found[repeat] for repeat in sorted(found) if math.isfinite(found[repeat])}

    def estimate(self, row: Row, key: str) -> Estimate:
        return estimate(list(self.values(row, key).values()), self.test_share)

    def baseline(self, task: str) -> Row | None:
        """Return the suite's baseline; if it does not learn the task, the first row that does and has runs."""
        named = [row for row in self.suite.rows if row.name == self.suite.baseline and task in row.tasks]
        ran = {run.row for run in self.runs}
        able = [row for row in self.suite.rows if task in row.tasks and row.name in ran]
        return next(iter(named + able), None)

    def difference(self, row: Row, key: str) -> Estimate:
        """Return the mean of row minus baseline over runs paired by fold and seed; n = 0 for the baseline."""
        baseline = self.baseline(key.removeprefix("external/").split("/")[0])
        if baseline is None or baseline.name == row.name:
            return estimate([], self.test_share)
        ours, theirs = self.values(row, key), self.values(baseline, key)
        return estimate([ours[pair] - theirs[pair] for pair in ours if pair in theirs], self.test_share)

    def trivial(self, key: str) -> dict[str, float]:
        """Return the mean score over folds of each trivial predictor, by its ending in ``BASELINES``."""
        found = {}
        for ending in BASELINES:
            by_fold = {run.repeat.fold: v for run in self.runs if math.isfinite(v := _value(run, key + ending))}
            if by_fold:
                found[ending] = float(np.mean(list(by_fold.values())))
        return found


def estimate(values: Sequence[float], test_share: float) -> Estimate:
    """Summarise one value per run.

    Example:
        >>> estimate([0.5], 0.0)
        Estimate(n=1, mean=0.5, sd=nan, low=nan, high=nan)
    """
    mean = float(np.mean(values)) if values else math.nan
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    return Estimate(len(values), mean, sd, *resampled_interval(values, test_share))


def _value(run: Evaluated, key: str) -> float:
    """Return a score of a run, NaN if missing; with one fused class, its score is also the mean over lesions."""
    if key == "labels/gain":
        return _value(run, "labels/accuracy") - _value(run, "labels/initial_accuracy")
    found = run.labels if key.startswith("labels/") else run.scores
    return found.get(key, found.get(key.replace("_mean", "_lesion"), math.nan))


def lesion_table(comparison: Comparison) -> str:
    """Write mean ± sd of the lesion scores per row that learns lesions, then the trivial scores; empty without runs.

    Example:
        >>> row = Row(name="unet", title="U-Net", tasks=["lesions"])
        >>> unknown = {"subsets": {}, "labels": {}, "settings": {}, "commit": "", "started_ms": 0, "duration_s": 0.0}
        >>> scores = {"lesions/dice_mean": 0.5, "lesions/dice_mean_predicting_nothing": 0.0}
        >>> run = Evaluated(row="unet", repeat=Repeat(fold=0, seed=0), scores=scores, **unknown)
        >>> print(lesion_table(Comparison("table1", Suite(title="Table 1", baseline="unet", rows=[row]), [run])))
        | system                 | runs | mean Dice |
        | :--------------------- | ---: | --------: |
        | U-Net                  |    1 | 0.500 ± – |
        | *predicting no lesion* |    – |     0.000 |
    """
    return _score_table(comparison, "lesions", LESION_SCORES)


def grade_table(comparison: Comparison) -> str:
    """Write mean ± sd of the grading scores per row that learns grades, then the trivial scores; empty without runs."""
    return _score_table(comparison, "grade", GRADE_SCORES)


def external_table(comparison: Comparison) -> str:
    """Write mean ± sd of the scores on another data set, then the trivial scores; empty without such runs."""
    rows = [row for row in comparison.suite.rows if any(comparison.values(row, key) for key in EXTERNAL_SCORES)]
    shown = Comparison(comparison.name, replace(comparison.suite, rows=rows), comparison.runs)
    return _score_table(shown, "lesions", EXTERNAL_SCORES) if rows else ""


def _score_table(comparison: Comparison, task: str, names: Mapping[str, str]) -> str:
    rows = []
    for row in comparison.suite.rows:
        found = [comparison.estimate(row, key) for key in names]
        if task in row.tasks:
            rows.append([row.title, str(max(one.n for one in found)), *map(spread, found)])
    if all(runs == "0" for _, runs, *_ in rows):
        return ""
    rows += _trivial_rows(comparison, names, number)
    return _written(Table(["system", "runs", *names.values()], rows))


def _trivial_rows(
    comparison: Comparison, names: Iterable[str], write: Callable[[float | None], str]
) -> list[list[str]]:
    by_key = {key: comparison.trivial(key) for key in names}
    endings = [ending for ending in BASELINES if any(ending in found for found in by_key.values())]
    return [
        [f"*{BASELINES[ending]}*", MISSING, *(write(found.get(ending)) for found in by_key.values())]
        for ending in endings
    ]


def paper_table(comparison: Comparison) -> str:
    """Write our scores by the paper's definitions next to the paper's printed numbers, in percent."""
    rows = []
    for row in comparison.suite.rows:
        cells = []
        for key in PAPER_SCORES:
            theirs = printed(comparison.name, row.name, key)
            cells += [spread(comparison.estimate(row, key), percent), MISSING if theirs is None else f"{theirs:g}"]
        rows.append([row.title, *cells])
    for title, _, *cells in _trivial_rows(comparison, PAPER_SCORES, percent):
        rows.append([title, *(cell for value in cells for cell in (value, MISSING))])
    header = [f"{name} %, {whose}" for name in PAPER_SCORES.values() for whose in ("ours", "paper")]
    return _written(Table(["system", *header], rows))


def difference_table(comparison: Comparison, task: str) -> str:
    """Write the paired differences to the task's baseline with their 95 % intervals; empty without pairs."""
    baseline, names = comparison.baseline(task), COMPARED[task]
    writers = [percent if key == "lesions/paper_dice" else number for key in names]
    rows = []
    for row in comparison.suite.rows:
        found = [comparison.difference(row, key) for key in names]
        if any(one.n for one in found):
            cells = [cell for one, write in zip(found, writers, strict=True) for cell in _with_interval(one, write)]
            rows.append([row.title, str(max(one.n for one in found)), *cells])
    if baseline is None or not rows:
        return ""
    header = [cell for name in names.values() for cell in (name, "95 % interval")]
    return markdown_table([f"minus {baseline.title}", "pairs", *header], rows)


def label_table(comparison: Comparison) -> str:
    """Write how training changed the labels, before and after; empty if no run updated labels."""
    header = ["system", "runs"]
    for key, name in LABEL_CURVES.items():
        header += [name, "95 % interval"] if key == "labels/gain" else [name]
    rows = []
    for row in comparison.suite.rows:
        found = {key: comparison.estimate(row, key) for key in LABEL_CURVES}
        cells = [row.title, str(max(one.n for one in found.values()))]
        for key, one in found.items():
            decimals = 1 if key == "labels/grades_in_use" else 3
            cells += _with_interval(one) if key == "labels/gain" else [spread(one, partial(number, decimals=decimals))]
        rows += [cells] * any(one.n for one in found.values())
    return _written(Table(header, rows)) if rows else ""


def _with_interval(found: Estimate, write: Callable[[float | None], str] = number) -> tuple[str, str]:
    with_sign = partial(signed, write=write)
    return with_sign(found.mean), interval([found.low, found.high], with_sign)


def _written(table: Table) -> str:
    """Write a table without its empty columns."""
    kept = [i for i in range(len(table.header)) if i == 0 or any(row[i] != MISSING for row in table.rows)]
    return markdown_table([table.header[i] for i in kept], [[row[i] for i in kept] for row in table.rows])


def spread(found: Estimate, write: Callable[[float | None], str] = number) -> str:
    """Write mean ± standard deviation.

    Example:
        >>> spread(Estimate(2, 0.5, 0.1, 0.4, 0.6)), spread(Estimate(1, 0.5, math.nan, math.nan, math.nan))
        ('0.500 ± 0.100', '0.500 ± –')
    """
    return f"{write(found.mean)} ± {write(found.sd)}" if found.n else MISSING


def csv_rows(comparison: Comparison) -> list[dict[str, Any]]:
    """Return CSV rows: one per suite row and score, then one per trivial predictor and score; all values are shares."""
    rows = [
        _csv_row(comparison, row, key)
        for row in comparison.suite.rows
        for key in (*SCORES, *LABEL_CURVES)
        if comparison.values(row, key)
    ]
    for key in SCORES:
        for ending, mean in comparison.trivial(key).items():
            named = {"row": ending.removeprefix("_"), "title": BASELINES[ending], "metric": key, "mean": _rounded(mean)}
            rows.append(dict.fromkeys(COLUMNS, "") | {"suite": comparison.name} | named)
    return rows


def _csv_row(comparison: Comparison, row: Row, key: str) -> dict[str, Any]:
    found, gap = comparison.estimate(row, key), comparison.difference(row, key)
    theirs = printed(comparison.name, row.name, key) if key in NAMES else None
    values = [
        comparison.name, row.name, row.title, key, found.n, *map(_rounded, found[1:]),
        "" if theirs is None else _rounded(theirs / 100), _rounded(gap.mean), _rounded(gap.low), _rounded(gap.high),
    ]  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))


def _rounded(value: float) -> float | str:
    return "" if math.isnan(value) else round(value, 6)
