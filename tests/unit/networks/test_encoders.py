"""Every encoder gives six resolutions of features, and with ImageNet weights those of its package's classifier."""

import re

import pytest
import timm
import torch
import torchvision
from bundle.networks.encoders import ENCODERS, LiteNormalise, build_encoder
from bundle.networks.graders import Grader
from bundle.networks.imagenet import imagenet_weights, lite_file
from bundle.networks.vgg import Normalise
from bundle.networks.weights import save_weights
from torch import nn

IMAGE = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
SIZES_HW = [(64, 96), (32, 48), (16, 24), (8, 12), (4, 6), (2, 3)]
CHANNELS = {
    "vgg16": (64, 128, 256, 512, 512, 512),
    "resnet18": (3, 64, 64, 128, 256, 512),
    "resnext50_32x4d": (3, 64, 256, 512, 1024, 2048),
    "tf_efficientnet_lite0": (3, 16, 24, 40, 112, 320),
    "tf_efficientnet_lite2": (3, 16, 24, 48, 120, 352),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_features_have_six_resolutions_and_the_channels_that_are_said(name):
    with torch.device("meta"):
        encoder = build_encoder(name, pretrained=False)
        features = encoder(IMAGE.to("meta"))
    assert [tuple(one.shape) for one in features] == [
        (2, channels, *size_hw) for channels, size_hw in zip(encoder.channels, SIZES_HW, strict=True)
    ]
    assert encoder.channels == CHANNELS.get(name, encoder.channels)
    assert encoder.first_convolution().weight.shape[1] == 3


def test_an_image_is_normalised_as_the_weights_were_trained():
    assert LiteNormalise()(torch.tensor([0.0, 127 / 255, 1.0])).tolist() == [-127 / 128, 0.0, 1.0]
    for name, normalise in {"resnet18": Normalise(), "tf_efficientnet_lite0": LiteNormalise()}.items():
        assert torch.equal(build_encoder(name, pretrained=False)(IMAGE)[0], normalise(IMAGE))


def test_a_lite_encoder_is_timms_classifier_up_to_its_head():
    encoder, whole = build_encoder("tf_efficientnet_lite0").eval(), timm.create_model("tf_efficientnet_lite0").eval()
    whole.load_state_dict(imagenet_weights("tf_efficientnet_lite0", True))
    with torch.no_grad():
        deepest = encoder(IMAGE)[-1]
        expected = whole.blocks(whole.bn1(whole.conv_stem((255 * IMAGE - 127) / 128)))
    torch.testing.assert_close(deepest, expected)
    assert not any(type(module).__name__ in ("DropPath", "Dropout") for module in encoder.modules())


def test_a_resnet_encoder_is_torchvisions_classifier_up_to_its_head(tmp_path):
    torch.manual_seed(0)
    whole = torchvision.models.resnet18().eval()
    torch.save(whole.state_dict(), tmp_path / "resnet18.pth")
    encoder = build_encoder("resnet18", pretrained=str(tmp_path)).eval()  # from the folder, by its name
    trunk = nn.Sequential(*list(whole.children())[:-2])
    with torch.no_grad():
        assert torch.equal(encoder(IMAGE)[-1], trunk(Normalise()(IMAGE)))


def test_an_unknown_encoder_is_refused_with_those_that_are_known():
    with pytest.raises(ValueError, match=r"expected encoder in \['vgg16', 'resnet18', .*lite2'\], got 'alexnet'"):
        build_encoder("alexnet")


@pytest.mark.parametrize("setting", [{"width": 0.5}, {"batch_norm": True}])
def test_what_is_vgg16s_alone_is_refused_for_others(setting):
    with pytest.raises(
        ValueError, match=r"expected width 1\.0 and batch_norm false for encoder resnet18, .*leave both"
    ):
        build_encoder("resnet18", pretrained=False, **setting)


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "resnet18.pth")
    for name, home in {"resnet34": "torchvision", "tf_efficientnet_lite0": "timm"}.items():
        with pytest.raises(ValueError, match=re.escape(f"expected weights of {home}'s {name}: Error(s) in loading")):
            build_encoder(name, pretrained=str(tmp_path / "resnet18.pth"))
    with pytest.raises(ValueError, match=r"of shape \S+ .* in weights of EfficientNet-Lite"):
        build_encoder("tf_efficientnet_lite0", pretrained=str(lite_file("tf_efficientnet_lite1")))


def test_an_encoder_takes_the_weights_of_a_grader_of_its_architecture(tmp_path):
    torch.manual_seed(0)
    grader = Grader("tf_efficientnet_lite0", pretrained=False)
    save_weights(tmp_path / "model.pt", grader, {"architecture": "tf_efficientnet_lite0"})
    encoder = build_encoder("tf_efficientnet_lite0", pretrained=str(tmp_path / "model.pt"))
    assert torch.equal(encoder.trunk.conv_stem.weight, grader.classifier.conv_stem.weight)
    assert torch.equal(encoder.trunk.blocks[6][0].bn3.weight, grader.classifier.blocks[6][0].bn3.weight)
    with pytest.raises(ValueError, match=r"weights of resnet18 in .*, got those of a grader on tf_eff"):
        build_encoder("resnet18", pretrained=str(tmp_path / "model.pt"))
