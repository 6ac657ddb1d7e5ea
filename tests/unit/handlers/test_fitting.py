"""A grader's training ends with the temperature of its last weights, two pictures, and a file that knows it."""

import numpy as np
import pytest
import torch
from bundle.handlers.fitting import DrawGrades, FitTemperature
from bundle.handlers.scores import ScoreGrades
from bundle.handlers.training_state import SaveWeights
from bundle.metrics.calibration import fit_temperature
from bundle.networks.weights import load_weights
from bundle.steps import EvaluationStep, GradingStep
from ignite.engine import Events
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import ValidationHandler
from torch import nn

CPU = torch.device("cpu")
GRADES = torch.tensor([0, 0, 0, 0, 1, 2, 3, 4] * 5)
COUNT = len(GRADES)
IDS = [f"photograph{number}" for number in range(COUNT)]


class Constant(nn.Module):
    """Says 16 : 1 : 1 : 1 : 1 of every photograph, which is twice too sure of ``GRADES``."""

    def __init__(self):
        super().__init__()
        self.logits = nn.Parameter(2 * torch.tensor([0.5, 0.125, 0.125, 0.125, 0.125]).log())

    def forward(self, image):
        return self.logits * torch.ones(len(image), 1)


def train(folder, ids=IDS, lr=0.0, epochs=3, val_interval=1, class_weights=None):
    """Train and return fitted temperature, trainer, network, and the epochs at which there was a validation."""
    batch = {"id": IDS, "image": torch.rand(COUNT, 3, 4, 6), "grade": GRADES}
    network, scorer, drawn, validated = Constant(), ScoreGrades(ids), [], []
    evaluator = SupervisedEvaluator(
        device=CPU, val_data_loader=[batch], network=network, iteration_update=EvaluationStep(), decollate=False,
        val_handlers=[scorer],
    )  # fmt: skip
    evaluator.add_event_handler(Events.COMPLETED, lambda engine: validated.append(engine.state.epoch))
    fitted = FitTemperature(evaluator, scorer, class_weights)
    trainer = SupervisedTrainer(
        device=CPU, max_epochs=epochs, train_data_loader=[batch], network=network, loss_function=None,
        optimizer=torch.optim.SGD(network.parameters(), lr=lr), decollate=False,
        iteration_update=GradingStep(nn.CrossEntropyLoss()), train_handlers=[
            *([ValidationHandler(val_interval, evaluator)] if ids else []),
            SaveWeights(str(folder / "model.pt"), network, {"seed": 7}, [fitted]),
            DrawGrades(
                fitted, str(folder), confusion=lambda *given: drawn.append(given),
                reliability=lambda *given: drawn.append(given),
            ),
        ],
    )  # fmt: skip
    trainer.run()
    return fitted, trainer, network, validated, drawn


def test_the_temperature_of_the_fold_is_fitted_and_stands_in_the_file(tmp_path):
    fitted, trainer, _, validated, _ = train(tmp_path)
    assert fitted.temperature == pytest.approx(2, rel=1e-3)
    facts = load_weights(Constant(), tmp_path / "model.pt")
    assert facts["temperature"] == fitted.temperature
    assert (facts["seed"], facts["epochs"], facts["calibration_images"]) == (7, 3, COUNT)
    assert facts["calibration_ece"] == pytest.approx(0.3, abs=1e-5)
    assert facts["calibration_ece_scaled"] == pytest.approx(0, abs=1e-3)
    assert facts["calibration_nll_scaled"] < facts["calibration_nll"]
    assert trainer.state.metrics["calibration/temperature"] == fitted.temperature
    assert trainer.state.metrics["calibration/images"] == COUNT
    assert validated == [1, 2, 3]  # the last validation does: no further one is run


@pytest.mark.parametrize(("val_interval", "expected"), [(2, [2, 3]), (9, [3])])
def test_it_is_fitted_on_the_last_weights_where_the_last_epoch_was_not_validated(tmp_path, val_interval, expected):
    fitted, _, network, validated, _ = train(tmp_path, lr=0.5, val_interval=val_interval)
    assert validated == expected
    logits = network.logits.detach().expand(COUNT, 5).numpy()
    assert fitted.temperature == pytest.approx(fit_temperature(logits, GRADES.numpy()), rel=1e-3)
    assert fitted.temperature != pytest.approx(2, rel=0.05)


def test_without_a_held_out_fold_the_temperature_is_1_and_the_file_says_why(tmp_path):
    fitted, trainer, _, validated, drawn = train(tmp_path, ids=[])
    assert (fitted.temperature, validated, drawn) == (1.0, [], [])
    assert "calibration/temperature" not in trainer.state.metrics
    facts = load_weights(Constant(), tmp_path / "model.pt")
    assert facts == {"seed": 7, "epochs": 3, "steps": 3, "temperature": 1.0, "calibration_images": 0}


def test_only_the_photographs_of_the_fold_count_and_so_few_measure_nothing(tmp_path):
    fitted, *_ = train(tmp_path, ids=IDS[:5])
    assert fitted.calibration.images == 5
    facts = load_weights(Constant(), tmp_path / "model.pt")
    assert facts["temperature"] == pytest.approx(1, rel=1e-6)  # four of these five are of grade 0, and it says 0.8
    assert facts["calibration_ece_scaled"] is facts["calibration_nll_scaled"] is None


def test_the_pictures_are_of_the_last_validation_and_unscaled(tmp_path):
    fitted, _, _, _, drawn = train(tmp_path)
    (confusion, reliability) = drawn
    assert [given[0] for given in drawn] == [tmp_path / "confusion.png", tmp_path / "reliability.png"]
    assert np.allclose(confusion[1], [0.8, 0.05, 0.05, 0.05, 0.05])
    assert reliability[2].tolist() == GRADES.tolist()
    assert reliability[3:] == (fitted.temperature, (0, 0, 0, 0, 0))


def test_the_class_weights_of_the_loss_are_taken_out_before_the_temperature_is_fitted(tmp_path):
    weights = [4.0, 1.0, 1.0, 1.0, 1.0]
    fitted, _, network, _, drawn = train(tmp_path, class_weights=weights)
    logits = network.logits.detach().expand(COUNT, 5).numpy()
    assert fitted.temperature == pytest.approx(fit_temperature(logits, GRADES.numpy(), np.log(weights)), rel=1e-3)
    assert fitted.temperature != pytest.approx(2, rel=0.05)
    assert drawn[1][4] == pytest.approx((np.log(4), 0, 0, 0, 0))
    with pytest.raises(ValueError, match=r"expected 5 class weights that are finite and not negative, got \[1\]"):
        train(tmp_path, class_weights=[1])
