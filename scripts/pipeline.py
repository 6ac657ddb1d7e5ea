"""Run every stage of the method, from a manifest to tables and a report.

fundus pipeline --manifest idrid.json --output_dir outputs
Run it again after an interruption: finished stages are skipped, the unfinished one is resumed.
"""

import sys
from pathlib import Path

from bundle.datasets.splits import evaluation
from bundle.experiments.next_steps import after_pipeline, say
from bundle.experiments.pipeline import Settings, StageFailed, run_stages, stages, up_to
from bundle.experiments.results import write_results
from bundle.manifest import load_manifest
from bundle.networks.graders import ARCHITECTURES
from scripts.cli import main

LOCK_WAIT_S = 10.0
"""A run that was just killed locks its folder until its loader processes exit."""


def pipeline(
    manifest: str,
    output_dir: str = "outputs",
    experiment: str | None = None,
    input: str | None = None,
    architectures: str | None = None,
    pretrained: str | None = None,
    fold: int | None = None,
    seed: int | None = None,
    num_workers: int | None = None,
    resume: bool | None = None,
    track: bool | None = None,
    results: str | None = None,
    until: str | None = None,
) -> None:
    """Run pretrain, pseudo_label, train, evaluate and inference in order, then write the results page.

    Args:
        manifest: file written by `fundus prepare`.
        output_dir: folder of all stages.
        experiment: folders of overlays below configs/experiments, such as demo; several are joined by commas, the last
            on top.
        input: photographs for inference; without it, those of the evaluation.
        architectures: architectures of the graders, separated by commas; without it, the paper's resnext50_32x4d and
            resnext101_32x8d.
        pretrained: true, false or a path; for every network of the stages.
        fold: held-out fold.
        seed: seed of every stage.
        num_workers: loader processes.
        resume: false restarts an unfinished training.
        track: false turns MLflow off.
        results: also write the results page to this file.
        until: the last stage to run, such as pseudo_label; without it, all.
    """
    data = load_manifest(manifest)
    if input and not Path(input).exists():
        raise ValueError(f"expected photographs at --input, found nothing at {input}")
    tested = [str(data.path(row.image)) for row in evaluation(data, fold or 0, "lesions")[1]]
    shown = [str(Path(input).resolve())] if input else tested  # absolute: MONAI evaluates a leading $
    options = {
        "pretrained": pretrained,
        "fold": fold,
        "seed": seed,
        "num_workers": num_workers,
        "resume": resume,
        "track": track,
    }
    settings = Settings(
        manifest=Path(manifest).resolve(), output_dir=Path(output_dir).resolve(), inputs=shown, experiment=experiment,
        architectures=architectures.split(",") if architectures else list(ARCHITECTURES),
        options={k: v for k, v in options.items() if v is not None},
    )  # fmt: skip
    whole = stages(settings)
    todo = up_to(whole, until)
    try:
        run_stages(todo, settings.output_dir, lock_wait_s=LOCK_WAIT_S)
    except StageFailed as error:
        sys.exit(f"error: {error}")
    print(write_results(settings.output_dir, data, todo, results))
    say(after_pipeline, shown[0], settings.output_dir, todo == whole)


if __name__ == "__main__":
    main(pipeline)
