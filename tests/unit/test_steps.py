"""One iteration of each stage: its loss by hand, and what it leaves as it found it."""

import math
from types import SimpleNamespace

import pytest
import torch
from bundle.method.heat_maps import NonFiniteLogits, grade_maps
from bundle.method.losses import CategoricalFocalLoss, LesionLoss
from bundle.networks.explained import ExplainedNetwork
from bundle.networks.graders import NO_SHIFT, prior_shift
from bundle.networks.multitask_unet import BothTasks, MultiTaskUNet
from bundle.steps import (
    EvaluationStep,
    ExplainedStep,
    GradingStep,
    MultiTaskStep,
    ProposalStep,
    explain_out_of_memory,
    has_bfloat16,
    refuse_crops_of_grades,
    refuse_idle_teacher,
    to_device,
)
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from torch import nn

BETA = 0.8
CPU = torch.device("cpu")
HALF = torch.tensor([4.0, 1.0, 1.0, 1.0, 1.0]).log()
"""Logits of the probabilities 1/2, 1/8, 1/8, 1/8, 1/8."""


class Constant(nn.Module):
    """Every pixel has equal scores; every photograph the grade probabilities of ``HALF``."""

    def __init__(self):
        super().__init__()
        self.lesions, self.grade = nn.Parameter(torch.zeros(5)), nn.Parameter(HALF.clone())

    def forward(self, image):
        size = len(image), 5, *image.shape[-2:]
        return {"lesions": self.lesions.view(1, 5, 1, 1).expand(size), "grade": self.grade.expand(len(image), 5)}


class Graded(nn.Module):
    """A grader cut where Grad-CAM looks; its dropout tells training from evaluation."""

    def __init__(self):
        super().__init__()
        self.temperature, self.prior_shift = 1.0, NO_SHIFT
        self.convolution, self.dropout, self.linear = nn.Conv2d(3, 4, 8, 8), nn.Dropout(0.5), nn.Linear(4, 5)

    def forward(self, image):
        return self.head(self.features(image))

    def features(self, image):
        return self.dropout(self.convolution(image).relu())

    def head(self, features):
        return self.linear(features.mean(dim=(2, 3)))


def engine(network, lr=1.0):
    fired = []
    return SimpleNamespace(
        state=SimpleNamespace(device=CPU), network=network, fired=fired, fire_event=fired.append,
        optimizer=torch.optim.SGD(network.parameters(), lr=lr),
    )  # fmt: skip


@pytest.fixture
def batch():
    initial = torch.eye(5)[[1, 2]]
    return {
        "id": ["a", "b"],
        "image": torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0)),
        "lesions": torch.randint(0, 5, (2, 1, 64, 96), generator=torch.Generator().manual_seed(1)),
        "looked_for": torch.ones(2, 4, dtype=torch.bool),
        "grade": torch.tensor([0, 3]),
        "initial": initial,
        "feasible": torch.ones(2, 5, dtype=torch.bool),
        "weight": torch.tensor([1.0, 0.5]),
    }


def multi_task_step(**settings):
    return MultiTaskStep(LesionLoss(), CategoricalFocalLoss(), BETA, **settings)


def focal(p):
    """What a label with all its mass on a class of probability ``p`` costs, averaged over five classes."""
    return 0.25 * (1 - p) ** 2 * -math.log(p) / 5


@pytest.fixture
def small_unet():
    torch.manual_seed(0)
    network = MultiTaskUNet(pretrained=False, width=1 / 16, lesion_prior=None)
    nn.init.normal_(network.grade_head.weight)  # as after some training: from zero, all grades are alike
    return BothTasks(network)


def test_the_training_loss_is_that_of_lesions_plus_beta_times_that_of_grades(batch):
    output = multi_task_step()(engine(Constant()), batch)
    assert output["lesion_loss"].item() == pytest.approx(focal(1 / 5))  # 0.0515
    grade_loss = (1.0 + 0.5) / 2 * focal(1 / 8)  # initial labels on grades 1 and 2, weights 1 and 0.5
    assert output["grade_loss"].item() == pytest.approx(grade_loss)
    assert output["loss"].item() == pytest.approx(focal(1 / 5) + 0.8 * grade_loss)


