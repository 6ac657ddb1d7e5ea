"""The runs of a table: each row on each fold with each seed, as tasks that need files of other tasks."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bundle.experiments.pipeline import Stage, check_used, shared_options, stacked, stage_of
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
"""Name of the task that makes the pseudo-labels, used like a row's name."""


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
        experiment: folder below ``configs/experiments`` whose overlays go on top of every row's, or None.
        rows: names of the rows to run; None for all.
        options: passed to every stage that has an option of this name.
    """

    suite: str
    manifest: Path
    output_dir: Path
    folds: int
    seeds: int
    experiment: str | None = None
    rows: Sequence[str] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def lay_out(sweep: Sweep) -> list[Task]:
    """Return the tasks, each after the tasks that it needs.

    Rows of stage 2 learn from pseudo-labels of the graders of the same fold and seed. These graders had the same fold
    held out, so the held-out fold does not leak into stage 2 through the labels.

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
        ['resnext50/fold0_seed0', 'resnext101/fold0_seed0', 'pseudo_label/fold0_seed0', 'unet/fold0_seed0']
        >>> [stage.name for stage in tasks[-1].stages], tasks[-1].needs
        (['train', 'evaluate'], ['pseudo_label/fold0_seed0'])
    """
    rows = _chosen(sweep)
    _check_counts(sweep)
    pairs = [(fold, seed) for fold in range(sweep.folds) for seed in range(sweep.seeds)]
    found = [task for pair in pairs for task in _Cell(sweep, *pair).tasks(rows)]
    check_used(sweep.options, [stage for task in found for stage in task.stages])
    return found


def below(tasks: Sequence[Task], parent_run: str) -> list[Task]:
    """Return the tasks with their MLflow runs nested below another run."""
    return [replace(task, stages=[_below(stage, parent_run) for stage in task.stages]) for task in tasks]


def _below(stage: Stage, parent_run: str) -> Stage:
    tags = {**stage.options["tags"], "mlflow.parentRunId": parent_run}
    return replace(stage, options={**stage.options, "tags": tags})


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


@dataclass(frozen=True)
class _Cell:
    """One fold and seed of a sweep."""

    sweep: Sweep
    fold: int
    seed: int

    def tasks(self, rows: Sequence[Row]) -> list[Task]:
        """Return the tasks of rows and of the rows they need; rows that are not shown are trained but not scored."""
        shown = {row.name for row in rows}
        known = [*_helpers(rows), *rows]
        graders = [self._grader(row, row.name in shown) for row in known if row.stage == "pretrain"]
        networks = [self._network(row, row.name in shown) for row in known if row.stage == "train"]
        return [*graders, *([self._labels()] if networks else []), *networks]

    def _grader(self, row: Row, scored: bool) -> Task:
        train = self._stage(row, "pretrain", ["pretrain"], [], ["model.pt"])
        score = self._stage(
            row, "evaluate", ["pretrain", "evaluate_grader"], [self._weights(row.name)], ["metrics.json"]
        )
        return self._task(row.name, [train, *([score] if scored else [])], [])

    def _labels(self) -> Task:
        graders = [self._weights(name) for name in GRADERS]
        row = Row(name=LABELS, title="pseudo-labels", stage=LABELS)
        outputs = ["pseudo_labels.json", "summary.json"]
        stage = self._stage(row, LABELS, [LABELS], graders, outputs, graders=[str(path) for path in graders])
        return self._task(LABELS, [stage], GRADERS)

    def _network(self, row: Row, scored: bool) -> Task:
        labels = self._folder(LABELS) / "pseudo_labels.json"
        teacher = {"teacher": self._weights(row.teacher)} if row.teacher else {}
        train = self._stage(
            row, "train", ["train"], [labels, *teacher.values()], ["model.pt"], pseudo_labels=labels, **teacher
        )
        score = self._stage(row, "evaluate", ["train", "evaluate"], [self._weights(row.name)], ["metrics.json"])
        needs = [LABELS, *([row.teacher] if row.teacher else [])]
        return self._task(row.name, [train, *([score] if scored else [])], needs)

    def _stage(
        self,
        row: Row,
        name: str,
        bases: Sequence[str],
        inputs: Sequence[Path],
        outputs: Sequence[str],
        **options: object,
    ) -> Stage:
        tags = {"suite": self.sweep.suite, "row": row.name, "fold": str(self.fold), "seed": str(self.seed)}
        given = {"manifest": self.sweep.manifest, **row.options, **options, "tags": tags}
        shared = {**shared_options(self.sweep.output_dir), **self.sweep.options, "fold": self.fold, "seed": self.seed}
        return stage_of(
            name, stacked(bases, self.sweep.experiment, row.overlays), self._folder(row.name),
            [self.sweep.manifest, *inputs], outputs, given, where_known=shared,
        )  # fmt: skip

    def _task(self, row: str, stages: Sequence[Stage], needs: Sequence[str]) -> Task:
        names = [self._name(name) for name in needs]
        return Task(name=self._name(row), stages=stages, output_dir=self._folder(row), needs=names)

    def _name(self, row: str) -> str:
        return task_name(row, self.fold, self.seed)

    def _folder(self, row: str) -> Path:
        return self.sweep.output_dir / self._name(row)

    def _weights(self, row: str) -> Path:
        return self._folder(row) / "model.pt"


def task_name(row: str, fold: int, seed: int) -> str:
    """Return the name of one repeat of a row, also its folder below the sweep's.

    Example:
        >>> task_name("unet", fold=3, seed=0)
        'unet/fold3_seed0'
    """
    return f"{row}/fold{fold}_seed{seed}"


def _helpers(rows: Sequence[Row]) -> list[Row]:
    """Return the rows that the given rows need and that are not among them."""
    networks = [row for row in rows if row.stage == "train"]
    needed = [*(GRADERS if networks else ()), *(row.teacher for row in networks if row.teacher)]
    shown = {row.name for row in rows}
    return [helper(name) for name in dict.fromkeys(needed) if name not in shown]
