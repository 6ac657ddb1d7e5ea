"""The outcome of a task, shared by both executors."""

import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass

from bundle.experiments.pipeline import StageFailed, run_stages
from bundle.experiments.sweep import Task

LOCK_WAIT_S = 600
"""How long a task waits for its folder. When a worker is killed, the process of its stage keeps running. It holds the
folder until it finishes, or notices at its next line of progress that its output is no longer read. The next try of the
task waits for that, then continues."""

GOOD = ("done", "finished before")


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of a task.

    Attributes:
        task: name of the task.
        status: ``done``, ``finished before``, ``failed`` or ``not run``.
        message: how long it took, or what went wrong.

    Example:
        >>> Outcome(task="unet/fold0_seed0", status="done", message="in 5 s").is_good
        True
        >>> Outcome(task="unet/fold0_seed0", status="not run", message="needs pseudo_label/fold0_seed0").is_good
        False
    """

    task: str
    status: str
    message: str = ""

    @property
    def is_good(self) -> bool:
        """Whether the task's files are available to the tasks that need them."""
        return self.status in GOOD


def run_task(task: Task, *needed: Outcome) -> Outcome:
    """Run the unfinished stages of a task, unless a task that it needs failed or did not run.

    Example:
        >>> from pathlib import Path
        >>> task = Task(name="unet/fold0_seed0", stages=[], output_dir=Path("out"))
        >>> run_task(task, Outcome(task="pseudo_label/fold0_seed0", status="failed"))
        Outcome(task='unet/fold0_seed0', status='not run', message='needs pseudo_label/fold0_seed0')
    """
    missing = [outcome.task for outcome in needed if not outcome.is_good]
    if missing:
        return Outcome(task=task.name, status="not run", message=f"needs {', '.join(missing)}")
    if all(stage.is_finished() for stage in task.stages):
        return Outcome(task=task.name, status="finished before")
    say(f"{task.name}: started, logs in {task.output_dir}")
    started = time.monotonic()
    try:
        run_stages(task.stages, task.output_dir, say=_hush, lock_wait_s=LOCK_WAIT_S)
    except (ValueError, OSError, StageFailed) as error:
        return failure(task, str(error))
    return Outcome(task=task.name, status="done", message=f"in {time.monotonic() - started:.0f} s")


def failure(task: Task, message: str) -> Outcome:
    """Return the outcome of a failed task; add the place of its logs unless the message has it.

    Example:
        >>> from pathlib import Path
        >>> failure(Task(name="unet/fold0_seed0", stages=[], output_dir=Path("out")), "train: disk full").message
        'train: disk full (logs in out)'
    """
    where = "" if str(task.output_dir) in message else f" (logs in {task.output_dir})"
    return Outcome(task=task.name, status="failed", message=message + where)


def report(outcome: Outcome, remaining: int) -> None:
    """Print one line with the outcome of a task and the number of tasks left.

    Example:
        >>> report(Outcome(task="unet/fold0_seed0", status="done", message="in 5 s"), remaining=3)
        unet/fold0_seed0: done in 5 s; 3 remain
    """
    say(f"{outcome.task}: {f'{outcome.status} {outcome.message}'.strip()}; {remaining} remain")


def check(outcomes: Mapping[str, Outcome]) -> None:
    """Raise if any task failed.

    Raises:
        StageFailed: naming the tasks that failed, with their logs, and those that could not run without them.

    Example:
        >>> one = Outcome(task="labels", status="failed", message="disk full")
        >>> check({"labels": one, "unet": Outcome(task="unet", status="not run", message="needs labels")})
        Traceback (most recent call last):
            ...
        bundle.experiments.pipeline.StageFailed: 1 of 2 tasks failed
          labels: disk full
          not run, for they need these: unet
    """
    failed = [f"{one.task}: {one.message}" for one in outcomes.values() if one.status == "failed"]
    not_run = [one.task for one in outcomes.values() if one.status == "not run"]
    if failed:
        waiting = [f"not run, for they need these: {', '.join(not_run)}"] if not_run else []
        raise StageFailed("\n  ".join([f"{len(failed)} of {len(outcomes)} tasks failed", *failed, *waiting]))


def say(text: str) -> None:
    """Print a line and flush the output."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _hush(text: str) -> None:
    """Drop the stages' own lines, because many tasks share a screen."""
