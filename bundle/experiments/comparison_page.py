"""Page of a suite: how its numbers were made, its tables next to the paper's, and the missing runs."""

import datetime
import itertools
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from bundle.experiments import comparison as tables
from bundle.experiments.comparison import Comparison
from bundle.experiments.comparison_figure import write_comparison_figure
from bundle.experiments.paper import PAPER, SOURCE, ill_matched
from bundle.experiments.runs import EXTERNAL, Found, Repeat
from bundle.experiments.suites import Row, Suite
from bundle.files import write_csv_whole, write_text_whole
from bundle.provenance import origin, portable, portable_word
from bundle.workflow import PASSING_IDS

SETTINGS = (
    "manifest", "facts.network", "facts.architecture", "facts.encoder_name", "facts.width", "image_size", "max_epochs",
    "facts.steps", "pretrained", "batch_size", "learning_rate", "fuse", "device",
)  # fmt: skip
"""Always on the page; other settings only if rows differ in them. ``facts.*``: what a run logged of its network."""

OF_THE_REPEAT = {"fold", "seed", "checkpoint", "tags", "lesion_thresholds", "min_area_ppm"}
"""Settings that differ from run to run because they are its place, or were fitted."""


def write_comparison(out: str | os.PathLike, name: str, suite: Suite, found: Found, command: Sequence[str]) -> str:
    """Write ``<name>.md``, ``.csv`` and ``.png`` into a folder; return the text to print.

    Args:
        out: the folder.
        name: name of the suite and of the files.
        suite: its rows.
        found: its runs.
        command: words of the command that requested the page.

    Raises:
        ValueError: if no run has a score to draw.
    """
    compared, folder = Comparison(name, suite, found.runs), Path(out)
    sections = _sections(compared)
    write_comparison_figure(folder / f"{name}.png", compared)
    write_csv_whole(folder / f"{name}.csv", tables.csv_rows(compared))
    picture = f"![Mean and 95 % interval of each row, next to the trivial predictors]({name}.png)"
    missing = _missing(compared, found)
    page = [f"# {suite.title}", _origin(compared, found, command), picture, *sections, missing, _limits(compared)]
    write_text_whole(folder / f"{name}.md", "\n\n".join(part for part in page if part) + "\n")
    shown = "\n\n".join(part for part in (*sections, missing) if part)
    return f"{shown}\n\n" + "\n".join(str(folder / f"{name}.{kind}") for kind in ("md", "csv", "png"))


def _sections(compared: Comparison) -> list[str]:
    differences = [tables.difference_table(compared, task) for task in ("lesions", "grade")]
    texts = {
        "Lesions": tables.lesion_table(compared),
        "Grades": tables.grade_table(compared),
        "In the paper's terms": f"{tables.paper_table(compared)}\n\n{_about_paper(compared.name)}",
        "Paired differences": "\n\n".join([*filter(None, differences), _about_intervals(compared)]),
        "On another data set": _external(compared),
        "Labels before and after": tables.label_table(compared),
    }
    written = [f"{heading}\n\n{text}" for heading, text in texts.items() if text]
    return [f"## ({letter}) {text}" for letter, text in zip("abcdef", written, strict=False)]


def _external(compared: Comparison) -> str:
    table = tables.external_table(compared)
    if not table:
        return ""
    places = sorted({run.subsets[EXTERNAL] for run in compared.runs if EXTERNAL in run.subsets})
    return (
        f"{table}\n\nOn {'; '.join(places)}: no photograph of it was trained on, and nothing was fitted on it. "
        "Presence: the probability that a photograph with the lesion has a larger predicted area than one without. "
        "Average precision is per pixel; where the outlines of that data set are coarse it is low for every network."
    )


def _about_paper(name: str) -> str:
    if name not in PAPER:
        return "The paper has no such table, or none that is legible in our source."
    about = (
        f"Paper: {SOURCE}. \N{EN DASH}: not legible in our source, or not reported. Its Dice and IoU behave as one "
        "ratio over all pixels, background included; compare them with predicting no lesion before anything else."
    )
    slips = [
        f" Its IoU of `{row}` does not go with its Dice, for which one ratio gives {expected:.3f}."
        for row, expected in ill_matched(name).items()
    ]
    return about + "".join(slips)


def _about_intervals(compared: Comparison) -> str:
    folds = len(compared.folds)
    if folds == 1:
        how = "t over the seeds on one split, whose photographs stay the same (n_test/n_train = 0)"
    else:
        how = (
            f"corrected resampled t over folds and seeds, because the training sets of folds overlap "
            f"(n_test/n_train = 1/{folds - 1})"
        )
    return (
        f"95 % intervals: {how}; Nadeau & Bengio, Machine Learning 2003. A pair is the same fold and seed. One pair "
        "has no interval. An interval without 0 among many may be chance: the number of comparisons is not allowed for."
    )


