"""Handlers that watch a training: mean losses, losses that are not finite, and the gradients of both tasks."""

from types import SimpleNamespace

import pytest
import torch
from bundle.handlers.monitors import FailOnNonFinite, GradientBalance, MeanOutputs
from bundle.method.losses import CategoricalFocalLoss, GradeWeight, LesionLoss
from bundle.networks.multitask_unet import BothTasks, MultiTaskUNet
from ignite.engine import Engine, Events
from torch import nn

CPU = torch.device("cpu")

# --- mean outputs


def test_each_epoch_has_the_mean_of_its_own_iterations_under_the_given_name():
    seen = []
    engine = Engine(lambda engine, x: {"loss": torch.tensor(x * engine.state.epoch), "accuracy": torch.tensor(0.5)})
    MeanOutputs({"loss": "both/loss", "accuracy": "grade/accuracy"}).attach(engine)
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda engine: seen.append(dict(engine.state.metrics)))
    engine.run([1.0, 2.0, 6.0], max_epochs=2)
    assert seen == [{"both/loss": 3.0, "grade/accuracy": 0.5}, {"both/loss": 6.0, "grade/accuracy": 0.5}]


def test_means_are_plain_numbers_so_that_they_can_be_logged():
    engine = Engine(lambda engine, x: {"loss": torch.tensor(x)})
    MeanOutputs({"loss": "loss"}).attach(engine)
    engine.run([1.0, 2.0])
    assert type(engine.state.metrics["loss"]) is float


# --- losses that are not finite


def run(losses, handler):
    """Run two epochs over these losses; return the engine."""
    engine = Engine(lambda engine, loss: {"loss": torch.tensor(loss), "accuracy": loss})
    handler.attach(engine)
    engine.run(losses, max_epochs=2)
    return engine


def test_finite_losses_run_to_the_end():
    assert run([1.0, -2.0, 0.0], FailOnNonFinite()).state.iteration == 6


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_the_first_loss_that_is_no_number_ends_the_run_and_is_located(value):
    with pytest.raises(RuntimeError, match=rf"`loss` became {value} at epoch 1, iteration 2; lower learning_rate"):
        run([1.0, value, 2.0], FailOnNonFinite())


def test_another_output_can_be_watched_and_need_be_no_tensor():
    with pytest.raises(RuntimeError, match="`accuracy` became nan"):
        run([float("nan")], FailOnNonFinite("accuracy"))


# --- gradients of both tasks: the cosine by hand on a network of two numbers


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(0)
    return {
        "image": torch.rand(2, 3, 32, 64, generator=generator),
        "lesions": torch.randint(0, 5, (2, 1, 32, 64), generator=generator),
        "looked_for": torch.ones(2, 4, dtype=torch.bool),
        "initial": torch.eye(5)[[1, 4]], "weight": torch.tensor([1.0, 0.5]),
    }  # fmt: skip


class TwoNumbers(nn.Module):
    """An encoder of two numbers, (a, b): the lesions read a + b, the grade reads a - b or twice that of the lesions."""

    def __init__(self, opposed):
        super().__init__()
        self.network = nn.Module()
        self.network.encoder = nn.Module()
        self.network.encoder.numbers = nn.Parameter(torch.zeros(2))
        self.network.shared_modules = lambda: (self.network.encoder,)
        self.reads = torch.tensor([1.0, -1.0]) if opposed else torch.tensor([1.0, 1.0])

    def forward(self, image):
        numbers = self.network.encoder.numbers
        lesions = torch.zeros(1, 5, 1, 1).index_fill(1, torch.tensor([1]), 1.0) * numbers.sum()
        grade = torch.eye(5)[1] * (self.reads * numbers).sum()
        return {"lesions": lesions.expand(len(image), 5, *image.shape[-2:]), "grade": grade.expand(len(image), 5)}


@pytest.mark.parametrize(("opposed", "cosine"), [(True, 0.0), (False, 1.0)])
def test_the_cosine_of_known_directions(batch, opposed, cosine):
    batch = {
        **batch,
        "lesions": torch.ones_like(batch["lesions"]),
        "initial": torch.eye(5)[[1, 1]],
        "weight": torch.ones(2),
    }
    engine = SimpleNamespace(state=SimpleNamespace(batch=batch, device=CPU, metrics={}))
    weight = GradeWeight(0.5, "norm")
    balance = GradientBalance(TwoNumbers(opposed), LesionLoss(), CategoricalFocalLoss(), weight)
    balance(engine)
    assert engine.state.metrics["balance/cosine"] == pytest.approx(cosine, abs=1e-6)
    assert engine.state.metrics["balance/norm_ratio"] == pytest.approx(0.5)  # both losses are the same here
    assert engine.state.metrics["balance/weight"] == 0.5
    assert balance.facts()["balance_norm_ratio"] == pytest.approx(0.5)
    assert float(weight) == pytest.approx(0.5)  # beta times the ratio of equal norms


def test_the_gradients_are_autograds_and_nothing_else_changes(batch):
    torch.manual_seed(0)
    tasks = BothTasks(MultiTaskUNet(pretrained=False, width=1 / 16)).train().to(memory_format=torch.channels_last)
    loss = CategoricalFocalLoss()
    buffers = [one.clone() for one in tasks.buffers()]
    nn.init.normal_(tasks.network.grade_head.weight)
    lesions, grade = GradientBalance(tasks, LesionLoss(), loss, GradeWeight(1.0)).gradients(batch)
    assert all(torch.equal(a, b) for a, b in zip(tasks.buffers(), buffers, strict=True))
    assert all(p.grad is None for p in tasks.parameters())
    out = tasks(batch["image"])
    expected = torch.autograd.grad(
        loss(out["grade"], batch["initial"], batch["weight"]), list(tasks.network.encoder.parameters())
    )
    assert torch.allclose(grade, torch.cat([one.flatten() for one in expected]), rtol=1e-4, atol=1e-8)
    assert lesions.shape == grade.shape
    assert lesions.norm() > 0


def test_a_balance_that_goes_on_knows_its_history_and_its_weight(batch):
    torch.manual_seed(0)
    tasks = BothTasks(MultiTaskUNet(pretrained=False, width=1 / 16))
    nn.init.normal_(tasks.network.grade_head.weight)
    engine = SimpleNamespace(state=SimpleNamespace(batch=batch, device=CPU, metrics={}))
    first, second = (
        GradientBalance(tasks, LesionLoss(), CategoricalFocalLoss(), GradeWeight(0.8, "norm")) for _ in range(2)
    )
    first(engine)
    second.load_state_dict(first.state_dict())
    assert second.facts() == first.facts()
    assert float(second.weight) == float(first.weight)
    assert float(first.weight) != 0.8
    second(engine)
    assert engine.state.metrics["balance/norm_ratio"] == pytest.approx(
        0.8, rel=1e-4
    )  # the same batch: it is balanced now


@pytest.mark.parametrize(("beta", "looked"), [(0.0, True), (0.8, False)])
def test_there_is_no_balance_of_one_task_alone(batch, beta, looked):
    torch.manual_seed(0)
    tasks = BothTasks(MultiTaskUNet(pretrained=False, width=1 / 16))
    lone = {**batch, "looked_for": torch.full((2, 4), looked)}
    engine = SimpleNamespace(state=SimpleNamespace(batch=lone, device=CPU, metrics={}))
    balance = GradientBalance(tasks, LesionLoss(), CategoricalFocalLoss(), GradeWeight(beta))
    balance(engine)
    assert engine.state.metrics == balance.facts() == {}
