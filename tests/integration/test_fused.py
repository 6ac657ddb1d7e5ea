"""One lesion class instead of four, on a small phantom: it trains, is scored, and goes no further."""

import pytest
import torch
from bundle import ROOT
from bundle.datasets.splits import lesion_labelling
from bundle.files import load_json
from bundle.grade_rules import feasible_grades
from bundle.labels import GRADES
from bundle.manifest import load_manifest
from bundle.method.initial_labels import save_pseudo_labels

CONFIGS = ROOT / "configs"
SMOKE = "experiments/smoke/train.yaml"
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def run_stage(typed, folder):
    """Run a stage as a user would, from another folder than the bundle's."""

    def run(configs, *words):
        files = [str(CONFIGS / name) for name in configs]
        return typed("monai.bundle", "run", "--config_file", files, *words, "--track", "False", cwd=folder)

    return run


def evaluate(run_stage, folder, trained, *words, configs=("train.yaml", "evaluate.yaml", SMOKE)):
    return run_stage(configs, "--manifest", folder / "manifest.json", "--output_dir", trained, *words)


def label(row):
    """What the outlines allow, each grade alike."""
    feasible = feasible_grades(set(row.masks), row.annotated).grades
    shares = {f"soft_label_{grade}": (grade in feasible) / len(feasible) for grade in GRADES}
    return {"id": row.id, "weight": 1.0, **shares, **{f"feasible_{grade}": grade in feasible for grade in GRADES}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_phantom_manifest):
    """A phantom, its manifest, and a pseudo-label for each outlined photograph."""
    folder = tmp_path_factory.mktemp("fused")
    write_phantom_manifest(folder, num_lesion_train=6, num_lesion_test=2, num_graded_train=6, num_graded_test=2)
    manifest = load_manifest(folder / "manifest.json")
    save_pseudo_labels(folder / "labels.json", manifest, {}, [label(row) for row in lesion_labelling(manifest)])
    return folder


@pytest.fixture(scope="module")
def trained(run_stage, folder):
    """Weights after an epoch of training and a pass of meta steps."""
    done = run_stage(
        ["train.yaml", SMOKE], "--manifest", folder / "manifest.json", "--pseudo_labels",
        folder / "labels.json", "--output_dir", folder / "train", "--fuse", "True", "--fuse_radius_px", "2",
        "--max_epochs", "1",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder / "train"


def test_the_weights_have_one_lesion_class_and_say_so(trained):
    content = torch.load(trained / "model.pt", weights_only=True)
    assert len(content["model"]["segmentation_head.bias"]) == 2
    assert content["facts"]["fuse"] is True
    assert content["facts"]["fuse_radius_px"] == 2


def test_the_fused_lesion_is_scored_beside_a_trivial_score(run_stage, folder, trained):
    configs = ("train.yaml", "evaluate.yaml", SMOKE, "experiments/fused/train.yaml")
    done = evaluate(run_stage, folder, trained, configs=configs)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    scores = load_json(trained / "metrics.json")["scores"]
    assert 0 <= scores["lesions/dice_lesion"] <= 1
    assert scores["lesions/dice_lesion_predicting_nothing"] == 0
    assert 0.9 < scores["lesions/paper_dice_predicting_nothing"] < 1
    assert scores["lesions/images_lesion"] > 0
    assert "lesions/dice_EX" not in scores
    assert "Dice, any lesion" in done.stdout


def test_fused_weights_are_not_evaluated_as_four_lesions(run_stage, folder, trained):
    done = evaluate(run_stage, folder, trained, "--fuse", "False")
    assert done.returncode == 1
    assert "expected weights of fuse False in" in done.stderr


def test_inference_with_fused_weights_is_refused_and_says_why(run_stage, folder, trained):
    done = run_stage(
        ["inference.yaml"], "--checkpoint", trained / "model.pt",
        "--input", folder / "phantom", "--output_dir", folder / "inference",
    )  # fmt: skip
    assert done.returncode == 1
    (refused,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "expected weights that tell the four lesions apart" in refused
    assert "the report and the rules need the lesions apart" in refused
    assert not (folder / "inference").exists()
