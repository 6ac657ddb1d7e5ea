"""When meta steps are taken, on which batches, and that the labels that are shown are those that are taught."""

import itertools
from types import SimpleNamespace

import pytest
import torch
from bundle.handlers.label_table import LabelTable
from bundle.handlers.label_update import LabelUpdateHandler
from bundle.method.label_pulls import LabelPulls
from bundle.method.losses import CategoricalFocalLoss, LesionLoss
from bundle.method.meta_step import MetaStep
from bundle.networks.label_update import LabelUpdateNetwork
from bundle.networks.multitask_unet import BothTasks, MultiTaskUNet
from bundle.steps import MultiTaskStep
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from torch import nn

BETA = 0.8
SOFT = torch.tensor([[0.0, 0.0, 0.5, 0.3, 0.2], [0.0, 1.0, 0.0, 0.0, 0.0]])


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return {
        "id": ["7", "8"],
        "image": torch.rand(2, 3, 32, 64, generator=generator),
        "lesions": torch.randint(0, 5, (2, 1, 32, 64), generator=generator),
        "looked_for": torch.ones(2, 4, dtype=torch.bool),
        "initial": SOFT, "feasible": SOFT > 0, "weight": torch.tensor([1.0, 0.5]),
    }  # fmt: skip


def table():
    grades = {"7": 3, "8": -1}
    return LabelTable(
        {
            name: {"initial": soft, "feasible": soft > 0, "weight": torch.tensor(1.0), "grade": grades[name]}
            for name, soft in zip(grades, SOFT, strict=True)
        }
    )


def networks(objective="segmentation", lr=0.0):
    torch.manual_seed(0)
    tasks = BothTasks(MultiTaskUNet(pretrained=False, width=1 / 16))
    nn.init.normal_(tasks.network.grade_head.weight, std=0.3)
    update = LabelUpdateNetwork(pretrained=False, width=1 / 16)
    nn.init.normal_(update.shift.weight, std=3.0)
    optimizer = torch.optim.SGD(update.shift.parameters(), lr=lr)
    losses = LesionLoss(), CategoricalFocalLoss()
    pulls = LabelPulls(keep_common=True)  # of one photograph that can move, all is common
    return tasks, update, MetaStep(tasks, update, optimizer, *losses, BETA, 1e-2, objective=objective, pulls=pulls)


def train(tasks, labels, handlers, loader, epochs):
    trainer = SupervisedTrainer(
        device=torch.device("cpu"), max_epochs=epochs, train_data_loader=loader, network=tasks, loss_function=None,
        optimizer=torch.optim.SGD(tasks.parameters(), lr=0.0), decollate=False, train_handlers=handlers,
        iteration_update=MultiTaskStep(LesionLoss(), CategoricalFocalLoss(), BETA, labels),
    )  # fmt: skip
    trainer.run()
    return trainer.state.metrics


class Counted:
    """Stands in for a meta step, and remembers what it was called with."""

    objective = "segmentation"

    def __init__(self, tasks):
        self.tasks, self.label_update, self.calls = tasks, nn.Linear(1, 1), []

    def __call__(self, batch, graded, gradients):
        self.calls.append((graded, gradients))
        return torch.tensor(1.0)

    def labels(self, batch):
        return batch["initial"]


class Pushed(Counted):
    """A meta step that pushes the odds of grade 3 against the others by a factor, for every photograph."""

    def __init__(self, tasks, factor):
        super().__init__(tasks)
        self.label_update, self.factor = nn.Linear(1, 1, bias=False), torch.tensor(factor)
        nn.init.zeros_(self.label_update.weight)

    def __call__(self, batch, graded, gradients):
        with torch.no_grad():
            self.label_update.weight += self.factor.log()
        return super().__call__(batch, graded, gradients)

    def labels(self, batch):
        odds = batch["initial"] * torch.tensor([1.0, 1.0, 1.0, self.label_update.weight.exp().item(), 1.0])
        return odds / odds.sum(dim=1, keepdim=True)


@pytest.mark.parametrize(
    ("alternation", "every", "steps"), [("epoch", 1, 9), ("epoch", 2, 3), ("step", 1, 9), ("step", 2, 4)]
)
def test_meta_steps_are_taken_as_often_as_asked_for(batch, alternation, every, steps):
    tasks, _, _ = networks()
    step, labels = Counted(tasks), table()
    handler = LabelUpdateHandler(step, labels, [batch], [batch] * 3, alternation, every)
    train(tasks, labels, [handler], [batch] * 3, epochs=3)
    assert len(step.calls) == steps
    assert all((gradients is not None) == (alternation == "step") for _, gradients in step.calls)


def test_a_fused_step_does_what_a_step_of_its_own_does_on_the_same_batch(batch):
    found = []
    for alternation in ("epoch", "step"):
        tasks, update, step = networks()
        labels = table()
        train(tasks, labels, [LabelUpdateHandler(step, labels, [batch], [batch], alternation)], [batch], epochs=1)
        found.append([p.grad.clone() for p in update.shift.parameters()])
    assert max(g.abs().max() for g in found[0]) > 0
    for own, fused in zip(*found, strict=True):
        assert torch.allclose(own, fused, rtol=1e-2, atol=1e-4)


