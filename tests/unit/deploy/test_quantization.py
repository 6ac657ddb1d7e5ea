"""An int8 file is made on photographs, says what it is, agrees with its network, and runs for no other."""

import json
import logging
import math
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from bundle.deploy.export import LIMITS, Limits, export_int8
from bundle.deploy.packaging import copy_int8
from bundle.deploy.quantization import calibration_of, nodes_of
from bundle.deploy.runtimes import (
    INT8,
    check_int8_file,
    fastest_way,
    int8_file,
    load,
    onnx_program,
    openvino_model,
    said_of,
)
from bundle.networks.explained import ExplainedNetwork
from bundle.networks.multitask_unet import MultiTaskUNet
from bundle.networks.weights import network_of, save_weights
from bundle.transforms import PrepareFundusd
from PIL import Image
from scripts.export import export as screen
from scripts.prepare import prepare

FORMS = {"openvino": "openvino", "onnx": "onnxruntime"}
COMPUTED = {"Convolution", "MatMul", "Conv", "Gemm"}
THRESHOLDS = {"MA": 0.2, "HE": 0.35, "EX": 0.45, "SE": 0.5}


def saved(path, seed=0):
    torch.manual_seed(seed)
    network = MultiTaskUNet(False, 1 / 16, decoder_norm="group", lesion_prior=None)
    torch.nn.init.normal_(network.grade_head.weight)
    save_weights(path, network, {"image_size": 64, "lesion_thresholds": THRESHOLDS})
    return path


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    for seed in range(8):
        pixels = np.random.default_rng(seed).integers(60, 255, (70, 90, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"eye{seed}.png")
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory, photographs):
    """Weights with an int8 file of each format beside them; random weights are unsure, so that pixels may differ."""
    pytest.importorskip("nncf", reason="int8 files are made by nncf, of the extra deploy")
    checkpoint = saved(tmp_path_factory.mktemp("made") / "model.pt")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(LIMITS, INT8, Limits(math.inf, 0.5, 0.5))
        return checkpoint, {form: export_int8(checkpoint, form, photographs) for form in FORMS}


def test_of_four_photographs_one_is_for_the_check(photographs):
    chosen = calibration_of(photographs, 64)
    assert (len(chosen.measured), len(chosen.checked), str(chosen)) == (6, 2, "photographs, 6 photographs")
    first = PrepareFundusd(64)({"image": str(photographs / "eye0.png")})["image"]
    assert torch.equal(chosen.checked[0], first)


def test_of_a_manifest_the_training_photographs_are_used_and_outlined_ones_first(tiny_idrid, tmp_path):
    prepare("idrid", str(tiny_idrid.root), str(tmp_path / "tiny.json"), folds=2)
    chosen = calibration_of(tmp_path / "tiny.json", 32)
    assert (len(chosen.measured), len(chosen.checked)) == (7, 3)  # 4 outlined and 6 graded ones, and 3 of the test
    assert str(chosen) == "idrid, 7 photographs"
    first = PrepareFundusd(32)({"image": str(tiny_idrid.image(tiny_idrid.segmentation, "train", "IDRiD_01"))})["image"]
    assert torch.equal(chosen.checked[0], first)


def test_too_few_photographs_are_refused(photographs, tmp_path):
    shutil.copy(photographs / "eye0.png", tmp_path)
    with pytest.raises(ValueError, match=r"expected 8 photographs or more in .*, got 1"):
        calibration_of(tmp_path, 64)


def test_the_heads_the_first_convolution_and_the_heat_maps_stay_in_floating_point(tmp_path):
    network = network_of(saved(tmp_path / "model.pt"))
    explained, image = ExplainedNetwork(network), torch.rand(1, 3, 64, 64)
    model = openvino_model(explained, image)
    kinds = {node.get_friendly_name(): node.get_type_name() for node in model.get_ops()}
    kept = [name for name in nodes_of(model, network) if kinds[name] in COMPUTED]
    in_onnx = onnx_program(explained, image).model_proto
    kinds = {node.name: node.op_type for node in in_onnx.graph.node}
    assert len(kept) == len([name for name in nodes_of(in_onnx, network) if kinds[name] in COMPUTED]) == 4


@pytest.mark.parametrize("form", FORMS)
def test_an_int8_file_says_what_it_is(made, form):
    checkpoint, exports = made
    agreement = exports[form].agreement
    assert exports[form].path == int8_file(checkpoint, FORMS[form])
    said = said_of(exports[form].path)
    assert said.pop("weights")
    assert said == {
        "image_size": 64, "lesion_thresholds": THRESHOLDS, "grade_set_quantiles": None, "precision": "int8",
        "calibrated_on": "photographs, 6 photographs", "agreement": json.loads(json.dumps(agreement._asdict())),
    }  # fmt: skip
    assert agreement.photographs == 2
    assert agreement.difference > 0


