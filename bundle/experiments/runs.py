"""Runs of a suite, read from MLflow into plain records."""

import json
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bundle.handlers.tracking import EXPERIMENT, TRIVIAL, default_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run as MlflowRun

TRAINING = ("pretrain", "train")
EXTERNAL = "external"
"""Tag of an evaluation on another data set: its name."""

PAGE = 1000


class Repeat(NamedTuple):
    """One repetition of a row: the held-out fold, -1 for none, and the seed.

    Example:
        >>> str(Repeat(fold=3, seed=0)), str(Repeat(fold=-1, seed=0))
        ('fold 3, seed 0', 'no fold, seed 0')
    """

    fold: int
    seed: int

    def __str__(self) -> str:
        return f"fold {self.fold}, seed {self.seed}" if self.fold >= 0 else f"no fold, seed {self.seed}"


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """One network that was trained and evaluated.

    Attributes:
        row: name of its row in the suite.
        repeat: fold and seed.
        scores: by key, such as ``lesions/dice_mean``, including those of the trivial predictors; those on another data
            set begin with ``external/``.
        subsets: subset that each task was scored on, ``test`` or ``fold K``; under ``external`` also the data set.
        labels: last values of the label curves, such as ``labels/accuracy``; empty if labels were not updated.
        settings: settings of its training, as text.
        commit: commit of the code that evaluated it.
        started_ms: start of the evaluation, in ms since 1970.
        duration_s: duration of training and evaluation.
    """

    row: str
    repeat: Repeat
    scores: Mapping[str, float]
    subsets: Mapping[str, str]
    labels: Mapping[str, float]
    settings: Mapping[str, str]
    commit: str
    started_ms: int
    duration_s: float

    @property
    def manifest_sha256(self) -> str:
        return self.settings.get("facts.manifest_sha256", "unknown")


@dataclass(frozen=True, kw_only=True)
class Found:
    """The runs of a suite in a store.

    Attributes:
        runs: the newest finished evaluation of each row, fold and seed, on the manifest of the newest one.
        sweeps: tags of the sweeps that they belong to, oldest first.
        unfinished: how the last run ended, for each row, fold and seed without a finished evaluation.
        on_other_manifests: number of evaluations left out because they used another manifest.
    """

    runs: Sequence[Evaluated]
    sweeps: Sequence[Mapping[str, str]]
    unfinished: Mapping[tuple[str, Repeat], str]
    on_other_manifests: int = 0


def store_uri(tracking_uri: str | None, sweep: str | os.PathLike) -> str:
    """Return the store to read: the given one, else ``MLFLOW_TRACKING_URI``, else the one in the sweep's folder."""
    return tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or default_uri(Path(sweep))


def read_runs(tracking_uri: str, suite: str, rows: Mapping[str, Collection[str]]) -> Found:
    """Read the evaluations of a suite, each with the training that it belongs to.

    Args:
        tracking_uri: URI of the MLflow store; a missing local store is not created.
        suite: name of the suite, as in the tags of the runs.
        rows: the rows that count, each with the suites whose runs of it count, including this suite.

    Raises:
        ValueError: if there is no store, it cannot be read, or it has no finished evaluation of the suite.

    Example:
        >>> read_runs("sqlite:////nowhere/mlflow.db", "table1", {"unet": {"table1"}})  # doctest: +NORMALIZE_WHITESPACE
        Traceback (most recent call last):
            ...
        ValueError: expected an MLflow store at /nowhere/mlflow.db, found none;
            make it with: python -m scripts.sweep --suite table1
    """
    found = _search(tracking_uri, suite, set().union(*rows.values()))
    of_rows = [run for run in found if run.data.tags["suite"] in rows.get(run.data.tags.get("row", ""), ())]
    finished = [run for run in of_rows if run.info.status == "FINISHED"]
    scored = [run for run in finished if _stage(run) == "evaluate"]
    evaluations = _newest(run for run in scored if EXTERNAL not in run.data.tags)
    external = _newest(run for run in scored if EXTERNAL in run.data.tags)
    if not evaluations:
        raise ValueError(
            f"expected finished evaluations of suite {suite!r} in {tracking_uri}, found none among {len(found)} runs "
            f"of it; make them with: python -m scripts.sweep --suite {suite}"
        )
    trainings = [run for run in finished if _stage(run) in TRAINING]
    runs = [_evaluated(run, _training_of(run, trainings), external.get(key)) for key, run in evaluations.items()]
    newest = max(runs, key=lambda run: run.started_ms).manifest_sha256
    kept = [run for run in runs if run.manifest_sha256 == newest]
    keys = {(run.row, run.repeat) for run in kept}
    parents = {run.data.tags.get("mlflow.parentRunId") for key, run in evaluations.items() if key in keys}
    return Found(
        runs=sorted(kept, key=lambda run: run.started_ms),
        sweeps=[dict(run.data.tags) for run in found if _stage(run) == "sweep" and run.info.run_id in parents],
        unfinished=_unfinished(of_rows, evaluations),
        on_other_manifests=len(runs) - len(kept),
    )