class WhatIsTaught:
    """Notes the labels that each training step looks up, and the curves of each epoch."""

    def __init__(self, labels):
        self.labels, self.taught, self.shown, self.curves = labels, [], [], []

    def of(self, ids):
        self.taught.append(self.labels.of(ids))
        return self.taught[-1]

    def attach(self, engine):
        engine.add_event_handler(Events.EPOCH_COMPLETED, self)

    def __call__(self, engine):
        self.shown.append(self.labels.of(["7", "8"]))
        self.curves.append(dict(engine.state.metrics))


@pytest.mark.parametrize("alternation", ["epoch", "step"])
@pytest.mark.parametrize("encoder", ["own", "shared"])
def test_labels_in_curves_and_tables_are_those_that_the_next_step_is_taught(batch, alternation, encoder):
    tasks, _, _ = networks()
    shared = tasks.network if encoder == "shared" else None
    update = LabelUpdateNetwork(pretrained=False, width=1 / 16, encoder=encoder, tasks=shared)
    optimizer = torch.optim.SGD(update.shift.parameters(), lr=0.05)
    losses, pulls = (LesionLoss(), CategoricalFocalLoss()), LabelPulls(keep_common=True)
    step, labels = MetaStep(tasks, update, optimizer, *losses, BETA, 1e-2, pulls=pulls), table()
    seen = WhatIsTaught(labels)
    handler = LabelUpdateHandler(step, labels, [batch], [batch], alternation, movement_max=1.0)
    train(tasks, seen, [handler, seen], [batch] * 2, epochs=4)
    for epoch in range(3):
        assert all((taught - seen.shown[epoch]).abs().max() <= 1e-6 for taught in seen.taught[2 * epoch + 2 :][:2])
        told = seen.curves[epoch]["labels/movement"]
        assert told == pytest.approx(((seen.shown[epoch] - SOFT).abs().sum(dim=1) / 2).mean().item(), abs=1e-6)
    assert (seen.shown[2] - seen.shown[0]).abs().max() > 1e-4
    with torch.no_grad():
        assert (step.labels(batch) - labels.current_M5).abs().max() <= 1e-6


def test_no_label_moves_further_in_a_pass_than_it_may(batch):
    tasks, _, _ = networks()
    step, labels = Pushed(tasks, factor=20.0), table()
    handler = LabelUpdateHandler(step, labels, [batch], [batch], movement_max=0.1)
    seen = WhatIsTaught(labels)
    train(tasks, seen, [handler, seen], [batch], epochs=3)
    steps = [SOFT, *seen.shown]
    moved = [((b - a).abs().sum(dim=1) / 2).max().item() for a, b in itertools.pairwise(steps)]
    assert all(0.04 < one <= 0.1 for one in moved)
    assert torch.allclose(step.labels(batch), labels.current_M5, atol=1e-6)  # the network itself went back


def test_the_engine_tells_the_label_curves_of_an_epoch(batch):
    tasks, _, step = networks()
    labels = table()
    metrics = train(tasks, labels, [LabelUpdateHandler(step, labels, [batch], [batch], "step")], [batch], epochs=1)
    assert {"labels/movement", "labels/entropy", "labels/top_grade_changed", "labels/meta_loss"} <= set(metrics)
    assert metrics["labels/initial_accuracy"] == 0.0  # the one known grade is 3, the label's top is 2
    assert metrics["labels/grades_in_use"] == 2.0


def test_graded_photographs_are_drawn_without_end_and_from_the_start_in_every_pass(batch):
    tasks, _, _ = networks()
    step, labels = Counted(tasks), table()
    step.objective = "graded"
    graded = [{"image": batch["image"], "grade": torch.tensor([one, one])} for one in (0, 4)]
    handler = LabelUpdateHandler(step, labels, [batch], [batch] * 3, graded=graded)
    train(tasks, labels, [handler], [batch] * 3, epochs=2)
    assert [drawn["grade"][0].item() for drawn, _ in step.calls] == [0, 4, 0, 0, 4, 0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"alternation": "both"}, r"expected alternation in \['epoch', 'step'\], got 'both'"),
        ({"every": 0}, "expected meta_every of 1 or more and label_movement_max in .* got 0 and 0.1"),
        ({"movement_max": 1.5}, r"label_movement_max in \(0, 1\], got 1 and 1.5"),
        ({"graded": []}, "expected graded photographs for meta_objective 'graded' and for no other"),
    ],
)
def test_rejects_a_setting_that_cannot_be(settings, message):
    with pytest.raises(ValueError, match=message):
        LabelUpdateHandler(SimpleNamespace(objective="segmentation"), table(), [], [], **settings)
