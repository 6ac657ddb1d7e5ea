"""Graders are networks of torchvision and timm with five grades, cut where Grad-CAM looks."""

import contextlib
import math
import re
import sys

import numpy as np
import pytest
import timm
import torch
import torchvision
from bundle.method.heat_maps import grade_maps
from bundle.networks import graders
from bundle.networks.encoders import LITES
from bundle.networks.graders import ARCHITECTURES, KNOWN_ARCHITECTURES, Grader, Symmetric, prior_shift
from bundle.networks.imagenet import TIMM_ARCHITECTURES, imagenet_weights
from bundle.networks.vgg import Normalise
from bundle.networks.weights import save_weights
from scripts.benchmarks.attribution import maps_one_by_one
from torch import nn

IMAGE = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
PARAMETERS = {
    "resnext50_32x4d": 25_028_904,
    "resnext101_32x8d": 88_791_336,
    "densenet201": 20_013_928,
    "nasnetalarge": 88_753_150,
    "tf_efficientnet_lite0": 4_652_008,
    "tf_efficientnet_lite1": 5_416_680,
    "tf_efficientnet_lite2": 6_092_072,
}
"""As torchvision and timm list them, with a thousand classes of ImageNet."""
CHANNELS = {
    "resnext50_32x4d": 2048, "resnext101_32x8d": 2048, "densenet201": 1920, "nasnetalarge": 4032,
    **dict.fromkeys(LITES, 1280),
}  # fmt: skip
LAST_LAYERS = {
    "resnext50_32x4d": "fc", "densenet201": "classifier", "nasnetalarge": "last_linear",
    "tf_efficientnet_lite0": "classifier",
}  # fmt: skip
"""Of one network of each family; a second ResNeXt would take seconds and differ in its widths alone."""


SCALES = {"nasnetalarge": (0.5, 0.5), "tf_efficientnet_lite0": (127 / 255, 128 / 255)}
"""Mean and deviation of the images that weights were trained on, where they are not ImageNet's."""


def original(architecture):
    """Build the network as its package has it, with normalisations that are not at their start."""
    torch.manual_seed(0)
    if architecture in TIMM_ARCHITECTURES:
        network = timm.create_model(architecture)
    else:
        network = torchvision.models.get_model(architecture, weights=None)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            nn.init.uniform_(layer.bias, -0.5, 0.5)
    return network.eval()


@pytest.fixture(scope="module", params=LAST_LAYERS)
def pair(request, tmp_path_factory):
    """A network of another package, and the grader that was given its weights."""
    theirs, path = original(request.param), tmp_path_factory.mktemp("weights") / "weights.pth"
    torch.save(theirs.state_dict(), path)
    grader = Grader(request.param, pretrained=str(path)).eval()
    path.unlink()  # NASNet's takes 350 MB
    return grader, theirs


@contextlib.contextmanager
def its_last_layer(classifier, name, layer):
    """Lend a layer; monkeypatch would not give back a submodule."""
    own = getattr(classifier, name)
    setattr(classifier, name, layer)
    yield
    setattr(classifier, name, own)


@pytest.mark.parametrize("architecture", KNOWN_ARCHITECTURES)
def test_five_grades_replace_a_thousand_classes(architecture):
    with torch.device("meta"):
        found = Grader(architecture, pretrained=False)
    inputs = CHANNELS[architecture] + 1
    assert sum(p.numel() for p in found.parameters()) == PARAMETERS[architecture] - inputs * 1000 + inputs * 5


def test_the_pipeline_trains_the_two_of_the_paper():
    assert ARCHITECTURES == ("resnext50_32x4d", "resnext101_32x8d")


def test_the_grade_is_the_head_of_the_features(pair):
    grader, _ = pair
    with torch.no_grad():
        features = grader.features(IMAGE)
        assert tuple(features.shape) == (2, CHANNELS[grader.architecture], 2, 3)
        assert features.min() == 0  # after a ReLU, whose zeros Grad-CAM must see
        assert torch.equal(grader(IMAGE), grader.head(features.clone()))
        assert tuple(grader(IMAGE).shape) == (2, 5)


def test_with_a_path_and_its_old_last_layer_it_is_the_original_network(pair):
    grader, theirs = pair
    last = LAST_LAYERS[grader.architecture]
    mean, std = SCALES.get(grader.architecture, (Normalise().mean, Normalise().std))
    with torch.no_grad(), its_last_layer(grader.classifier, last, getattr(theirs, last)):
        expected = theirs((IMAGE - mean) / std)
        assert torch.allclose(grader(IMAGE), expected, atol=1e-5)
        assert expected.std() > 1e-3


