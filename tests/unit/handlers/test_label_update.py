"""When meta steps are taken, on which batches, and what an engine says of the labels afterwards."""

import math
from types import SimpleNamespace

import pytest
import torch
from bundle.engines import MultiTaskStep
from bundle.handlers.label_curves import label_curves, pooled
from bundle.handlers.label_update import LabelUpdateHandler
from bundle.handlers.meta_step import MetaStep, Moved
from bundle.losses import CategoricalFocalLoss
from bundle.networks.label_update import LabelUpdateNetwork
from bundle.networks.multitask_unet import BothTasks, MultiTaskUNet
from monai.engines import SupervisedTrainer
from torch import nn

BETA = 0.8


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    initial = torch.tensor([[0.0, 0.0, 0.5, 0.3, 0.2], [0.0, 1.0, 0.0, 0.0, 0.0]])
    return {
        "image": torch.rand(2, 3, 32, 64, generator=generator),
        "lesions": torch.randint(0, 5, (2, 1, 32, 64), generator=generator),
        "initial": initial, "feasible": initial > 0, "weight": torch.tensor([1.0, 0.5]),
        "grade": torch.tensor([3, -1]), "outlined": torch.tensor([True, True]),
    }  # fmt: skip


def networks(objective="segmentation"):
    torch.manual_seed(0)
    tasks = BothTasks(MultiTaskUNet(pretrained=False, width=1 / 16))
    update = LabelUpdateNetwork(pretrained=False, width=1 / 16)
    nn.init.normal_(update.shift.weight, std=0.1)
    optimizer = torch.optim.SGD(update.parameters(), lr=0.0)
    return tasks, update, MetaStep(tasks, update, optimizer, CategoricalFocalLoss(), BETA, objective=objective)


def train(tasks, update, handler, loader, epochs):
    trainer = SupervisedTrainer(
        device=torch.device("cpu"), max_epochs=epochs, train_data_loader=loader, network=tasks, loss_function=None,
        optimizer=torch.optim.SGD(tasks.parameters(), lr=0.0), decollate=False, train_handlers=[handler],
        iteration_update=MultiTaskStep(CategoricalFocalLoss(), BETA, update),
    )  # fmt: skip
    trainer.run()
    return trainer.state.metrics


class Counted:
    """Stands in for a meta step, and remembers what it was called with."""

    objective = "segmentation"

    def __init__(self, tasks):
        self.tasks, self.calls = tasks, []

    def __call__(self, batch, graded, gradients):
        self.calls.append((graded, gradients))
        return Moved(torch.tensor(1.0), batch["initial"])


@pytest.mark.parametrize(
    ("alternation", "every", "steps"), [("epoch", 1, 9), ("epoch", 2, 3), ("step", 1, 9), ("step", 2, 4)]
)
def test_meta_steps_are_taken_as_often_as_asked_for(batch, alternation, every, steps):
    tasks, update, _ = networks()
    step = Counted(tasks)
    train(tasks, update, LabelUpdateHandler(step, [batch] * 3, alternation, every), [batch] * 3, epochs=3)
    assert len(step.calls) == steps
    assert all((gradients is not None) == (alternation == "step") for _, gradients in step.calls)


def test_a_fused_step_does_what_a_step_of_its_own_does_on_the_same_batch(batch):
    found = []
    for alternation in ("epoch", "step"):
        tasks, update, step = networks()
        train(tasks, update, LabelUpdateHandler(step, [batch], alternation), [batch], epochs=1)
        found.append([p.grad.clone() for p in update.parameters()])
    assert max(g.abs().max() for g in found[0]) > 0
    for own, fused in zip(*found, strict=True):
        assert torch.allclose(own, fused, rtol=1e-3, atol=1e-8)


def test_the_engine_tells_the_label_curves_of_an_epoch(batch):
    tasks, update, step = networks()
    metrics = train(tasks, update, LabelUpdateHandler(step, [batch], "step"), [batch], epochs=1)
    assert {"labels/movement", "labels/entropy", "labels/top_grade_changed", "labels/accuracy"} <= set(metrics)
    assert metrics["labels/initial_accuracy"] == 0.0  # the one known grade is 3, the label's top is 2
    assert metrics["labels/grades_in_use"] == 2.0


def test_graded_photographs_are_drawn_without_end_and_anew_in_every_epoch(batch):
    tasks, update, _ = networks()
    step = Counted(tasks)
    step.objective = "graded"
    graded = [{"image": batch["image"], "grade": torch.tensor([one, one])} for one in (0, 4)]
    train(tasks, update, LabelUpdateHandler(step, [batch] * 3, graded=graded), [batch] * 3, epochs=2)
    assert [drawn["grade"][0].item() for drawn, _ in step.calls] == [0, 4, 0, 0, 4, 0]


def test_curves_are_what_they_say():
    batch = {"initial": torch.tensor([[1.0, 0.0], [0.5, 0.5]]), "grade": torch.tensor([1, -1])}
    curves = label_curves(batch, torch.tensor([[0.25, 0.75], [0.5, 0.5]]), torch.tensor(2.0))
    assert curves["movement"].tolist() == [0.75, 0.0]
    assert curves["entropy"][1].item() == pytest.approx(math.log(2))
    assert curves["correct"][1].isnan()
    assert pooled([curves])["labels/accuracy"] == 1.0
    assert pooled([curves])["labels/meta_loss"] == 2.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alternation": "both"}, r"expected alternation in \['epoch', 'step'\], got 'both'"),
        ({"every": 0}, "expected meta_every of 1 or more, got 0"),
        ({"graded": []}, "expected graded photographs for meta_objective 'graded' and for no other"),
    ],
)
def test_rejects_a_setting_that_cannot_be(settings, message):
    with pytest.raises(ValueError, match=message):
        LabelUpdateHandler(SimpleNamespace(objective="segmentation"), [], **settings)