@pytest.mark.parametrize("form", FORMS)
def test_an_int8_file_is_found_beside_its_weights_and_says_nearly_what_they_say(made, form):
    checkpoint, _ = made
    way = fastest_way(FORMS[form], checkpoint=checkpoint)
    assert way == (FORMS[form], "int8")
    network, image = network_of(checkpoint), torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    found = load(way.backend, network, precision="int8", checkpoint=checkpoint)(image)
    with torch.no_grad():
        expected = ExplainedNetwork(network)(image)
    errors = {name: (found[name] - expected[name]).abs().mean() / expected[name].abs().mean() for name in found}
    assert 0 < errors["lesions"] < 0.5  # few channels of random weights; trained ones lose less
    assert errors["grade"] < 0.5


def test_other_weights_do_not_use_it_and_refuse_it_where_it_is_asked_for(made, tmp_path):
    checkpoint, _ = made
    shutil.copytree(checkpoint.parent, tmp_path / "other")
    other = saved(tmp_path / "other" / "model.pt", seed=1)
    assert fastest_way(checkpoint=other).precision != "int8"
    with pytest.raises(ValueError, match=r"expected .*model\.int8\.xml to be made from .*model\.pt, got one of other"):
        fastest_way("openvino", "int8", checkpoint=other)
    with pytest.raises(ValueError, match="got one of other weights"):
        copy_int8(other, tmp_path / "packed.pt")


def test_a_file_that_is_none_of_ours_is_refused(made, tmp_path):
    checkpoint = saved(tmp_path / "model.pt")
    for backend, content in (("openvino", "<net/>"), ("onnxruntime", "no protobuf")):
        int8_file(checkpoint, backend).write_text(content)
        with pytest.raises(ValueError, match=r"expected a file of `fundus export` in .*model\.int8"):
            check_int8_file(backend, checkpoint)


def test_an_onnx_file_takes_its_own_size_alone(made):
    checkpoint, _ = made
    run = load("onnxruntime", network_of(checkpoint), precision="int8", checkpoint=checkpoint)
    with pytest.raises(ValueError, match=r"expected images of 64x64 px, for which .*, got 96x64"):
        run(torch.rand(1, 3, 64, 96))
    image = torch.rand(1, 3, 64, 96)
    found = load("openvino", network_of(checkpoint), precision="int8", checkpoint=checkpoint)(image)
    assert found["lesions"].shape == (1, 5, 64, 96)


def test_a_package_takes_both_files_along(made, tmp_path):
    checkpoint, _ = made
    copy_int8(checkpoint, tmp_path / "model.pt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model.int8.bin", "model.int8.onnx", "model.int8.xml"]
    assert (tmp_path / "model.int8.bin").stat().st_size < checkpoint.stat().st_size / 2
    places = [str(checkpoint.parent).encode(), os.getcwd().encode()]
    content = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert not any(place in content for place in places)  # nothing says where they were made


def test_a_file_that_does_not_agree_does_not_appear(photographs, tmp_path, monkeypatch):
    pytest.importorskip("nncf", reason="int8 files are made by nncf, of the extra deploy")
    monkeypatch.setitem(LIMITS, INT8, Limits(0.0, 1.0, 1.0))
    checkpoint = saved(tmp_path / "model.pt")
    with pytest.raises(ValueError, match=r"expected openvino to say what the network says, got: largest difference"):
        export_int8(checkpoint, "openvino", photographs)
    assert [path.name for path in tmp_path.iterdir()] == ["model.pt"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "int8"}, "expected --calibration with --precision int8, and only then, got None"),
        ({"calibration": "x"}, "expected --calibration with --precision int8, and only then, got x"),
        ({"precision": "int4"}, "expected --precision float32 or int8, got 'int4'"),
        (
            {"precision": "int8", "calibration": "x", "photograph": "y"},
            "expected no --photograph with --precision int8",
        ),
    ],
)
def test_options_that_do_not_go_together_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        screen("model.pt", "openvino", **options)


def test_int8_is_for_openvino_and_onnx(tmp_path, photographs):
    with pytest.raises(ValueError, match=r"expected format in .'onnx', 'openvino'., got 'pt2'"):
        export_int8(saved(tmp_path / "model.pt"), "pt2", photographs)


def test_importing_nncf_leaves_the_logging_of_others_alone():
    pytest.importorskip("nncf", reason="int8 files are made by nncf, of the extra deploy")
    code = (
        "import logging; from bundle.deploy.quantization import import_nncf; handler = logging.NullHandler(); "
        "logging.getLogger('nncf').addHandler(handler); import_nncf(); "
        "print(handler.level, type(logging.getLogger('of a test')).__name__, logging.getLogger('nncf').level)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.split() == ["0", "Logger", str(logging.ERROR)]


def test_without_nncf_it_says_how_to_get_it(tmp_path, photographs, monkeypatch):
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(ValueError, match=r"expected the package nncf, found none; say `pip install .*\[deploy\]"):
        export_int8(saved(tmp_path / "model.pt"), "openvino", photographs)