def test_with_a_table_of_labels_these_are_the_ones_that_are_taught(batch):
    class OnlyGrade0:
        def of(self, ids):
            assert ids == ["a", "b"]
            return torch.eye(5)[[0, 0]]

    output = multi_task_step(labels=OnlyGrade0())(engine(Constant()), batch)
    assert output["grade_loss"].item() == pytest.approx(0.75 * focal(1 / 2))


def test_lesions_that_nobody_looked_for_are_not_taught_as_background(batch):
    network, exudates_only = Constant(), torch.tensor([[False, False, True, False]] * 2)
    batch["lesions"] = (batch["lesions"] == 3) * 3
    multi_task_step()(engine(network), {**batch, "looked_for": exudates_only})
    assert network.lesions[[1, 2, 4]].abs().max() == 0
    assert network.lesions[[0, 3]].abs().min() > 0


def test_a_graded_photograph_teaches_its_grade_and_no_lesion(batch):
    network = Constant()
    nobody_looked = torch.zeros(2, 4, dtype=torch.bool)
    output = multi_task_step()(engine(network), {**batch, "looked_for": nobody_looked})
    assert output["lesion_loss"] == 0
    assert network.lesions.abs().max() == 0
    assert not torch.equal(network.grade, HALF)


def test_a_teacher_outlines_the_photographs_that_are_not_outlined_and_no_others(batch):
    class Sees(nn.Module):
        def forward(self, image):
            scores = torch.zeros(len(image), 5, *image.shape[-2:])
            scores[:, 3] = 1.0
            return scores

    teacher = Sees()
    batch["looked_for"] = torch.tensor([[True, False, True, True], [False] * 4])
    lesions, looked_for = multi_task_step(teacher=teacher)._lesions(batch)
    assert torch.equal(lesions[0], batch["lesions"][0])
    assert lesions[1].unique().tolist() == [3]
    assert looked_for.tolist() == [[True, False, True, True], [True] * 4]
    assert teacher.training


def test_a_teacher_outlines_by_its_thresholds(batch):
    class Unsure(nn.Module):
        def forward(self, image):
            return torch.tensor([0.7, 0, 0.1, 0.2, 0]).log().view(1, 5, 1, 1).expand(len(image), 5, *image.shape[-2:])

    given = {**batch, "looked_for": torch.tensor([[True] * 4, [False] * 4])}
    for thresholds, expected in ((None, 0), ((0.5, 0.04, 0.1, 0.5), 2), ((0.5, 0.5, 0.1, 0.5), 3)):
        step = multi_task_step(teacher=Unsure(), teacher_thresholds=thresholds)
        assert step._lesions(given)[0][1].unique().tolist() == [expected]
    refuse_idle_teacher(step, [batch], CPU)
    refuse_idle_teacher(multi_task_step(), [batch], CPU)  # there is none
    with pytest.raises(ValueError, match="expected a --teacher that outlines lesions, got one that outlines none"):
        refuse_idle_teacher(multi_task_step(teacher=Unsure()), [batch], CPU)


def test_a_step_moves_the_network_down_the_gradient_of_its_loss(batch):
    network = Constant()
    output = multi_task_step()(engine(network, lr=0.1), batch)
    assert multi_task_step()(engine(network), batch)["loss"] < output["loss"]


def test_without_weight_in_the_grading_loss_the_grade_is_not_taught(batch):
    network = Constant()
    multi_task_step()(engine(network), {**batch, "weight": torch.zeros(2)})
    assert torch.equal(network.grade, HALF)
    assert network.lesions.abs().max() > 0


