"""An export says what the network says, of any number of photographs, or does not appear."""

import json
import os
import sys
from functools import cache, partial

import numpy as np
import onnxruntime
import openvino
import pytest
import torch
from bundle.deploy.export import FORMS, LIMITS, SUFFIXES, Agreement, agree, export
from bundle.deploy.runtimes import SAID, onnx_runner, openvino_runner
from bundle.metrics.grade_sets import grade_sets
from bundle.metrics.lesions import lesion_dice
from bundle.networks.explained import OUTPUTS, ExplainedNetwork
from bundle.networks.graders import Grader
from bundle.networks.multitask_unet import MultiTaskUNet
from bundle.networks.segmenters import GradedSegmenter
from bundle.networks.weights import grade_set_quantiles, network_of, save_weights
from PIL import Image
from scripts.export import export as screen

FACTS = {"image_size": 64}
THRESHOLDS = {"MA": 0.2, "HE": 0.35, "EX": 0.45, "SE": 0.5}
SETS = {"coverage": 0.9, "quantiles": [0.25, 0.4, 0.5, 0.4, 0.6], "fitted_on": "76 photographs of fold 0"}


def saved(path, facts=FACTS, lesion_classes=4):
    torch.manual_seed(0)
    network = MultiTaskUNet(False, 1 / 16, True, lesion_classes, "group", lesion_prior=None)
    torch.nn.init.normal_(network.grade_head.weight)  # from zero, every grade is alike and every map empty
    save_weights(path, network, facts)
    return path


@pytest.fixture
def checkpoint(tmp_path):
    return saved(tmp_path / "model.pt")


@pytest.fixture(scope="module")
def photograph(tmp_path_factory):
    pixels = np.random.default_rng(0).integers(60, 255, (70, 90, 3), dtype=np.uint8)
    path = tmp_path_factory.mktemp("photograph") / "eye.png"
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture(scope="module")
def exported(tmp_path_factory, photograph):
    """Export weights with thresholds, for images of another size than in training, once in each format."""
    fitted = {"lesion_thresholds": THRESHOLDS, "grade_sets": SETS}
    weights = saved(tmp_path_factory.mktemp("exported") / "fitted.pt", {**FACTS, **fitted})
    return cache(lambda form: (weights, export(weights, form, image_size=96, photograph=photograph)))


def opened(form, path):
    """Read the file as its users would, without this bundle where that is a line."""
    if form == "torchscript":
        return torch.jit.load(path).explained
    if form == "pt2":
        return lambda image: torch.export.load(path).module()(image).values()
    opening = {"onnx": onnx_runner, "openvino": partial(openvino_runner, precision="float32")}
    run = opening[form](str(path), threads=1)
    return lambda image: map(torch.from_numpy, run(image.numpy()))


@pytest.mark.parametrize("form", SUFFIXES)
def test_every_format_says_what_the_network_says_of_any_number_of_photographs(form, exported):
    weights, made = exported(form)
    assert made.path == weights.with_suffix(SUFFIXES[form])
    assert made.agreement.difference < 1e-4
    assert made.agreement.meets(LIMITS["float32"])  # random weights leave some pixels undecided
    network, run = ExplainedNetwork(network_of(weights)), opened(form, made.path)
    for count in (1, 3):
        image = torch.rand(count, 3, 96, 96, generator=torch.Generator().manual_seed(count))
        expected = network(image)
        for name, found in zip(OUTPUTS, run(image), strict=True):
            assert found.shape == expected[name].shape
            assert (found - expected[name]).abs().max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("form", ["torchscript", "onnx", "openvino"])
def test_a_light_network_is_exported_as_its_file_says(form, tmp_path, photograph):
    torch.manual_seed(0)
    light = MultiTaskUNet(encoder="tf_efficientnet_lite0")
    save_weights(tmp_path / "light.pt", light, {"image_size": 64})
    made = export(tmp_path / "light.pt", form, photograph=photograph)
    assert made.agreement.meets(LIMITS["float32"])
    network, image = light.eval(), torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = ExplainedNetwork(network)(image)
        for name, found in zip(OUTPUTS, opened(form, made.path)(image), strict=True):
            assert (found - expected[name]).abs().max() < 1e-4


