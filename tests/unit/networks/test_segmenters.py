"""The compared segmenters are those of segmentation-models-pytorch, with a grade, under our own network's names."""

import re
import sys

import pytest
import segmentation_models_pytorch as smp
import torch
import torchvision
from bundle.networks.encoders import LiteEncoder
from bundle.networks.multitask_unet import BothTasks, GradeTask
from bundle.networks.segmenters import ARCHITECTURES, ENCODERS, GradedSegmenter
from bundle.networks.vgg import Normalise
from bundle.networks.weights import load_weights, save_weights
from torch import nn

IMAGE = torch.rand(2, 3, 64, 96, generator=torch.Generator().manual_seed(0))
FAMILIES = {"unet": smp.Unet, "linknet": smp.Linknet, "deeplabv3plus": smp.DeepLabV3Plus, "fpn": smp.FPN}
COMPARED = {"unet": "vgg16", "linknet": "resnet18", "deeplabv3plus": "resnet50", "fpn": "resnet50"}
CHANNELS = {"vgg16": 512, "resnet18": 512, "resnet50": 2048}
DEEPEST = {"unet": (2, 3), "linknet": (2, 3), "deeplabv3plus": (4, 6), "fpn": (2, 3)}
"""64 x 96 over 32; DeepLabv3+ dilates instead of the last halving."""
DROPOUT = {"unet": [], "linknet": [], "deeplabv3plus": [0.5], "fpn": [0.2]}


@pytest.fixture(scope="module")
def built():
    """One network of each family; they take seconds to build, so the tests share them and change none."""
    torch.manual_seed(0)
    return {name: GradedSegmenter(name, encoder, pretrained=False).eval() for name, encoder in COMPARED.items()}


@pytest.fixture(params=COMPARED)
def name(request):
    return request.param


def test_the_four_of_the_paper_are_known():
    assert set(ARCHITECTURES) == set(COMPARED)
    assert set(COMPARED.values()) < set(ENCODERS)


@torch.no_grad()
def test_both_tasks_have_five_classes_at_full_resolution_and_are_what_each_task_is_alone(built, name):
    network = built[name]
    tasks, features = BothTasks(network)(IMAGE), network.features(IMAGE)
    assert {task: tuple(logits.shape) for task, logits in tasks.items()} == {"lesions": (2, 5, 64, 96), "grade": (2, 5)}
    assert tuple(features.shape) == (2, CHANNELS[COMPARED[name]], *DEEPEST[name])
    assert torch.equal(network.head(features), tasks["grade"])
    assert torch.allclose(network(IMAGE[:1]), tasks["lesions"][:1], atol=1e-4)
    expected = features.mean(dim=(2, 3)) @ network.grade_head.weight.T + network.grade_head.bias
    assert torch.allclose(tasks["grade"], expected, atol=1e-5)


@torch.no_grad()
def test_the_lesions_are_those_of_the_original_network_fed_with_normalised_photographs(built):
    theirs = smp.Linknet("resnet18", encoder_weights=None, classes=5).eval()
    parts = ("encoder.", "decoder.", "segmentation_head.")
    state = {key: value for key, value in built["linknet"].state_dict().items() if key.startswith(parts)}
    theirs.load_state_dict(state)
    assert torch.equal(theirs(Normalise()(IMAGE)), built["linknet"](IMAGE))


def test_the_grade_head_is_all_that_is_added(name):
    with torch.device("meta"):
        theirs = FAMILIES[name](COMPARED[name], encoder_weights=None, classes=5)
        ours = GradedSegmenter(name, COMPARED[name], pretrained=False)
    added = sum(p.numel() for p in ours.parameters()) - sum(p.numel() for p in theirs.parameters())
    assert added == CHANNELS[COMPARED[name]] * 5 + 5


def test_the_meta_gradient_sees_encoder_and_grade_head_by_name(built, name):
    label_parameters, parameters = GradeTask(built[name]).label_parameters(), dict(built[name].named_parameters())
    parts = ("encoder.", "grade_head.")
    assert set(label_parameters) == {f"network.{key}" for key in parameters if key.startswith(parts)}
    assert {"network.grade_head.weight", "network.grade_head.bias"} < set(label_parameters)
    assert set(label_parameters) < set(dict(BothTasks(built[name]).named_parameters()))


def test_there_is_no_dropout_on_the_way_to_the_grade(built, name):
    found = [key for key, layer in built[name].named_modules() if isinstance(layer, nn.modules.dropout._DropoutNd)]
    assert [built[name].get_submodule(key).p for key in found] == DROPOUT[name]
    assert all(key.startswith("decoder.") for key in found)


@torch.no_grad()
def test_a_fused_network_has_one_class_beside_the_background():
    network = GradedSegmenter("linknet", "resnet18", pretrained=False, lesion_classes=1)
    assert tuple(network(IMAGE).shape) == (2, 2, 64, 96)


