"""Scores as Markdown tables, each next to the score of a trivial predictor."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from bundle.labels import GRADE_NAMES, GRADES, LESION_NAMES
from bundle.metrics.froc import RATES
from bundle.metrics.grading import SPECIFICITIES
from bundle.metrics.trivial import BASELINES
from bundle.transforms import class_names
from bundle.transforms.lesion_decision import MOST_PROBABLE, decision_in_words

MISSING = "\N{EN DASH}"

TASKS = {
    "lesions": "Lesions", "grade": "Grades", "grade_with_copies": "Grades, also of photographs graded through a copy",
    "joint": "Grades against lesions",
}  # fmt: skip

_ANSWERS = {
    "head": "the grade head alone", "consistent": "the head among the grades that the predicted lesions allow",
    "rules": "the rules on the predicted lesions",
}  # fmt: skip
"""Sources of a grade that :func:`bundle.metrics.joint.joint_scores` compares."""

_NAMES = {
    "dice": "Dice",
    "iou": "IoU",
    "argmax_dice": f"Dice of {MOST_PROBABLE}",
    "argmax_iou": f"IoU of {MOST_PROBABLE}",
    "image_dice": "Dice, mean over photographs",
    "image_iou": "IoU, mean over photographs",
    "false_alarm": "photographs without the lesion on which it is predicted",
    "detected": "photographs with the lesion on which it is predicted",
    "presence_auroc": "AUROC of the predicted area for photographs with the lesion",
    "component_recall": "components touched",
    "hd95_px": "95 % Hausdorff distance in native px",
    "average_precision_11": "average precision at 11 thresholds",
    "paper_dice": "Dice as in the paper, with background",
    "paper_iou": "IoU as in the paper, with background",
    "froc": "FROC, mean of the sensitivities",
    **{f"sensitivity_at_{rate:g}_fp": f"sensitivity at {rate:g} false positives a photograph" for rate in RATES},
    "accuracy_ceiling": "accuracy that the training labels allow at most",
    "auroc": "AUROC",
    **{f"sensitivity_at_{one:g}": f"sensitivity at specificity {one:g}" for one in SPECIFICITIES},
    "ece": "expected calibration error",
    "brier": "Brier score",
    "aurc": "area under the risk-coverage curve",
    "accuracy_at_coverage_0.8": "accuracy on the most confident 80 %",
    "set_coverage": "sets of likely grades that have the true one",
    "set_size": "grades in a set of likely grades, mean",
    "set_single": "sets of likely grades with one alone",
    "contradictions": "grade contradicts the predicted lesions",
    **{
        f"{answer}_{score}": f"{score.replace('_', ' ')} of {name}"
        for answer, name in _ANSWERS.items()
        for score in ("accuracy", "quadratic_kappa")
    },
    "consistent_gain_accuracy": "accuracy that the predicted lesions add to the head",
    "consistent_gain_quadratic_kappa": "quadratic kappa that the predicted lesions add to the head",
}
_LOWER_IS_BETTER = {"false_alarm", "hd95_px", "ece", "brier", "aurc", "contradictions", "set_size"}
_LESIONS = LESION_NAMES | dict.fromkeys(class_names(fuse=True), "any lesion")
_CLASSES = (
    _LESIONS
    | {"mean": "mean of lesions", "referable": "grades 2 to 4", "vision_threatening": "grades 3 and 4"}
    | {str(grade): f"{grade} {GRADE_NAMES[grade]}" for grade in GRADES}
)


GROUPED = {
    "lesions": {(score, of) for score in ("dice", "average_precision") for of in (*_LESIONS, "mean")},
    "grade": {("accuracy", ""), ("quadratic_kappa", ""), ("auroc", "referable")},
}
"""Scores that are shown for each value of a column, each with its class."""


def number(value: float | None, decimals: int = 3) -> str:
    """Write a score with three decimals, or another number of them; an undefined score becomes an en dash.

    Example:
        >>> number(0.4119), number(0.4119, decimals=1), number(None), number(float("nan"))
        ('0.412', '0.4', '–', '–')
    """
    return MISSING if value is None or math.isnan(value) else f"{value:.{decimals}f}"


def percent(value: float | None) -> str:
    """Write a share in percent, as the paper does.

    Example:
        >>> percent(0.96949), percent(None)
        ('96.95', '–')
    """
    return number(None if value is None else 100 * value, decimals=2)


def signed(value: float | None, write: Callable[[float | None], str] = number) -> str:
    """Write a difference with its sign.

    Example:
        >>> signed(0.0214), signed(-0.5), signed(math.nan)
        ('+0.021', '-0.500', '–')
    """
    return write(value) if value is None or not value > 0 else f"+{write(value)}"


def interval(bounds: Sequence[float | None] | None, write: Callable[[float | None], str] = number) -> str:
    """Write an interval.

    Example:
        >>> interval([0.38, 0.44]), interval(None)
        ('0.380 to 0.440', '–')
    """
    written = [write(bound) for bound in bounds or (None, None)]
    return MISSING if MISSING in written else " to ".join(written)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a Markdown table whose columns also line up as plain text; all but the first are right-aligned.

    Args:
        header: name of each column.
        rows: the cells; their white space is reduced to single spaces.

    Raises:
        ValueError: if a row is not as long as the header.

    Example:
        >>> print(markdown_table(["score", "ours"], [["Dice", "0.412"]]))
        | score |  ours |
        | :---- | ----: |
        | Dice  | 0.412 |
    """
    head, *cells = [[" ".join(cell.split()).replace("|", r"\|") for cell in row] for row in (header, *rows)]
    if wrong := [row for row in cells if len(row) != len(head)]:
        raise ValueError(f"expected {len(head)} cells in every row, got {len(wrong[0])}: {wrong[0]}")
    widths = [max(3, *map(len, column)) for column in zip(head, *cells, strict=True)]
    rule = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    padded = [[first.ljust(widths[0]), *map(str.rjust, others, widths[1:])] for first, *others in (head, *cells)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (padded[0], rule, *padded[1:]))