def test_outputs_have_their_names_and_torchscript_gives_the_lesions_first(exported):
    made = {form: str(exported(form)[1].path) for form in ("torchscript", "onnx", "openvino")}
    image = torch.rand(2, 3, 64, 128)  # not square, and not the size that it was traced with
    network = network_of(exported("torchscript")[0])
    lesions = torch.jit.load(made["torchscript"])(image)
    assert torch.allclose(lesions, network(image), atol=1e-5)
    session = onnxruntime.InferenceSession(made["onnx"], providers=["CPUExecutionProvider"])
    assert [one.name for one in (*session.get_inputs(), *session.get_outputs())] == ["image", *OUTPUTS]
    model = openvino.Core().read_model(made["openvino"])
    assert [one.get_any_name() for one in (*model.inputs, *model.outputs)] == ["image", *OUTPUTS]


def said_in(form, path):
    """Read what a file carries by the runtime's own means."""
    files = {SAID: ""}
    if form == "torchscript":
        torch.jit.load(path, _extra_files=files)
        return files[SAID]
    if form == "pt2":
        torch.export.load(path, extra_files=files)
        return files[SAID]
    if form == "onnx":
        return onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map[SAID]
    return openvino.Core().read_model(path).get_rt_info(SAID).value


@pytest.mark.parametrize("form", SUFFIXES)
def test_every_format_carries_its_image_size_and_what_decides(form, exported):
    _, made = exported(form)
    decides = {"lesion_thresholds": THRESHOLDS, "grade_set_quantiles": SETS["quantiles"]}
    assert json.loads(said_in(form, made.path)) == {"image_size": 96, **decides}


@pytest.mark.parametrize("form", SUFFIXES)
def test_every_format_gives_the_sets_of_the_network(form, exported):
    weights, made = exported(form)
    quantiles = json.loads(said_in(form, made.path))["grade_set_quantiles"]
    image = torch.rand(3, 3, 96, 96, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        expected = network_of(weights).both_tasks(image)["grade"].softmax(dim=1)
        _, grade, _, _ = opened(form, made.path)(image)
    sets = grade_sets(expected, grade_set_quantiles(weights))
    assert (grade_sets(grade.softmax(dim=1), quantiles) == sets).all()
    assert 0 < sets.mean() < 1


def test_weights_without_thresholds_and_sets_say_that_there_are_none(checkpoint):
    said = said_in("torchscript", export(checkpoint, "torchscript").path)
    assert json.loads(said) == {"image_size": 64, "lesion_thresholds": None, "grade_set_quantiles": None}


def test_fused_weights_are_exported_with_their_two_classes(tmp_path):
    made = export(saved(tmp_path / "fused.pt", {**FACTS, "fuse": True}, lesion_classes=1), "torchscript")
    assert torch.jit.load(made.path)(torch.rand(1, 3, 64, 96)).shape == (1, 2, 64, 96)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["torchscript", "onnx"])
def test_a_segmenter_is_exported_as_its_file_says(form, tmp_path, photograph):
    torch.manual_seed(0)
    save_weights(tmp_path / "linknet.pt", GradedSegmenter("linknet", "resnet18", pretrained=False), FACTS)
    assert export(tmp_path / "linknet.pt", form, photograph=photograph).agreement.meets(LIMITS["float32"])


def test_a_file_that_does_not_say_its_settings_or_its_size_is_refused(tmp_path):
    path = saved(tmp_path / "sizeless.pt", {})
    with pytest.raises(ValueError, match=r"expected an image_size in pixels in .*sizeless\.pt, got None"):
        export(path, "torchscript")
    content = torch.load(saved(tmp_path / "old.pt"), weights_only=True)
    torch.save({**content, "facts": {"image_size": 64, "width": 1 / 16}}, tmp_path / "old.pt")
    with pytest.raises(ValueError, match=r"expected batch_norm among the facts of .*old.pt, found none: .* again"):
        export(tmp_path / "old.pt", "torchscript")