def test_nasnet_sees_what_timm_says_its_weights_were_trained_on():
    settings = timm.get_pretrained_cfg("nasnetalarge")
    assert (settings.mean, settings.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    assert Symmetric()(torch.tensor([0.0, 0.25, 1.0])).tolist() == [-1.0, -0.5, 1.0]


def test_neither_temperature_nor_shift_is_part_of_the_logits(pair):
    grader, _ = pair
    with torch.no_grad():
        before = grader(IMAGE)
        grader.temperature, grader.prior_shift = 3.0, (1.0, 0.0, 0.0, 0.0, 0.0)
        assert torch.equal(grader(IMAGE), before)
    assert not any("temperature" in name or "shift" in name for name in grader.state_dict())


def test_the_shift_is_the_logarithm_of_the_class_weights_and_0_where_nothing_was_trained():
    assert prior_shift([4.0, 1.0, 0.5, 0.0, 1]) == pytest.approx((math.log(4), 0, -math.log(2), 0, 0))


@pytest.mark.parametrize("weights", [[1.0] * 4, [1, 1, 1, 1, -1], [1, 1, 1, 1, math.nan], [math.inf] * 5, ["1"] * 5])
def test_class_weights_that_are_none_are_refused(weights):
    message = re.escape(f"expected 5 class weights that are finite and not negative, got {weights}")
    with pytest.raises(ValueError, match=message):
        prior_shift(weights)


def test_a_light_grader_begins_with_the_weights_of_its_package():
    grader = Grader("tf_efficientnet_lite0")
    state = imagenet_weights("tf_efficientnet_lite0", True)
    own = {name: value for name, value in grader.classifier.state_dict().items() if not name.startswith("classifier.")}
    assert len(own) == len(state) - 2
    assert all(torch.equal(value, state[name]) for name, value in own.items())


@contextlib.contextmanager
def cut_at(grader, stride):
    grader.heat_map_stride = stride
    yield grader
    grader.heat_map_stride = 32


EARLIER = {
    "resnext50_32x4d": (1024, lambda net: net.layer3),
    "densenet201": (1792, lambda net: net.features.transition3.relu),
    "tf_efficientnet_lite0": (672, lambda net: net.blocks[5][0].bn1),
}
"""Channels at H/16, and the layer of the whole network that ends there."""


def test_cut_a_stage_earlier_it_gives_the_same_logits_and_the_maps_of_that_layer_of_the_whole(pair):
    grader, _ = pair
    if grader.architecture not in EARLIER:
        return
    channels, layer = EARLIER[grader.architecture]
    with torch.no_grad():
        expected = grader(IMAGE)
    with cut_at(grader, 16):
        with torch.no_grad():
            assert tuple(grader.features(IMAGE).shape) == (2, channels, 4, 6)
            assert grader.features(IMAGE).min() == 0  # after a ReLU
            assert torch.equal(grader(IMAGE), expected)
        found = grade_maps(grader, IMAGE)
        whole = maps_one_by_one(grader, layer(grader.classifier), IMAGE)
    assert found.grid_hw == (4, 6)
    np.testing.assert_allclose(found.maps, whole, atol=1e-5)
    assert np.abs(whole - grade_maps(grader, IMAGE).maps.numpy()).max() > 0.1
    torch.testing.assert_close(found.logits, expected)


def test_nasnet_is_not_cut_earlier_and_other_strides_are_none():
    with pytest.raises(ValueError, match=r"expected heat_map_stride 32 for nasnetalarge, got 16: .* raise image_size"):
        Grader("nasnetalarge", pretrained=False, heat_map_stride=16)
    with pytest.raises(ValueError, match=r"expected heat_map_stride 32 or 16, got 8"):
        Grader("resnext50_32x4d", pretrained=False, heat_map_stride=8)


def test_an_unknown_architecture_is_refused():
    with pytest.raises(ValueError, match=r"expected architecture in \['resnext50_32x4d', .*got 'alexnet'"):
        Grader("alexnet", pretrained=False)


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "vgg16.pth")
    with pytest.raises(ValueError, match=r"expected weights of torchvision's resnext50_32x4d"):
        Grader("resnext50_32x4d", pretrained=str(tmp_path / "vgg16.pth"))
    with pytest.raises(ValueError, match=r"expected weights of timm's nasnetalarge"):
        Grader("nasnetalarge", pretrained=str(tmp_path / "vgg16.pth"))


def test_training_goes_on_from_the_file_of_a_grader_its_grades_included(tmp_path):
    before = Grader("tf_efficientnet_lite0", pretrained=False)
    save_weights(tmp_path / "model.pt", before, {"architecture": before.architecture})
    after = Grader("tf_efficientnet_lite0", pretrained=str(tmp_path / "model.pt"))
    assert all(torch.equal(value, after.state_dict()[name]) for name, value in before.state_dict().items())


def test_without_timm_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    said = "expected the package timm for nasnetalarge, found none; say `pip install 'timm>=1.0'`"
    for pretrained in (True, False):
        with pytest.raises(ValueError, match=re.escape(said)):
            Grader("nasnetalarge", pretrained)
    monkeypatch.setattr(graders, "imagenet_weights", lambda *names: None)
    assert Grader("densenet201", False).architecture == "densenet201"
