"""Run tasks after those that they need: in this process, or on a Ray cluster."""

import os
import re
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType

from bundle.experiments.pipeline import StageFailed, run_stages
from bundle.experiments.sweep import Task
from bundle.optional import import_optional

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
        # Many tasks share a screen, so the lines of their stages are not shown.
        run_stages(task.stages, task.output_dir, say=lambda line: None, lock_wait_s=LOCK_WAIT_S)
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
          not run, because they need these: unet
    """
    failed = [f"{one.task}: {one.message}" for one in outcomes.values() if one.status == "failed"]
    not_run = [one.task for one in outcomes.values() if one.status == "not run"]
    if failed:
        waiting = [f"not run, because they need these: {', '.join(not_run)}"] if not_run else []
        raise StageFailed("\n  ".join([f"{len(failed)} of {len(outcomes)} tasks failed", *failed, *waiting]))


def say(text: str) -> None:
    """Print a line and flush the output."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def run_local(tasks: Sequence[Task], processes: int = 1) -> None:
    """Run the tasks, several at a time, in the given order as soon as their needs are met.

    A task that fails does not stop the others. After any interruption, the same call continues the sweep.

    Args:
        tasks: the tasks, each after the tasks that it needs.
        processes: how many stages may run at a time; they share the machine's GPUs.

    Raises:
        ValueError: if ``processes`` is below 1.
        StageFailed: at the end, if tasks failed.
    """
    if processes < 1:
        raise ValueError(f"expected --processes of at least 1, got {processes}")
    outcomes: dict[str, Outcome] = {}
    waiting = list(tasks)
    running: set[Future[Outcome]] = set()
    # Threads are enough: each only follows the process of its stage.
    with ThreadPoolExecutor(processes) as pool:
        while waiting or running:
            ready = [task for task in waiting if outcomes.keys() >= set(task.needs)]
            for task in ready[: processes - len(running)]:
                waiting.remove(task)
                running.add(pool.submit(run_task, task, *(outcomes[name] for name in task.needs)))
            ended, running = wait(running, return_when=FIRST_COMPLETED)
            for outcome in (future.result() for future in ended):
                outcomes[outcome.task] = outcome
                report(outcome, len(tasks) - len(outcomes))
    check(outcomes)


MAX_RETRIES = 3
CONNECT_TIMEOUT_S = 10
HOST_AND_PORT = re.compile(r"(?:ray://)?(?P<host>[^/]+):(?P<port>\d+)")


def run_ray(tasks: Sequence[Task], gpus_per_task: float = 0.0, address: str | None = None) -> None:
    """Run the tasks as Ray functions; Ray places them on its machines.

    A task whose worker or machine is lost is run again, up to three times, and continues where it was interrupted. A
    task that fails by itself is not run again, and does not stop the others. The manifest, the photographs and the
    output folder must have the same paths on a file system shared by all machines, and this package must be installed
    on all of them. With several machines, set ``MLFLOW_TRACKING_URI`` to a server, because SQLite cannot serve them.

    Args:
        tasks: the tasks, each after the tasks that it needs.
        gpus_per_task: GPUs that a task has to itself, or a share of one; with 0 it gets none.
        address: address of a cluster, such as ``auto`` or ``ray://head:10001``; None uses ``RAY_ADDRESS``, or starts
            Ray on this machine.

    Raises:
        ValueError: if Ray is not installed, cannot be reached, or this machine has too few GPUs.
        StageFailed: at the end, if tasks failed.
    """
    if gpus_per_task < 0:
        raise ValueError(f"expected --gpus_per_task of at least 0, got {gpus_per_task}")
    # Ray would take the first lines of two tasks for duplicates and drop the second. It reads this when imported.
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    ray = import_optional("ray", "--executor ray", instead="use --executor local")
    with _connected(ray, address or os.environ.get("RAY_ADDRESS"), gpus_per_task):
        check(_run(ray, tasks, gpus_per_task))


def _run(ray: ModuleType, tasks: Sequence[Task], gpus_per_task: float) -> dict[str, Outcome]:
    remote = ray.remote(num_gpus=gpus_per_task, max_retries=MAX_RETRIES, retry_exceptions=False)(run_task)
    references: dict = {}
    for task in tasks:
        needed = [references[name] for name in task.needs]
        references[task.name] = remote.options(name=task.name).remote(task, *needed)
    outcomes: dict[str, Outcome] = {}
    waiting = {references[task.name]: task for task in tasks}
    while waiting:
        (first, *_), _ = ray.wait(list(waiting), num_returns=1)
        task = waiting.pop(first)
        outcomes[task.name] = _outcome(ray, first, task, outcomes)
        report(outcomes[task.name], len(waiting))
    return outcomes


def _outcome(ray: ModuleType, reference: object, task: Task, outcomes: dict[str, Outcome]) -> Outcome:
    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        # When a task is lost, the tasks that need it fail too; ray.wait returns the lost one first.
        lost = [name for name in task.needs if name in outcomes and not outcomes[name].is_good]
        if lost:
            return Outcome(task=task.name, status="not run", message=f"needs {', '.join(lost)}")
        return failure(task, " ".join(str(error).split()))


@contextmanager
def _connected(ray: ModuleType, address: str | None, gpus_per_task: float) -> Iterator[None]:
    """Connect to a cluster or start a local one, then disconnect; keep a connection that the program already has."""
    _check_reached(address)
    if ray.is_initialized():
        connected = ray.get_runtime_context().gcs_address
        if address not in (None, "auto", connected):
            raise ValueError(f"expected --ray_address {connected}, to which this program is connected, got {address}")
        yield
        return
    # The workers of a cluster do not inherit this process's environment.
    variables = {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_")}
    try:
        ray.init(address=address or "local", logging_level="error", runtime_env={"env_vars": variables})
    except (ConnectionError, RuntimeError) as error:
        raise ValueError(f"expected a Ray cluster at {address or 'this machine'}, could not connect: {error}") from None
    try:
        there = ray.cluster_resources().get("GPU", 0)
        if address is None and gpus_per_task > there:  # a cluster may grow, this machine cannot
            raise ValueError(f"expected at least {gpus_per_task:g} GPUs for --gpus_per_task, found {there:g} here")
        yield
    finally:
        ray.shutdown()


def _check_reached(address: str | None) -> None:
    """Refuse a machine that does not answer: Ray itself would retry for many minutes."""
    named = HOST_AND_PORT.fullmatch(address or "")
    if named is None:
        return
    try:
        socket.create_connection((named["host"], int(named["port"])), timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise ValueError(f"expected a Ray cluster at --ray_address {address}, could not connect: {error}") from None
