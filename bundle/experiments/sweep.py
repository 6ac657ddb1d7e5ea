"""The runs of a table: each row on each fold with each seed, as tasks that need files of other tasks."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bundle.experiments.pipeline import Stage, check_used, shared_options, stacked, stage_of
from bundle.experiments.runs import EXTERNAL, Repeat
from bundle.experiments.suites import GRADERS, Row, helper, suite_named
from bundle.handlers.tracking import find_experiment, open_store
from bundle.manifest import load_manifest
from bundle.provenance import commit

if TYPE_CHECKING:
    from mlflow import MlflowClient

STAGE = "sweep"


@contextmanager
def sweep_run(output_dir: Path, tags: Mapping[str, str], tracking_uri: str | None = None) -> Iterator[str]:
    """Keep the run of a sweep open and yield its id; the same folder and suite always get the same run.

    The run is marked finished when the block ends, and failed when the block raises. The tags ``command`` and
    ``commit`` are those of the latest call.

    Args:
        output_dir: folder of the sweep; becomes the tag ``sweep``. It also holds the default store.
        tags: tags of the run, including ``suite``.
        tracking_uri: URI of the store; None uses ``MLFLOW_TRACKING_URI`` or the default.
    """
    client = open_store(tracking_uri, output_dir)
    own = {"stage": STAGE, "sweep": str(output_dir.resolve()), "commit": commit(), "command": " ".join(sys.argv)}
    run_id = _opened(client, {**tags, **own})
    try:
        yield run_id
    except BaseException:
        client.set_terminated(run_id, status="FAILED")
        raise
    client.set_terminated(run_id, status="FINISHED")


def _opened(client: "MlflowClient", tags: Mapping[str, str]) -> str:
    experiment_id = find_experiment(client)
    for run in client.search_runs([experiment_id], f"tags.stage = '{STAGE}'"):
        # Compared here because an MLflow filter cannot contain a folder name with an apostrophe.
        if all(run.data.tags.get(name) == tags[name] for name in ("sweep", "suite")):
            for name, value in tags.items():
                client.set_tag(run.info.run_id, name, value)
            client.update_run(run.info.run_id, status="RUNNING")
            return run.info.run_id
    return client.create_run(experiment_id, run_name=f"{STAGE}-{tags['suite']}", tags=dict(tags)).info.run_id


LABELS = "pseudo_label"
"""Name of the stage and of the task that make the pseudo-labels, used like a row's name."""

TOGETHER = "together"
"""Stage of a row that trains nothing: it scores the graders as one."""

EVALUATIONS: Mapping[str, Sequence[str]] = {
    "train": ["train", "evaluate"],
    "pretrain": ["pretrain", "evaluate_grader"],
    TOGETHER: ["pretrain", "evaluate_grader"],
}
"""The configs that score a row, by the stage that trains it."""

WEIGHTS = "model.pt"


