"""The whole way on a small phantom: what a user types, what is left, what happens after a kill and to bad input."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from bundle import ROOT
from bundle.datasets.splits import lesion_training
from bundle.files import load_json
from bundle.manifest import load_manifest
from bundle.networks.weights import facts_of

STAGES = ("pretrain/resnext50_32x4d", "pseudo_label", "train", "evaluate", "inference")
EXPERIMENTS = sorted(path.name for path in (ROOT / "configs" / "experiments").iterdir() if path.is_dir())
pytestmark = pytest.mark.timeout(600)


def pipeline_words(folder, output, *more):
    return (
        "scripts.pipeline", "--manifest", folder / "manifest.json", "--output_dir", output, "--experiment", "smoke",
        "--architectures", "resnext50_32x4d", *more,
    )  # fmt: skip


def typed_anew(*words):
    """Return the command line of a Python of its own."""
    return [sys.executable, "-m", *map(str, words)]


@pytest.fixture(scope="module")
def run_pipeline(typed, folder):
    """Run the pipeline, from another folder than the bundle's; each stage runs in a Python of its own in any case."""

    def run(output, *more, environment=None):
        return typed(*pipeline_words(folder, output, *more), cwd=folder, environment=environment)

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_phantom_manifest):
    """A phantom of 20 photographs and its manifest."""
    folder = tmp_path_factory.mktemp("whole way")
    write_phantom_manifest(folder, num_lesion_train=10, num_lesion_test=4, num_graded_train=12, num_graded_test=4)
    return folder


@pytest.fixture(scope="module")
def finished(folder):
    """The output of one undisturbed pipeline."""
    words = typed_anew(*pipeline_words(folder, folder / "outputs"))
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "outputs", done.stdout


def test_every_stage_leaves_what_it_promises(finished):
    output, screen = finished
    assert all(f"{stage}: done in" in screen for stage in STAGES)
    (following,) = [
        line for line in screen.splitlines() if line.startswith("next: ")
    ]  # of the pipeline, not of a stage
    assert following.endswith(f"--checkpoint {output.name}/train/model.pt")
    assert len(load_json(output / "pseudo" / "pseudo_labels.json")["rows"]) == 9  # the tenth is a copy of a test image
    assert len(list((output / "pseudo" / "panels").iterdir())) == 9
    assert len(list((output / "inference" / "masks").rglob("*.png"))) == 4
    assert "<html" in (output / "inference" / "report.html").read_text(encoding="utf-8")


def test_every_score_stands_beside_a_trivial_one(finished):
    output, screen = finished
    metrics = load_json(output / "train" / "metrics.json")
    assert metrics["subset"] == {
        "lesions": "test", "grade": "test", "grade_with_copies": "none", "joint": "test",
    }  # fmt: skip
    assert metrics["scores"]["lesions/dice_EX_predicting_nothing"] == 0
    assert 0.9 < metrics["scores"]["lesions/paper_dice_predicting_nothing"] < 1
    assert "grade/accuracy_training_majority" in metrics["scores"]
    thresholds = metrics["weights"]["lesion_thresholds"]
    assert metrics["lesion_thresholds"] == list(thresholds.values())
    assert all(0 < one < 1 for one in thresholds.values())
    assert {"lesions/argmax_dice_mean", "lesions/argmax_iou_EX"} <= set(metrics["scores"])
    assert "Lesions are decided by thresholds: MA above" in screen
    assert "predicting no lesion" in screen
    assert "What these numbers do not show" in (output / "results.md").read_text(encoding="utf-8")


