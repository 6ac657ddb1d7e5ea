import copy

import numpy as np
import pytest
import torch
import torchvision
from bundle.method.heat_maps import NonFiniteLogits, grade_maps
from monai.data import MetaTensor
from scripts.benchmarks.attribution import maps_one_by_one
from torch import nn


class SmallGrader(nn.Module):
    def __init__(self):
        super().__init__()
        self.convolution = nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True)
        )
        self.last = nn.Conv2d(6, 8, 3, stride=2, padding=1)
        self.dropout = nn.Dropout(0.5)
        self.linear = nn.Linear(8, 5)

    def features(self, image):
        return self.last(self.convolution(image))

    def head(self, activations):
        return self.linear(self.dropout(activations.relu().mean(dim=(2, 3))))

    def forward(self, image):
        return self.head(self.features(image))


class ResNetGrader(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = torchvision.models.resnet18(weights=None, num_classes=5)

    def features(self, image):
        for layer in list(self.net.children())[:-2]:
            image = layer(image)
        return image

    def head(self, activations):
        return self.net.fc(self.net.avgpool(activations).flatten(1))

    def forward(self, image):
        return self.head(self.features(image))


class TwoSpots(nn.Module):
    """Grade 1 is the red channel, grade 3 the green one; nothing speaks for the others."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 5, bias=False)
        with torch.no_grad():
            self.linear.weight.zero_()
            self.linear.weight[1, 0] = self.linear.weight[3, 1] = 1.0

    def features(self, image):
        return image

    def head(self, activations):
        return self.linear(activations.mean(dim=(2, 3)))


class InPlaceHead(SmallGrader):
    def head(self, activations):
        return self.linear(torch.relu_(activations).mean(dim=(2, 3)))


def images(count=2, height=40, width=56, seed=0):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def small():
    torch.manual_seed(0)
    return SmallGrader().eval()


def test_each_map_is_hot_where_its_grade_is_seen():
    batch = torch.zeros(1, 3, 6, 8)
    batch[0, 0, 1, 2] = 1.0
    batch[0, 1, 4, 5] = 0.5
    maps = grade_maps(TwoSpots(), batch).maps[0]
    assert maps[1, 1, 2].item() == pytest.approx(1.0, abs=1e-6)
    assert maps[1].sum().item() == pytest.approx(1.0, abs=1e-6)
    assert maps[3, 4, 5].item() == pytest.approx(1.0, abs=1e-6)


def test_a_grade_that_nothing_speaks_for_has_a_map_of_zeros():
    maps = grade_maps(TwoSpots(), images()).maps
    assert torch.equal(maps[:, [0, 2, 4]], torch.zeros(2, 3, 40, 56))


def test_five_maps_from_one_pass_equal_grad_cam_of_the_whole_grader(small):
    found = grade_maps(small, images())
    np.testing.assert_allclose(found.maps, maps_one_by_one(small, small.last, images()), atol=1e-5)
    torch.testing.assert_close(found.logits, small(images()))
    assert found.maps.dtype == torch.float32
    assert found.grid_hw == (10, 14)
    assert found.maps.amax() == pytest.approx(1.0, abs=1e-5)


def test_maps_of_a_resnet_equal_grad_cam_of_the_whole_resnet():
    torch.manual_seed(1)
    grader = ResNetGrader().eval()
    batch = images(2, 64, 48)
    expected = maps_one_by_one(grader, grader.net.layer4, batch)
    np.testing.assert_allclose(grade_maps(grader, batch).maps, expected, atol=1e-5)


def test_features_run_once(small, monkeypatch):
    calls = []
    features = small.features
    monkeypatch.setattr(small, "features", lambda batch: calls.append(len(batch)) or features(batch))
    grade_maps(small, images(3))
    assert calls == [3]


def test_an_in_place_head_changes_no_map(small):
    in_place = InPlaceHead().eval()
    in_place.load_state_dict(small.state_dict())
    assert torch.equal(grade_maps(in_place, images()).maps, grade_maps(small, images()).maps)


def test_the_grader_is_left_as_found(small):
    small.train()
    small.convolution[1].eval()
    small.linear.bias.requires_grad_(False)
    small(images()).sum().backward()
    modes = [module.training for module in small.modules()]
    grads = [parameter.grad for parameter in small.parameters()]
    values = [None if grad is None else grad.clone() for grad in grads]
    flags = [parameter.requires_grad for parameter in small.parameters()]
    state = copy.deepcopy(small.state_dict())
    random_state = torch.get_rng_state()

    grade_maps(small, images())

    assert [module.training for module in small.modules()] == modes
    assert [parameter.requires_grad for parameter in small.parameters()] == flags
    assert all(parameter.grad is grad for parameter, grad in zip(small.parameters(), grads, strict=True))
    assert all(grad is None or torch.equal(grad, value) for grad, value in zip(grads, values, strict=True))
    assert all(torch.equal(value, state[name]) for name, value in small.state_dict().items())
    assert not any(module._forward_hooks or module._backward_hooks for module in small.modules())
    assert torch.equal(torch.get_rng_state(), random_state)


def test_the_grader_is_left_as_found_after_an_error(small):
    small.train()
    with torch.no_grad():
        small.linear.bias[2] = torch.nan
    with pytest.raises(
        NonFiniteLogits, match=r"expected finite logits, got NaN or infinity for image \[0, 1\]"
    ) as info:
        grade_maps(small, images())
    assert info.value.grader is small
    assert info.value.images == (0, 1)
    assert all(module.training for module in small.modules())
    assert all(parameter.requires_grad for parameter in small.parameters())


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_maps_and_grad_mode_do_not_depend_on_the_callers_grad_mode(small, mode):
    expected = grade_maps(small, images()).maps
    with mode():
        before = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        found = grade_maps(small, images()).maps
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == before
    assert torch.equal(found, expected)


def test_autocast_does_not_change_the_maps(small):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = grade_maps(small, images())
    assert torch.equal(found.maps, grade_maps(small, images()).maps)


def test_meta_tensors_give_plain_tensors(small):
    found = grade_maps(small, MetaTensor(images()))
    assert type(found.logits) is type(found.maps) is torch.Tensor
    assert torch.equal(found.maps, grade_maps(small, images()).maps)


def test_the_maps_do_not_depend_on_training_mode(small):
    expected = grade_maps(small, images()).maps
    assert torch.equal(grade_maps(small.train(), images()).maps, expected)


def test_rejects_images_and_logits_of_another_shape(small):
    with pytest.raises(ValueError, match=r"expected images of shape \(N, 3, H, W\), got \(3, 40, 56\)"):
        grade_maps(small, images()[0])
    small.linear = nn.Linear(8, 6)
    with pytest.raises(ValueError, match=r"expected grade logits of shape \(2, 5\), got \(2, 6\)"):
        grade_maps(small, images())