def _origin(compared: Comparison, found: Found, command: Sequence[str]) -> str:
    newest = max(run.started_ms for run in compared.runs) / 1000
    day = datetime.datetime.fromtimestamp(newest, tz=datetime.UTC).date().isoformat()
    minutes = sum(run.duration_s for run in compared.runs) / 60
    facts = [
        *origin(command, compared.runs[0].manifest_sha256, made="this page"),
        *(f"- sweep: `{portable(text.split())}`" for text in _told(found.sweeps, "command")),
        f"- commit of the runs: {', '.join(dict.fromkeys(run.commit for run in compared.runs))}",
        f"- newest run: {day}; training and evaluation took {minutes:.0f} minutes in all",
        *(f"- {what} of the sweep: {text}" for what in ("machine", "versions") for text in _told(found.sweeps, what)),
        f"- runs: {len(compared.runs)}; folds {_listed(run.repeat.fold for run in compared.runs)}; "
        f"seeds {_listed(run.repeat.seed for run in compared.runs)}",
        *_scored_on(compared),
        *_settings(compared),
    ]
    if found.on_other_manifests:
        facts.append(f"- left out: {found.on_other_manifests} evaluations on other manifests than that of the newest")
    return "\n".join(facts)


def _told(sweeps: Sequence[Mapping[str, str]], what: str) -> list[str]:
    return list(dict.fromkeys(tags[what] for tags in sweeps if what in tags))


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(str(number) if number >= 0 else "none" for number in sorted(set(numbers)))


def _scored_on(compared: Comparison) -> list[str]:
    names = {"lesions": "lesions", "grade": "grades"}
    found = {task: sorted({run.subsets[task] for run in compared.runs if task in run.subsets}) for task in names}
    return [f"- {names[task]} scored on: {', '.join(subsets)}" for task, subsets in found.items() if subsets]


def _settings(compared: Comparison) -> list[str]:
    """List the main settings, and every other setting in which rows differ."""
    unlike = PASSING_IDS | OF_THE_REPEAT
    names = dict.fromkeys(name for run in compared.runs for name in run.settings if not name.startswith("facts."))
    others = [name for name in names if name not in SETTINGS and name not in unlike]
    found = {name: _rows_by_value(compared, name) for name in (*SETTINGS, *others)}
    told = {name: groups for name, groups in found.items() if len(groups) > (name not in SETTINGS)}
    return [f"- {name.removeprefix('facts.')}: {_by_value(groups)}" for name, groups in told.items()]


def _rows_by_value(compared: Comparison, setting: str) -> dict[str, list[str]]:
    """Group the names of rows by the value of a setting, in the suite's order."""
    groups: dict[str, dict[str, None]] = defaultdict(dict)
    for row in compared.suite.rows:
        for run in compared.runs:
            if run.row == row.name and setting in run.settings:
                groups[portable_word(run.settings[setting])][f"`{row.name}`"] = None
    return {value: list(names) for value, names in groups.items()}


def _by_value(groups: Mapping[str, Sequence[str]]) -> str:
    """Write each value with the rows that have it.

    Example:
        >>> _by_value({"512": ["`resnext50`"], "1024": ["`unet`", "`fpn`"]}), _by_value({"64": ["`unet`", "`fpn`"]})
        ('512 (`resnext50`), 1024 (`unet`, `fpn`)', '64')
    """
    if len(groups) == 1:
        return next(iter(groups))
    return ", ".join(f"{value} ({', '.join(names)})" for value, names in groups.items())


def _missing(compared: Comparison, found: Found) -> str:
    """List the runs that are not finished, out of those that sweeps planned or other rows have."""
    there = {(run.row, run.repeat) for run in compared.runs}
    folds = {run.repeat.fold for run in compared.runs} | _asked(found, "folds")
    seeds = {run.repeat.seed for run in compared.runs} | _asked(found, "seeds")
    asked = [Repeat(fold, seed) for fold, seed in itertools.product(sorted(folds), sorted(seeds))]
    lines = []
    for row in compared.suite.rows:
        gaps = [repeat for repeat in asked if (row.name, repeat) not in there]
        if gaps:
            lines.append(f"- {row.title} (`{row.name}`): {_gaps(row, gaps, len(asked), found)}")
    return "## Missing\n\nNo finished evaluation of:\n\n" + "\n".join(lines) if lines else ""


def _gaps(row: Row, gaps: Sequence[Repeat], asked: int, found: Found) -> str:
    ends = {repeat: found.unfinished.get((row.name, repeat)) for repeat in gaps}
    if len(gaps) == asked and not any(ends.values()):
        return "all"
    return "; ".join(f"{repeat} ({end})" if end else str(repeat) for repeat, end in ends.items())


def _asked(found: Found, tag: str) -> set[int]:
    """Return the folds or seeds that sweeps planned: a tag of n stands for 0 to n - 1."""
    return {number for text in _told(found.sweeps, tag) if text.isdigit() for number in range(int(text))}


def _limits(compared: Comparison) -> str:
    lines = [
        "- Mean ± standard deviation over runs. Trivial predictors, in italics, never looked at a photograph; theirs "
        "is the mean over folds.",
        "- Lesions are scored at native size, pooled over the photographs of a run, without background, unless in the "
        "paper's terms. A lesion that is nowhere outlined in a fold has no score there.",
    ]
    if len(compared.folds) > 1 and any("test" in run.subsets.values() for run in compared.runs):
        lines.append(
            "- All folds were scored on the same test photographs: the intervals say what other trainings would give, "
            "not what other photographs would."
        )
    if tables.label_table(compared):
        lines.append(
            "- Labels: over the training photographs in the last pass of updates; accuracy over those whose true grade "
            "is known from a graded copy, which no training saw. Movement is total variation from the initial label."
        )
    return "## How to read these numbers\n\n" + "\n".join(lines)
