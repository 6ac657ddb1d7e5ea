"""Both tasks and the heat maps of all grades from one pass: the maps are pytorch-grad-cam's."""

import pytest
import torch
from bundle.method.heat_maps import grade_maps
from bundle.networks.explained import OUTPUTS, ExplainedNetwork, resized_maps
from bundle.networks.graded_network import GradedNetwork
from bundle.networks.multitask_unet import MultiTaskUNet
from bundle.networks.segmenters import GradedSegmenter
from torch import nn

IMAGE = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))


class Channels(GradedNetwork):
    """Its deepest features are the colours; grade 1 is red, grade 3 red less green, and nothing else counts."""

    def __init__(self):
        super().__init__()
        self._read_grade_from(3)
        with torch.no_grad():
            self.grade_head.weight.zero_()
            self.grade_head.weight[1, 0] = self.grade_head.weight[3, 0] = 1.0
            self.grade_head.weight[3, 1] = -1.0

    def _encode(self, image):
        return [image]

    def _decode(self, features):
        return features[-1]

    def settings(self):
        return {}

    def shared_modules(self):
        return ()


def unet():
    """Not one of its five maps is empty."""
    torch.manual_seed(0)
    network = MultiTaskUNet(pretrained=False, width=1 / 16, batch_norm=True)
    nn.init.normal_(network.grade_head.weight, mean=0.3)
    return network.eval()


def dilated():
    torch.manual_seed(0)
    network = GradedSegmenter("deeplabv3plus", "resnet18", pretrained=False)
    nn.init.normal_(network.grade_head.weight, mean=0.5)  # from zero, all maps are empty
    return network.eval()


def test_a_map_is_the_weighted_sum_of_the_channels_between_its_own_extremes():
    image = torch.zeros(1, 3, 1, 3)
    image[0, 0, 0] = torch.tensor([0.25, 0.5, 1.0])  # red
    image[0, 1, 0] = torch.tensor([0.0, 0.75, 0.5])  # green
    maps = ExplainedNetwork(Channels())(image)["maps"][0, :, 0]
    assert maps[1].tolist() == pytest.approx([0, 1 / 3, 1], abs=1e-5)  # (0.5 - 0.25) / 0.75
    assert maps[3].tolist() == pytest.approx([0.5, 0, 1], abs=1e-5)  # 0.25, below zero, 0.5
    assert maps[[0, 2, 4]].abs().max() == 0


def test_features_are_the_mean_of_every_channel_of_the_first_and_the_deepest():
    image = torch.zeros(1, 3, 1, 4)
    image[0, 0, 0] = torch.tensor([0.0, 0.0, 1.0, 1.0])
    found = ExplainedNetwork(Channels())(image)["features"]
    assert found.tolist() == [[0.5, 0, 0, 0.5, 0, 0]]


def test_features_do_not_depend_on_the_others_of_a_batch_and_are_in_float32():
    explained = ExplainedNetwork(unet())
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        both, second = explained(IMAGE)["features"], explained(IMAGE[1:])["features"]
    assert both.dtype == torch.float32
    assert (both[1:] - second).abs().max() < 1e-2 * second.abs().max()


def test_resized_maps_reach_from_zero_to_one_again():
    resized = resized_maps(torch.tensor([[[[0.0, 1.0]]]]), (1, 4))
    assert resized.flatten().tolist() == pytest.approx([0, 0.25, 0.75, 1], abs=1e-6)
    resized = resized_maps(torch.tensor([[[[0.0, 1.0, 0.0]]]]), (1, 6))  # the middle lies between two pixels
    assert resized.flatten().tolist() == pytest.approx([0, 1 / 3, 1, 1, 1 / 3, 0], abs=1e-6)


@pytest.mark.parametrize("made", [unet, dilated])
@torch.no_grad()
def test_the_maps_are_those_of_grad_cam_and_the_logits_those_of_both_tasks(made):
    network = made()
    found, tasks, reference = ExplainedNetwork(network)(IMAGE), network.both_tasks(IMAGE), grade_maps(network, IMAGE)
    assert tuple(found) == OUTPUTS
    assert all(torch.equal(found[task], tasks[task]) for task in ("lesions", "grade"))
    assert found["maps"].shape == (2, 5, *network.features(IMAGE).shape[-2:])
    assert reference.maps.amax(dim=(2, 3)).min() > 0.9
    assert (resized_maps(found["maps"], (64, 96)) - reference.maps).abs().max() < 1e-5


def test_maps_are_computed_in_float32_under_inference_mode_and_bfloat16():
    explained = ExplainedNetwork(Channels())
    with torch.inference_mode():
        exact = explained(IMAGE)["maps"]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = explained(IMAGE)
            from_bfloat16 = ExplainedNetwork(unet())(IMAGE)
    assert (found["grade"].dtype, found["maps"].dtype) == (torch.bfloat16, torch.float32)
    assert torch.equal(found["maps"], exact)  # its features are the image itself: nothing is rounded before the maps
    assert (from_bfloat16["lesions"].dtype, from_bfloat16["maps"].dtype) == (torch.bfloat16, torch.float32)


def test_the_network_stays_as_it_was():
    network = unet().train()
    network.grade_head.weight.grad = torch.ones_like(network.grade_head.weight)
    with torch.no_grad():
        ExplainedNetwork(network)(IMAGE)
    assert all(module.training for module in network.modules())
    assert network.grade_head.weight.grad.eq(1).all()
    assert all(parameter.requires_grad for parameter in network.parameters())
