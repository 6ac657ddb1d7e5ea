"""Run a table: every row on every fold with every seed, on this machine or on a Ray cluster.

fundus sweep --suite table1 --manifest idrid.json --output_dir outputs/table1 --folds 5 --seeds 1
fundus sweep --suite table1 --manifest idrid.json --executor ray --gpus_per_task 0.5
Run it again after an interruption: finished runs are skipped, unfinished runs are resumed.
"""

import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

from bundle.experiments.executors import run_local, run_ray
from bundle.experiments.next_steps import after_sweep, say
from bundle.experiments.pipeline import StageFailed, store
from bundle.experiments.sweep import Sweep, Task, lay_out, sweep_run
from scripts.cli import main

EXECUTORS = ("local", "ray")


def sweep(
    suite: str,
    manifest: str,
    output_dir: str | None = None,
    folds: int = 5,
    seeds: int = 1,
    experiment: str | None = None,
    rows: str | None = None,
    executor: str = "local",
    processes: int = 1,
    gpus_per_task: float = 0.0,
    ray_address: str | None = None,
    pretrained: str | None = None,
    encoder_weights: str | None = None,
    num_workers: int | None = None,
    resume: bool | None = None,
    track: bool | None = None,
    external: str | None = None,
    only_list: bool = False,
) -> None:
    """Train and score the rows of a table; `fundus compare` makes the table.

    Args:
        suite: the table: table1, table2, table3, graders, beta, gamma, generality, precision or labels.
        manifest: file written by `fundus prepare`.
        output_dir: folder of all runs; without it, outputs/ and the suite's name.
        folds: number of folds to hold out in turn, from the manifest's first.
        seeds: number of seeds for each row and fold; the seeds are 0, 1, ...
        experiment: folders of overlays below configs/experiments, such as demo, on top of every row; several are joined
            by commas, the last on top.
        rows: names of the rows to run, separated by commas; without it, all.
        executor: local, or ray.
        processes: local: runs at a time.
        gpus_per_task: ray: GPUs of a run, or a share of one; a run with 0 gets none.
        ray_address: ray: address of a cluster; without it, RAY_ADDRESS, or a Ray on this machine alone.
        pretrained: true, false or a path; for every network of the stages.
        encoder_weights: a file with the weights of the encoder of the rows' networks of stage 2, such as VGG16's.
        num_workers: loader processes.
        resume: false restarts unfinished trainings.
        track: false turns MLflow off.
        external: manifest of another data set, such as DiaRetDB1, on which networks that outline lesions are scored
            too; they must never have seen it.
        only_list: true prints the runs and what they need, and runs nothing.
    """
    if executor not in EXECUTORS:
        raise ValueError(f"expected --executor out of {list(EXECUTORS)}, got {executor!r}")
    options = {"pretrained": pretrained, "num_workers": num_workers, "resume": resume, "track": track}
    plan = Sweep(
        suite=suite, manifest=Path(manifest).resolve(), output_dir=Path(output_dir or f"outputs/{suite}").resolve(),
        folds=folds, seeds=seeds, experiment=experiment, rows=rows.split(",") if rows else None,
        options={name: value for name, value in options.items() if value is not None},
        encoder_weights=Path(encoder_weights).resolve() if encoder_weights else None,
        external=Path(external).resolve() if external else None,
    )  # fmt: skip
    tasks = lay_out(plan)
    if only_list:
        print("\n".join(map(_line, tasks)))
        return
    try:
        with _tracked(plan) if track is not False else nullcontext() as parent_run:
            todo = lay_out(plan, parent_run)
            if executor == "local":
                run_local(todo, processes)
            else:
                run_ray(todo, gpus_per_task, ray_address)
    except StageFailed as error:
        sys.exit(f"error: {error}")
    say(after_sweep, suite, plan.output_dir, track is not False)


def _line(task: Task) -> str:
    stages = ", ".join(f"{stage.name}{' (finished)' if stage.is_finished() else ''}" for stage in task.stages)
    return f"{task.name}: {stages}" + (f"; needs {', '.join(task.needs)}" if task.needs else "")


def _tracked(plan: Sweep) -> AbstractContextManager[str]:
    tags = {"suite": plan.suite, "folds": str(plan.folds), "seeds": str(plan.seeds)}
    return sweep_run(plan.output_dir, tags, store(plan.output_dir))


if __name__ == "__main__":
    main(sweep)
