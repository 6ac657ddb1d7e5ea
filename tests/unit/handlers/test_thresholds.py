"""A training ends with a threshold for each lesion, from the fold that was held out, and a file that knows them."""

import logging

import numpy as np
import pytest
import torch
from bundle.handlers.fitting import FitThresholds
from bundle.handlers.scores import ScoreLesions
from bundle.handlers.training_state import SaveWeights
from bundle.manifest import Manifest, Photograph
from bundle.networks.weights import lesion_thresholds, load_weights
from bundle.steps import EvaluationStep
from ignite.engine import Engine, Events
from monai.engines import SupervisedEvaluator
from monai.handlers import ValidationHandler
from PIL import Image
from torch import nn

WIDTH_PX, HEIGHT_PX = 12, 8
GEOMETRY = torch.tensor([[2.0, 0.0, 8.0, WIDTH_PX, HEIGHT_PX]])
"""The square about the middle, at native scale."""


class Faint(nn.Module):
    """Gives microaneurysms 0.3 where the image is bright, 0.1 where it is not, and no other lesion anything."""

    def __init__(self):
        super().__init__()
        self.boldness = nn.Parameter(torch.tensor(1.0))

    def forward(self, image):
        p = self.boldness * (0.1 + 0.2 * image[:, :1])
        return {"lesions": torch.cat([1 - p, p, 0 * p.expand(-1, 3, -1, -1)], dim=1).clamp_min(1e-9).log()}


@pytest.fixture
def manifest(tmp_path):
    mask = np.zeros((HEIGHT_PX, WIDTH_PX), np.uint8)
    mask[2:4, 5:7] = 1
    Image.fromarray(mask).save(tmp_path / "a_MA.tif")
    said = {
        "split": "train", "sha256": "a" * 64, "perceptual_hash": "b" * 64, "width_px": WIDTH_PX,
        "height_px": HEIGHT_PX, "annotated": ("MA", "HE", "EX", "SE"),
    }  # fmt: skip
    rows = (
        Photograph(id="a", image="tiny/a.jpg", group="a", masks={"MA": "tiny/a_MA.tif"}, areas_px={"MA": 4}, **said),
        Photograph(id="b", image="tiny/b.jpg", group="b", **said),
    )
    return Manifest(name="tiny", roots={"tiny": tmp_path}, folds=2, seed=0, photographs=rows)


def train(folder, manifest, rows=None, epochs=3, val_interval=1, bolder=0.0, **settings):
    """Train a network that only becomes bolder; return what was fitted, the trainer, and when it was validated."""
    image = torch.zeros(2, 3, 8, 8)
    image[0, :, 2:4, 3:5] = 1  # where the outline of the first photograph lies
    batch = {"id": ["a", "b"], "image": image, "geometry": GEOMETRY.expand(2, 5)}
    network, validated = Faint(), []
    scorer = ScoreLesions(manifest, manifest.photographs if rows is None else rows)
    evaluator = SupervisedEvaluator(
        device=torch.device("cpu"), val_data_loader=[batch], network=network, iteration_update=EvaluationStep(),
        decollate=False, val_handlers=[scorer],
    )  # fmt: skip
    evaluator.add_event_handler(Events.COMPLETED, lambda engine: validated.append(engine.state.epoch))
    trainer = Engine(lambda engine, batch: network.boldness.data.add_(bolder))
    fitted = FitThresholds(evaluator, scorer, **settings)
    ValidationHandler(val_interval, evaluator).attach(trainer)
    SaveWeights(str(folder / "model.pt"), network, {"seed": 7}, [fitted]).attach(trainer)
    trainer.run([0], max_epochs=epochs)
    return fitted, trainer, validated


def test_each_lesion_of_the_fold_has_its_threshold_in_the_file_and_in_the_metrics(tmp_path, manifest):
    _, trainer, validated = train(tmp_path, manifest)
    facts = load_weights(Faint(), tmp_path / "model.pt")
    assert facts["lesion_thresholds"] == {"MA": pytest.approx(0.2, abs=1e-4), "HE": 0.5, "EX": 0.5, "SE": 0.5}
    assert facts["lesion_threshold_images"] == {"MA": 1, "HE": 0, "EX": 0, "SE": 0}
    assert (facts["seed"], facts["epochs"]) == (7, 3)
    assert lesion_thresholds(tmp_path / "model.pt") == tuple(facts["lesion_thresholds"].values())
    assert trainer.state.metrics == {"lesions/threshold_MA": facts["lesion_thresholds"]["MA"]}
    assert validated == [1, 2, 3]  # the last validation does: no further one is run


def test_the_fitted_thresholds_find_what_the_most_probable_class_starves(tmp_path, manifest):
    fitted, *_ = train(tmp_path, manifest)
    assert fitted.validator.state.metrics["lesions/dice_MA"] == 0
    scorer = ScoreLesions(manifest, manifest.photographs, thresholds=tuple(fitted.thresholds.values()))
    scorer.attach(fitted.validator)
    fitted.validator.run(1)
    assert fitted.validator.state.metrics["lesions/dice_MA"] == 1
    assert fitted.validator.state.metrics["lesions/argmax_dice_MA"] == 0


@pytest.mark.parametrize(("val_interval", "expected"), [(2, [2, 3]), (9, [3])])
def test_they_are_of_the_last_weights_where_the_last_epoch_was_not_validated(
    tmp_path, manifest, val_interval, expected
):
    fitted, _, validated = train(tmp_path, manifest, val_interval=val_interval, bolder=0.5)
    assert validated == expected
    assert fitted.thresholds["MA"] == pytest.approx(2.5 * 0.2, abs=1e-3)  # 1 + 3 * 0.5 times as bold


def test_a_lesion_that_the_fold_does_not_have_is_named(tmp_path, manifest, caplog):
    with caplog.at_level(logging.INFO, logger="ignite"):
        train(tmp_path, manifest)
    assert "the fold has no HE, EX, SE: not fitted, the threshold stays 0.5" in caplog.text


@pytest.mark.parametrize(
    ("settings", "why"),
    [({"fold_is_test": True}, "the held-out fold is also the test"), ({"rows": []}, "no fold is held out")],
)
def test_nothing_is_fitted_on_the_test_or_on_nothing_and_the_file_says_so(tmp_path, manifest, caplog, settings, why):
    with caplog.at_level(logging.INFO, logger="ignite"):
        _, trainer, validated = train(tmp_path, manifest, val_interval=9, **settings)
    assert f"{why}: no lesion thresholds were fitted" in caplog.text
    facts = load_weights(Faint(), tmp_path / "model.pt")
    assert facts == {"seed": 7, "epochs": 3, "steps": 3, "lesion_thresholds": None, "lesion_threshold_images": None}
    assert lesion_thresholds(tmp_path / "model.pt") is None
    assert (trainer.state.metrics, validated) == ({}, [])
