"""Does the label update repair labels? Trainings from labels with a known third wrong."""

import csv
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from pathlib import Path

import numpy as np
from bundle import ROOT
from bundle.datasets.splits import lesion_labelling
from bundle.files import TABLE_ENCODING
from bundle.grade_rules import feasible_grades
from bundle.labels import GRADES
from bundle.manifest import Manifest, load_manifest
from bundle.method.initial_labels import save_pseudo_labels
from bundle.metrics.intervals import resampled_interval
from bundle.reporting.tables import MISSING, interval, markdown_table, number, signed
from scripts.benchmarks.page import publish
from scripts.cli import main

SMALLEST = 1e-9
CONFIGS = ("train.yaml", "experiments/two_cores_phantom/train.yaml", "experiments/known_errors/train.yaml")
WAYS: Mapping[str, Sequence[str]] = {
    "segmentation": ["--meta_objective", "segmentation"],
    "graded, shared encoder": ["--meta_objective", "graded", "--label_encoder", "shared"],
    "literal": ["--meta_objective", "literal"],
}  # fmt: skip


def labels(manifest: str, folder: str, seeds: int = 5, processes: int = 2, out: str | None = None) -> None:
    """Train each way with each seed, and write how the labels changed; existing trainings are not repeated.

    Args:
        manifest: manifest of a data set with the true grade of outlined photographs, such as the phantom.
        folder: folder of the trainings.
        seeds: number of seeds, from 0; a seed also determines which labels are wrong.
        processes: number of processes at a time, of one thread each.
        out: also write the page to this file.
    """
    home = Path(folder)
    home.mkdir(parents=True, exist_ok=True)
    outlines_alone(load_manifest(manifest), home / "labels.json")
    tasks = list(product(range(seeds), WAYS))
    with ThreadPoolExecutor(processes) as pool:
        ended = list(pool.map(lambda task: _train(manifest, home, *task), tasks))
    found = dict(zip(tasks, ended, strict=True))
    rows = [_row(way, [found[seed, way] for seed in range(seeds)]) for way in WAYS]
    header = [
        "objective", "trainings", "right before", "right after", "gain", "95 % interval", "movement", "common shift",
        "collapsed",
    ]  # fmt: skip
    command = f"labels --manifest {Path(manifest).name} --folder {home.name} --seeds {seeds} --processes {processes}"
    title = "Does the label update repair labels? A third of those that can move is wrong"
    publish(title, command, [markdown_table(header, rows), _notes(seeds)], out)


def outlines_alone(manifest: Manifest, path: Path) -> None:
    """Write initial labels from the outlines alone: all grades that they allow are equally likely."""
    rows = []
    for row in lesion_labelling(manifest):
        feasible = feasible_grades(set(row.masks), row.annotated, disputed=row.disputed).grades
        shares = {f"soft_label_{grade}": (grade in feasible) / len(feasible) for grade in GRADES}
        may = {f"feasible_{grade}": grade in feasible for grade in GRADES}
        rows.append({"id": row.id, "weight": 1.0, **shares, **may})
    save_pseudo_labels(path, manifest, {}, rows)


def _train(manifest: str, home: Path, seed: int, way: str) -> dict[str, float] | None:
    """Return shares of right labels and their movement, of labels that can move; None if they collapsed."""
    output = home / way.replace(", ", "_").replace(" ", "_") / f"seed{seed}"
    if not (output / "labels.csv").is_file():
        output.mkdir(parents=True, exist_ok=True)
        log = output / "log.txt"
        words = [
            "--config_file", str([str(ROOT / "configs" / name) for name in CONFIGS]), "--manifest", manifest,
            "--pseudo_labels", home / "labels.json", "--output_dir", output, "--cache_dir", home / "cache", "--seed",
            seed, "--track", "False", *WAYS[way],
        ]  # fmt: skip
        with log.open("w", encoding="utf-8") as file:
            done = subprocess.run(
                [sys.executable, "-m", "monai.bundle", "run", *map(str, words)], stdout=file, stderr=file, cwd=ROOT
            )
        if done.returncode and "the labels have become" in log.read_text(encoding="utf-8", errors="replace"):
            return None
        done.check_returncode()
    return read_labels(output / "labels.csv")


def read_labels(path: Path) -> dict[str, float]:
    """Return the share of right labels at first and at the end and their movement, of labels that can move."""
    with path.open(newline="", encoding=TABLE_ENCODING) as file:
        free = [row for row in csv.DictReader(file) if sum(float(row[f"initial_{c}"]) > 0 for c in GRADES) > 1]
    return {
        "before": sum(_top(row, "initial") == int(row["true_grade"]) for row in free) / len(free),
        "after": sum(_top(row, "taught") == int(row["true_grade"]) for row in free) / len(free),
        "movement": sum(abs(float(row[f"taught_{c}"]) - float(row[f"initial_{c}"])) for row in free for c in GRADES)
        / (2 * len(free)),
        "common": common_share(free),
    }


def common_share(free: Sequence[Mapping[str, str]]) -> float:
    """Return the share of the squared shift of the labels' logits that is common to all photographs.

    With ``s_nc`` the shift of ``log u_nc``, centred over the feasible grades: ``|mean_n s_n|^2 / mean_n |s_n|^2``. At 1
    the update only changes the prior of all photographs and corrects no individual label.
    """
    shifts = []
    for row in free:
        pairs = [(float(row[f"initial_{c}"]), float(row[f"taught_{c}"])) for c in GRADES]
        shift = np.array([np.log(max(taught, SMALLEST) / one) if one > 0 else 0.0 for one, taught in pairs])
        feasible = np.array([one > 0 for one, _ in pairs])
        shifts.append(np.where(feasible, shift - shift[feasible].mean(), 0.0))
    total = np.square(shifts).sum(axis=1).mean()  # shifts is (N, 5)
    return float(np.square(np.mean(shifts, axis=0)).sum() / total) if total > 0 else 0.0


def _top(row: Mapping[str, str], which: str) -> int:
    return max(GRADES, key=lambda grade: float(row[f"{which}_{grade}"]))


def _row(way: str, found: Sequence[dict[str, float] | None]) -> list[str]:
    whole = [one for one in found if one is not None]
    collapsed = f"{len(found) - len(whole)} of {len(found)}"
    if not whole:
        return [way, str(len(found)), *[MISSING] * 6, collapsed]
    gains = [one["after"] - one["before"] for one in whole]
    bounds = resampled_interval(gains, test_share=0.0)
    before, after, movement, common = (
        sum(one[key] for one in whole) / len(whole) for key in ("before", "after", "movement", "common")
    )
    return [
        way, str(len(found)), number(before), number(after), signed(sum(gains) / len(gains)),
        interval(bounds, signed), number(movement), number(common, decimals=2), collapsed,
    ]  # fmt: skip


def _notes(seeds: int) -> str:
    return (
        "Shares are of the labels that can move: of more than one feasible grade, with a true grade that is known from "
        "a graded copy, which no training saw. Initial labels have 0.6 on the true grade, or for a third of them on "
        "another feasible one; which, the seed draws. The common shift is the share of the squared shift of the logits "
        "of labels that is the same for all photographs: at 1 an update is another prior, and corrects no label by "
        "itself. Labels are those that are taught in the last epoch. Gains are paired; the interval is t over "
        f"{seeds} seeds. A training whose labels collapse ends as a failure and counts there alone. Configs: "
        f"{', '.join(CONFIGS)}."
    )


if __name__ == "__main__":
    main(labels)
