"""Lesions alone are learned from crops, without graders, pseudo-labels or grades."""

import pytest
import torch
from bundle import ROOT
from bundle.files import load_json

CONFIGS = ROOT / "configs"
STAGE = [f"experiments/{name}/train.yaml" for name in ("smoke", "crops")]
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_phantom_manifest):
    """A phantom without its graded part, and its manifest."""
    folder = tmp_path_factory.mktemp("lesions")
    counts = {"num_lesion_train": 6, "num_lesion_test": 2, "num_graded_train": 1, "num_graded_test": 1}
    write_phantom_manifest(folder, without="B. Disease Grading", **counts)
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