def test_a_grading_step_tells_loss_and_accuracy(batch):
    class Sure(Constant):
        def forward(self, image):
            return self.grade.expand(len(image), 5)

    output = GradingStep(nn.CrossEntropyLoss())(engine(Sure()), batch)
    assert output["loss"].item() == pytest.approx((math.log(2) + math.log(8)) / 2)  # true grades 0 and 3
    assert output["accuracy"].item() == 0.5


@pytest.mark.parametrize("step", [GradingStep(nn.CrossEntropyLoss()), multi_task_step()])
def test_training_steps_fire_monais_events_in_order(batch, step, small_unet):
    network = small_unet if isinstance(step, MultiTaskStep) else Graded()
    driven = engine(network.eval())
    step(driven, batch)
    names = ("FORWARD_COMPLETED", "LOSS_COMPLETED", "BACKWARD_COMPLETED", "MODEL_COMPLETED")
    assert driven.fired == [IterationEvents[name] for name in names]
    assert network.training


def test_a_trainer_of_monai_runs_the_step(batch, small_unet):
    trainer = SupervisedTrainer(
        device=CPU, max_epochs=2, train_data_loader=[batch], network=small_unet, loss_function=None, decollate=False,
        optimizer=torch.optim.Adam(small_unet.parameters(), lr=1e-3), iteration_update=multi_task_step(),
    )  # fmt: skip
    trainer.run()
    assert (trainer.state.epoch, trainer.state.iteration) == (2, 2)
    assert trainer.state.output["loss"].isfinite()


@pytest.mark.parametrize("step", [GradingStep(nn.CrossEntropyLoss()), multi_task_step(), EvaluationStep()])
def test_a_step_that_runs_out_of_memory_says_which_settings_to_lower(batch, step):
    def full(image):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    network = Constant()
    network.forward = full
    with pytest.raises(RuntimeError, match=r"photographs of \d+x\d+ px, got: CUDA out of memory. Lower batch_size or"):
        step(engine(network), batch)


class Decorated:
    """Raises an error, or returns its arguments."""

    def __init__(self, error=None):
        self.error = error

    @explain_out_of_memory
    def __call__(self, engine, batch, more=0):
        if self.error:
            raise self.error
        return batch, more


GPU_ENGINE = SimpleNamespace(state=SimpleNamespace(device=torch.device("cuda", 1)))
GPU_BATCH = {"image": torch.zeros(2, 3, 64, 96)}


def test_a_step_that_fits_returns_what_it_returned():
    assert Decorated()(GPU_ENGINE, GPU_BATCH, more=3) == (GPU_BATCH, 3)


def test_out_of_memory_names_the_device_the_batch_and_the_settings_to_lower():
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee the documentation")
    with pytest.raises(RuntimeError) as caught:
        Decorated(error)(GPU_ENGINE, GPU_BATCH)
    assert str(caught.value) == (
        "expected cuda:1 to hold a step of 2 photographs of 96x64 px, got: CUDA out of memory. Tried to allocate "
        "2.00 GiB. Lower batch_size or image_size, set amp to true, or take a smaller width"
    )
    assert caught.value.__cause__ is error


def test_any_other_error_is_left_alone():
    with pytest.raises(RuntimeError, match=r"^mat1 and mat2$"):
        Decorated(RuntimeError("mat1 and mat2"))(GPU_ENGINE, GPU_BATCH)


@pytest.mark.parametrize("training", [True, False])
def test_evaluation_gives_probabilities_and_leaves_the_mode_as_it_was(batch, small_unet, training):
    small_unet.train(training)
    statistics = [b.clone() for b in small_unet.buffers()]
    tasks = EvaluationStep()(engine(small_unet), batch)
    assert {task: tuple(p.shape) for task, p in tasks.items()} == {"lesions": (2, 5, 64, 96), "grade": (2, 5)}
    assert all(torch.allclose(p.sum(dim=1), torch.ones(())) and p.min() >= 0 for p in tasks.values())
    assert not any(p.requires_grad for p in tasks.values())
    assert small_unet.training is training
    assert all(torch.equal(a, b) for a, b in zip(small_unet.buffers(), statistics, strict=True))


