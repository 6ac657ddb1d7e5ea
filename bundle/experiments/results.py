"""Results page of a pipeline: its tables, how they were made, and what they do not show."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle.experiments.pipeline import Stage
from bundle.files import load_json, write_text_whole
from bundle.handlers.tracking import project_folder
from bundle.manifest import Manifest
from bundle.provenance import origin
from bundle.reporting.tables import evaluation_table, grader_table, markdown_table, pseudo_label_table


def write_results(output_dir: Path, manifest: Manifest, stages: Sequence[Stage], copy_to: str | None = None) -> str:
    """Write ``results.md`` on the finished stages of a pipeline, and a copy if requested; return the text to print.

    Stage 1 gives the graders and their pseudo-labels, stage 2 the evaluation; unfinished stages are left out.
    """
    durations_s = {stage.name: load_json(stage.marker)["duration_s"] for stage in stages}
    seconds = [[name, f"{duration_s:.0f}"] for name, duration_s in durations_s.items()]
    head = [
        f"# Results on {manifest.name}",
        "\n".join([*origin(sys.argv, manifest.sha256), *(f"- data: {note}" for note in manifest.notes)]),
        markdown_table(["stage", "seconds"], [*seconds, ["all", f"{sum(durations_s.values()):.0f}"]]),
    ]
    sections = _stage1(output_dir / "pseudo")
    if (output_dir / "train" / "metrics.json").is_file():
        metrics = load_json(output_dir / "train" / "metrics.json")
        sections += [(True, f"## Evaluation\n\n{evaluation_table(metrics)}"), (False, _limits(metrics))]
    page = "\n\n".join([*head, *(text for _, text in sections)])
    write_text_whole(output_dir / "results.md", page + "\n")
    if copy_to:
        write_text_whole(copy_to, page + "\n")
    tables = "\n\n".join(text for shown, text in sections if shown)
    places = {
        "results": output_dir / "results.md", "decisions": output_dir / "pseudo" / "decisions.html",
        "report": output_dir / "inference" / "report.html",
        "MLflow": project_folder(output_dir / "train") / "mlflow.db",
    }  # fmt: skip
    return f"\n{tables}\n\n" + "\n".join(f"{name + ':':10} {path}" for name, path in places.items() if path.is_file())


def _stage1(folder: Path) -> list[tuple[bool, str]]:
    """Return the sections on graders and labels, each with a flag whether the terminal shows it."""
    if not (folder / "summary.json").is_file():
        return []
    graders = load_json(folder / "pseudo_labels.json")["settings"]["graders"]
    labels = pseudo_label_table(load_json(folder / "summary.json"))
    limits = "\n".join(
        f"- {one['architecture']}: {one['num_training_images']} photographs, {one['epochs']} epochs at "
        f"{one['image_size']} px from {'ImageNet' if one['pretrained'] else 'random'} weights; "
        f"{one['num_left_out_copies']} graded photographs were left out as copies of lesion images; seed {one['seed']}."
        for one in graders
    )
    return [
        (True, f"## Graders on the held-out fold\n\n{grader_table(graders)}"),
        (True, f"## Pseudo-labels against known grades\n\n{labels}"),
        (False, f"## What the graders saw\n\n{limits}"),
    ]


def _limits(metrics: Mapping[str, Any]) -> str:
    facts, counts, subset = metrics["weights"], metrics["counts"], metrics["subset"]
    lines = [
        f"- One seed ({facts['seed']}), one split; the intervals are over photographs, or over patients where "
        "they are known, and say nothing of other seeds.",
        f"- The network ({_network(facts)}) was trained on {facts['num_training_images']} photographs for "
        f"{facts['epochs']} epochs, {facts['steps']} steps, at {facts['image_size']} px; its encoder started from "
        f"{'ImageNet' if facts['pretrained'] else 'random'} weights.",
        *_balance(facts),
        f"- Lesions were scored on {counts['lesions']} photographs ({subset['lesions']}), grades on {counts['grade']} "
        f"({subset['grade']}). Nothing was selected on them: the weights are those of the last epoch.",
        "- Dice and IoU as in the paper count the background; compare them with the score of predicting no lesion.",
        *_fused(facts),
    ]
    return "## What these numbers do not show\n\n" + "\n".join(lines)


def _network(facts: Mapping[str, Any]) -> str:
    """Name a network by the facts in its weights file.

    Example:
        >>> _network({"network": "GradedSegmenter", "architecture": "unet", "encoder_name": "vgg16"})
        'GradedSegmenter, architecture unet, encoder_name vgg16'
    """
    told = ("architecture", "encoder_name", "width", "batch_norm")
    return ", ".join([facts["network"], *(f"{name} {facts[name]}" for name in told if name in facts)])


def _balance(facts: Mapping[str, Any]) -> list[str]:
    """Write how the gradients of both tasks compare on the shared encoder, if both were trained."""
    if "balance_norm_ratio" not in facts:
        return []
    return [
        f"- On the shared encoder the gradient of the grades is {facts['balance_norm_ratio']:.2f} times as long as "
        f"that of the lesions, weight included, and the cosine between them is {facts['balance_cosine']:+.2f} (medians "
        f"over the epochs); the weight of the grading loss ended at {facts['balance_weight']:.3g}."
    ]


def _fused(facts: Mapping[str, Any]) -> list[str]:
    """Explain the single lesion class of a fused network."""
    if not facts.get("fuse"):
        return []
    return [
        f"- The network has one class for all four lesions. It learned from their union, with gaps closed by a disc of "
        f"radius {facts['fuse_radius_px']} px at {facts['image_size']} px, and was scored against the plain union of "
        f"the outlines, on photographs where all four were annotated. Which lesion it is stays open."
    ]