def test_every_run_is_one_finished_mlflow_run_in_one_store(folder, finished):
    import mlflow

    output, _ = finished
    client = mlflow.MlflowClient(f"sqlite:///{output / 'mlflow.db'}")
    (experiment,) = [e for e in client.search_experiments() if e.name == "fundus_dr_multitask"]
    runs = {run.data.tags["stage"]: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"pretrain", "pseudo_label", "train", "evaluate", "inference"}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    train = runs["train"]
    assert {"train/both/loss", "train/labels/movement", "validation/lesions/dice_mean"} <= set(train.data.metrics)
    assert "train/lesions/threshold_MA" in train.data.metrics
    assert train.data.params["seed"] == "0"
    manifest_sha256 = load_manifest(folder / "manifest.json").sha256
    graded = [runs[stage] for stage in ("pretrain", "pseudo_label", "train", "evaluate")]
    assert {run.data.params["facts.manifest_sha256"] for run in graded} == {manifest_sha256}
    assert train.data.params["width"] == "0.0625"
    assert "test/lesions/dice_EX" in runs["evaluate"].data.metrics
    assert "dice_EX" in runs["evaluate"].data.tags["trivial/test/lesions/predicting_nothing"]
    options = facts_of(output / "train" / "model.pt")["options"]
    told = {name: str(value) for name, value in options.items() if not isinstance(value, (dict, list))}
    assert told["max_epochs"] == "3"
    for stage in ("train", "evaluate"):
        assert {name: runs[stage].data.params[name] for name in told} == told
    assert "stage1/labels/truth_feasible" in runs["pseudo_label"].data.metrics
    logged = {file.path for file in client.list_artifacts(train.info.run_id)}
    assert {"config.json", "model.pt"} <= logged
    assert not list(output.rglob("pretrain/mlflow.db"))


def test_a_second_pipeline_runs_nothing_again(run_pipeline, finished):
    output, _ = finished
    before = (output / "train" / "model.pt").stat().st_mtime_ns
    again = run_pipeline(output)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("finished before, skipped") == len(STAGES)
    assert (output / "train" / "model.pt").stat().st_mtime_ns == before


def test_a_killed_training_goes_on_and_finished_stages_are_not_run_again(run_pipeline, folder, finished, tmp_path):
    output = tmp_path / "outputs"
    shutil.copytree(finished[0], output)
    undisturbed = load_json(output / "train" / "metrics.json")["scores"]
    for name in ("model.pt", "label_network.pt", "finished.train.json", "metrics.json"):
        (output / "train" / name).unlink()
    run = subprocess.Popen(
        typed_anew(*pipeline_words(folder, output)), cwd=folder, start_new_session=True, stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    wait_for(output / "train" / "state.pt", run)
    os.killpg(run.pid, signal.SIGKILL)
    run.communicate()
    assert not (output / "train" / "model.pt").exists()
    again = run_pipeline(output)
    assert again.returncode == 0, again.stderr
    assert "pretrain/resnext50_32x4d: finished before, skipped" in again.stdout
    assert "pseudo_label: finished before, skipped" in again.stdout
    assert "train: done in" in again.stdout
    assert "going on after epoch" in (output / "train" / "log.train.txt").read_text(encoding="utf-8")
    for name in ("model.pt", "label_network.pt"):
        ours, theirs = (torch.load(path / "train" / name, weights_only=True)["model"] for path in (output, finished[0]))
        assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert theirs["shift.weight"].abs().max() > 0  # the label update network has learned
    scores = load_json(output / "train" / "metrics.json")["scores"]
    assert scores == undisturbed


def wait_for(path, run, seconds=120):
    deadline = time.monotonic() + seconds
    while not path.exists():
        assert run.poll() is None, "the pipeline ended before it could be killed"
        assert time.monotonic() < deadline, f"no {path.name} after {seconds} s"
        time.sleep(0.02)


def trained_together(processes, folder, labels, output):
    """Train one epoch in processes that share batches of two, and return its metrics.

    Nothing is drawn at random, and Adam does not blow rounding up to whole steps.
    """
    configs = [
        str(ROOT / "configs" / name) for name in ("train.yaml", "multi_gpu_train.yaml", "experiments/smoke/train.yaml")
    ]
    words = typed_anew(
        "torch.distributed.run", f"--nproc_per_node={processes}", "--standalone", "-m", "monai.bundle", "run",
        "--config_file", configs, "--manifest", folder / "manifest.json", "--pseudo_labels", labels,
        "--output_dir", output, "--cache_dir", folder / "outputs" / "cache", "--max_epochs", "1",
        "--batch_size", 2 // processes, "--network_def#decoder_norm", "group", "--amp", "False",
        "--alternation", "step",
        "--train#preprocessing#transforms#1#_disabled_", "True", "--optimizer#eps", "1e-5",
        "--label_optimizer#eps", "1e-5", "--tracking_uri", f"sqlite:///{output}.db",
    )  # fmt: skip
    done = subprocess.run(words, cwd=output.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return tracked_metrics(f"sqlite:///{output}.db")


def tracked_metrics(uri):
    import mlflow

    client = mlflow.MlflowClient(uri)
    (experiment,) = [e for e in client.search_experiments() if e.name == "fundus_dr_multitask"]
    (run,) = client.search_runs([experiment.experiment_id])
    return {name: value for name, value in run.data.metrics.items() if name.startswith("train/")}


def test_two_processes_with_half_the_batch_each_follow_one_with_the_whole(folder, finished, tmp_path):
    labels = finished[0] / "pseudo" / "pseudo_labels.json"
    rows = lesion_training(load_manifest(folder / "manifest.json"), 0)
    assert len(rows) % 2 == 0  # else the sampler repeats one, and the two see other data than the one
    alone, both = (trained_together(n, folder, labels, tmp_path / f"train{n}") for n in (1, 2))
    assert {"train/both/loss", "train/labels/movement", "train/labels/accuracy"} <= set(alone)
    assert alone["train/labels/movement"] > 1e-4
    assert both == pytest.approx({name: alone[name] for name in both}, abs=1e-4)
    for name in ("model.pt", "label_network.pt"):
        ours, theirs = (torch.load(tmp_path / f"train{n}" / name, weights_only=True)["model"].values() for n in (1, 2))
        assert max((a.float() - b.float()).abs().max() for a, b in zip(ours, theirs, strict=True)) < 1e-4


def test_a_misspelt_option_is_refused_by_the_bundle_runner(typed, folder, tmp_path):
    done = typed(
        "monai.bundle", "run", "--config_file", ROOT / "configs" / "train.yaml",
        "--manifest", folder / "manifest.json", "--output_dir", tmp_path / "train", "--max_epoch", "3", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == "error: unknown option 'max_epoch': did you mean 'max_epochs'?"
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "train").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--max_epoch", "3"), "unknown option --max_epoch"),
        (("--experiment", "demmo"), f"expected --experiment out of {EXPERIMENTS}, got 'demmo'"),
        (("--manifest", "nowhere.json"), "expected a manifest at nowhere.json"),
        (("--fold", "9"), "expected a fold in 0-2 or none, got 9"),
        (("--input", "nowhere"), "found nothing at nowhere"),
    ],
)
def test_bad_input_takes_one_line_and_exit_code_2(run_pipeline, tmp_path, words, message):
    done = run_pipeline(tmp_path / "outputs", *words)
    assert done.returncode == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list(tmp_path.rglob("model.pt"))