def evaluation_table(metrics: Mapping[str, Any]) -> str:
    """Write one table per task: each score, its 95 % interval, and the best trivial score; then one per task by groups.

    Args:
        metrics: ``{"scores": {"lesions/dice_EX": 0.5, ...}, "intervals": {"lesions/dice_EX": [0.4, 0.6], ...},
            "subset": {"lesions": "test", ...}, "counts": {"lesions": 27, ...}, "patients": {"lesions": 0, ...},
            "lesion_thresholds": [0.2, ...], "groups": {"column": "camera", "values": {"Topcon": {...}}}}``; only the
            scores are required. The key of a trivial score is the key of the score plus an ending in ``BASELINES``.

    Raises:
        ValueError: if there are no scores.

    Example:
        >>> scores = {"grade/accuracy": 0.5, "grade/accuracy_majority": 0.25}
        >>> print(evaluation_table({"scores": scores, "subset": {"grade": "test"}, "counts": {"grade": 4}}))
        ### Grades (test, 4 photographs)
        <BLANKLINE>
        | score    |  ours | 95 % interval | trivial |          the trivial predictor |
        | :------- | ----: | ------------: | ------: | -----------------------------: |
        | accuracy | 0.500 |             – |   0.250 | always the most frequent grade |
    """
    scores = metrics.get("scores")
    if not scores:
        raise ValueError(f"expected metrics with scores, got keys {sorted(metrics)}")
    tasks = dict.fromkeys(key.split("/")[0] for key in scores)
    by_group = (_group_table(task, metrics) for task in GROUPED if "groups" in metrics and task in tasks)
    parts = _trained_on(metrics), *(_task_table(task, scores, metrics) for task in tasks), *by_group
    return "\n\n".join(part for part in parts if part)


