"""Each backend gives what the network in memory gives."""

import subprocess
import sys
from copy import deepcopy
from functools import cache

import onnxruntime
import openvino
import pytest
import torch
from bundle.deploy.runtimes import BACKENDS, WAYS, Way, check_way, fastest_way, load
from bundle.networks.ensembles import Ensemble
from bundle.networks.explained import OUTPUTS, ExplainedNetwork
from bundle.networks.multitask_unet import MultiTaskUNet
from bundle.steps import has_bfloat16
from torch import nn

EXACT, ROUNDED = 1e-4, 0.1
"""How far apart logits and maps may lie in float32, and in bfloat16: logits here reach about 3."""

CPU, GPU = torch.device("cpu"), torch.device("cuda")
IN_BFLOAT16 = torch.autocast("cpu", dtype=torch.bfloat16)


def made(seed=0):
    torch.manual_seed(seed)
    network = MultiTaskUNet(pretrained=False, width=1 / 16, batch_norm=True, lesion_prior=None)
    nn.init.normal_(network.grade_head.weight, mean=0.1)
    return network


def images(count, height=64, width=96):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(count))


def eager(network, image):
    with torch.no_grad():
        return ExplainedNetwork(deepcopy(network)).eval()(image)  # the network stays in its mode


def apart(found, expected):
    assert tuple(found) == OUTPUTS
    assert all(value.dtype == torch.float32 for value in found.values())
    assert all(found[name].shape == expected[name].shape for name in OUTPUTS)
    return max(float((found[name] - expected[name]).abs().max()) for name in OUTPUTS)


@pytest.fixture(scope="module")
def built():
    """Build a backend for a network in training mode, once; return both."""

    @cache
    def build(backend, precision):
        network = made()
        run = load(backend, network, CPU, precision)
        run(images(1))
        return network, run

    return build


@pytest.fixture(scope="module")
def built_elsewhere():
    """Build a backend for a network in evaluation mode, under autocast and inference mode, once; return both."""

    @cache
    def build(backend):
        network = made().eval()
        run = load(backend, network)
        with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
            run(images(1))
        return network, run

    return build


@pytest.mark.parametrize("way", [way for way in WAYS if way.precision != "int8"], ids=str)
def test_every_backend_says_what_the_network_says_of_any_number_of_photographs_of_any_size(built, way):
    if way.precision == "bfloat16" and not has_bfloat16(CPU):
        pytest.skip("this processor has no bfloat16")
    network, run = built(*way)
    for image in (images(1), images(3), images(2, 96, 64)):
        assert apart(run(image), eager(network, image)) < (EXACT if way.precision == "float32" else ROUNDED)


@pytest.mark.parametrize(
    ("backend", "precision"),
    [("torch", "float32"), ("torch", "bfloat16"), ("openvino", "float32"), ("openvino", "bfloat16"),
     ("onnxruntime", "float32")],
)  # fmt: skip
def test_every_backend_runs_networks_of_different_sizes_as_one(backend, precision):
    network = Ensemble([made(0).eval(), made(1).eval()], image_sizes=[64, 128])
    run = load(backend, network, CPU, precision)
    image = images(1, 128, 192)  # openvino builds it on a corner of 64 px
    found, expected = run(image), eager(network, image)
    if precision == "bfloat16":  # logits are logarithms here; their probabilities are compared
        found, expected = (
            {**one, **{task: one[task].softmax(dim=1) for task in ("lesions", "grade")}} for one in (found, expected)
        )
    assert apart(found, expected) < (ROUNDED if precision == "bfloat16" else EXACT)


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_weights_are_those_at_the_first_photograph(backend):
    network, trained = made(0), made(1)
    run = load(backend, network)
    network.load_state_dict(trained.state_dict())
    assert apart(run(images(2)), eager(trained, images(2))) < EXACT
    assert apart(run(images(2)), eager(made(0), images(2))) > 0.1


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("training", [True, False])
def test_the_photographs_and_the_mode_of_the_network_stay_as_they_were(built, built_elsewhere, backend, training):
    network, run = built(backend, "float32") if training else built_elsewhere(backend)
    image = images(2)
    run(image)
    assert torch.equal(image, images(2))
    assert {module.training for module in network.modules()} == {training}
    assert all(torch.equal(a, b) for a, b in zip(network.buffers(), made().buffers(), strict=True))


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_what_is_built_under_autocast_and_inference_mode_is_the_same(built_elsewhere, backend):
    network, run = built_elsewhere(backend)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = run(images(2))
    assert apart(found, eager(network, images(2))) < EXACT


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_answer_is_not_overwritten_by_the_next(built, backend):
    _, run = built(backend, "float32")
    first = run(images(1))
    kept = {name: value.clone() for name, value in first.items()}
    run(images(1) * 0.5)
    assert all(torch.equal(first[name], kept[name]) for name in OUTPUTS)


def test_openvino_is_built_on_a_corner_and_answers_for_the_whole():
    network, seen = made(), set()
    network.encoder.register_forward_pre_hook(lambda _, given: seen.add(tuple(map(int, given[0].shape[-2:]))))
    image = images(1, 128, 192)
    found = load("openvino", network)(image)
    assert seen == {(64, 64)}
    assert apart(found, eager(network, image)) < EXACT


