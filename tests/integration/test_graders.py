"""The four graders of the paper's comparison on a small phantom: one config, a temperature for all."""

import dataclasses
import functools
import json

import pytest
import torch
from bundle import ROOT
from bundle.datasets.splits import graded_copies, graded_training, graded_validation, lesion_labelling
from bundle.files import load_json
from bundle.manifest import load_manifest, save_manifest
from PIL import Image

CONFIGS = ROOT / "configs"
BASELINES = {
    "resnext50": "resnext50_32x4d",
    "resnext101": "resnext101_32x8d",
    "densenet201": "densenet201",
    "nasnetalarge": "nasnetalarge",
}
KEPT = ("resnext50", "densenet201")
"""Whose weights stay for the pseudo-labels; the others take 350 MB each."""
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def run_stage(typed):
    """Run a stage as a user would, from another folder than the bundle's."""

    def run(folder, configs, *words):
        files = [str(CONFIGS / name) for name in configs]
        manifest = folder / "manifest.json"
        return typed("monai.bundle", "run", "--config_file", files, "--manifest", manifest, *words, cwd=folder)

    return run


@pytest.fixture(scope="module")
def pretrain(run_stage):
    def run(folder, name, *words):
        configs = ["pretrain.yaml", "experiments/smoke/pretrain.yaml"]
        return run_stage(folder, configs, "--output_dir", folder / name, "--architecture", BASELINES[name], *words)

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_phantom_manifest):
    """A phantom of 6 outlined and 12 graded photographs to train on, and its manifest."""
    folder = tmp_path_factory.mktemp("graders")
    write_phantom_manifest(folder, num_lesion_train=6, num_lesion_test=2, num_graded_train=12, num_graded_test=2)
    return folder


@pytest.fixture(scope="module")
def train(folder, pretrain):
    """Train one of the four for an epoch, once; return what it printed, and the facts of its weights file."""

    @functools.cache
    def run(name):
        done = pretrain(folder, name, "--val_interval", "5", "--track", name == "densenet201")
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        weights = folder / name / "model.pt"
        facts = torch.load(weights, weights_only=True)["facts"]
        if name not in KEPT:
            weights.unlink()
        return done.stdout + done.stderr, facts

    return run


@pytest.fixture(scope="module", params=BASELINES)
def trained(request, train):
    """One of the four: its name, what it printed, and its facts."""
    return request.param, *train(request.param)


def test_each_overlay_trains_its_network_and_the_file_knows_the_temperature(folder, trained):
    name, screen, facts = trained
    manifest = load_manifest(folder / "manifest.json")
    assert facts["architecture"] == BASELINES[name]
    assert 0.5 <= facts["temperature"] <= 10
    assert facts["calibration_images"] == len(graded_validation(manifest, 0)) > 0
    assert (facts["calibration_nll_scaled"] is None) == (facts["calibration_images"] < 10)
    assert facts["num_training_images"] == len(graded_training(manifest, 0)) > 0
    assert facts["num_left_out_copies"] == len(graded_copies(manifest)) > 0
    assert f"{facts['num_left_out_copies']} graded photographs are copies of lesion images and left out" in screen
    for picture in ("confusion.png", "reliability.png"):
        assert Image.open(folder / name / picture).size[0] > 700


def test_metrics_and_pictures_are_in_mlflow(folder, trained):
    import mlflow

    name, _, facts = trained
    if name != "densenet201":
        assert not (folder / name / "mlflow.db").exists()
        return
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    (experiment,) = [one for one in client.search_experiments() if one.name == "fundus_dr_multitask"]
    (run,) = client.search_runs([experiment.experiment_id])
    scores = {"accuracy", "quadratic_kappa", "balanced_accuracy", "auroc", "ece", "brier"}
    assert {f"validation/grade/{score}" for score in scores} <= set(run.data.metrics)
    assert any(key.startswith("validation/grade/recall_") for key in run.data.metrics)
    assert run.data.metrics["validation/calibration/temperature"] == pytest.approx(facts["temperature"])
    assert run.data.metrics["validation/calibration/images"] == facts["calibration_images"]
    assert run.data.params["facts.num_left_out_copies"] == str(facts["num_left_out_copies"])
    logged = {file.path for file in client.list_artifacts(run.info.run_id)}
    assert {"model.pt", "confusion.png", "reliability.png"} <= logged


def test_two_graders_label_the_lesion_images_each_with_its_temperature(folder, run_stage, train):
    temperatures = [train(name)[1]["temperature"] for name in KEPT]
    paths = [folder / name / "model.pt" for name in KEPT]
    configs = ["pseudo_label.yaml", "experiments/smoke/pseudo_label.yaml"]
    words = ("--graders", [str(path) for path in paths], "--output_dir", folder / "pseudo", "--track", "False")
    done = run_stage(folder, configs, *words)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = load_json(folder / "pseudo" / "pseudo_labels.json")
    assert len(found["rows"]) == len(lesion_labelling(load_manifest(folder / "manifest.json")))
    text = json.dumps(found)
    assert all(json.dumps(temperature) in text for temperature in temperatures)


def test_without_a_held_out_fold_the_file_says_that_nothing_was_fitted(folder, pretrain):
    done = pretrain(folder, "resnext50", "--fold", "$None", "--track", "False", "--output_dir", folder / "whole")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    facts = torch.load(folder / "whole" / "model.pt", weights_only=True)["facts"]
    assert (facts["temperature"], facts["calibration_images"], facts["fold"]) == (1.0, 0, None)
    assert "no temperature was fitted" in done.stdout + done.stderr
    assert not (folder / "whole" / "confusion.png").exists()


def test_an_unknown_architecture_is_refused(folder, pretrain, tmp_path):
    done = pretrain(folder, "resnext50", "--architecture", "alexnet", "--track", "False", "--output_dir", tmp_path)
    assert done.returncode == 1
    assert "expected architecture in ['resnext50_32x4d'" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == [".run.lock"]


def test_a_manifest_without_grades_is_refused_and_what_is_missing_is_said(folder, pretrain, tmp_path):
    manifest = load_manifest(folder / "manifest.json")
    outlined = [row for row in manifest.photographs if row.outlined]
    save_manifest(dataclasses.replace(manifest, photographs=tuple(outlined)), tmp_path / "manifest.json")
    done = pretrain(tmp_path, "resnext50", "--track", "False")
    assert done.returncode == 1
    assert "expected graded photographs to train on, without an outlined copy (fold 0 of 3), found none" in done.stderr
    assert not (tmp_path / "resnext50").exists()