@pytest.mark.parametrize("form", ["torchscript", "openvino"])  # one file, two files
def test_a_file_that_says_something_else_does_not_appear(form, checkpoint, monkeypatch):
    broken = {"lesions": torch.zeros(1, 5, 64, 64), "grade": torch.zeros(1, 5)}
    monkeypatch.setitem(FORMS, form, FORMS[form]._replace(run=lambda path, precision: lambda image: broken))
    with pytest.raises(ValueError, match=rf"expected {form} to say what the network says, got: largest difference"):
        export(checkpoint, form)
    assert [path.name for path in checkpoint.parent.iterdir()] == ["model.pt"]


def test_agreement_is_in_logits_in_pixels_and_in_the_grade():
    expected = {"lesions": torch.tensor([[0.0, 1.0], [1.0, 0.0]]).view(1, 2, 1, 2), "grade": torch.eye(5)[:1]}
    assert agree([(expected, expected)] * 2) == Agreement(0.0, 1.0, 2, 2)
    swapped = {"lesions": expected["lesions"].flip(1), "grade": torch.eye(5)[1:2]}
    assert agree([(swapped, expected)]) == Agreement(1.0, 0.0, 0, 1)
    assert lesion_dice(torch.zeros(4), torch.zeros(4)) == 1.0
    faint = {**expected, "lesions": torch.tensor([[0.7, 0.9], [0.3, 0.1]]).log().view(1, 2, 1, 2)}
    other = {**expected, "lesions": torch.tensor([[0.7, 0.7], [0.3, 0.3]]).log().view(1, 2, 1, 2)}
    assert agree([(other, faint)]).dice == 1.0  # both all background
    assert agree([(other, faint)], [0.2]).dice == pytest.approx(2 / 3)  # two pixels against one
    assert agree([(other, faint), (faint, faint)], [0.2]).dice == pytest.approx(2 * 2 / (3 + 2))  # pooled
    for worse in ((2e-3, 1.0, 1), (0.0, 0.998, 1), (0.0, 1.0, 0), (float("nan"), 1.0, 1)):
        assert not Agreement(*worse, 1).meets(LIMITS["float32"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"form": "tensorrt"}, "expected format in .'torchscript', 'pt2', 'onnx', 'openvino'., got 'tensorrt'"),
        ({"form": "onnx", "out": "model.pt"}, "expected --out to end in .onnx for onnx, got model.pt"),
        ({"form": "pt2", "image_size": 50}, "expected an image_size that is a multiple of 32, got 50"),
        ({"form": "pt2", "photograph": "none.jpg"}, "none.jpg"),
    ],
)
def test_wrong_options_are_refused(checkpoint, options, message):
    with pytest.raises(ValueError, match=message):
        export(checkpoint, **options)
    assert [path.name for path in checkpoint.parent.iterdir()] == ["model.pt"]


def test_other_weights_are_refused(tmp_path):
    save_weights(tmp_path / "grader.pt", Grader(pretrained=False), {"architecture": "resnext50_32x4d"})
    with pytest.raises(
        ValueError, match=r"expected weights of a network among .* in .*grader.pt, got weights of \'Grader\'"
    ):
        export(tmp_path / "grader.pt", "onnx")


class Malice:
    def __reduce__(self):
        return os.mkdir, ("executed",)


def test_a_malicious_pickle_is_refused_and_not_executed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": Malice(), "network": "MultiTaskUNet", "facts": FACTS}, tmp_path / "model.pt")
    with pytest.raises(ValueError, match="expected weights"):
        export(tmp_path / "model.pt", "torchscript")
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


def test_a_missing_package_is_named_and_nothing_is_left(checkpoint, monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino.frontend", None)
    with pytest.raises(ValueError, match=r"expected the package openvino, found none; .*\[deploy\]"):
        export(checkpoint, "openvino")
    assert [path.name for path in checkpoint.parent.iterdir()] == ["model.pt"]


def test_the_screen_prints_the_numbers_and_refuses_in_one_line(checkpoint, tmp_path, capsys, monkeypatch):
    screen(str(checkpoint), "torchscript", out=str(tmp_path / "out" / "net.ts"))
    assert "net.ts\nbeside the network in PyTorch, float32: largest difference of logits" in capsys.readouterr().out
    assert (tmp_path / "out" / "net.ts").is_file()
