"""In bfloat16, chosen modules stay in float32: the ends in inference, depthwise layers in training on a CPU."""

import pytest
import torch
from bundle.networks.encoders import LiteEncoder
from bundle.networks.explained import ExplainedNetwork
from bundle.networks.multitask_unet import MultiTaskUNet
from bundle.networks.precision import depthwise_convolutions, kept_in_float32
from bundle.steps import learning_precision
from torch import nn

from tests.conftest import eye

CPU = torch.device("cpu")
IN_BFLOAT16 = torch.autocast("cpu", dtype=torch.bfloat16)


@pytest.fixture
def graded():
    torch.manual_seed(0)
    network = MultiTaskUNet(pretrained=False, width=1 / 8, batch_norm=True).eval()
    nn.init.normal_(network.grade_head.weight)
    return network


def rounded(network, ends):
    """Root mean square error of the lesion logits of an eye against float32, and the grade's logits."""
    image = torch.from_numpy(eye(1, 192, 128)).permute(2, 0, 1)[None] / 255
    explained = ExplainedNetwork(network).eval()
    with torch.no_grad():
        exact = explained(image)
        with IN_BFLOAT16, kept_in_float32(ends, "cpu"):
            found = explained(image)
    return float((found["lesions"].float() - exact["lesions"]).square().mean().sqrt()), found["grade"].float()


def test_with_its_ends_in_float32_a_network_is_nearer_to_float32(graded):
    (all_rounded, rounded_grade), (ends_kept, kept_grade) = rounded(graded, []), rounded(graded, graded.ends())
    assert 0 < ends_kept < 0.85 * all_rounded
    assert torch.equal(rounded_grade.bfloat16().float(), rounded_grade)
    assert not torch.equal(kept_grade.bfloat16().float(), kept_grade)


def test_the_ends_are_where_the_image_comes_in_and_the_logits_come_out(graded):
    convolutions = [
        module for end in graded.ends() for module in end.modules() if isinstance(module, (nn.Conv2d, nn.Linear))
    ]
    assert [(layer.weight.shape[1], layer.weight.shape[0]) for layer in convolutions] == [
        (64, 5), (3, 8), (24, 16), (16, 16), (16, 5)]  # fmt: skip


def test_what_leaves_is_float32_and_what_enters_may_be_bfloat16():
    layer = nn.Linear(3, 2)
    with IN_BFLOAT16, kept_in_float32([layer], "cpu"):
        assert layer(torch.ones(1, 3, dtype=torch.bfloat16)).dtype == torch.float32
        assert nn.Linear(3, 2)(torch.ones(1, 3)).dtype == torch.bfloat16


def test_modules_are_as_they_were_even_after_an_error(graded):
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        before = graded(image)
    with pytest.raises(RuntimeError, match="no more memory"), kept_in_float32(graded.ends(), "cpu"):
        raise RuntimeError("no more memory")
    with torch.no_grad(), kept_in_float32(graded.ends(), "cpu"):
        within = graded(image)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in graded.modules())
    assert torch.equal(within, before)


def test_after_an_error_inside_a_module_the_others_round_again():
    layer = nn.Linear(3, 2)
    with IN_BFLOAT16, kept_in_float32([layer], "cpu"):
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            layer(torch.ones(1, 4))
        assert nn.Linear(3, 2)(torch.ones(1, 3)).dtype == torch.bfloat16


def autocast_nesting():
    """How many autocast regions are open in this thread."""
    torch.autocast_increment_nesting()
    return torch.autocast_decrement_nesting()


def test_after_an_interrupt_inside_a_module_autocast_is_as_it_was():
    """PyTorch calls the hooks that always run after an Exception, but not after a KeyboardInterrupt."""

    class Interrupted(nn.Linear):
        def forward(self, x):
            raise KeyboardInterrupt

    layer, nested = Interrupted(3, 2), autocast_nesting()
    with IN_BFLOAT16:
        with pytest.raises(KeyboardInterrupt), kept_in_float32([layer], "cpu"):
            layer(torch.ones(1, 3))
        assert torch.is_autocast_enabled("cpu")
        assert autocast_nesting() == nested + 1
    assert autocast_nesting() == nested


def test_an_input_that_cannot_be_converted_leaves_autocast_as_it_was():
    layer, nested = nn.Linear(3, 2), autocast_nesting()
    with IN_BFLOAT16, kept_in_float32([layer], "cpu"):
        with pytest.raises(AttributeError, match="'str' object has no attribute 'float'"):
            layer("an image")
        assert torch.is_autocast_enabled("cpu")
        assert autocast_nesting() == nested + 1
    assert autocast_nesting() == nested


def test_the_light_encoder_has_one_depthwise_layer_a_block():
    encoder = LiteEncoder("tf_efficientnet_lite0", pretrained=False)
    layers = depthwise_convolutions(encoder)
    assert len(layers) == 16
    assert [tuple(layer.weight.shape[1:]) for layer in layers[:4]] == [(1, 3, 3), (1, 3, 3), (1, 3, 3), (1, 5, 5)]


@pytest.mark.parametrize(("amp", "expected"), [(True, [torch.bfloat16, torch.float32]), (False, [torch.float32] * 2)])
def test_a_training_step_on_a_cpu_keeps_depthwise_layers_in_float32_and_nothing_else(amp, expected):
    torch.manual_seed(0)
    network, types = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, groups=4)), []
    hooks = [layer.register_forward_hook(lambda layer, inputs, output: types.append(output.dtype)) for layer in network]
    with learning_precision(network, CPU, amp):
        network(torch.rand(2, 3, 5, 7))
    assert types == expected
    for hook in hooks:
        hook.remove()
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in network)