def test_a_signal_still_arrives_after_two_networks_of_openvino_came_and_went():
    """Each core of OpenVINO left its own stack for signals, the last one that of a core which was gone."""
    code = """
import faulthandler, os, signal
import torch
from bundle.deploy.runtimes import load
from bundle.networks.multitask_unet import MultiTaskUNet
faulthandler.enable()  # handlers run on a stack of their own
came = []
signal.signal(signal.SIGUSR1, lambda *_: came.append(True))
for size in (64, 96):
    backend = load("openvino", MultiTaskUNet(pretrained=False, width=1 / 16), threads=1)
    for height in (size, size + 32):
        backend(torch.rand(1, 3, height, 64))
del backend
os.kill(os.getpid(), signal.SIGUSR1)
print("came", came)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "came [True]\n"), done.stderr


@pytest.mark.parametrize(
    ("backend", "kind", "name"),
    [("openvino", openvino.CompiledModel, "__call__"), ("onnxruntime", onnxruntime.InferenceSession, "run")],
)
def test_an_answer_costs_one_run_of_the_network(built, monkeypatch, backend, kind, name):
    _, run = built(backend, "float32")
    running, count = getattr(kind, name), []

    def counted(*args, **named):
        count.append(1)
        return running(*args, **named)

    monkeypatch.setattr(kind, name, counted)
    run(images(1))
    run(images(1))
    assert len(count) == 2


@pytest.mark.parametrize(
    ("backend", "device", "precision", "message"),
    [
        (
            "tensorrt",
            CPU,
            "float32",
            "expected backend in .'auto', 'torch', 'openvino', 'onnxruntime'., got 'tensorrt'",
        ),
        ("torch", CPU, "float16", "expected precision in .'float32', 'bfloat16', 'int8'., got 'float16'"),
        ("openvino", GPU, "bfloat16", "expected device cpu for backend openvino, got cuda; take backend torch there"),
        ("onnxruntime", GPU, "float32", "expected device cpu for backend onnxruntime, got cuda"),
        ("onnxruntime", CPU, "bfloat16", "expected backend openvino or torch for precision bfloat16, got onnxruntime"),
        ("torch", CPU, "int8", "expected backend openvino or onnxruntime for precision int8, got torch"),
        ("openvino", CPU, "int8", "expected one weights file for precision int8, beside which its"),
    ],
)
def test_what_cannot_run_is_refused(backend, device, precision, message):
    with pytest.raises(ValueError, match=message):
        load(backend, made(), device, precision)


@pytest.mark.parametrize(
    ("backend", "package"), [("openvino", "openvino"), ("onnxruntime", "onnxruntime"), ("onnxruntime", "onnxscript")]
)
def test_a_missing_package_is_named_with_its_extra(monkeypatch, backend, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=rf"expected the package {package}, found none; say `pip install .*\[deploy\]"):
        check_way(Way(backend, "float32"), CPU)


def without(monkeypatch, *packages):
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)


def test_the_fastest_way_is_the_first_that_can_run(monkeypatch):
    monkeypatch.setattr("bundle.deploy.runtimes.has_bfloat16", lambda device: True)
    assert fastest_way() == ("torch", "bfloat16")
    assert fastest_way("openvino") == fastest_way(precision="bfloat16") == ("openvino", "bfloat16")
    monkeypatch.setattr("bundle.deploy.runtimes.has_bfloat16", lambda device: False)
    assert fastest_way() == fastest_way("openvino") == ("openvino", "float32")
    without(monkeypatch, "openvino")
    assert fastest_way() == ("onnxruntime", "float32")
    without(monkeypatch, "onnxruntime")
    assert fastest_way() == ("torch", "float32")


def test_a_graphics_card_runs_pytorch(monkeypatch):
    monkeypatch.setattr("bundle.deploy.runtimes.has_bfloat16", lambda device: True)
    assert fastest_way(device=GPU) == ("torch", "bfloat16")


@pytest.mark.parametrize(
    ("backend", "precision", "expected"),
    [
        ("onnxruntime", None, ("onnxruntime", "float32")),
        ("auto", "float32", ("openvino", "float32")),
        ("torch", "float32", ("torch", "float32")),
    ],
)
def test_what_is_named_is_taken(backend, precision, expected):
    assert fastest_way(backend, precision) == expected


@pytest.mark.parametrize(
    ("backend", "precision", "message"),
    [
        ("tpu", None, "expected backend in .* got 'tpu'"),
        ("auto", "float16", "expected precision in .* got 'float16'"),
        ("onnxruntime", "bfloat16", "expected backend openvino or torch for precision bfloat16, got onnxruntime"),
        (
            "auto",
            "int8",
            r"expected .*model\.int8\.xml for precision int8, found no such file; make it by `fundus export",
        ),
    ],
)
def test_what_is_named_and_cannot_run_is_refused(tmp_path, backend, precision, message):
    with pytest.raises(ValueError, match=message):
        fastest_way(backend, precision, CPU, tmp_path / "model.pt")