def _trained_on(metrics: Mapping[str, Any]) -> str:
    """Write the training data of the network, and whether it was scored on the same manifest.

    Example:
        >>> _trained_on({"trained_on": "ddr, 9 outlined photographs", "scored_on": "ddr", "is_own_manifest": True})
        'Trained on ddr, 9 outlined photographs. Scored on the same manifest, ddr.'
    """
    if "trained_on" not in metrics:
        return ""
    is_known = metrics.get("seen_in_training") is not None
    saw = "training saw none of its photographs" if is_known else "what training saw of it is not known"
    other = f"another manifest, {metrics['scored_on']}: {saw}"
    scored = f"the same manifest, {metrics['scored_on']}" if metrics["is_own_manifest"] else other
    return f"Trained on {metrics['trained_on']}. Scored on {scored}."


def _task_table(task: str, scores: Mapping[str, float | None], metrics: Mapping[str, Any]) -> str:
    subset, count = metrics.get("subset", {}).get(task), metrics.get("counts", {}).get(task)
    patients = metrics.get("patients", {}).get(task)
    details = [subset] * (subset is not None) + [f"{count} photographs"] * (count is not None)
    details += [f"{patients} patients"] * bool(patients)
    intervals = metrics.get("intervals", {})
    rows = [
        [_score_name(key), number(scores[key]), interval(intervals.get(key)), *_best_baseline(key, scores)]
        for key in scores
        if key.startswith(f"{task}/") and not key.endswith(tuple(BASELINES)) and "/images_" not in key
    ]
    parts = [
        f"### {TASKS.get(task, task)}" + f" ({', '.join(details)})" * bool(details),
        _lesion_counts(task, scores),
        _thresholds(task, metrics),
        markdown_table(["score", "ours", "95 % interval", "trivial", "the trivial predictor"], rows),
    ]
    return "\n\n".join(part for part in parts if part)


def _group_table(task: str, metrics: Mapping[str, Any]) -> str:
    """Write the main scores of a task for all photographs and for each value of a column, one below the other.

    Scores that are undefined for all photographs are left out, because they are for each value too.
    """
    column, values = metrics["groups"]["column"], metrics["groups"]["values"]
    whole = {name: metrics.get(name, {}) for name in ("counts", "scores", "intervals")}
    rows = [
        [_score_name(key), value, _scored_on(key, one), number(one["scores"].get(key)),
         interval(one["intervals"].get(key)), *_best_baseline(key, one["scores"])]
        for key, score in metrics["scores"].items()
        if key.startswith(f"{task}/") and _parted(key) in GROUPED[task] and number(score) != MISSING
        for value, one in [("all", whole), *values.items()]
    ]  # fmt: skip
    header = ["score", column, "photographs", "ours", "95 % interval", "trivial", "the trivial predictor"]
    about = "Photographs: with the lesion, of those on which it was looked for. " * (task == "lesions")
    about += "The other scores of each value are in metrics.json."
    return f"### {TASKS[task]} by {column}\n\n{about}\n\n{markdown_table(header, rows)}"


def _scored_on(key: str, of_value: Mapping[str, Any]) -> str:
    """Write on how many photographs a score rests; a dash for none.

    Example:
        >>> found = {"counts": {"lesions": 5}, "scores": {"lesions/images_EX": 2.0, "lesions/images_without_EX": 1.0}}
        >>> [_scored_on(key, found) for key in ("lesions/dice_EX", "lesions/dice_mean", "grade/auroc_referable")]
        ['2 of 3', '5', '–']
    """
    task, of_class = key.split("/")[0], _parted(key)[1]
    with_it, without = (of_value["scores"].get(f"{task}/{name}_{of_class}") for name in ("images", "images_without"))
    if with_it is None or without is None:
        return str(of_value["counts"].get(task, MISSING))
    return f"{with_it:.0f} of {with_it + without:.0f}" if with_it + without else MISSING


