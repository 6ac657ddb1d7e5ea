"""The label update network starts at the initial label and never leaves the grades that the lesions allow."""

import math

import pytest
import torch
from bundle.networks.label_update import LabelUpdateNetwork, mask_softmax, parameter_groups
from bundle.networks.multitask_unet import MultiTaskUNet
from hypothesis import given
from hypothesis import strategies as st

INITIAL = torch.tensor([[0.0, 0.0, 0.5, 0.3, 0.2], [0.0, 1.0, 0.0, 0.0, 0.0]])
FEASIBLE = INITIAL > 0
IMAGE = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def network(mask="feasible", shift=None, **settings):
    """Build a narrow one; ``shift`` sets what is added to the log of each grade."""
    torch.manual_seed(0)
    found = LabelUpdateNetwork(pretrained=False, width=1 / 16, mask=mask, **settings)
    if shift is not None:
        with torch.no_grad():
            found.shift.bias.copy_(torch.tensor(shift))
    return found


def test_mask_softmax_shares_between_the_kept_classes():
    labels = mask_softmax(torch.tensor([[0.0, math.log(3), 5.0]]), torch.tensor([[True, True, False]]))
    assert labels.tolist()[0] == pytest.approx([0.25, 0.75, 0.0])


@given(
    logits=st.lists(st.floats(-50, 50), min_size=5, max_size=5),
    mask=st.lists(st.booleans(), min_size=5, max_size=5).filter(any),
)
def test_mask_softmax_is_a_distribution_over_the_kept_classes(logits, mask):
    labels = mask_softmax(torch.tensor([logits]), torch.tensor([mask]))
    assert labels.sum().item() == pytest.approx(1, abs=1e-5)
    assert labels.min() >= 0
    assert (labels[~torch.tensor([mask])] == 0).all()


def test_before_training_it_returns_the_initial_label():
    labels = network()(IMAGE, INITIAL, FEASIBLE)
    assert torch.allclose(labels, INITIAL, rtol=0, atol=1e-6)


def test_before_training_mask_all_lends_each_empty_grade_a_hundredth():
    labels = network("all")(IMAGE, INITIAL, FEASIBLE)
    assert labels[1].tolist() == pytest.approx([0.01 / 1.04, 1 / 1.04, *[0.01 / 1.04] * 3])


def test_a_grade_without_mass_is_level_with_a_certain_one_after_a_push_of_log_a_hundred():
    initial, feasible = torch.tensor([[0.0, 0.0, 1.0, 0.0, 0.0]]), torch.tensor([[False, False, True, True, False]])
    labels = network(shift=[0, 0, 0, math.log(100), 0])(IMAGE[:1], initial, feasible)
    assert labels[0].tolist() == pytest.approx([0, 0, 0.5, 0.5, 0])


@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_labels_do_not_depend_on_the_scale_of_the_features(scale):
    update = network(frozen=False)
    torch.nn.init.normal_(update.shift.weight, std=10.0)
    expected = update(IMAGE, INITIAL, FEASIBLE)
    last = update.encoder.blocks[-1][-2]
    with torch.no_grad():
        last.weight.mul_(scale)
        last.bias.mul_(scale)
    found = update(IMAGE, INITIAL, FEASIBLE)
    assert (expected - INITIAL).abs().max() > 0.02
    assert torch.allclose(found, expected, atol=1e-4)


def test_a_label_depends_neither_on_the_batch_nor_on_the_mode():
    update = network(batch_norm=True)
    torch.nn.init.normal_(update.shift.weight, std=10.0)
    together = update.train()(IMAGE, INITIAL, FEASIBLE)
    alone = update.eval()(IMAGE[:1], INITIAL[:1], FEASIBLE[:1])
    assert torch.allclose(together[:1], alone, atol=1e-6)
    assert all(buffer.eq(0).all() for name, buffer in update.named_buffers() if name.endswith("num_batches_tracked"))


def test_in_bfloat16_a_label_is_still_float32_and_close():
    update = network()
    torch.nn.init.normal_(update.shift.weight, std=10.0)
    exact = update(IMAGE, INITIAL, FEASIBLE)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rounded = update(IMAGE, INITIAL, FEASIBLE)
    assert rounded.dtype == torch.float32
    assert 0 < (rounded - exact).abs().max() < 0.02


def test_a_push_of_log_two_doubles_the_odds_of_a_grade():
    labels = network(shift=[0, 0, 0, math.log(2), 0])(IMAGE, INITIAL, FEASIBLE)
    assert labels[0].tolist() == pytest.approx([0, 0, 5 / 13, 6 / 13, 2 / 13], abs=1e-6)


