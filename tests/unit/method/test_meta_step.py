"""The meta gradient on the real networks, against double backward."""

import os
from pathlib import Path

import pytest
import torch
import yaml
from bundle import ROOT
from bundle.method.label_pulls import LabelPulls
from bundle.method.losses import CategoricalFocalLoss, LesionLoss, merged_into_background
from bundle.method.meta_step import CHECKED_STEPS, OBJECTIVES, LabelGradients, MetaStep, divergence
from bundle.networks.label_update import LabelUpdateNetwork, parameter_groups
from bundle.networks.multitask_unet import BothTasks, MultiTaskUNet
from bundle.steps import mixed_precision
from torch.func import functional_call
from torchvision.ops import StochasticDepth

BETA, VIRTUAL_LR = 0.8, 0.05


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(3)
    initial = torch.tensor([[0.0, 0.0, 0.5, 0.3, 0.2], [0.0, 1.0, 0.0, 0.0, 0.0]], dtype=torch.float64)
    return {
        "id": ["7", "8"],
        "looked_for": torch.ones(2, 4, dtype=torch.bool),
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


def make_step(batch, batch_norm, width=1 / 8, network=None, **settings):
    torch.manual_seed(0)
    if network is None:
        network = MultiTaskUNet(pretrained=False, width=width, batch_norm=batch_norm, lesion_prior=None)
    tasks = BothTasks(network).double()
    torch.nn.init.normal_(tasks.network.grade_head.weight, std=0.3)  # from zero, no label could change the encoder
    label_update = LabelUpdateNetwork(pretrained=False, width=width, batch_norm=batch_norm, frozen=False).double()
    torch.nn.init.normal_(label_update.shift.weight, std=3.0)
    optimizer = torch.optim.SGD(label_update.parameters(), lr=1e-1)
    settings = {"pulls": LabelPulls(keep_common=True), **settings}  # of one photograph that can move, all is common
    return MetaStep(tasks, label_update, optimizer, Lesions64(), Focal64(), BETA, VIRTUAL_LR, **settings)


class Focal64(CategoricalFocalLoss):
    """The loss without its rounding to float32, so that two gradients can be compared to 1e-9."""

    def forward(self, logits, label, weight=None):
        assert logits.dtype == torch.float64
        soft = torch.nn.functional.one_hot(label[:, 0], 5).movedim(-1, 1).double() if label.ndim == 4 else label
        terms = soft * -self.alpha * (1 - logits.softmax(1)) ** self.gamma * logits.log_softmax(1).clamp(min=-1e3)
        if weight is not None:
            terms = terms * weight.reshape(-1, *[1] * (terms.ndim - 1))
        return terms.mean()


class Lesions64(LesionLoss):
    """Likewise."""

    def forward(self, logits, label_map, looked_for):
        return Focal64()(merged_into_background(logits, looked_for), label_map)


def reference_loss(step, objective, tasks, labels, batch, graded_logits):
    """The meta loss in plain words, with the graph of the labels in it."""
    loss = step.grade_loss
    return {
        "segmentation": lambda: step.lesion_loss(tasks["lesions"], batch["lesions"], batch["looked_for"]),
        "initial": lambda: BETA * loss(tasks["grade"], batch["initial"], batch["weight"]),
        "graded": lambda: BETA * loss(graded_logits, torch.eye(5).double()[[4, 0]]),
        "literal": lambda: BETA * loss(tasks["grade"], labels, batch["weight"]),
    }[objective]()


def double_backward(step, batch, graded=None):
    """The MAXL way: keep the graph of the step and differentiate through it."""
    tasks, loss = step.tasks.train(), step.grade_loss
    parameters = dict(tasks.named_parameters())

    def call(values, image):
        buffers = {name: value.clone() for name, value in tasks.named_buffers()}
        return functional_call(tasks, {**values, **buffers}, (image,))

    labels = step.label_update(batch["image"], batch["initial"], batch["feasible"])
    out = call(parameters, batch["image"])
    lesion_loss = step.lesion_loss(out["lesions"], batch["lesions"], batch["looked_for"])
    training = lesion_loss + BETA * loss(out["grade"], labels, batch["weight"])
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


def ours(step, batch, graded=None, gradients=None):
    """The gradient by the label update network: of the labels, then through it by an ordinary backward pass."""
    found = step.label_gradients(batch, graded, gradients).labels_NC
    labels = step.labels(batch)
    return torch.autograd.grad(labels, list(step.label_update.parameters()), grad_outputs=found)


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("objective", OBJECTIVES)
def test_the_meta_gradient_equals_double_backward(batch, objective, batch_norm):
    step = make_step(batch, batch_norm, objective=objective)
    graded = {"image": batch["image"].flip(3), "grade": torch.tensor([4, 0])} if objective == "graded" else None
    expected = double_backward(step, batch, graded)
    assert sum(g.abs().sum() for g in expected) > 0
    assert relative_difference(ours(step, batch, graded), expected) < 1e-9


def test_the_meta_gradient_equals_double_backward_where_lesions_were_not_looked_for(batch):
    batch["looked_for"] = torch.tensor([[False, False, True, False], [False] * 4])
    batch["lesions"] = (batch["lesions"] == 3) * torch.tensor([3, 0]).view(2, 1, 1, 1)
    step = make_step(batch, batch_norm=True)
    assert relative_difference(ours(step, batch), double_backward(step, batch)) < 1e-9


def test_the_gradient_that_training_has_left_gives_the_same_meta_step(step, batch):
    expected = double_backward(step, batch)
    labels = step.labels(batch).detach()
    tasks = step.tasks(batch["image"])
    lesion_loss = step.lesion_loss(tasks["lesions"], batch["lesions"], batch["looked_for"])
    (lesion_loss + BETA * step.grade_loss(tasks["grade"], labels, batch["weight"])).backward()
    left = {name: value.grad for name, value in step.tasks.named_parameters()}
    assert relative_difference(ours(step, batch, gradients=left), expected) < 1e-9


def test_the_meta_gradient_equals_double_backward_at_the_full_width_of_vgg16(batch):
    small = {key: value[..., :32, :64] if key in ("image", "lesions") else value for key, value in batch.items()}
    step = make_step(small, batch_norm=False, width=1.0)
    assert relative_difference(ours(step, small), double_backward(step, small)) < 1e-9


def float32_step(batch, virtual_lr):
    """A step on a random network in float32, and its batch, likewise."""
    torch.manual_seed(0)
    tasks = BothTasks(MultiTaskUNet(pretrained=False, width=1 / 8, batch_norm=True))
    torch.nn.init.normal_(tasks.network.grade_head.weight, std=0.3)
    update = LabelUpdateNetwork(pretrained=False, width=1 / 8)
    optimizer = torch.optim.SGD(update.shift.parameters(), lr=0.1)
    step = MetaStep(tasks, update, optimizer, LesionLoss(), CategoricalFocalLoss(), BETA, virtual_lr)
    single = {key: value.float() if key in ("image", "initial", "weight") else value for key, value in batch.items()}
    return step, {**single, "feasible": batch["feasible"]}


def test_a_training_gradient_in_bfloat16_costs_less_than_a_third_at_the_papers_rate(batch):
    step, single = float32_step(batch, virtual_lr=5e-5)
    exact = step.label_gradients(single).labels_NC[0, 2:]
    step.tasks.train()
    with mixed_precision(torch.device("cpu"), amp=True):
        out = step.tasks(single["image"])
    lesion_loss = step.lesion_loss(out["lesions"], single["lesions"], single["looked_for"])
    grade_loss = step.grade_loss(out["grade"], step.labels(single).detach(), single["weight"])
    parameters = dict(step.tasks.named_parameters())
    rounded = torch.autograd.grad(lesion_loss + BETA * grade_loss, list(parameters.values()))
    found = step.label_gradients(single, None, dict(zip(parameters, rounded, strict=True))).labels_NC[0, 2:]
    exact, found = exact - exact.mean(), found - found.mean()  # only differences move a label
    assert 0 < ((found - exact).norm() / exact.norm()).item() < 0.3


def test_a_meta_step_is_in_float32_whatever_autocast_it_stands_in(batch):
    step, single = float32_step(batch, virtual_lr=5e-5)
    exact = step.label_gradients(single).labels_NC
    with mixed_precision(torch.device("cpu"), amp=True):
        assert torch.equal(step.label_gradients(single).labels_NC, exact)


@pytest.mark.parametrize("frozen", [False, True])
def test_the_meta_gradient_equals_double_backward_on_a_light_encoder(batch, frozen):
    torch.manual_seed(1)
    light = {"encoder": "tf_efficientnet_lite0", "freeze_batch_norm": frozen}
    step = make_step(batch, True, network=MultiTaskUNet(pretrained=False, lesion_prior=None, **light))
    statistics = {name: value.clone() for name, value in step.tasks.named_buffers()}
    found = ours(step, batch)
    assert all(torch.equal(value, statistics[name]) for name, value in step.tasks.named_buffers())
    expected = double_backward(step, batch)
    assert sum(g.abs().sum() for g in expected) > 0
    assert relative_difference(found, expected) < 1e-9


def test_a_meta_step_moves_along_the_exact_gradient_on_a_scale_of_one(step, batch):
    expected = double_backward(step, batch)
    step(batch)
    taken = [p.grad for p in step.label_update.parameters()]
    flat = [torch.cat([one.flatten() for one in many]) for many in (taken, expected)]
    assert torch.nn.functional.cosine_similarity(*flat, dim=0).item() == pytest.approx(1, abs=1e-9)
    assert flat[0].norm() > 100 * flat[1].norm()


def test_the_virtual_step_is_as_large_as_the_optimisers_unless_it_is_told(batch):
    step = make_step(batch, batch_norm=False)
    training = torch.optim.Adam(step.tasks.parameters(), lr=2e-4)
    arguments = step.tasks, step.label_update, step.optimizer, step.lesion_loss, step.grade_loss, BETA
    assert MetaStep(*arguments, training_optimizer=training).virtual_lr == 2e-4
    assert MetaStep(*arguments, 0.5, training_optimizer=training).virtual_lr == 0.5
    with pytest.raises(ValueError, match="expected a virtual_lr, or an optimiser"):
        MetaStep(*arguments)


def test_a_meta_step_lowers_the_meta_loss_of_the_next_virtual_step(step, batch):
    before = step.label_gradients(batch).meta_loss
    for _ in range(3):
        step(batch)
    after = step.label_gradients(batch).meta_loss
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


@pytest.mark.parametrize("chance", [torch.nn.Dropout2d(0.1), StochasticDepth(0.5, "row")])
def test_whatever_is_drawn_at_random_on_the_way_to_the_grade_is_refused(step, batch, chance):
    step.tasks.network.encoder.blocks[2].append(chance)
    torch.manual_seed(1)

    def take_steps():
        for _ in range(CHECKED_STEPS):
            step(batch)

    with pytest.raises(ValueError, match=r"expected the same grade losses from two passes .* set its rate to 0"):
        take_steps()


def test_a_grade_that_reads_more_than_it_says_is_refused(step, batch):
    step.tasks.network.shared_modules = lambda: (step.tasks.network.encoder.blocks[0],)
    with pytest.raises(ValueError, match=r"got one that reads network.encoder.blocks.1.0.weight too"):
        step(batch)


@pytest.mark.slow
@pytest.mark.parametrize("start", ["random", "hed"])
def test_thirty_meta_steps_of_noise_at_full_width_leave_features_and_labels_in_place(start, hed_vgg16):
    """With the defaults of train.yaml; at a rate of 1e-3 for all, Adam makes every label certain within eight."""
    torch.manual_seed(0)
    defaults = yaml.safe_load((ROOT / "configs" / "train.yaml").read_text())
    rates = defaults["label_learning_rate"], defaults["label_encoder_learning_rate"]
    pretrained = str(hed_vgg16()) if start == "hed" else False
    update = LabelUpdateNetwork(pretrained=pretrained, frozen=rates[1] == 0)
    groups = parameter_groups(update, *rates)
    tasks = BothTasks(MultiTaskUNet(pretrained=False, width=1 / 16))
    step = MetaStep(
        tasks, update, torch.optim.Adam(groups), LesionLoss(), CategoricalFocalLoss(), BETA, 1e-2,
        kl_weight=defaults["kl_weight"],
    )  # fmt: skip
    step.label_gradients = lambda *_: LabelGradients(1e-4 * torch.randn(2, 5), torch.tensor(0.0))
    initial = torch.tensor([[0.0, 0.0, 0.5, 0.3, 0.2], [0.0, 0.0, 0.2, 0.5, 0.3]])
    images = torch.rand(20, 3, 64, 96, generator=torch.Generator().manual_seed(0))
    features = update.encoder(images)[-1].mean(dim=(2, 3))
    for number in range(30):
        places = [2 * number % 20, (2 * number + 1) % 20]
        batch = {"id": [str(place) for place in places], "image": images[places], "initial": initial}
        step({**batch, "feasible": initial > 0, "weight": torch.ones(2)})
    after = update.encoder(images)[-1].mean(dim=(2, 3))
    assert 0.5 < (after.norm() / features.norm()).item() < 2
    assert (after.amax(dim=0) > 0).float().mean() > 0.5 * (features.amax(dim=0) > 0).float().mean()
    labels = update(images, initial.repeat(10, 1), (initial > 0).repeat(10, 1))
    movement = (labels - initial.repeat(10, 1)).abs().sum(dim=1) / 2
    assert 1e-4 < movement.max().item() < 0.1


@pytest.fixture
def hed_vgg16():
    """Weights of VGG16's convolutions beside IDRiD, where they are at hand."""

    def find():
        folder = os.environ.get("IDRID_ROOT")
        path = Path(folder).parent / "weights" / "vgg16_hed.pth" if folder else None
        if path is None or not path.is_file():
            pytest.skip("needs weights/vgg16_hed.pth beside the folder that IDRID_ROOT names")
        return path

    return find


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
        MetaStep(
            step.tasks, step.label_update, step.optimizer, step.lesion_loss, step.grade_loss, BETA, **settings
        )  # fmt: skip