def test_weights_that_cannot_be_downloaded_say_how_to_go_on(run_pipeline, tmp_path):
    nowhere = {"https_proxy": "http://127.0.0.1:9", "TORCH_HOME": str(tmp_path / "torch")}
    done = run_pipeline(tmp_path / "outputs", "--pretrained", "True", environment=nowhere)
    assert done.returncode == 2
    assert "--pretrained False" in done.stderr
    assert not list(tmp_path.rglob("model.pt"))


def test_weights_of_another_network_are_refused(typed, folder, finished, tmp_path):
    grader = finished[0] / "pretrain" / "resnext50_32x4d" / "model.pt"
    done = typed(
        "monai.bundle", "run", "--config_file", ROOT / "configs" / "inference.yaml", "--checkpoint", grader,
        "--input", folder / "phantom", "--output_dir", tmp_path / "inference", "--track", "False", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 1
    assert "expected weights of a network among" in done.stderr
    assert not (tmp_path / "inference").exists()


def test_a_photograph_that_is_cut_off_is_named(run_pipeline, folder, finished, tmp_path):
    shutil.copytree(finished[0], tmp_path / "outputs")
    (tmp_path / "outputs" / "inference" / "report.html").unlink()
    photograph = next(Path(folder / "phantom").rglob("IDRiD_001.jpg"))
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(photograph.read_bytes()[:4000])
    done = run_pipeline(tmp_path / "outputs", "--input", str(cut))
    assert done.returncode == 2
    assert "cut.jpg" in done.stderr
    assert not (tmp_path / "outputs" / "inference" / "report.html").exists()