def test_only_mask_all_lets_a_label_leave_the_feasible_grades():
    push = [30.0, 0, 0, 0, 0]
    assert network("feasible", push)(IMAGE, INITIAL, FEASIBLE)[:, 0].tolist() == [0, 0]
    assert network("all", push)(IMAGE, INITIAL, FEASIBLE)[:, 0].min() > 0.99


def test_a_feasible_grade_without_mass_can_be_revived():
    initial = torch.tensor([[0.0, 0.0, 1.0, 0.0, 0.0]])
    feasible = torch.tensor([[False, False, True, True, True]])
    update = network()
    update(IMAGE[:1], initial, feasible)[0, 3].backward()
    assert update.shift.bias.grad[3] > 0


@pytest.mark.parametrize("width", [1 / 16, 1 / 4])
def test_a_step_of_adam_moves_a_logit_by_its_rate_at_most_whatever_the_width(width):
    torch.manual_seed(0)
    update = LabelUpdateNetwork(pretrained=False, width=width)
    optimizer = torch.optim.Adam(parameter_groups(update, 0.02, 0.0))
    before = update(IMAGE, INITIAL, FEASIBLE)
    before[0, 3].backward()
    optimizer.step()
    after = update(IMAGE, INITIAL, FEASIBLE)
    moved = (after[0, 2:] / before[0, 2:]).log()
    assert 0.02 < (moved.max() - moved.min()).item() <= 4 * 0.02  # two logits apart, by weights and by biases


def test_its_encoder_stays_as_it_is_unless_it_is_given_a_rate():
    assert not any(p.requires_grad for p in network().encoder.parameters())
    assert len(parameter_groups(network(), 1e-4, 0.0)) == 1
    assert parameter_groups(None, 1e-4, 0.0) == []
    with pytest.raises(ValueError, match=r"of 0 or more, got 0\.0001 and -1"):
        parameter_groups(network(), 1e-4, -1)


def test_its_encoder_learns_once_the_last_layer_has_moved():
    update = network(frozen=False)
    torch.nn.init.normal_(update.shift.weight, std=3.0)
    update(IMAGE, INITIAL, FEASIBLE)[0, 2].backward()
    assert update.encoder.blocks[0][0].weight.grad.abs().max() > 0


def test_an_image_without_any_feasible_grade_is_refused():
    with pytest.raises(ValueError, match="at least one feasible grade for every image"):
        network()(IMAGE, INITIAL, torch.zeros_like(FEASIBLE))


def test_a_shared_encoder_gives_features_and_takes_no_gradient_and_no_statistics():
    tasks = MultiTaskUNet(pretrained=False, width=1 / 16, batch_norm=True)
    update = LabelUpdateNetwork(encoder="shared", tasks=tasks)
    assert sorted(update.state_dict()) == ["shift.bias", "shift.weight"]
    torch.nn.init.normal_(update.shift.weight)
    statistics = [buffer.clone() for buffer in tasks.buffers()]
    update(IMAGE, INITIAL, FEASIBLE)[0, 2].backward()
    assert update.shift.weight.grad.abs().max() > 0
    assert all(p.grad is None for p in tasks.parameters())
    assert all(torch.equal(a, b) for a, b in zip(tasks.buffers(), statistics, strict=True))
    assert tasks.training


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mask": "none"}, r"expected label_mask in \['feasible', 'all'\] .* got 'none', 'own'"),
        ({"encoder": "none"}, r"label_encoder in \['own', 'shared'\], got 'feasible', 'none'"),
        ({"encoder": "shared"}, "expected a network whose encoder is shared"),
        ({"encoder": "shared", "frozen": False}, "expected label_encoder_learning_rate 0 for label_encoder 'shared'"),
    ],
)
def test_a_setting_that_cannot_be_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        LabelUpdateNetwork(pretrained=False, width=1 / 16, **settings)


def test_its_own_encoder_may_be_a_light_one_that_stays_as_it_is():
    torch.manual_seed(0)
    update = LabelUpdateNetwork(pretrained=False, architecture="tf_efficientnet_lite0").train()
    assert update.shift.weight.shape == (5, 320)
    assert [name for name, p in update.named_parameters() if p.requires_grad] == ["shift.weight", "shift.bias"]
    before = {name: value.clone() for name, value in update.state_dict().items()}
    assert torch.allclose(update(IMAGE, INITIAL, FEASIBLE), INITIAL, rtol=0, atol=1e-6)
    assert all(torch.equal(value, before[name]) for name, value in update.state_dict().items())


def test_an_unknown_architecture_of_its_own_is_refused():
    with pytest.raises(ValueError, match=r"expected encoder in \['vgg16', .*got 'lenet'"):
        LabelUpdateNetwork(pretrained=False, architecture="lenet")