def _lesion_counts(task: str, scores: Mapping[str, float | None]) -> str:
    """Write on how many photographs each lesion was scored; a dash stands for one that nobody looked for."""
    sentences = {
        "Photographs with": "images",
        "Annotated photographs without": "images_without",
        "Photographs on which the distance of borders is defined": "images_hd95_px",
    }
    written = []
    for begin, key in sentences.items():
        counts = {lesion: scores.get(f"{task}/{key}_{lesion}") for lesion in _LESIONS}
        known = [
            f"{_LESIONS[lesion]} {number(count if _is_sought(lesion, task, scores) else None, decimals=0)}"
            for lesion, count in counts.items()
            if count is not None
        ]
        written += [f"{begin}: {', '.join(known)}."] * bool(known)
    return " ".join(written)


def _is_sought(lesion: str, task: str, scores: Mapping[str, float | None]) -> bool:
    """Return whether a lesion was looked for on any of the scored photographs."""
    with_it, without = (scores.get(f"{task}/{key}_{lesion}") for key in ("images", "images_without"))
    return without is None or bool(with_it or without)


def _thresholds(task: str, metrics: Mapping[str, Any]) -> str:
    """Write the thresholds that decided the scored masks, if there were any."""
    thresholds = metrics.get("lesion_thresholds")
    if task == "grade" or thresholds is None:
        return ""
    return f"Lesions are decided by thresholds: {decision_in_words(thresholds, class_names(len(thresholds) == 1))}."


def _score_name(key: str) -> str:
    """Name a score in words.

    Example:
        >>> _score_name("lesions/average_precision_EX"), _score_name("grade/recall_2"), _score_name("grade/ece")
        ('average precision, hard exudate', 'recall, 2 moderate', 'expected calibration error (lower is better)')
    """
    score, of_class = _parted(key)
    name = _NAMES.get(score, score.replace("_", " "))
    whole = f"{name}, {_CLASSES[of_class]}" if of_class else name
    return f"{whole} (lower is better)" if score in _LOWER_IS_BETTER else whole


def _parted(key: str) -> tuple[str, str]:
    """Split a key into score and class; the class is empty if the key has none."""
    whole = key.split("/", 1)[1]
    endings = [of_class for of_class in _CLASSES if whole.endswith(f"_{of_class}") and whole not in _NAMES]
    return (whole.removesuffix(f"_{endings[0]}"), endings[0]) if endings else (whole, "")


def _best_baseline(key: str, scores: Mapping[str, float | None]) -> tuple[str, str]:
    """Return the best trivial score, which is the one to beat, and its predictor."""
    found = {name: scores.get(key + ending) for ending, name in BASELINES.items()}
    defined = {name: value for name, value in found.items() if value is not None and not math.isnan(value)}
    if not defined:
        return MISSING, MISSING
    choose = min if _parted(key)[0] in _LOWER_IS_BETTER else max
    best = choose(defined, key=defined.__getitem__)
    return number(defined[best]), best


class Table(NamedTuple):
    """A table before it is written, as Markdown in the results or as HTML on the page of decisions."""

    header: list[str]
    rows: list[list[str]]


def grader_table(graders: Sequence[Mapping[str, Any]]) -> str:
    """Write the scores of each grader on its held-out fold, and the effect of its temperature.

    The calibration error with a temperature is out of sample: it is cross-fitted, each part of the fold scaled by a
    temperature fitted on the others.

    Args:
        graders: the facts of their weights files.

    Example:
        >>> table = grader_table([{"architecture": "resnext50_32x4d", "validation_accuracy": 0.5, "temperature": 1.25}])
        >>> [cell.strip() for cell in table.splitlines()[-1].split("|")[1:-1]]
        ['resnext50_32x4d', '0', '0.500', '–', '–', '–', '1.250', '–', '–']
    """
    names = {
        "validation_accuracy": "accuracy", "validation_accuracy_majority": BASELINES["_majority"],
        "validation_quadratic_kappa": "quadratic kappa", "validation_auroc": "AUROC", "temperature": "temperature",
        "calibration_ece": "calibration error", "calibration_ece_scaled": "with a temperature, out of sample",
    }  # fmt: skip
    rows = [
        [one["architecture"], str(one.get("calibration_images", 0)), *(number(one.get(name)) for name in names)]
        for one in graders
    ]
    return markdown_table(["grader", "images", *names.values()], rows)