@dataclass(frozen=True, kw_only=True)
class Task:
    """Stages that run together, in one folder.

    Attributes:
        name: unique in a sweep; also its folder below the sweep's.
        stages: stages in order.
        output_dir: folder of all its stages; no two tasks share one.
        needs: names of the tasks whose files it reads; they come before it.
    """

    name: str
    stages: Sequence[Stage]
    output_dir: Path
    needs: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Settings of a sweep.

    Attributes:
        suite: name of the table.
        manifest: file written by ``scripts.prepare``.
        output_dir: folder for all tasks.
        folds: number of folds held out in turn, from the manifest's first.
        seeds: number of seeds; the seeds are 0, 1, ...
        experiment: folders below ``configs/experiments`` whose overlays go on top of every row's, joined by commas, or
            None.
        rows: names of the rows to run; None for all.
        options: passed to every stage that has an option of this name.
        encoder_weights: ``pretrained`` of the networks of stage 2 alone, such as a file of VGG16; None leaves it.
        external: manifest of another data set, on which every network that outlines lesions is scored too, or None.
    """

    suite: str
    manifest: Path
    output_dir: Path
    folds: int
    seeds: int
    experiment: str | None = None
    rows: Sequence[str] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    encoder_weights: Path | None = None
    external: Path | None = None


def lay_out(sweep: Sweep, parent_run: str | None = None) -> list[Task]:
    """Return the tasks, each after the tasks that it needs.

    Rows of stage 2 learn from pseudo-labels of the graders of the same fold and seed. These graders had the same fold
    held out, so the held-out fold does not leak into stage 2 through the labels.

    Args:
        sweep: its settings.
        parent_run: id of the MLflow run below which the runs of all stages are nested; it does not change their keys.

    Raises:
        ValueError: if suite, row or experiment is unknown, there are no such folds, or an option belongs to no stage.

    Example:
        >>> import tempfile
        >>> from bundle.manifest import Manifest, save_manifest
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     manifest = Path(folder, "manifest.json")
        ...     save_manifest(Manifest(name="clinic", roots={}, folds=5, seed=0, photographs=()), manifest)
        ...     counts = {"folds": 1, "seeds": 1}
        ...     sweep = Sweep(suite="table1", rows=["unet"], manifest=manifest, output_dir=Path(folder), **counts)
        ...     tasks = lay_out(sweep)
        >>> [task.name for task in tasks]
        ['lite0/fold0_seed0', 'lite2/fold0_seed0', 'pseudo_label/fold0_seed0', 'unet/fold0_seed0']
        >>> [stage.name for stage in tasks[-1].stages], tasks[-1].needs
        (['train', 'evaluate'], ['pseudo_label/fold0_seed0'])
    """
    rows = _chosen(sweep)
    _check_counts(sweep)
    shown = {row.name for row in rows}
    repeats = [Repeat(fold, seed) for fold in range(sweep.folds) for seed in range(sweep.seeds)]
    tasks = [
        _task(sweep, row, repeat, parent_run, scored=row.name in shown)
        for repeat in repeats
        for row in _with_needed(rows)
    ]
    check_used(sweep.options, [stage for task in tasks for stage in task.stages])
    return tasks


def _chosen(sweep: Sweep) -> list[Row]:
    rows = suite_named(sweep.suite).rows
    names = [row.name for row in rows]
    unknown = [name for name in sweep.rows or () if name not in names]
    if unknown:
        raise ValueError(f"expected --rows out of {names}, got {unknown}")
    return [row for row in rows if sweep.rows is None or row.name in sweep.rows]


def _check_counts(sweep: Sweep) -> None:
    there = load_manifest(sweep.manifest).folds
    if not 1 <= sweep.folds <= there:
        raise ValueError(f"expected --folds in 1-{there}, the folds of {sweep.manifest}, got {sweep.folds}")
    if sweep.seeds < 1:
        raise ValueError(f"expected --seeds of at least 1, got {sweep.seeds}")


def _with_needed(rows: Sequence[Row]) -> list[Row]:
    """Return the rows and those that they need, each after the rows that it needs."""
    networks = [row for row in rows if row.stage == "train"]
    graders = GRADERS if any(row.stage in ("train", TOGETHER) for row in rows) else ()
    needed = [*graders, *(row.teacher for row in networks if row.teacher)]
    shown = {row.name for row in rows}
    known = [*(helper(name) for name in dict.fromkeys(needed) if name not in shown), *rows]
    labels = [Row(name=LABELS, title="pseudo-labels", stage=LABELS)] if networks else []
    return [row for stage in ("pretrain", TOGETHER, LABELS, "train") for row in (*known, *labels) if row.stage == stage]


def _task(sweep: Sweep, row: Row, repeat: Repeat, parent_run: str | None, *, scored: bool) -> Task:
    needs = _needs(row)
    folder, names = repeat_folder(sweep.output_dir, row.name, repeat), [task_name(name, *repeat) for name in needs]
    inputs = [sweep.output_dir / name / _outputs(need)[0] for need, name in zip(needs, names, strict=True)]
    reads: dict[str, Any] = dict(zip(("pseudo_labels", "teacher"), inputs, strict=False))
    if row.stage == "train" and sweep.encoder_weights is not None:
        reads["pretrained"] = sweep.encoder_weights
    if row.stage in (LABELS, TOGETHER):
        reads = {"graders" if row.stage == LABELS else "checkpoint": [str(path) for path in inputs]}
    tags = {"suite": sweep.suite, "row": row.name, "fold": str(repeat.fold), "seed": str(repeat.seed)}
    tags |= {"mlflow.parentRunId": parent_run} if parent_run is not None else {}

    def stage(name: str, bases: Sequence[str], files: Sequence[Path], outputs: Sequence[str], **paths: object) -> Stage:
        return stage_of(
            name, stacked(bases, sweep.experiment, row.overlays), folder, [sweep.manifest, *files], outputs,
            {"manifest": sweep.manifest, **row.options, **paths, "tags": tags},
            where_known={**shared_options(sweep.output_dir), **sweep.options, **repeat._asdict()},
        )  # fmt: skip

    if row.stage == TOGETHER:
        stages = [stage("evaluate", EVALUATIONS[TOGETHER], inputs, ["metrics.json"], **reads)]
    else:
        stages = [stage(row.stage, [row.stage], inputs, _outputs(row.name), **reads)]
        if scored:
            stages.append(stage("evaluate", EVALUATIONS[row.stage], [folder / WEIGHTS], ["metrics.json"]))
        if scored and sweep.external is not None and "lesions" in row.tasks:
            stages.append(_external(sweep, folder, tags | {"external": load_manifest(sweep.external).name}))
    return Task(name=task_name(row.name, *repeat), stages=stages, output_dir=folder, needs=names)


def _external(sweep: Sweep, folder: Path, tags: Mapping[str, str]) -> Stage:
    """Make the stage that scores a network on another data set, of which no fold was held out."""
    assert sweep.external is not None
    weights = folder / WEIGHTS
    return stage_of(
        EXTERNAL, stacked(EVALUATIONS["train"], sweep.experiment), folder / EXTERNAL, [sweep.external, weights],
        ["metrics.json"], {"manifest": sweep.external, "checkpoint": weights, "tags": tags},
        where_known={**shared_options(sweep.output_dir), **sweep.options},
    )  # fmt: skip


def _needs(row: Row) -> Sequence[str]:
    """Return the names of the rows whose files a row reads."""
    if row.stage == "train":
        return (LABELS, *filter(None, [row.teacher]))
    return GRADERS if row.stage in (LABELS, TOGETHER) else ()


def _outputs(row: str) -> list[str]:
    """Return the files that a row's training writes; later tasks read the first."""
    return ["pseudo_labels.json", "summary.json"] if row == LABELS else [WEIGHTS]


def task_name(row: str, fold: int, seed: int) -> str:
    """Return the name of one repeat of a row, also its folder below the sweep's.

    Example:
        >>> task_name("unet", fold=3, seed=0)
        'unet/fold3_seed0'
    """
    return f"{row}/fold{fold}_seed{seed}"


def repeat_folder(sweep: Path, row: str, repeat: Repeat) -> Path:
    """Return the folder of a row's files for one fold and seed, below that of the sweep.

    Example:
        >>> repeat_folder(Path("outputs"), "unet", Repeat(fold=3, seed=0)).as_posix()
        'outputs/unet/fold3_seed0'
    """
    return sweep / task_name(row, *repeat)
