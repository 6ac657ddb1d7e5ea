"""The meta gradient on the real networks, against double backward."""

import pytest
import torch
from bundle.handlers.meta_step import OBJECTIVES, MetaStep, divergence
from bundle.losses import CategoricalFocalLoss
from bundle.networks.label_update import LabelUpdateNetwork
from bundle.networks.multitask_unet import BothTasks, MultiTaskUNet
from torch.func import functional_call

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
def step(batch):
    return make_step(batch, batch_norm=False)


def make_step(batch, batch_norm, width=1 / 8):
    torch.manual_seed(0)
    tasks = BothTasks(MultiTaskUNet(pretrained=False, width=width, batch_norm=batch_norm)).double()
    label_update = LabelUpdateNetwork(pretrained=False, width=width, batch_norm=batch_norm).double()
    torch.nn.init.normal_(label_update.shift.weight, std=0.1)
    optimizer = torch.optim.SGD(label_update.parameters(), lr=1e-1)
    loss = Focal64()
    return MetaStep(tasks, label_update, optimizer, loss, BETA, VIRTUAL_LR)


class Focal64(CategoricalFocalLoss):
    """The loss without its rounding to float32, so that two gradients can be compared to 1e-9."""

    def forward(self, logits, label, weight=None):
        assert logits.dtype == torch.float64
        soft = torch.nn.functional.one_hot(label[:, 0], 5).movedim(-1, 1).double() if label.ndim == 4 else label
        terms = soft * -self.alpha * (1 - logits.softmax(1)) ** self.gamma * logits.log_softmax(1)
        if weight is not None:
            terms = terms * weight.reshape(-1, *[1] * (terms.ndim - 1))
        return terms.mean()


def reference_loss(step, objective, tasks, labels, batch, graded_logits):
    """The meta loss in plain words, with the graph of the labels in it."""
    loss = step.loss
    return {
        "segmentation": lambda: loss(tasks["lesions"], batch["lesions"]),
        "initial": lambda: BETA * loss(tasks["grade"], batch["initial"], batch["weight"]),
        "graded": lambda: BETA * loss(graded_logits, torch.eye(5).double()[[4, 0]]),
        "literal": lambda: BETA * loss(tasks["grade"], labels, batch["weight"]),
    }[objective]()


def double_backward(step, batch, graded=None):
    """The MAXL way: keep the graph of the step and differentiate through it."""
    tasks, loss = step.tasks.train(), step.loss
    parameters = dict(tasks.named_parameters())

    def call(values, image):
        buffers = {name: value.clone() for name, value in tasks.named_buffers()}
        return functional_call(tasks, {**values, **buffers}, (image,))

    labels = step.label_update(batch["image"], batch["initial"], batch["feasible"])
    out = call(parameters, batch["image"])
    training = loss(out["lesions"], batch["lesions"]) + BETA * loss(out["grade"], labels, batch["weight"])
    gradients = torch.autograd.grad(training, list(parameters.values()), create_graph=True)
    stepped = {name: p - VIRTUAL_LR * g for (name, p), g in zip(parameters.items(), gradients, strict=True)}
    after, graded_logits = (
        call(stepped, batch["image"]),
        None if graded is None else call(stepped, graded["image"])["grade"],
    )
    terms = [reference_loss(step, one, after, labels, batch, graded_logits) for one in step.objective.split("+")]
    return torch.autograd.grad(sum(terms), list(step.label_update.parameters()))


def relative_difference(ours, theirs):
    flat = [torch.cat([one.flatten() for one in many]) for many in (ours, theirs)]
    return ((flat[0] - flat[1]).norm() / flat[1].norm()).item()


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_meta_gradient_equals_double_backward(batch, objective, batch_norm):
    step = make_step(batch, batch_norm)
    step.objective = objective
    graded = {"image": batch["image"].flip(3), "grade": torch.tensor([4, 0])} if objective == "graded" else None
    expected = double_backward(step, batch, graded)
    step(batch, graded)
    ours = [p.grad * VIRTUAL_LR for p in step.label_update.parameters()]
    assert sum(g.abs().sum() for g in expected) > 0
    assert relative_difference(ours, expected) < 1e-9


