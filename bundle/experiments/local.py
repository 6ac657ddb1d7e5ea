"""Executor of a sweep's tasks on this machine."""

from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from bundle.experiments.outcomes import Outcome, check, report, run_task
from bundle.experiments.sweep import Task


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
            for task in _ready(waiting, outcomes)[: processes - len(running)]:
                waiting.remove(task)
                running.add(pool.submit(run_task, task, *(outcomes[name] for name in task.needs)))
            ended, running = wait(running, return_when=FIRST_COMPLETED)
            for outcome in (future.result() for future in ended):
                outcomes[outcome.task] = outcome
                report(outcome, len(tasks) - len(outcomes))
    check(outcomes)


def _ready(tasks: Sequence[Task], outcomes: dict[str, Outcome]) -> list[Task]:
    return [task for task in tasks if all(name in outcomes for name in task.needs)]
