"""The grade head of trained weights is taught true grades; all else of the network stays as it was."""

import warnings

import pytest
import torch
from bundle import ROOT
from bundle.datasets.splits import graded_training
from bundle.manifest import load_manifest
from bundle.networks.multitask_unet import MultiTaskUNet
from bundle.networks.weights import facts_of, network_of, save_weights
from bundle.predict import Predictor
from monai.bundle import ConfigWorkflow
from scripts.prepare import prepare

from tests.conftest import eye, spot

CONFIGS = [str(ROOT / "configs" / f"{name}.yaml") for name in ("train", "evaluate", "teach_grades")]


@pytest.fixture
def manifest(empty_idrid, tmp_path):
    """Three outlined and thirty graded training photographs in three folds; only grades 1 and 3 occur."""
    for number in (1, 2, 3):
        empty_idrid.outline("train", f"IDRiD_{number:02}", number, {"EX": spot(30, 20, 5)})
    empty_idrid.grade("train", {f"IDRiD_{number:03}": 1 + 2 * (number % 2) for number in range(1, 31)}, first_seed=10)
    prepare("idrid", str(empty_idrid.root), str(tmp_path / "tiny.json"), folds=3)
    return tmp_path / "tiny.json"


def teach(manifest, folder, facts):
    """Write weights of fold 0, and teach them."""
    torch.manual_seed(0)
    known = {"image_size": 64, "fold": 0, "manifest_sha256": load_manifest(manifest).sha256}
    save_weights(folder / "model.pt", MultiTaskUNet(pretrained=False, width=1 / 16), {**known, **facts})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        workflow = ConfigWorkflow(
            CONFIGS, workflow_type="train", meta_file=[], logging_file=False, manifest=str(manifest),
            output_dir=str(folder), num_workers=0, track=False, precision="float32", device="cpu",
        )  # fmt: skip
        workflow.initialize()
        workflow.run()
    return folder / "model.pt", folder / "graded.pt"


def test_only_the_head_changes_and_the_file_lists_what_it_was_taught(manifest, tmp_path):
    rows = graded_training(load_manifest(manifest), 0)
    facts = {"data": {"idrid": {"outlined": 2, "graded": 0}}, "num_training_images": 2, "taught_grades": [2, 3, 4]}
    before, after = teach(manifest, tmp_path, {**facts, "perceptual_hashes": ["f" * 64, "0" * 64]})
    old, new = network_of(before).state_dict(), network_of(after).state_dict()
    assert [name for name in old if not torch.equal(old[name], new[name])] == ["grade_head.weight", "grade_head.bias"]
    said = facts_of(after)
    assert said["grade_head"]["photographs"] == len(rows) == 20
    assert (said["taught_grades"], said["num_training_images"]) == ([1, 3], 22)
    assert said["data"] == {"idrid": {"outlined": 2, "graded": 20}}
    assert set(said["perceptual_hashes"]) == {"f" * 64, "0" * 64, *(row.perceptual_hash for row in rows)}
    assert facts_of(before)["taught_grades"] == [2, 3, 4]


def test_inference_gives_the_grades_that_were_taught(manifest, tmp_path):
    _, after = teach(manifest, tmp_path, {"perceptual_hashes": []})
    found = Predictor(after, precision="float32")(eye(10))
    assert found.probabilities[1] + found.probabilities[3] > 1 - 1e-6


def test_weights_that_do_not_list_their_photographs_are_refused(manifest, tmp_path):
    with pytest.raises(RuntimeError) as error:
        teach(manifest, tmp_path, {})
    assert "expected perceptual_hashes in" in str(error.value.__cause__)
    assert not (tmp_path / "graded.pt").exists()
