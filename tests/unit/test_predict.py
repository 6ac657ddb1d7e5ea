"""An array gets what inference writes of a file with the same pixels, and nothing else changes."""

import json
import warnings

import numpy as np
import pytest
import torch
from bundle import ROOT
from bundle.handlers.predictions import prediction_row
from bundle.metrics.likeness import Likeness
from bundle.networks.multitask_unet import MultiTaskUNet
from bundle.networks.weights import save_weights
from bundle.predict import Predictor
from monai.bundle import ConfigWorkflow
from PIL import Image, ImageDraw

SIZE = 64


def write_weights(path, seed=0, **facts):
    """Save a small network that sees something: no prior keeps its lesions rare, and its grades are not all alike."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = MultiTaskUNet(pretrained=False, width=1 / 16, lesion_prior=None)
        torch.nn.init.normal_(network.grade_head.weight, std=0.1)
    save_weights(path, network, {"image_size": SIZE, **facts})
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_weights(tmp_path_factory.mktemp("weights") / "model.pt")


@pytest.fixture(scope="module")
def predict(checkpoint):
    return Predictor(checkpoint)


@pytest.fixture
def image_HW3():
    """A brown eye with a bright and a dark spot, of 150 x 100 pixels."""
    picture = Image.new("RGB", (150, 100))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((30, 5, 120, 95), fill=(160, 90, 50))
    draw.ellipse((50, 30, 62, 40), fill=(250, 240, 180))
    draw.ellipse((85, 60, 93, 68), fill=(70, 10, 10))
    return np.array(picture)


def infer(image_HW3, folder, checkpoint, **options):
    """Run configs/inference.yaml on a PNG file; return its row, mask and heat map."""
    Image.fromarray(image_HW3).save(folder / "eye.png")
    paths = checkpoint if isinstance(checkpoint, list) else str(checkpoint)
    files = {"input": str(folder / "eye.png"), "output_dir": str(folder / "out"), "checkpoint": paths}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        workflow = ConfigWorkflow(
            str(ROOT / "configs/inference.yaml"), workflow_type="infer", logging_file=False, num_workers=0,
            track=False, report=False, **files, **options,
        )  # fmt: skip
        workflow.initialize()
        workflow.run()
    row = json.loads((folder / "out" / "predictions.jsonl").read_text())
    return row, *(np.asarray(Image.open(folder / "out" / kind / "eye.png.png")) for kind in ("masks", "heatmaps"))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"flips": True},
        {"window_px": 64, "lesion_size": 96},
        {"lesion_thresholds": [0.9, 0.9, 0.05, 0.9], "abstain_below": 0.99, "min_area_ppm": 1e5},
        {"grade_set_quantiles": [0.3] * 5},
    ],
    ids=str,
)
def test_an_array_gets_what_inference_writes_of_a_file(image_HW3, tmp_path, checkpoint, options):
    row, mask, heat = infer(image_HW3, tmp_path, checkpoint, **options)
    found = Predictor(checkpoint, **options)(image_HW3)
    assert 0 < (mask > 0).mean() < 1
    assert np.array_equal(found.lesions_HW, mask)
    assert heat.max() > heat.min()
    assert np.abs(found.heat_hw * 255 - heat).max() <= 1  # written in 8 bits
    assert row["probability_0"] != row["probability_1"]
    numbers = {
        name: pytest.approx(value, abs=1e-6) if isinstance(value, float) else value for name, value in row.items()
    }
    assert prediction_row(found) | {"file": "eye.png"} == numbers


def test_the_thresholds_of_the_weights_decide(image_HW3, tmp_path):
    fitted = {"lesion_thresholds": {"MA": 0.9, "HE": 0.9, "EX": 0.05, "SE": 0.9}}
    found = Predictor(write_weights(tmp_path / "fitted.pt", **fitted))(image_HW3)
    assert set(np.unique(found.lesions_HW)) == {0, 3}


def test_likely_grades_are_those_of_the_weights_and_none_where_none_were_fitted(image_HW3, tmp_path, predict):
    fitted = {"coverage": 0.9, "quantiles": [1.0] * 5, "fitted_on": "8 photographs of fold 0"}
    found = Predictor(write_weights(tmp_path / "fitted.pt", grade_sets=fitted))(image_HW3)
    assert (found.grade_set, predict(image_HW3).grade_set) == ((0, 1, 2, 3, 4), ())


def test_weights_with_a_likeness_tell_what_is_unlike_and_may_withhold_its_grade(image_HW3, tmp_path, predict):
    plain = predict(image_HW3)
    near = Likeness(np.zeros(36), np.ones(36), np.eye(1, 36), np.ones(1), rest=1.0, limit=1e-3)
    weights = write_weights(tmp_path / "fitted.pt", likeness=near.facts())
    found = Predictor(weights, withhold_doubtful=True)(image_HW3)
    assert (plain.unlikeness, found.unlikeness > 1, found.withheld) == (None, True, True)
    assert found.doubts[0] == "unlike the training photographs"
    assert found.probabilities == plain.probabilities
    with pytest.raises(ValueError, match="expected weights with a likeness"):
        Predictor(write_weights(tmp_path / "bare.pt"), withhold_doubtful=True)


def test_nothing_changes_behind_the_callers_back(image_HW3, checkpoint):
    def state():
        kind, keys, *rest = np.random.get_state()  # noqa: NPY002  (the global one)
        return torch.random.get_rng_state().tolist(), kind, keys.tolist(), rest, torch.get_num_threads()

    before, pixels = state(), image_HW3.copy()
    grad, read_only = torch.is_grad_enabled(), image_HW3.copy()
    read_only.flags.writeable = False
    predict = Predictor(checkpoint)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = predict(image_HW3)
        again = predict(read_only)
    assert state() == before
    assert torch.is_grad_enabled() == grad
    assert np.array_equal(image_HW3, pixels)
    assert np.array_equal(found.lesions_HW, again.lesions_HW)
    assert found.probabilities == again.probabilities


def test_a_view_is_seen_as_its_copy_is(image_HW3, predict):
    view = image_HW3[::-1, ::-1]
    assert np.array_equal(predict(view).lesions_HW, predict(view.copy()).lesions_HW)
    assert not np.array_equal(predict(view).lesions_HW, predict(image_HW3).lesions_HW)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.ones((60, 90, 3), np.float32), "expected a photograph as a numpy array of uint8, got float32"),
        ([[0, 0, 0]], "expected a photograph as a numpy array of uint8, got list"),
        (np.ones((60, 90), np.uint8), r"expected a photograph as \(H, W, 3\), RGB, got \(60, 90\)"),
        (np.ones((60, 90, 4), np.uint8), r"expected a photograph as \(H, W, 3\), RGB, got \(60, 90, 4\)"),
        (np.ones((0, 90, 3), np.uint8), r"got \(0, 90, 3\)"),
        (np.zeros((60, 90, 3), np.uint8), r"the array: expected a bright round field on black.*all but black"),
    ],
)
def test_what_is_no_photograph_is_refused(predict, image, message):
    with pytest.raises(ValueError, match=message):
        predict(image)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"report": True}, "unknown option 'report', expected one of min_area_ppm"),
        ({"backend": "tpu"}, "expected backend in .* got 'tpu'"),
        ({"lesion_size": 96}, "expected window_px with lesion_size 96"),
        ({"abstain_below": 60}, "expected abstain_below to be a probability"),
        ({"lesion_thresholds": [0.5]}, "threshold"),
        ({"grade_set_quantiles": [0.5]}, "expected grade_set_quantiles as 5 numbers"),
        ({"image_size": 65}, "expected an image_size that is a multiple of 32, got 65"),
    ],
)
def test_options_that_cannot_be_are_refused_in_one_sentence(checkpoint, options, message):
    with pytest.raises(ValueError, match=message):
        Predictor(checkpoint, **options)


@pytest.mark.parametrize(
    ("facts", "message"),
    [({"fuse": True}, "tell the four lesions apart"), ({"encoder": "lenet"}, "expected encoder in")],
)
def test_weights_that_cannot_be_are_refused(tmp_path, facts, message):
    with pytest.raises(ValueError, match=message):
        Predictor(write_weights(tmp_path / "model.pt", **facts))


def test_two_copies_of_a_network_say_what_it_says(image_HW3, tmp_path, checkpoint, predict):
    copies = [write_weights(tmp_path / name) for name in ("a.pt", "b.pt")]
    found, expected = Predictor(copies)(image_HW3), predict(image_HW3)
    assert 0 < (expected.lesions_HW > 0).mean() < 1
    assert np.array_equal(found.lesions_HW, expected.lesions_HW)
    assert found.probabilities == pytest.approx(expected.probabilities, abs=1e-3)  # where there is bfloat16
    assert np.abs(found.heat_hw - expected.heat_hw).max() < 1e-3


@pytest.mark.parametrize("options", [{}, {"flips": True}, {"window_px": 96}], ids=str)
def test_files_get_the_mean_of_two_networks_as_arrays_do(image_HW3, tmp_path, checkpoint, options):
    paths = [checkpoint, write_weights(tmp_path / "other.pt", seed=1, image_size=96)]
    found = Predictor(paths, **options)(image_HW3)
    row, mask, heat = infer(image_HW3, tmp_path, list(map(str, paths)), **options)
    assert np.array_equal(found.lesions_HW, mask)
    assert np.abs(found.heat_hw * 255 - heat).max() <= 1
    assert row["probability_0"] == pytest.approx(found.probabilities[0], abs=1e-6)
    for path in paths:
        assert Predictor(path, **options)(image_HW3).probabilities != pytest.approx(found.probabilities, abs=1e-4)


def test_no_file_and_one_file_twice_are_refused(checkpoint):
    with pytest.raises(ValueError, match="expected one weights file or more in --checkpoint, got an empty list"):
        Predictor([])
    with pytest.raises(ValueError, match="which are the same: it would count twice"):
        Predictor([checkpoint, str(checkpoint)])


def test_without_weights_it_says_where_they_come_from(tmp_path):
    with pytest.raises(ValueError, match=r"found no such file; name yours .* outputs/train/model\.pt"):
        Predictor(tmp_path / "model.pt")
