"""What is fitted after training ends up in the weights file, and inference follows it."""

import warnings

import numpy as np
import pytest
import torch
from bundle import ROOT
from bundle.manifest import load_manifest
from bundle.metrics.likeness import likeness_of
from bundle.networks.multitask_unet import MultiTaskUNet
from bundle.networks.weights import facts_of, network_of, save_weights
from bundle.predict import Predictor
from monai.bundle import ConfigWorkflow
from scripts.prepare import prepare

from tests.conftest import eye, spot

CONFIGS = [str(ROOT / "configs" / f"{name}.yaml") for name in ("train", "evaluate", "calibrate")]


@pytest.fixture
def manifest(empty_idrid, tmp_path):
    """Two outlined and twenty graded training photographs, in two folds."""
    for number in (1, 2):
        empty_idrid.outline("train", f"IDRiD_{number:02}", number, {"EX": spot(30, 20, 5)})
    empty_idrid.grade("train", {f"IDRiD_{number:03}": number % 5 for number in range(1, 21)}, first_seed=10)
    prepare("idrid", str(empty_idrid.root), str(tmp_path / "tiny.json"), folds=2)
    return tmp_path / "tiny.json"


@pytest.fixture
def calibrated(manifest, tmp_path):
    """Weights of fold 0 after calibration."""
    torch.manual_seed(0)
    facts = {"image_size": 64, "fold": 0, "manifest_sha256": load_manifest(manifest).sha256}
    save_weights(tmp_path / "model.pt", MultiTaskUNet(pretrained=False, width=1 / 16), facts)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        workflow = ConfigWorkflow(
            CONFIGS, workflow_type="train", meta_file=[], logging_file=False, manifest=str(manifest),
            output_dir=str(tmp_path), num_workers=0, track=False, precision="float32", device="cpu",
        )  # fmt: skip
        workflow.initialize()
        workflow.run()
    return tmp_path / "model.pt"


def test_areas_and_likeness_are_kept_and_the_weights_are_the_same(calibrated):
    facts = facts_of(calibrated)
    assert facts["likeness_fitted_on"] == "11 training photographs, its limit also on 11 held-out ones"
    assert facts["min_area_fitted_on"] == "10 photographs of fold 0"
    assert len(likeness_of(facts["likeness"]).mean) == 36
    assert network_of(calibrated).settings()["width"] == 1 / 16


def test_inference_finds_training_photographs_like_themselves_and_a_drawing_of_one_colour_unlike(calibrated):
    predict = Predictor(calibrated, precision="float32")
    near, far = predict(eye(10)), predict((eye(10) // np.array([1, 8, 8])).astype(np.uint8))
    assert near.unlikeness < far.unlikeness
    assert far.doubts[0] == "unlike the training photographs"
