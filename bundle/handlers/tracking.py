"""The MLflow record of every run: settings, curves, files, and final status."""

import json
import math
import os
import re
import shlex
import socket
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from bundle.distributed import is_main
from bundle.files import locked, write_json_whole, written_whole
from bundle.manifest import Manifest
from bundle.metrics.trivial import split_ending
from bundle.provenance import commit
from ignite.engine import Engine, Events

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

EXPERIMENT = "fundus_dr_multitask"
METRICS_MAX = 1000
"""Largest number of metrics in one message to MLflow."""

WAYS_OUT = "start its server, name another --tracking_uri, or record nothing with --track False"
PORTS = {"http": 80, "https": 443}
ANSWER_MAX_S = 5.0
"""How long a server may take to answer before a run begins."""

PROJECT = "outputs"
"""Name of the folder whose store holds all runs below it."""

TRIVIAL = "trivial"
"""Beginning of the tags that hold the scores of trivial predictors."""

DIGEST_LENGTH = 16
"""Digits of a manifest's hash in the column of data sets; MLflow takes 36 at most."""


class RunTracker:
    """Handler that records one engine's run as its own MLflow run.

    The run starts and ends with the engine, is marked failed when the engine raises, and never continues an older run.
    A run of the same output folder that is still open when this one starts was killed, and is marked as killed.
    Metrics are named ``<split>/<task>/<metric>``. The scores of trivial predictors are no metrics but tags, one for
    each split, task and predictor: ``trivial/<split>/<task>/<predictor>``, with a JSON object of numbers by metric.
    MLflow is imported when the engine starts, not before.

    Attach it after the handlers that write files, so that the files they write at the end can be logged.

    If the store cannot be reached when the run starts, that is an error. If it is lost later, training continues: the
    curves are held back, with one warning, and sent at the end together with the rest. If the store is still lost then,
    that is an error, but the files of the run are already complete.

    Args:
        stage: ``pretrain``, ``pseudo_label``, ``train``, ``evaluate`` or ``inference``.
        output_dir: folder of the run; for the default store, see :func:`project_folder`.
        settings: the resolved config; nested values are logged only in the file ``config.json``.
        split: split of the engine's own metrics, or the split of each task.
        validators: engines that run inside this one, by the split under which their metrics are logged.
        artifacts: files and folders below ``output_dir`` to log at the end, if they exist.
        tracking_uri: URI of the store; None uses ``MLFLOW_TRACKING_URI`` or the default.
        facts: origin of the run's input, such as the manifest's hash; logged as ``facts.<name>``.
        tags: further tags of the run, in addition to stage, folder, commit and command, such as the row of a sweep.
        name: name of the run; None for stage and folder.
        parameters: what is logged as the run's parameters; None for the flat settings.
        manifest: data set of the run, logged as its input: name, digest and numbers of photographs.

    Raises:
        ValueError: when the engine starts, if the store cannot be reached or written.
        ConnectionError: the same, when the engine has finished.
    """

    def __init__(
        self,
        stage: str,
        output_dir: str,
        settings: Mapping[str, Any],
        split: str | Mapping[str, str] = "train",
        validators: Mapping[str, Engine] | None = None,
        artifacts: Sequence[str] = (),
        tracking_uri: str | None = None,
        facts: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
        name: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        manifest: Manifest | None = None,
    ) -> None:
        self.stage, self.output_dir, self.settings = stage, Path(output_dir).resolve(), dict(settings)
        self.split, self.validators = split, dict(validators or {})
        self.artifacts, self.tracking_uri = tuple(artifacts), tracking_uri
        self.facts = {f"facts.{name}": value for name, value in (facts or {}).items()}
        self.tags = {name: str(value) for name, value in (tags or {}).items()}
        self.name = name or f"{stage}-{self.output_dir.name}"
        self.parameters, self.manifest = dict(settings if parameters is None else parameters), manifest
        self.trivial: dict[str, dict[str, float]] = defaultdict(dict)
        self.run_id = ""
        self.held: list[Metric] = []
        self.seen: dict[str, object] = {}
        self.is_lost = False

    def attach(self, engine: Engine) -> None:
        if not is_main():
            return
        engine.add_event_handler(Events.STARTED, self.start)
        engine.add_event_handler(Events.EXCEPTION_RAISED, self.fail)
        engine.add_event_handler(Events.COMPLETED, self.finish)
        engine.add_event_handler(Events.EPOCH_COMPLETED, self.log_metrics, self.split)
        for split, validator in self.validators.items():
            validator.add_event_handler(Events.EPOCH_COMPLETED, self.log_metrics, split)

    def start(self, engine: Engine) -> None:
        """Open the run and log its settings and facts before the first step."""
        try:
            self._open(engine)
        except _failures() as error:
            self.is_lost = True
            raise ValueError(
                f"expected an MLflow store that can be written, {_first_line(error)}; {WAYS_OUT}"
            ) from None

    def _open(self, engine: Engine) -> None:
        self.client = open_store(self.tracking_uri, project_folder(self.output_dir))
        experiment_id = find_experiment(self.client)
        self._close_killed(experiment_id)
        run = self.client.create_run(experiment_id, run_name=self.name, tags=self._tags())
        self.run_id, self.engine = run.info.run_id, engine
        for name, value in {**self.parameters, **self.facts}.items():
            if not isinstance(value, (dict, list)):
                self.client.log_param(self.run_id, name, str(value)[:500])
        self._log_config()
        if self.manifest is not None:
            self._log_data(self.manifest)

    def log_metrics(self, engine: Engine, split: str | Mapping[str, str]) -> None:
        """Log the finite numbers that are new in an engine's metrics, at the epoch of the run's own engine.

        A metric that is not computed in every epoch stays in the engine until it is computed again; it is logged once.
        """
        from mlflow.entities import Metric

        now_ms, step = int(time.time() * 1000), self.engine.state.epoch
        named = {f"{_split_of(name, split)}/{name}": value for name, value in engine.state.metrics.items()}
        found = self._new(named) if engine is self.engine else named
        numbers = {name: float(v) for name, v in found.items() if isinstance(v, (int, float)) and math.isfinite(v)}
        for name in [*filter(split_ending, numbers)]:
            self._keep_trivial(name, numbers.pop(name))
        self.held += [Metric(name, value, now_ms, step) for name, value in numbers.items()]
        if self.is_lost:  # MLflow would retry for minutes at every epoch
            return
        try:
            self._send()
        except _failures() as error:
            self.is_lost = True
            engine.logger.warning(
                f"lost the MLflow store, {_first_line(error)}; the run goes on, and its curves are sent at the end"
            )

    def _keep_trivial(self, name: str, value: float) -> None:
        """Keep the latest score of a trivial predictor for its tag."""
        measured, predictor = split_ending(name) or (name, "")
        where, _, score = measured.rpartition("/")
        self.trivial[f"{TRIVIAL}/{where}/{predictor}"][score] = value

    def _new(self, metrics: Mapping[str, object]) -> dict[str, object]:
        """Return the metrics without those left from an earlier epoch; a metric computed again is a new object."""
        found = {name: value for name, value in metrics.items() if self.seen.get(name) is not value}
        self.seen.update(found)
        return found

    def _send(self) -> None:
        while self.held:
            self.client.log_batch(self.run_id, metrics=self.held[:METRICS_MAX])
            del self.held[:METRICS_MAX]

    def finish(self, engine: Engine) -> None:
        """Log the metrics of the last handlers and the files, and close the run."""
        self.log_metrics(engine, self.split)
        try:
            self._close()
        except _failures() as error:
            self.is_lost = True
            raise ConnectionError(
                f"the files in {self.output_dir} are whole, but their record in MLflow is not, {_first_line(error)}; "
                f"run the same command again when the store can be reached: a training repeats its last epoch alone"
            ) from None

    def _close(self) -> None:
        self._send()
        for tag, scores in self.trivial.items():
            self.client.set_tag(self.run_id, tag, json.dumps(scores))
        if "facts.steps" not in self.facts:  # an evaluation has those of the training
            self.client.log_param(self.run_id, "facts.steps", self.engine.state.iteration)
        for name in self.artifacts:
            path = self.output_dir / name
            if path.is_dir():
                self.client.log_artifacts(self.run_id, str(path), artifact_path=name)
            elif path.exists():
                self.client.log_artifact(self.run_id, str(path))
        self.client.set_terminated(self.run_id, status="FINISHED")
        sys.stdout.write(f"MLflow: recorded as {self.name!r}; {where_to_look(self.client.tracking_uri)}\n")

    def fail(self, engine: Engine, error: BaseException) -> None:
        """Mark the run as failed, record the error, and raise it again."""
        if self.run_id and not self.is_lost:
            try:
                self.client.set_tag(self.run_id, "error", f"{type(error).__name__}: {error}"[:5000])
                self.client.set_terminated(self.run_id, status="FAILED")
            except _failures() as lost:
                engine.logger.warning(f"lost the MLflow store, {_first_line(lost)}; the run stays open there")
        raise error

    def _tags(self) -> dict[str, str]:
        return {
            **self.tags,
            "stage": self.stage,
            "output_dir": str(self.output_dir),
            "commit": commit(),
            "command": " ".join(sys.argv),
        }

    def _close_killed(self, experiment_id: str) -> None:
        mine = self.stage, str(self.output_dir)
        for run in self.client.search_runs([experiment_id], "attributes.status = 'RUNNING'"):
            # Compared here because an MLflow filter cannot contain a folder name with an apostrophe.
            if (run.data.tags.get("stage"), run.data.tags.get("output_dir")) == mine:
                self.client.set_terminated(run.info.run_id, status="KILLED")

    def _log_data(self, manifest: Manifest) -> None:
        """Log the data set with its numbers of photographs; which photographs and where they are stays out."""
        from mlflow.entities import Dataset, DatasetInput, InputTag

        rows = manifest.photographs
        numbers = {
            "photographs": len(rows),
            "outlined": sum(bool(row.annotated) for row in rows),
            "graded": sum(row.grade is not None for row in rows),
            "test": sum(row.split == "test" for row in rows),
            "folds": manifest.folds,
        }
        data = Dataset(
            name=manifest.name, digest=manifest.sha256[:DIGEST_LENGTH], source_type="manifest",
            source=json.dumps({"manifest_sha256": manifest.sha256}), profile=json.dumps(numbers),
        )  # fmt: skip
        parts = [self.split] if isinstance(self.split, str) else dict.fromkeys(self.split.values())
        context = InputTag("mlflow.data.context", ", ".join(parts))
        self.client.log_inputs(self.run_id, datasets=[DatasetInput(data, [context])])

    def _log_config(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "config.json"
            write_json_whole(path, json.loads(json.dumps(self.settings, default=str)))
            self.client.log_artifact(self.run_id, str(path))


def _split_of(metric: str, split: str | Mapping[str, str]) -> str:
    return split if isinstance(split, str) else split[metric.split("/")[0]]


def _failures() -> tuple[type[Exception], ...]:
    """Return the exceptions of a store that cannot be reached or written."""
    from mlflow.exceptions import MlflowException

    return MlflowException, OSError


def _first_line(error: BaseException) -> str:
    first, _, _ = str(error).strip().partition("\n")
    return f"got {type(error).__name__}: {first}"


def project_folder(output_dir: Path) -> Path:
    """Return the folder of the default store of a run: the nearest ``outputs`` above it, else the run's parent.

    Example:
        >>> project_folder(Path("/data/outputs/demo/train")).as_posix(), project_folder(Path("/data/runs/a")).as_posix()
        ('/data/outputs', '/data/runs')
    """
    above = output_dir.resolve().parents
    return next((folder for folder in above if folder.name == PROJECT), above[0])


def where_to_look(tracking_uri: str) -> str:
    """Return how to see the runs of a store, without credentials in its address.

    Example:
        >>> where_to_look("sqlite:////data/my eyes/mlflow.db")
        "see it with: mlflow ui --backend-store-uri 'sqlite:////data/my eyes/mlflow.db'"
        >>> where_to_look("http://me:secret@host:5000")
        'see it at http://host:5000'
    """
    _, local, path = tracking_uri.partition("sqlite:///")
    if local:
        here = os.path.relpath(path) if Path(path).is_relative_to(Path.cwd()) else path
        return f"see it with: mlflow ui --backend-store-uri {shlex.quote(local + here)}"
    address = urlsplit(tracking_uri)
    return f"see it at {address.scheme}://{address.netloc.rpartition('@')[2]}{address.path}"


def default_uri(folder: Path) -> str:
    """Return the URI of the SQLite store of a folder of runs."""
    return f"sqlite:///{folder.resolve() / 'mlflow.db'}"


def check_store(tracking_uri: str | None) -> None:
    """Refuse a server that is not there: MLflow would ask it for minutes, after the data is prepared.

    Behind a proxy, only MLflow itself can tell, when the run starts.

    Raises:
        ValueError: if nothing answers at the address, or it is none.

    Example:
        >>> check_store("localhost:5000")
        Traceback (most recent call last):
            ...
        ValueError: expected --tracking_uri as http://localhost:5000, got 'localhost:5000'
    """
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or ""
    address = urlsplit(uri)
    if re.fullmatch(r"[\w.-]+:\d+(/.*)?", uri):
        raise ValueError(f"expected --tracking_uri as http://{uri}, got {uri!r}")
    host, shown = address.hostname or "", address.netloc.rpartition("@")[2]
    if address.scheme not in PORTS or (address.scheme in getproxies() and not proxy_bypass(host)):
        return
    try:
        socket.create_connection((host, address.port or PORTS[address.scheme]), timeout=ANSWER_MAX_S).close()
    except (OSError, ValueError) as error:
        raise ValueError(
            f"expected an MLflow store that can be written, no server answers at {address.scheme}://{shown}: {error}; "
            f"{WAYS_OUT}"
        ) from None


def open_store(tracking_uri: str | None, folder: Path) -> "MlflowClient":
    """Return a client of the requested store, else of the one set by program or environment, else of the folder's."""
    import mlflow

    folder.mkdir(parents=True, exist_ok=True)
    # is_tracking_uri_set: MLFLOW_TRACKING_URI, or a store that the calling program has set before.
    chosen = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else default_uri(folder)
    _, local, path = (tracking_uri or chosen).partition("sqlite:///")
    if local:
        _make_store(Path(path).absolute())
    return mlflow.MlflowClient(tracking_uri or chosen)


def _make_store(path: Path) -> None:
    """Create a SQLite store completely or not at all: MLflow refuses one with tables left incomplete by a kill."""
    import mlflow

    with locked(path.with_name(f".{path.name}.lock")):
        if not path.exists():
            with written_whole(path) as beside:
                mlflow.MlflowClient(f"sqlite:///{beside}").search_experiments(max_results=1)


def find_experiment(client: "MlflowClient") -> str:
    """Return the id of this bundle's experiment, and create it if it is missing.

    The files of a local store are next to it; a server chooses its own place.
    """
    found = client.get_experiment_by_name(EXPERIMENT)
    if found is not None:
        return found.experiment_id
    _, local, path = client.tracking_uri.partition("sqlite:///")
    location = (Path(path).resolve().parent / "mlartifacts").as_uri() if local else None
    return client.create_experiment(EXPERIMENT, artifact_location=location)
