"""Executor of a sweep's tasks on a Ray cluster, or on a Ray started on this machine."""

import os
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import ModuleType

from bundle.experiments.outcomes import Outcome, check, failure, report, run_task
from bundle.experiments.sweep import Task

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
    ray = _import_ray()
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


def _import_ray() -> ModuleType:
    # Ray would treat the first lines of two tasks as duplicates and drop the second. It reads this when imported.
    os.environ.setdefault("RAY_DEDUP_LOGS", "0")
    try:
        import ray
    except ImportError:
        raise ValueError(
            "--executor ray needs the package ray: pip install 'fundus-dr-multitask[cluster]'; or use --executor local"
        ) from None
    return ray


@contextmanager
def _connected(ray: ModuleType, address: str | None, gpus_per_task: float) -> Iterator[None]:
    """Connect to a cluster or start a local one, then disconnect; keep a connection that the program already has."""
    _check_reached(address)
    if ray.is_initialized():
        _check_connected_to(address, ray.get_runtime_context().gcs_address)
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


def _check_connected_to(address: str | None, connected: str) -> None:
    if address not in (None, "auto", connected):
        raise ValueError(f"expected --ray_address {connected}, to which this program is connected, got {address}")


def _check_reached(address: str | None) -> None:
    """Refuse a machine that does not answer: Ray itself would retry for many minutes."""
    named = HOST_AND_PORT.fullmatch(address or "")
    if named is None:
        return
    try:
        socket.create_connection((named["host"], int(named["port"])), timeout=CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise ValueError(f"expected a Ray cluster at --ray_address {address}, could not connect: {error}") from None