def _search(tracking_uri: str, suite: str, suites: Collection[str]) -> list["MlflowRun"]:
    """Return all runs of the suites, of any stage and status, oldest first."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    make = f"make it with: python -m scripts.sweep --suite {suite}"
    path = tracking_uri.removeprefix("sqlite:///")
    if path != tracking_uri and not Path(path).is_file():  # the client would create an empty store
        raise ValueError(f"expected an MLflow store at {path}, found none; {make}")
    try:
        client = MlflowClient(tracking_uri)
        experiment = client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            raise ValueError(f"expected the experiment {EXPERIMENT!r} in {tracking_uri}, found none; {make}")
        pages = [_pages(client, experiment.experiment_id, f"tags.suite = '{one}'") for one in sorted(suites)]
        return sorted(chain.from_iterable(pages), key=lambda run: run.info.start_time)
    except (MlflowException, SQLAlchemyError) as error:
        raise ValueError(f"expected an MLflow store at {tracking_uri}, got: {str(error).splitlines()[0]}") from error


def _pages(client: "MlflowClient", experiment_id: str, wanted: str) -> Iterator["MlflowRun"]:
    token = None
    while True:
        page = client.search_runs(
            [experiment_id], wanted, max_results=PAGE, order_by=["attributes.start_time ASC"], page_token=token
        )
        yield from page
        token = page.token
        if not token:
            return


def _newest(runs: Iterable["MlflowRun"]) -> dict[tuple[str, Repeat], "MlflowRun"]:
    """Return the last run of each row, fold and seed; runs are given oldest first."""
    return {_key(run): run for run in runs}


def _evaluated(run: "MlflowRun", training: "MlflowRun | None", external: "MlflowRun | None") -> Evaluated:
    scores, subsets = _scores(run)
    if external is not None:
        elsewhere, parts = _scores(external)
        scores |= {f"{EXTERNAL}/{key}": value for key, value in elsewhere.items()}
        subsets[EXTERNAL] = f"{external.data.tags[EXTERNAL]}, {parts.get('lesions', 'none')}"
    # An evaluation has `pretrained: false`, because it loads all weights, and steps that teach nothing: only the
    # training records the initial weights and its steps.
    own = {name: value for name, value in run.data.params.items() if name not in ("pretrained", "facts.steps")}
    curves = training.data.metrics if training else {}
    row, repeat = _key(run)
    return Evaluated(
        row=row, repeat=repeat, scores=scores, subsets=subsets,
        labels={name[6:]: value for name, value in curves.items() if name.startswith("train/labels/")},
        settings=own | (training.data.params if training else {}),
        commit=run.data.tags.get("commit", "unknown"),
        started_ms=run.info.start_time,
        duration_s=_duration_s(run) + (_duration_s(training) if training else 0.0),
    )  # fmt: skip


def _scores(run: "MlflowRun") -> tuple[dict[str, float], dict[str, str]]:
    """Return scores and subsets of a run; trivial scores are tags, and in older stores metrics."""
    trivial = {
        f"{where}/{score}_{predictor}": float(value)
        for tag, text in run.data.tags.items()
        if tag.startswith(f"{TRIVIAL}/")
        for where, _, predictor in [tag.removeprefix(f"{TRIVIAL}/").rpartition("/")]
        for score, value in json.loads(text).items()
    }
    return _split_names({**run.data.metrics, **trivial})


def _split_names(metrics: Mapping[str, float]) -> tuple[dict[str, float], dict[str, str]]:
    """Split ``<subset>/<task>/<score>`` into scores by ``<task>/<score>``, and the subset of each task.

    Names of another form, logged by other programs, are skipped.
    """
    scores, subsets = {}, {}
    for name, value in metrics.items():
        if name.count("/") < 2:
            continue
        subset, task, score = name.split("/", 2)
        scores[f"{task}/{score}"], subsets[task] = value, subset
    return scores, subsets


def _training_of(run: "MlflowRun", trainings: Sequence["MlflowRun"]) -> "MlflowRun | None":
    """Return the last training of the same row, fold and seed that began before this evaluation."""
    earlier = [one for one in trainings if _key(one) == _key(run) and one.info.start_time <= run.info.start_time]
    return earlier[-1] if earlier else None


def _unfinished(
    found: Sequence["MlflowRun"], evaluations: Collection[tuple[str, Repeat]]
) -> dict[tuple[str, Repeat], str]:
    last = _newest(run for run in found if _stage(run) in (*TRAINING, "evaluate") and EXTERNAL not in run.data.tags)
    return {key: f"{_stage(run)} {run.info.status.lower()}" for key, run in last.items() if key not in evaluations}


def _key(run: "MlflowRun") -> tuple[str, Repeat]:
    tags = run.data.tags
    return tags.get("row", ""), Repeat(_integer(tags.get("fold")), _integer(tags.get("seed")))


def _stage(run: "MlflowRun") -> str:
    return run.data.tags.get("stage", "")


def _duration_s(run: "MlflowRun") -> float:
    return ((run.info.end_time or run.info.start_time) - run.info.start_time) / 1000


def _integer(text: str | None) -> int:
    return int(text) if text and re.fullmatch("[0-9]{1,18}", text) else -1