def test_the_gradient_that_training_has_left_gives_the_same_meta_step(step, batch):
    expected = double_backward(step, batch)
    labels = step.label_update(batch["image"], batch["initial"], batch["feasible"]).detach()
    tasks = step.tasks(batch["image"])
    lesion_loss = step.loss(tasks["lesions"], batch["lesions"])
    (lesion_loss + BETA * step.loss(tasks["grade"], labels, batch["weight"])).backward()
    step(batch, gradients={name: value.grad for name, value in step.tasks.named_parameters()})
    ours = [p.grad * VIRTUAL_LR for p in step.label_update.parameters()]
    assert relative_difference(ours, expected) < 1e-9


def test_the_meta_gradient_equals_double_backward_at_the_full_width_of_vgg16(batch):
    small = {key: value[..., :32, :64] if value.ndim == 4 else value for key, value in batch.items()}
    step = make_step(small, batch_norm=False, width=1.0)
    expected = double_backward(step, small)
    step(small)
    ours = [p.grad * VIRTUAL_LR for p in step.label_update.parameters()]
    assert relative_difference(ours, expected) < 1e-9


def test_a_meta_step_lowers_the_meta_loss_of_the_next_virtual_step(step, batch):
    before = step.tangents(batch).meta_loss
    for _ in range(3):
        step(batch)
    after = step.tangents(batch).meta_loss
    assert after < before


def test_a_meta_step_leaves_the_multi_task_network_as_it_was(step, batch):
    step.tasks.eval()
    state = {name: value.clone() for name, value in step.tasks.state_dict().items()}
    next(step.tasks.parameters()).grad = torch.ones_like(next(step.tasks.parameters()))
    step(batch)
    assert all(torch.equal(value, state[name]) for name, value in step.tasks.state_dict().items())
    assert not step.tasks.training
    assert next(step.tasks.parameters()).grad.eq(1).all()
    assert all(p.grad is None for p in list(step.tasks.parameters())[1:])


def test_no_mass_lies_outside_the_feasible_grades_after_meta_steps(step, batch):
    for _ in range(3):
        step(batch)
    labels = step.label_update(batch["image"], batch["initial"], batch["feasible"])
    assert labels[~batch["feasible"]].abs().max() == 0
    assert torch.allclose(labels.sum(dim=1), torch.ones(2, dtype=torch.float64))
    assert (labels - batch["initial"]).abs().max() > 1e-3


def test_an_image_of_weight_zero_gives_no_gradient(step, batch):
    batch["weight"] = torch.zeros(2, dtype=torch.float64)
    step(batch)
    assert all(p.grad.abs().max() == 0 for p in step.label_update.parameters())


def test_a_meta_loss_that_is_not_finite_ends_the_run_and_moves_nothing(step, batch):
    before = [p.detach().clone() for p in step.label_update.parameters()]
    batch["image"] = batch["image"] * torch.nan
    with pytest.raises(RuntimeError, match="the meta loss became nan"):
        step(batch)
    assert all(torch.equal(p, old) for p, old in zip(step.label_update.parameters(), before, strict=True))


def test_dropout_where_the_gradient_would_be_wrong_is_refused(step):
    step.tasks.network.encoder.blocks[2].append(torch.nn.Dropout2d(0.1))
    with pytest.raises(ValueError, match=r"expected no dropout .* got encoder.blocks.2"):
        MetaStep(step.tasks, step.label_update, step.optimizer, step.loss, BETA)


def test_a_graded_objective_needs_graded_photographs(step, batch):
    step.objective = "graded"
    with pytest.raises(ValueError, match="expected a batch of graded photographs"):
        step(batch)


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
    ],
)
def test_rejects_a_setting_that_cannot_be(step, setting, message):
    settings = {"objective": "segmentation", "virtual_lr": 1e-2, "kl_weight": 0.0, **setting}
    with pytest.raises(ValueError, match=message):
        MetaStep(step.tasks, step.label_update, step.optimizer, step.loss, BETA, **settings)
