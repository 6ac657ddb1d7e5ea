"""All stages in order: each runs in its own process, is skipped if finished, and is resumed if interrupted."""

import hashlib
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import IO, Any

import yaml
from bundle import ROOT
from bundle.files import file_sha256, load_json, locked, write_json_whole
from bundle.handlers.tracking import project_folder
from bundle.refusals import TRACEBACK

CONFIGS = ROOT / "configs"
PROGRESS = re.compile(r"(\S.*?\[\d+/\d+\]\s*\d+%)")
ERROR = re.compile(r"^(?:\w+\.)*(\w*(?:Error|Exception|Interrupt)): (.*)$", re.MULTILINE)
PROGRESS_EVERY_S = 20
PLACES = {
    "manifest", "graders", "pseudo_labels", "teacher", "checkpoint", "cache_dir", "tracking_uri", "tags", "num_workers",
    "multiprocessing_context", "resume",
}  # fmt: skip
"""Options that do not change the result, or whose files are hashed as inputs."""


class StageFailed(RuntimeError):
    """A stage's process failed with an error that the user did not cause."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One ``monai.bundle run``.

    Attributes:
        name: shown to the user; unique in a pipeline.
        configs: names below ``configs/``, merged in this order.
        options: options of the command line.
        inputs: files whose content the stage depends on.
        outputs: files below ``output_dir`` that it writes.
        output_dir: folder of the run.

    Example:
        >>> stage = Stage(
        ...     name="pretrain/resnext50_32x4d", configs=["pretrain.yaml"], options={"fold": 0}, inputs=[],
        ...     outputs=["model.pt"], output_dir=Path("out"),
        ... )
        >>> stage.command()[1:4], stage.command()[-4:]
        (['-m', 'monai.bundle', 'run'], ['--fold', '0', '--output_dir', 'out'])
        >>> stage.marker.as_posix(), stage.is_finished()
        ('out/finished.pretrain_resnext50_32x4d.json', False)
    """

    name: str
    configs: Sequence[str]
    options: Mapping[str, Any]
    inputs: Sequence[Path]
    outputs: Sequence[str]
    output_dir: Path

    def command(self) -> list[str]:
        """Return the command that a user would type for this stage."""
        files = [str(CONFIGS / name) for name in self.configs]
        config_file = files[0] if len(files) == 1 else str(files)
        options = {"config_file": config_file, **self.options, "output_dir": str(self.output_dir)}
        words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
        return [sys.executable, "-m", "monai.bundle", "run", *words]

    def key(self) -> str:
        """Hash what the result depends on: configs, options, and the content of the inputs but not their paths."""
        content = {
            "configs": [file_sha256(CONFIGS / name) for name in self.configs],
            "options": {name: str(value) for name, value in self.options.items() if name not in PLACES},
            "inputs": [file_sha256(path) for path in self.inputs if path.is_file()],
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def marker(self) -> Path:
        """File that marks the stage as finished, with its key and duration."""
        return self.output_dir / f"finished.{self.name.replace('/', '_')}.json"

    @property
    def log(self) -> Path:
        """File with the screen output of the stage's process, named by stage because two stages may share a folder."""
        return self.output_dir / f"log.{self.name.replace('/', '_')}.txt"

    def is_finished(self) -> bool:
        """Return whether the same stage has finished on the same input and its outputs still exist."""
        if not self.marker.is_file() or not all((self.output_dir / name).is_file() for name in self.outputs):
            return False
        return load_json(self.marker)["key"] == self.key()


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of a pipeline.

    Attributes:
        manifest: file written by ``scripts.prepare``.
        output_dir: folder for all stages.
        architectures: architectures of the graders, with one ``pretrain`` stage each.
        inputs: photographs or folder for inference.
        experiment: folders below ``configs/experiments`` with an overlay per stage, joined by commas, or None.
        options: passed to every stage that has an option of this name.
    """

    manifest: Path
    output_dir: Path
    architectures: Sequence[str]
    inputs: Sequence[str]
    experiment: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def stages(settings: Settings) -> list[Stage]:
    """Return the stages, each with the files of earlier stages as its inputs.

    Raises:
        ValueError: if the experiment is unknown, or an option belongs to no stage.

    Example:
        >>> architectures = ["resnext50_32x4d"]
        >>> settings = Settings(
        ...     manifest=Path("manifest.json"), output_dir=Path("out"), architectures=architectures, inputs=["eyes"]
        ... )
        >>> [stage.name for stage in stages(settings)]
        ['pretrain/resnext50_32x4d', 'pseudo_label', 'train', 'evaluate', 'inference']
    """
    out, manifest = settings.output_dir, settings.manifest
    graders = [out / "pretrain" / name / "model.pt" for name in settings.architectures]
    labels, weights = out / "pseudo" / "pseudo_labels.json", out / "train" / "model.pt"
    found = [
        *(
            _stage(settings, f"pretrain/{path.parent.name}", ["pretrain"], path.parent, [manifest], ["model.pt"],
                   manifest=manifest, architecture=path.parent.name)
            for path in graders
        ),
        _stage(settings, "pseudo_label", ["pseudo_label"], labels.parent, [manifest, *graders],
               ["pseudo_labels.json", "summary.json"], manifest=manifest, graders=[str(path) for path in graders]),
        _stage(settings, "train", ["train"], weights.parent, [manifest, labels], ["model.pt"],
               manifest=manifest, pseudo_labels=labels),
        _stage(settings, "evaluate", ["train", "evaluate"], weights.parent, [manifest, weights], ["metrics.json"],
               manifest=manifest),
        _stage(settings, "inference", ["inference"], out / "inference", [weights],
               ["predictions.csv", "report.html"], checkpoint=weights, input=list(settings.inputs)),
    ]  # fmt: skip
    if any(_content(CONFIGS / path).get("fuse") for path in stacked(["train"], settings.experiment)):
        found.pop()  # the rules and the report need separate lesion classes; configs/inference.yaml refuses one
    check_used(settings.options, found)
    return found


def _stage(
    settings: Settings,
    name: str,
    bases: Sequence[str],
    output_dir: Path,
    inputs: Sequence[Path],
    outputs: Sequence[str],
    **options: object,
) -> Stage:
    project = project_folder(settings.output_dir / "train")
    shared = {**shared_options(settings.output_dir), "tracking_uri": store(project)}
    return stage_of(
        name, stacked(bases, settings.experiment), output_dir, inputs, outputs, options,
        where_known={**shared, **settings.options},
    )  # fmt: skip


def stacked(bases: Sequence[str], experiment: str | None, rows: Sequence[str] = ()) -> list[str]:
    """Return the configs of a stage in order: its own, a row's overlays, then the experiment's overlays for its own.

    Raises:
        ValueError: if there is no such experiment.

    Example:
        >>> stacked(["train", "evaluate"], "light,crops", rows=["baselines/unet/train.yaml"])[2:]
        ['baselines/unet/train.yaml', 'experiments/light/train.yaml', 'experiments/crops/train.yaml']
    """
    experiments = experiment.split(",") if experiment is not None else []
    over = [path for base in bases for name in experiments for path in _overlay(name, base)]
    return [*(f"{base}.yaml" for base in bases), *rows, *over]


def stage_of(
    name: str,
    configs: Sequence[str],
    output_dir: Path,
    inputs: Sequence[Path],
    outputs: Sequence[str],
    options: Mapping[str, Any],
    where_known: Mapping[str, Any],
) -> Stage:
    """Make a stage; an option in ``where_known`` is passed if it is not None and the stage's configs have it."""
    known = {key for path in configs for key in _content(CONFIGS / path)}
    chosen = {key: value for key, value in where_known.items() if key in known and value is not None}
    return Stage(
        name=name, configs=configs, options={**chosen, **options}, inputs=inputs, outputs=outputs,
        output_dir=output_dir,
    )  # fmt: skip


@cache
def _content(config: Path) -> Mapping[str, Any]:
    """Parse a config; cached, because a sweep needs the same few configs hundreds of times."""
    return yaml.safe_load(config.read_text(encoding="utf-8"))


def shared_options(output_dir: Path) -> dict[str, Any]:
    """Return options that make all stages of a sweep share prepared images and the store of their runs."""
    return {"cache_dir": output_dir / "cache", "tracking_uri": store(output_dir)}


def store(folder: Path) -> str | None:
    """Return the MLflow store in a folder for all stages; None if MLFLOW_TRACKING_URI is set."""
    return None if os.environ.get("MLFLOW_TRACKING_URI") else f"sqlite:///{folder / 'mlflow.db'}"


def _overlay(experiment: str, base: str) -> list[str]:
    folder = CONFIGS / "experiments" / experiment
    if not folder.is_dir():
        there = sorted(path.name for path in folder.parent.iterdir() if path.is_dir())
        raise ValueError(f"expected --experiment out of {there}, got {experiment!r}")
    path = folder / f"{base}.yaml"
    return [str(path.relative_to(CONFIGS))] if path.is_file() else []


def check_used(options: Mapping[str, Any], found: Sequence[Stage]) -> None:
    """Refuse options that no stage has.

    Raises:
        ValueError: naming them.

    Example:
        >>> options = {"beta": 0.8}
        >>> stage = Stage(name="train", configs=[], options=options, inputs=[], outputs=[], output_dir=Path("out"))
        >>> check_used({"beta": 0.8, "betta": 0.8}, [stage])
        Traceback (most recent call last):
            ...
        ValueError: expected options that some stage has, got also ['betta']
    """
    unused = set(options) - {name for stage in found for name in stage.options}
    if unused:
        raise ValueError(f"expected options that some stage has, got also {sorted(unused)}")


def up_to(found: Sequence[Stage], name: str | None) -> list[Stage]:
    """Return the stages up to and including the named one; all of them for None.

    Raises:
        ValueError: if there is no such stage.

    Example:
        >>> found = [
        ...     Stage(name=name, configs=[], options={}, inputs=[], outputs=[], output_dir=Path("out"))
        ...     for name in ("pseudo_label", "train", "evaluate")
        ... ]
        >>> [stage.name for stage in up_to(found, "train")], len(up_to(found, None))
        (['pseudo_label', 'train'], 3)
    """
    names = [stage.name for stage in found]
    if name is not None and name not in names:
        raise ValueError(f"expected --until out of {names}, got {name!r}")
    return list(found[: names.index(name) + 1] if name is not None else found)


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def run_stages(
    todo: Sequence[Stage], output_dir: Path, say: Callable[[str], None] = _say, lock_wait_s: float = 0
) -> None:
    """Run the unfinished stages in order.

    Args:
        todo: the stages.
        output_dir: folder that no other run may use meanwhile.
        say: called with each line of progress.
        lock_wait_s: how long to wait for another run in the folder to end.

    Raises:
        ValueError: if another run uses the folder, or a stage refuses its input.
        StageFailed: if a stage's process fails in another way; the next run continues from there.
    """
    with locked(output_dir / ".lock", lock_wait_s) as lock:
        for number, stage in enumerate(todo, start=1):
            title = f"[{number}/{len(todo)}] {stage.name}"
            if stage.is_finished():
                say(f"{title}: finished before, skipped")
                continue
            say(f"{title}: running, log in {stage.log}")
            started = time.monotonic()
            _run(stage, lock, say)
            duration_s = round(time.monotonic() - started, 1)
            write_json_whole(stage.marker, {"key": stage.key(), "duration_s": duration_s, "command": stage.command()})
            say(f"{title}: done in {duration_s:.0f} s")


def _run(stage: Stage, lock: int, say: Callable[[str], None]) -> None:
    """Run a stage's process; it inherits the lock, so a stage whose parent was killed is not run twice."""
    stage.output_dir.mkdir(parents=True, exist_ok=True)
    # A stage finds this bundle from any folder, installed or not.
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", "PYTHONPATH": path, TRACEBACK: "1"}  # for the log
    inherited = (lock,) if os.name == "posix" else ()  # Windows cannot pass one: there the lock ends with the pipeline
    with stage.log.open("w", encoding="utf-8") as file:
        process = subprocess.Popen(
            stage.command(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
            env=environment, pass_fds=inherited,
        )  # fmt: skip
        assert process.stdout is not None
        try:
            _follow(process.stdout, file, say)
        finally:
            process.stdout.close()
            returncode = process.wait()
    if returncode:
        raise _failure(stage, returncode)


def _follow(output: IO[str], log: IO[str], say: Callable[[str], None]) -> None:
    """Copy a process's output to its log, and show only its progress on the screen."""
    shown = time.monotonic()
    for line in output:
        log.write(line)
        progress = PROGRESS.findall(line)
        if progress and time.monotonic() - shown > PROGRESS_EVERY_S:
            say(f"      {progress[-1]}")
            shown = time.monotonic()


def _failure(stage: Stage, returncode: int) -> Exception:
    """Return the first ValueError in the log, by which this bundle refuses input, or else the first error."""
    if returncode < 0:
        return StageFailed(f"{stage.name} was stopped by signal {-returncode}; run the same command again to go on")
    errors = [
        pair for pair in ERROR.findall(stage.log.read_text(encoding="utf-8")) if not pair[1].startswith("Caught ")
    ]
    refused = [message for kind, message in errors if kind == "ValueError"]
    if refused:
        return ValueError(f"{stage.name}: {refused[0]}")
    kind, message = errors[0] if errors else ("error", f"exit code {returncode}")
    return StageFailed(f"{stage.name}: {kind}: {message} (whole log: {stage.log})")