def test_a_network_with_one_output_is_a_grader(batch):
    grader = Graded()
    tasks = EvaluationStep()(engine(grader), batch)
    with torch.no_grad():
        assert torch.allclose(tasks["grade"], grader.eval()(batch["image"]).softmax(dim=1))
    assert list(tasks) == ["grade"]


def test_bfloat16_comes_close_to_float32_and_returns_float32(batch, small_unet):
    exact, rounded = (EvaluationStep(amp)(engine(small_unet), batch) for amp in (False, True))
    for task, probabilities in rounded.items():
        assert probabilities.dtype == torch.float32
        difference = (probabilities - exact[task]).abs().max()
        assert 0 < difference < 0.05


def test_a_training_step_in_bfloat16_keeps_weights_and_loss_in_float32(batch, small_unet):
    losses = [multi_task_step(amp=amp)(engine(small_unet, lr=0.0), batch)["loss"] for amp in (False, True)]
    assert losses[1].dtype == torch.float32
    assert losses[1].item() == pytest.approx(losses[0].item(), rel=0.05)
    assert all(p.grad.dtype == torch.float32 for p in small_unet.parameters())


def explaining(both_tasks):
    return engine(ExplainedNetwork(both_tasks.network))


def test_an_explained_step_adds_a_heat_map_of_every_grade_to_the_same_probabilities(batch, small_unet):
    small_unet.train()
    explaining_engine = explaining(small_unet)
    plain, explained = EvaluationStep()(engine(small_unet), batch), ExplainedStep()(explaining_engine, batch)
    assert explaining_engine.fired == [IterationEvents.FORWARD_COMPLETED, IterationEvents.MODEL_COMPLETED]
    assert torch.equal(explained["lesions"], plain["lesions"])
    assert torch.equal(explained["grade"], plain["grade"])
    assert tuple(explained["maps"].shape) == (2, 5, 64, 96)
    assert explained["maps"].min() >= 0
    assert explained["maps"].max() <= 1
    assert all(module.training for module in small_unet.modules())


def test_the_maps_of_an_explained_step_are_those_of_grad_cam(batch, small_unet):
    found = ExplainedStep()(explaining(small_unet), batch)["maps"]
    assert (found - grade_maps(small_unet.network, batch["image"]).maps).abs().max() < 1e-5


def test_an_explained_step_refuses_a_grade_that_is_not_finite(batch, small_unet):
    batch["image"][1, 0, 0, 0] = torch.nan
    with pytest.raises(NonFiniteLogits, match=r"expected finite logits, got NaN or infinity for image \[1\]"):
        ExplainedStep()(explaining(small_unet), batch)


def test_a_proposal_has_the_word_of_every_grader_and_leaves_them_as_they_were(batch):
    torch.manual_seed(0)
    graders = nn.ModuleList([Graded(), Graded()]).train()
    proposal = ProposalStep(graders)(engine(graders), batch)
    assert tuple(proposal["probabilities"].shape) == (2, 2, 5)
    assert tuple(proposal["maps"].shape) == (2, 2, 5, 64, 96)
    assert proposal["grids"] == [(8, 12), (8, 12)]
    assert all(module.training for module in graders.modules())
    graders.eval()
    with torch.no_grad():
        second = graders[1](batch["image"]).softmax(dim=1)
    assert torch.allclose(proposal["probabilities"][:, 1], second)


def test_a_proposal_divides_the_logits_of_each_grader_by_its_own_temperature(batch):
    torch.manual_seed(0)
    graders = nn.ModuleList([Graded(), Graded()]).eval()
    plain = ProposalStep(graders)(engine(graders), batch)
    graders[1].temperature = 2.0
    scaled = ProposalStep(graders)(engine(graders), batch)
    flatter = plain["probabilities"][:, 1].sqrt()  # p^(1/T), made to sum to 1
    assert torch.allclose(scaled["probabilities"][:, 1], flatter / flatter.sum(dim=1, keepdim=True), atol=1e-6)
    assert torch.equal(scaled["probabilities"][:, 0], plain["probabilities"][:, 0])
    assert torch.equal(scaled["maps"], plain["maps"])


