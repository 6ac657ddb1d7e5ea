"""The page that a pipeline ends with: its tables, how they were made, and what they do not show."""

import datetime
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bundle import provenance
from bundle.files import load_json, write_text_whole
from bundle.manifest import Manifest
from bundle.pipeline import Stage
from bundle.reporting.tables import evaluation_table, markdown_table, pseudo_label_table


def write_results(output_dir: Path, manifest: Manifest, stages: Sequence[Stage], copy_to: str | None = None) -> str:
    """Write ``results.md`` of a finished pipeline, and a copy where asked; return what a terminal should show."""
    summary = load_json(output_dir / "pseudo" / "summary.json")
    metrics = load_json(output_dir / "train" / "metrics.json")
    tables = (
        f"## Pseudo-labels against known grades\n\n{pseudo_label_table(summary)}\n\n"
        f"## Evaluation\n\n{evaluation_table(metrics)}\n"
    )
    page = "\n\n".join(
        [f"# Results on {manifest.name}", _origin(manifest, stages), tables.rstrip(), _limits(manifest, metrics)]
    )
    write_text_whole(output_dir / "results.md", page + "\n")
    if copy_to:
        write_text_whole(copy_to, page + "\n")
    report = output_dir / "inference" / "report.html"
    return f"\n{tables}\nresults: {output_dir / 'results.md'}\nreport:  {report}\nMLflow:  {output_dir / 'mlflow.db'}"


def _origin(manifest: Manifest, stages: Sequence[Stage]) -> str:
    command = " ".join(["python -m scripts.pipeline", *map(_portable, sys.argv[1:])])
    durations = [load_json(stage.marker)["duration_s"] for stage in stages]
    rows = [[stage.name, f"{seconds:.0f}"] for stage, seconds in zip(stages, durations, strict=True)]
    facts = [
        f"- command: `{command}`",
        f"- commit: {provenance.commit()}",
        f"- date: {datetime.date.today().isoformat()}",
        f"- machine: {provenance.machine()}",
        f"- versions: {provenance.versions()}",
        f"- manifest: sha256 {manifest.sha256}",
        *(f"- data: {note}" for note in manifest.notes),
    ]
    table = markdown_table(["stage", "seconds"], [*rows, ["all", f"{sum(durations):.0f}"]])
    return "\n".join(facts) + f"\n\n{table}"


def _portable(word: str) -> str:
    """Leave the folders of this machine out of the page."""
    return shlex.quote(Path(word).name if Path(word).is_absolute() else word)


def _limits(manifest: Manifest, metrics: dict[str, Any]) -> str:
    facts, counts, subset = metrics["weights"], metrics["counts"], metrics["subset"]
    lines = [
        f"- One seed ({facts['seed']}), one split; the intervals are over images and say nothing of other seeds.",
        f"- The network was trained on {facts['num_training_images']} photographs for {facts['epochs']} epochs at "
        f"{facts['image_size']} px, width {facts['width']:g}; its encoder started from "
        f"{'ImageNet' if facts['pretrained'] else 'random'} weights.",
        f"- Lesions were scored on {counts['lesions']} photographs ({subset['lesions']}), grades on {counts['grade']} "
        f"({subset['grade']}). Nothing was selected on them: the weights are those of the last epoch.",
        "- Dice and IoU as in the paper count the background; predicting no lesion at all scores what stands beside.",
        *_fused(facts),
    ]
    return "## What these numbers do not show\n\n" + "\n".join(lines)


def _fused(facts: Mapping[str, Any]) -> list[str]:
    """Say what the one lesion class of a fused network is."""
    if not facts.get("fuse"):
        return []
    return [
        f"- The network has one class for all four lesions. It learned from their union, with gaps closed by a disc of "
        f"radius {facts['fuse_radius_px']} px at {facts['image_size']} px, and was scored against the plain union of "
        f"the outlines, on photographs where all four were annotated. Which lesion it is stays open."
    ]