@pytest.mark.parametrize("encoder", ["vgg16", "resnet18"])
def test_with_a_path_the_encoder_is_the_original_one(tmp_path, encoder):
    """One of each family; VGG's classifier of 124 million weights is left out here, and in both by the encoder."""
    with torch.device("meta"):
        names = torchvision.models.get_model(encoder, weights=None).state_dict()
    state = {key: torch.rand(value.shape) for key, value in names.items() if not key.startswith("classifier")}
    state |= {"classifier.6.bias": torch.zeros(1000)} if encoder == "vgg16" else {}
    torch.save(state, tmp_path / "weights.pth")
    network = GradedSegmenter("linknet", encoder, pretrained=str(tmp_path / "weights.pth"))
    ours = network.encoder.state_dict()
    assert set(ours) == {key for key in state if not key.startswith(("classifier.", "fc."))}
    assert all(torch.equal(value, state[key].to(value.dtype)) for key, value in ours.items())


def test_all_four_take_the_light_encoder_with_its_packages_weights_and_input(name):
    network = GradedSegmenter(name, "tf_efficientnet_lite0", freeze_batch_norm=True).train()
    theirs = LiteEncoder("tf_efficientnet_lite0").state_dict()
    ours = {key.removeprefix("model."): value for key, value in network.encoder.state_dict().items()}
    assert {f"trunk.{key}" for key in ours} == set(theirs)
    assert all(torch.equal(value, theirs[f"trunk.{key}"]) for key, value in ours.items())
    assert network.normalise(torch.tensor([127 / 255])).item() == 0.0
    network.both_tasks(IMAGE)["lesions"].sum().backward()
    after = {key.removeprefix("model."): value for key, value in network.encoder.state_dict().items()}
    assert torch.equal(after["bn1.running_mean"], theirs["trunk.bn1.running_mean"])  # frozen, in training mode
    assert tuple(network.eval().features(IMAGE).shape) == (2, 320, *DEEPEST[name])


def test_there_is_no_batch_norm_to_freeze_in_vgg16():
    with pytest.raises(ValueError, match="expected an encoder with batch norm for freeze_batch_norm"):
        GradedSegmenter("unet", "vgg16", pretrained=False, freeze_batch_norm=True)


def test_weights_of_another_network_are_refused(tmp_path):
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "vgg16.pth")
    with pytest.raises(ValueError, match=r"expected weights of torchvision's resnet18: .*\n.*Missing key"):
        GradedSegmenter("linknet", "resnet18", pretrained=str(tmp_path / "vgg16.pth"))


def test_its_weights_load_into_no_other_segmenter(tmp_path, built):
    save_weights(tmp_path / "model.pt", built["linknet"], {"fold": 0})
    twin = GradedSegmenter("linknet", "resnet18", pretrained=False)
    assert load_weights(twin, tmp_path / "model.pt") == {**twin.settings(), "fold": 0}
    assert torch.equal(twin.grade_head.weight, built["linknet"].grade_head.weight)
    with pytest.raises(ValueError, match="expected weights of this GradedSegmenter"):
        load_weights(built["fpn"], tmp_path / "model.pt")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"architecture": "segnet"}, "expected architecture in ['unet', 'linknet', 'deeplabv3plus', 'fpn'], got 'segn"),
        ({"encoder_name": "vgg"}, "expected encoder_name in ['vgg16', 'resnet18', 'resnet34', 'resnet50', "),
        ({"architecture": "deeplabv3plus", "encoder_name": "vgg16"}, "for deeplabv3plus, got 'vgg16'; choose a resnet"),
        ({"lesion_classes": 0}, "expected one lesion class or more, got lesion_classes 0"),
    ],
)
def test_rejects_a_setting_that_cannot_be(setting, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        GradedSegmenter(pretrained=False, **setting)


def test_without_the_package_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "segmentation_models_pytorch", None)
    said = (
        "expected the package segmentation-models-pytorch for linknet, found none; say "
        "`pip install 'fundus-dr-multitask[baselines]'`"
    )
    with pytest.raises(ValueError, match=re.escape(said)):
        GradedSegmenter(pretrained=False)


def test_a_compared_segmenter_starts_from_the_same_prior_and_says_what_it_is():
    torch.manual_seed(0)
    network = GradedSegmenter("linknet", "resnet18", pretrained=False)
    with torch.no_grad():
        tasks = network.train().both_tasks(IMAGE)
    assert tasks["lesions"].softmax(dim=1)[:, 0].mean().item() == pytest.approx(0.96, abs=0.01)
    assert network.settings() == {
        "architecture": "linknet", "encoder_name": "resnet18", "lesion_classes": 4, "freeze_batch_norm": False,
    }  # fmt: skip
    again = GradedSegmenter(pretrained=False, **network.settings())
    again.load_state_dict(network.state_dict())
