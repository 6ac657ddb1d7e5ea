"""The ends of a network stay in float32 under autocast, and nothing is left of it afterwards."""

import pytest
import torch
from bundle.deploy.runtimes import kept_in_float32
from bundle.networks.explained import ExplainedNetwork
from bundle.networks.multitask_unet import MultiTaskUNet
from torch import nn

from tests.conftest import eye

ROUNDED = torch.autocast("cpu", dtype=torch.bfloat16)


@pytest.fixture
def network():
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
        with ROUNDED, kept_in_float32(ends, "cpu"):
            found = explained(image)
    return float((found["lesions"].float() - exact["lesions"]).square().mean().sqrt()), found["grade"].float()


def test_with_its_ends_in_float32_a_network_is_nearer_to_float32(network):
    (all_rounded, rounded_grade), (ends_kept, kept_grade) = rounded(network, []), rounded(network, network.ends())
    assert 0 < ends_kept < 0.85 * all_rounded
    assert torch.equal(rounded_grade.bfloat16().float(), rounded_grade)
    assert not torch.equal(kept_grade.bfloat16().float(), kept_grade)


def test_the_ends_are_where_the_image_comes_in_and_the_logits_come_out(network):
    convolutions = [
        module for end in network.ends() for module in end.modules() if isinstance(module, (nn.Conv2d, nn.Linear))
    ]
    assert [(layer.weight.shape[1], layer.weight.shape[0]) for layer in convolutions] == [
        (64, 5), (3, 8), (24, 16), (16, 16), (16, 5)]  # fmt: skip


def test_what_leaves_is_float32_and_what_enters_may_be_bfloat16():
    layer = nn.Linear(3, 2)
    with ROUNDED, kept_in_float32([layer], "cpu"):
        assert layer(torch.ones(1, 3, dtype=torch.bfloat16)).dtype == torch.float32
        assert nn.Linear(3, 2)(torch.ones(1, 3)).dtype == torch.bfloat16


def test_modules_are_as_they_were_even_after_an_error(network):
    image = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        before = network(image)
    with pytest.raises(RuntimeError, match="no more memory"), kept_in_float32(network.ends(), "cpu"):
        raise RuntimeError("no more memory")
    with torch.no_grad(), kept_in_float32(network.ends(), "cpu"):
        within = network(image)
    assert not any("forward" in vars(module) for module in network.modules())
    assert torch.equal(within, before)
