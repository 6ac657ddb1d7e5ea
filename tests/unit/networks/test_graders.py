"""Graders are torchvision's ResNeXts with five grades, cut where Grad-CAM looks."""

import pytest
import torch
from torchvision.models import resnext50_32x4d

from bundle.networks.graders import ARCHITECTURES, Grader
from bundle.networks.vgg import Normalise

IMAGE = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
PARAMETERS = {"resnext50_32x4d": 25_028_904, "resnext101_32x8d": 88_791_336}
"""As torchvision lists them, with a thousand classes of ImageNet."""


@pytest.fixture(scope="module")
def theirs():
    torch.manual_seed(0)
    return resnext50_32x4d(weights=None).eval()


@pytest.fixture(scope="module")
def grader(theirs, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "resnext50.pth"
    torch.save(theirs.state_dict(), path)
    return Grader("resnext50_32x4d", pretrained=str(path)).eval()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_five_grades_replace_a_thousand_classes(architecture):
    with torch.device("meta"):
        found = Grader(architecture, pretrained=False)
    assert sum(p.numel() for p in found.parameters()) == PARAMETERS[architecture] - 2049 * 1000 + 2049 * 5


def test_the_grade_is_the_head_of_the_features(grader):
    with torch.no_grad():
        features = grader.features(IMAGE)
        assert tuple(features.shape) == (2, 2048, 2, 3)
        assert torch.equal(grader(IMAGE), grader.head(features))
        assert tuple(grader(IMAGE).shape) == (2, 5)


def test_with_a_path_and_its_old_last_layer_it_is_the_network_of_torchvision(grader, theirs, monkeypatch):
    monkeypatch.setattr(grader.classifier, "fc", theirs.fc)
    with torch.no_grad():
        assert torch.allclose(grader(IMAGE), theirs(Normalise()(IMAGE)), atol=1e-5)


def test_an_unknown_architecture_is_refused():
    with pytest.raises(ValueError, match=r"expected architecture in \['resnext50_32x4d', .*got 'alexnet'"):
        Grader("alexnet", pretrained=False)


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "vgg16.pth")
    with pytest.raises(ValueError, match=r"expected weights of torchvision's resnext50_32x4d"):
        Grader("resnext50_32x4d", pretrained=str(tmp_path / "vgg16.pth"))