def pseudo_label_table(summary: Mapping[str, Any]) -> str:
    """Write the decisions on the proposed grades, how often they are true, and how often each rule allows the truth.

    Args:
        summary: from ``pseudo_labels.summarise``.
    """
    return "\n\n".join(markdown_table(*table) for table in pseudo_label_tables(summary).values())


def pseudo_label_tables(summary: Mapping[str, Any]) -> dict[str, Table]:
    """Return the tables of :func:`pseudo_label_table` by name: ``actions``, ``agreement``, ``rules``.

    Example:
        >>> from bundle.metrics.pseudo_labels import summarise
        >>> row = {"id": "7", "proposed": 0, "decided": 2, "taught": 2, "soft_label_2": 0.5, "action": "move"}
        >>> row |= {"weight": 0.5, "rule": "R2", "feasible_2": True, "changed_by_heat": False}
        >>> table = pseudo_label_tables(summarise([row], true_grades={"7": 2}, resamples=10))["actions"]
        >>> table.header[:4], table.rows
        (['images', 'kept', 'moved', 'abstained'], [['1', '0', '1', '0', '0', '0', '1']])
    """
    return {"actions": _actions(summary), "agreement": _agreement(summary), "rules": _rules(summary)}


def _actions(summary: Mapping[str, Any]) -> Table:
    names = {
        "n": "images", "n_keep": "kept", "n_move": "moved", "n_abstain": "abstained",
        "n_supported": "a heat map on the lesions", "n_changed_by_heat": "decided otherwise by it",
        "n_known": "of known grade",
    }  # fmt: skip
    return Table(list(names.values()), [[str(summary[key]) for key in names]])


def _agreement(summary: Mapping[str, Any]) -> Table:
    names = {
        "proposed": ("proposed by the graders", "n_known"),
        "decided": ("decided by the rules", "n_known"),
        "taught": ("taught: likeliest of the soft label, without abstentions", "n_taught"),
        "majority": (BASELINES["_majority"], "n_known"),
    }
    rows = [
        [name, str(summary[n]), *_with_interval(summary, f"{key}/accuracy"),
         *_with_interval(summary, f"{key}/quadratic_kappa"), number(summary.get(f"{key}/log_probability"))]
        for key, (name, n) in names.items()
    ]  # fmt: skip
    gains = [_with_interval(summary, f"gain/{score}", signed) for score in ("accuracy", "quadratic_kappa")]
    rows.insert(2, ["gain: decided minus proposed", str(summary["n_known"]), *gains[0], *gains[1], MISSING])
    scores = ["accuracy", "95 % interval", "quadratic kappa", "95 % interval", "mean log probability"]
    return Table(["grade", "images", *scores], rows)


def _rules(summary: Mapping[str, Any]) -> Table:
    rules = sorted(key.removesuffix("/n") for key in summary if key.endswith("/n"))
    rows = [
        [rule, str(summary[f"{rule}/n"]), str(summary[f"{rule}/n_known"]),
         *_with_interval(summary, f"{rule}/truth_feasible")]
        for rule in rules
    ]  # fmt: skip
    rows.append(["all", str(summary["n"]), str(summary["n_known"]), *_with_interval(summary, "truth_feasible")])
    return Table(["rule", "images", "of known grade", "true grade feasible", "95 % interval"], rows)


def _with_interval(
    summary: Mapping[str, Any], key: str, write: Callable[[float | None], str] = number
) -> tuple[str, str]:
    return write(summary.get(key)), interval([summary.get(f"{key}_low"), summary.get(f"{key}_high")], write)
