"""The meta gradient on the real networks, against double backward."""

import pytest
import torch
from torch.func import functional_call

from bundle.handlers.label_update import LabelUpdateHandler, divergence
from bundle.losses import CategoricalFocalLoss
from bundle.networks.label_update import LabelUpdateNetwork
from bundle.networks.multitask_unet import BothTasks, MultiTaskUNet

BETA, VIRTUAL_LR = 0.8, 0.05


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(3)
    initial = torch.tensor([[0.0, 0.0, 0.5, 0.3, 0.2], [0.0, 1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    return {
        "image": torch.rand(2, 3, 64, 96, generator=generator, dtype=torch.float64),
        "lesions": torch.randint(0, 5, (2, 1, 64, 96), generator=generator),
        "initial": initial,
        "feasible": initial > 0,
        "weight": torch.tensor([1.0, 0.5], dtype=torch.float64),
        "grade": torch.tensor([3, -1]),
    }


@pytest.fixture
def handler(batch):
    return make_handler(batch, batch_norm=False)


def make_handler(batch, batch_norm, width=1 / 8):
    torch.manual_seed(0)
    tasks = BothTasks(MultiTaskUNet(pretrained=False, width=width, batch_norm=batch_norm)).double()
    label_update = LabelUpdateNetwork(pretrained=False, width=width, batch_norm=batch_norm).double()
    torch.nn.init.normal_(label_update.shift.weight, std=0.1)
    optimizer = torch.optim.SGD(label_update.parameters(), lr=1e-1)
    loss = Focal64()
    return LabelUpdateHandler(tasks, label_update, optimizer, loss, [batch], BETA, VIRTUAL_LR)


class Focal64(CategoricalFocalLoss):
    """The loss without its rounding to float32, so that two gradients can be compared to 1e-9."""

    def forward(self, logits, label, weight=None):
        assert logits.dtype == torch.float64
        soft = torch.nn.functional.one_hot(label[:, 0], 5).movedim(-1, 1).double() if label.ndim == 4 else label
        terms = soft * -self.alpha * (1 - logits.softmax(1)) ** self.gamma * logits.log_softmax(1)
        if weight is not None:
            terms = terms * weight.reshape(-1, *[1] * (terms.ndim - 1))
        return terms.mean()


def double_backward(handler, batch):
    """The MAXL way: keep the graph of the step and differentiate through it."""
    tasks, loss = handler.tasks.train(), handler.loss
    parameters = dict(tasks.named_parameters())

    def call(values):
        buffers = {name: value.clone() for name, value in tasks.named_buffers()}
        return functional_call(tasks, {**values, **buffers}, (batch["image"],))

    labels = handler.label_update(batch["image"], batch["initial"], batch["feasible"])
    out = call(parameters)
    training = loss(out["lesions"], batch["lesions"]) + BETA * loss(out["grade"], labels, batch["weight"])
    gradients = torch.autograd.grad(training, list(parameters.values()), create_graph=True)
    stepped = {name: p - VIRTUAL_LR * g for (name, p), g in zip(parameters.items(), gradients, strict=True)}
    meta = handler._meta_loss(call(stepped), batch)
    return torch.autograd.grad(meta, list(handler.label_update.parameters()))


def relative_difference(ours, theirs):
    flat = [torch.cat([one.flatten() for one in many]) for many in (ours, theirs)]
    return ((flat[0] - flat[1]).norm() / flat[1].norm()).item()


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("objective", ["segmentation", "initial", "segmentation+initial"])
def test_the_meta_gradient_equals_double_backward(batch, objective, batch_norm):
    handler = make_handler(batch, batch_norm)
    handler.objective = objective
    expected = double_backward(handler, batch)
    handler.meta_step(batch)
    ours = [p.grad * VIRTUAL_LR for p in handler.label_update.parameters()]
    assert sum(g.abs().sum() for g in expected) > 0
    assert relative_difference(ours, expected) < 1e-9


def test_the_meta_gradient_equals_double_backward_at_the_full_width_of_vgg16(batch):
    small = {key: value[..., :32, :64] if value.ndim == 4 else value for key, value in batch.items()}
    handler = make_handler(small, batch_norm=False, width=1.0)
    expected = double_backward(handler, small)
    handler.meta_step(small)
    ours = [p.grad * VIRTUAL_LR for p in handler.label_update.parameters()]
    assert relative_difference(ours, expected) < 1e-9


def test_a_meta_step_lowers_the_meta_loss_of_the_next_virtual_step(handler, batch):
    _, before = handler.tangents(batch)
    for _ in range(3):
        handler.meta_step(batch)
    _, after = handler.tangents(batch)
    assert after < before


def test_a_meta_step_leaves_the_multi_task_network_as_it_was(handler, batch):
    handler.tasks.eval()
    state = {name: value.clone() for name, value in handler.tasks.state_dict().items()}
    next(handler.tasks.parameters()).grad = torch.ones_like(next(handler.tasks.parameters()))
    handler.meta_step(batch)
    assert all(torch.equal(value, state[name]) for name, value in handler.tasks.state_dict().items())
    assert not handler.tasks.training
    assert next(handler.tasks.parameters()).grad.eq(1).all()
    assert all(p.grad is None for p in list(handler.tasks.parameters())[1:])


def test_no_mass_lies_outside_the_feasible_grades_after_meta_steps(handler, batch):
    for _ in range(3):
        handler.meta_step(batch)
    labels = handler.label_update(batch["image"], batch["initial"], batch["feasible"])
    assert labels[~batch["feasible"]].abs().max() == 0
    assert torch.allclose(labels.sum(dim=1), torch.ones(2, dtype=torch.float64))
    assert (labels - batch["initial"]).abs().max() > 1e-3


def test_an_image_of_weight_zero_gives_no_gradient(handler, batch):
    batch["weight"] = torch.zeros(2, dtype=torch.float64)
    handler.meta_step(batch)
    assert all(p.grad.abs().max() == 0 for p in handler.label_update.parameters())


def test_curves_count_accuracy_only_where_the_grade_is_known(handler, batch):
    curves = handler.meta_step(batch)
    assert curves["initially_correct"].tolist()[0] == 0.0
    assert curves["initially_correct"][1].isnan()


def test_divergence_is_zero_for_the_initial_label_and_log_two_for_half_of_it():
    initial = torch.tensor([[0.0, 1.0, 0.0]])
    assert divergence(initial, initial).item() == pytest.approx(0.0)
    assert divergence(initial, torch.tensor([[0.0, 0.5, 0.5]])).item() == pytest.approx(0.6931, abs=1e-4)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"objective": "both"}, r"expected meta_objective in \['segmentation', .*got 'both'"),
        ({"virtual_lr": 0.0}, "expected virtual_lr > 0"),
        ({"kl_weight": -1.0}, "kl_weight >= 0"),
        ({"every": 0}, "expected meta_every of 1 or more, got 0"),
    ],
)
def test_rejects_a_setting_that_cannot_be(handler, setting, message):
    settings = {"objective": "segmentation", "virtual_lr": 1e-2, "kl_weight": 0.0, **setting}
    with pytest.raises(ValueError, match=message):
        LabelUpdateHandler(handler.tasks, handler.label_update, handler.optimizer, handler.loss, [], BETA, **settings)
