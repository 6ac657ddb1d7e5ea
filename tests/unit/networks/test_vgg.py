"""The encoder is torchvision's VGG16, with every resolution kept and the normalisation inside."""

import pytest
import torch
from bundle.networks.vgg import Normalise, VGG16Encoder
from torchvision.models.vgg import cfgs, make_layers

NARROW = 1 / 16


@pytest.fixture(scope="module", params=[False, True], ids=["vgg16", "vgg16_bn"])
def batch_norm(request):
    return request.param


@pytest.fixture(scope="module")
def vgg16_features(batch_norm):
    torch.manual_seed(0)
    return make_layers(cfgs["D"], batch_norm=batch_norm).eval()


@pytest.fixture(scope="module")
def vgg16_file(vgg16_features, tmp_path_factory):
    """Weights as torchvision names them; of the classifier, which is not read, one number."""
    path = tmp_path_factory.mktemp("weights") / "vgg16.pth"
    state = {f"features.{name}": value for name, value in vgg16_features.state_dict().items()}
    torch.save({**state, "classifier.0.weight": torch.zeros(1)}, path)
    return path


def test_white_becomes_what_imagenet_calls_white():
    white = Normalise()(torch.ones(1, 3, 1, 1)).flatten()
    assert white.tolist() == pytest.approx([2.2489, 2.4286, 2.6400], abs=1e-4)  # (1 - 0.485) / 0.229, ...


@pytest.mark.parametrize(("batch_norm", "parameters"), [(False, 14_714_688), (True, 14_714_688 + 2 * 4224)])
def test_it_has_the_parameters_of_vgg16_without_its_classifier(batch_norm, parameters):
    with torch.device("meta"):
        encoder = VGG16Encoder(pretrained=False, batch_norm=batch_norm)
    assert sum(p.numel() for p in encoder.parameters()) == parameters


def test_every_resolution_is_kept():
    features = VGG16Encoder(pretrained=False, width=NARROW)(torch.rand(2, 3, 64, 96))
    assert [tuple(f.shape) for f in features] == [
        (2, 4, 64, 96), (2, 8, 32, 48), (2, 16, 16, 24), (2, 32, 8, 12), (2, 32, 4, 6), (2, 32, 2, 3),
    ]  # fmt: skip


def test_weights_are_he_normal_so_that_thirteen_layers_do_not_fade():
    torch.manual_seed(0)
    encoder = VGG16Encoder(pretrained=False, width=1 / 4)
    last = encoder.blocks[-1][-2]
    assert last.weight.std().item() == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.02)
    assert last.bias.abs().max() == 0
    deepest = encoder(torch.rand(1, 3, 64, 96))[-1]
    assert 0.1 < deepest.std() < 10


def test_weights_files_hold_no_constants():
    assert {name.split(".")[0] for name in VGG16Encoder(False, NARROW).state_dict()} == {"blocks"}


def test_a_path_loads_the_weights_that_torchvision_would_use(batch_norm, vgg16_features, vgg16_file):
    encoder = VGG16Encoder(pretrained=str(vgg16_file), batch_norm=batch_norm).eval()
    theirs = list(vgg16_features.parameters())
    assert all(torch.equal(ours, their) for ours, their in zip(encoder.parameters(), theirs, strict=True))
    image = torch.rand(1, 3, 32, 64)
    with torch.no_grad():
        assert torch.equal(encoder(image)[-1], vgg16_features(Normalise()(image)))


def test_the_image_is_left_as_it_was():
    image = torch.rand(1, 3, 32, 64)
    before = image.clone()
    VGG16Encoder(False, NARROW)(image)
    assert torch.equal(image, before)


def test_weights_at_another_width_are_refused_before_anything_is_read():
    with pytest.raises(ValueError, match=r"weights exist for width 1\.0, got width 0\.25; say `--pretrained False`"):
        VGG16Encoder(pretrained="no-such-file.pth", width=0.25)


def test_weights_of_another_network_are_refused(batch_norm, tmp_path):
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "resnet.pth")
    expected = "vgg16_bn" if batch_norm else "vgg16"
    with pytest.raises(ValueError, match=rf"expected weights of torchvision's {expected} in .*resnet\.pth"):
        VGG16Encoder(pretrained=str(tmp_path / "resnet.pth"), batch_norm=batch_norm)
