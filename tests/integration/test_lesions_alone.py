"""Lesions alone are learned from crops, without graders, pseudo-labels or grades."""

import shutil

import pytest
import torch
from bundle import ROOT
from bundle.datasets.build import build_manifest
from bundle.datasets.idrid import read_idrid
from bundle.datasets.phantom import write_phantom
from bundle.files import load_json
from bundle.manifest import save_manifest
from bundle.transforms import field_of_view

CONFIGS = ROOT / "configs"
STAGE = [f"experiments/{name}/train.yaml" for name in ("smoke", "crops")]
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A phantom without its graded part, and its manifest."""
    folder = tmp_path_factory.mktemp("lesions")
    counts = {"num_lesion_train": 6, "num_lesion_test": 2, "num_graded_train": 1, "num_graded_test": 1}
    write_phantom(folder / "phantom", width_px=288, height_px=192, seed=3, **counts)
    shutil.rmtree(folder / "phantom" / "B. Disease Grading")
    photographs, notes = read_idrid(folder / "phantom")
    made = build_manifest("phantom", photographs, folder / "phantom", field_of_view, folds=3, notes=notes)
    save_manifest(made, folder / "manifest.json")
    return folder


@pytest.fixture(scope="module")
def run_stage(typed, folder):
    """Train or evaluate at 64 px."""

    def run(configs, *words):
        files = [str(CONFIGS / name) for name in ("train.yaml", *configs, *STAGE)]
        given = ["--manifest", folder / "manifest.json", "--output_dir", folder / "train", "--image_size", "64"]
        return typed("monai.bundle", "run", "--config_file", files, *given, *words, "--track", "False", cwd=folder)

    return run


def test_a_network_learns_from_crops_and_is_scored_on_whole_photographs(run_stage, folder):
    done = run_stage([], "--crop_px", "32", "--max_epochs", "2", "--val_interval", "2")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    facts = torch.load(folder / "train" / "model.pt", weights_only=True)["facts"]
    assert (facts["image_size"], facts["taught_grades"], facts["pseudo_labels_sha256"]) == (64, [], None)
    done = run_stage(["evaluate.yaml"])
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found = load_json(folder / "train" / "metrics.json")
    assert (found["subset"]["lesions"], found["counts"]["lesions"]) == ("test", 2)
    assert 0 <= found["scores"]["lesions/dice_EX"] <= 1


def test_crops_of_grades_are_refused_in_one_sentence(run_stage):
    done = run_stage([], "--crop_px", "32", "--beta", "0.8", "--pseudo_labels", "none.json")
    assert done.returncode != 0
    assert "expected beta 0 with crop_px 32, got 0.8" in done.stderr