def test_a_proposal_takes_the_class_weights_of_the_training_out_after_the_temperature(batch):
    grader = Graded().eval()
    with torch.no_grad():
        grader.linear.weight.zero_()
        grader.linear.bias.copy_(torch.tensor([0.5, 0.5, 1e-9, 1e-9, 1e-9]).log())  # softmax(z): grades 0 and 1 alike
    said = []
    for weights, temperature in (([1, 1, 1, 1, 1], 1.0), ([4, 1, 1, 1, 1], 1.0), ([4, 1, 1, 1, 1], 2.0)):
        grader.prior_shift, grader.temperature = prior_shift(weights), temperature
        proposal = ProposalStep([grader])(engine(nn.ModuleList([grader])), batch)
        said.append(proposal["probabilities"][0, 0, :2])
    # Weighed 4 : 1, the one photograph in five that is 0 looks like one in two. The temperature makes neither surer.
    expected = torch.tensor([[0.5, 0.5], [0.2, 0.8], [0.2, 0.8]])
    assert torch.allclose(torch.stack(said), expected, atol=1e-3)


def test_a_weighted_training_and_the_shift_give_the_frequencies_that_were_trained_on():
    grades = torch.tensor([0] * 2 + [1] * 8)
    weights = torch.tensor([4.0, 1.0, 1.0, 1.0, 1.0])
    logits = torch.zeros(5, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=100, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        found = nn.functional.cross_entropy(logits.expand(10, 5), grades, weight=weights)
        found.backward()
        return found

    optimizer.step(loss)
    assert torch.allclose(logits.softmax(0)[:2], torch.tensor([0.5, 0.5]), atol=1e-3)
    heard = (logits - torch.tensor(prior_shift(weights.tolist()))).softmax(0)
    assert torch.allclose(heard[:2], torch.tensor([0.2, 0.8]), atol=1e-3)


def test_moving_a_batch_leaves_it_as_it_was(batch):
    moved = to_device(batch, torch.device("meta"))
    assert moved["grade"].device.type == "meta"
    assert moved["id"] is batch["id"]
    assert batch["image"].device == CPU
    assert batch["image"].is_contiguous()
    assert to_device(batch, CPU)["image"].is_contiguous(memory_format=torch.channels_last)


def test_bytes_become_what_networks_and_losses_take(batch):
    bytes_ = {"image": torch.full((1, 3, 4, 6), 51, dtype=torch.uint8), "lesions": torch.ones(1, 1, 4, 6).byte()}
    moved = to_device({**batch, **bytes_}, CPU)
    assert moved["image"].unique().tolist() == pytest.approx([0.2])
    assert moved["image"].is_contiguous(memory_format=torch.channels_last)
    assert moved["lesions"].dtype == torch.int64
    assert bytes_["image"].unique().tolist() == [51]


def test_what_is_no_cpu_and_no_gpu_has_no_bfloat16():
    assert not has_bfloat16(torch.device("meta"))


def test_a_negative_beta_is_refused():
    with pytest.raises(ValueError, match=r"expected beta >= 0, got -0\.1"):
        MultiTaskStep(LesionLoss(), CategoricalFocalLoss(), beta=-0.1)


@pytest.mark.parametrize("crop_px", [-32, 0, 500, 1472])
def test_crops_that_the_network_cannot_take_are_refused(crop_px):
    with pytest.raises(ValueError, match=rf"expected crop_px as a multiple of 32 up to image_size 1440, got {crop_px}"):
        refuse_crops_of_grades(crop_px, beta=0.0, image_size=1440)
    refuse_crops_of_grades(None, beta=0.8, image_size=1440)
