"""From the zip alone, in a fresh folder: what MONAI, the Model Zoo, the Hub, MONAI Label and Deploy do with it."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from bundle import ROOT
from bundle.networks.multitask_unet import MultiTaskUNet
from bundle.networks.weights import save_weights
from bundle.phantom.drawing import draw_photograph
from monai.bundle import ConfigParser
from PIL import Image

NAME = "fundus_dr_multitask"
FACTS = {
    "image_size": 64, "fuse": False, "data": {"phantom": {"outlined": 40, "graded": 0}},
    "lesion_thresholds": {"MA": 0.15, "HE": 0.2, "EX": 0.25, "SE": 0.3},
}  # fmt: skip
NOT_INSTALLED = """
import sys
sys.meta_path[:] = [finder for finder in sys.meta_path if "editable" not in getattr(finder, "__module__", "")]
"""
TENSOR = {
    "type": "object",
    "required": ["type", "format", "num_channels", "spatial_shape", "dtype", "value_range"],
    "properties": {"spatial_shape": {"items": {"type": ["string", "integer"]}}, "num_channels": {"type": "integer"}},
}
NETWORK = {
    "required": ["inputs", "outputs"],
    "properties": {part: {"additionalProperties": TENSOR} for part in ("inputs", "outputs")},
}
RULES = {
    "required": [
        "schema", "version", "monai_version", "pytorch_version", "numpy_version", "required_packages_version", "task",
        "description", "authors", "copyright", "network_data_format", "changelog",
    ],
    "properties": {"references": {"items": {"type": "string"}}, "eval_metrics": {"type": "object"}},
    "patternProperties": {"^[_a-zA-Z0-9]+_data_format$": NETWORK},
}  # fmt: skip
"""The rules of meta_schema_20240725.json that matter here; MONAI_METADATA_SCHEMA names a copy of the file itself."""

TOOLS = """
import json, sys, warnings
import torch
from monai.bundle.scripts import create_workflow, load, onnx_export, ckpt_export, verify_metadata, verify_net_in_out

root, photograph, output = sys.argv[1:]
where = {"config_file": root + "/configs/inference.yaml", "meta_file": root + "/configs/metadata.json"}
torch.manual_seed(1)
image = torch.rand(1, 3, 64, 96)
found = {}
with torch.no_grad():
    network = load("fundus_dr_multitask", bundle_dir=root + "/..", device="cpu", workflow_type="inference").eval()
    found["loaded"] = network(image).sum().item()
    script, metadata, extra = load(
        "fundus_dr_multitask", bundle_dir=root + "/..", device="cpu", load_ts_module=True,
        config_files=("inference.json",),
    )
    found["script"] = script.eval()(image).sum().item()
    found["script_version"] = metadata["version"]
    found["script_network"] = json.loads(extra["inference.json"])["network_def"]
    found["script_trained_on"] = metadata["trained_on"]
workflow = create_workflow(
    config_file=where["config_file"], workflow_type="infer", input=photograph, output_dir=output, track=False,
    num_workers=0,
)
found["missing_properties"] = workflow.check_properties()
workflow.run()
workflow.finalize()
verify_metadata(meta_file=where["meta_file"], filepath=root + "/eval/schema.json")
verify_net_in_out(net_id="network_def", n=2, device="cpu", **where)
ckpt_export(config_file=where["config_file"], bundle_root=root, filepath=root + "/eval/again.ts")
found["exported"] = torch.jit.load(root + "/eval/again.ts").eval()(image).sum().item()
onnx_export(
    net_id="network_def", filepath=root + "/eval/model.onnx", ckpt_file=root + "/models/model.pt",
    input_shape=[1, 3, 64, 96], **where,
)
import onnxruntime
session = onnxruntime.InferenceSession(root + "/eval/model.onnx")
(pred,) = session.run(None, {session.get_inputs()[0].name: image.numpy()})
found["onnx"], found["onnx_shape"] = float(pred.sum()), list(pred.shape)
import bundle
found["package"] = str(bundle.ROOT)
print("FOUND" + json.dumps(found))
"""
UTILS = """
def check_workflow(workflow, check_properties=False):
    workflow.initialize()
    if check_properties and (missing := workflow.check_properties()):
        raise ValueError(missing)
    workflow.run()
    workflow.finalize()
"""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def python(*words, cwd, path=()):
    """Run a Python that does not know this checkout, from another folder."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path)), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, *map(str, words)], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout, done.stderr


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    network = MultiTaskUNet(pretrained=False, width=0.125, lesion_prior=None)  # as unsure of everything as can be
    torch.nn.init.normal_(network.grade_head.weight)
    return network.eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory, network):
    """A photograph, the zip of random weights, and what makes Python forget the installed package."""
    folder = tmp_path_factory.mktemp("package")
    image = draw_photograph(grade=3, rng=np.random.default_rng(0), width_px=288, height_px=192).image
    Image.fromarray(image).save(folder / "eye.png")
    save_weights(folder / "model.pt", network, FACTS)
    for name in ("elsewhere", "forget"):
        (folder / name).mkdir()
    (folder / "forget" / "sitecustomize.py").write_text(NOT_INSTALLED)
    words = ("-m", "scripts.package", "--checkpoint", folder / "model.pt", "--out", folder / "dist")
    code, out, err = python(*words, cwd=ROOT)
    assert code == 0, err[-3000:]
    assert out.startswith(f"{folder}/dist/{NAME}_v")
    assert "large_files" not in out
    return folder


@pytest.fixture(scope="module")
def unpacked(folder):
    (path,) = (folder / "dist").iterdir()
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder / "models")
    schema = os.environ.get("MONAI_METADATA_SCHEMA")
    (folder / "models" / NAME / "eval").mkdir()
    text = Path(schema).read_text(encoding="utf-8") if schema else json.dumps(RULES)
    (folder / "models" / NAME / "eval" / "schema.json").write_text(text)
    return folder / "models" / NAME


@pytest.fixture(scope="module")
def tools(folder, unpacked):
    """What MONAI's tools found, in a Python that knows the unpacked folder alone."""
    words = ("-c", TOOLS, unpacked, folder / "eye.png", folder / "from_python")
    code, out, err = python(*words, cwd=folder / "elsewhere", path=(unpacked, folder / "forget"))
    assert code == 0, err[-3000:]
    return json.loads(out.rpartition("FOUND")[2])


def test_the_same_weights_give_the_same_zip(folder):
    words = ("-m", "scripts.package", "--checkpoint", folder / "model.pt", "--out", folder / "again")
    assert python(*words, cwd=ROOT)[0] == 0
    (first,), (second,) = ((folder / name).iterdir() for name in ("dist", "again"))
    assert first.name == second.name
    assert first.read_bytes() == second.read_bytes()


def test_nothing_in_it_says_where_it_was_made(folder, unpacked):
    models = b"".join(path.read_bytes() for path in (unpacked / "models").iterdir())
    with zipfile.ZipFile(unpacked / "models" / "model.ts") as script:
        models += b"".join(script.read(name) for name in script.namelist())
    assert len(models) > 1_000_000
    assert str(ROOT).encode() not in models
    assert str(folder).encode() not in models


def test_every_tool_has_the_weights(tools, network):
    torch.manual_seed(1)
    with torch.no_grad():
        expected = network(torch.rand(1, 3, 64, 96)).sum().item()
    assert abs(expected) > 1
    for name in ("loaded", "script", "exported", "onnx"):
        assert tools[name] == pytest.approx(expected, rel=1e-3), name


def test_the_tools_use_the_packaged_code_and_find_every_property(tools, unpacked):
    assert tools["package"] == str(unpacked)
    assert tools["missing_properties"] == []


def test_torchscript_carries_metadata_and_config(tools, unpacked):
    assert tools["script_version"] == json.loads((unpacked / "configs" / "metadata.json").read_text())["version"]
    assert tools["script_network"] == "$ensembles.network_of(@checkpoint)"
    assert tools["script_trained_on"] == "phantom (synthetic drawings), 40 outlined photographs"


def test_onnx_gives_the_lesions(tools):
    assert tools["onnx_shape"] == [1, 5, 64, 96]


@pytest.mark.parametrize("forget", [True, False], ids=["not installed", "another one installed"])
def test_inference_runs_from_any_folder_without_an_option(folder, unpacked, tools, forget):
    output = folder / f"inference_{forget}"
    words = ("-m", "monai.bundle", "run", "--config_file", unpacked / "configs" / "inference.yaml")
    words += ("--input", folder / "eye.png", "--output_dir", output, "--track", "False", "--num_workers", "0")
    code, _, err = python(*words, cwd=folder / "elsewhere", path=[folder / "forget"] if forget else [])
    assert code == 0, err[-3000:]
    (mask,) = (output / "masks").iterdir()
    assert Image.open(mask).size == (288, 192)
    (from_python,) = (folder / "from_python" / "masks").iterdir()
    assert mask.read_bytes() == from_python.read_bytes()


def test_another_copy_of_the_package_is_refused_by_name(folder, unpacked):
    words = ("-m", "monai.bundle", "run", "--config_file", unpacked / "configs" / "inference.yaml")
    words += ("--input", folder / "eye.png", "--output_dir", folder / "refused", "--track", "False")
    code, _, err = python(*words, cwd=ROOT)
    assert code == 1
    said = f"error: expected the Python package `bundle` of these configs, in {unpacked}, got the one in {ROOT}; "
    assert err.splitlines()[-1].startswith(said)
    assert f"PYTHONPATH={unpacked}" in err
    assert "Traceback" not in err
    assert not (folder / "refused").exists()


def test_the_zoos_test_passes_beside_the_zoos_helper(folder, unpacked):
    """The zoo's runner imports the file by name from ci/unit_tests/, with models/ in the working directory."""
    tests = folder / "ci" / "unit_tests"
    tests.mkdir(parents=True)
    (tests / "utils.py").write_text(UTILS)
    source = ROOT / "tests" / "zoo" / f"test_{NAME}.py"
    (tests / source.name).write_text(source.read_text(encoding="utf-8"))
    words = ("-m", "unittest", f"test_{NAME}")
    code, out, err = python(*words, cwd=folder, path=[tests, folder / "forget"])
    assert code == 0, (out + err)[-3000:]
    assert "Ran 2 tests" in err


def test_the_card_of_the_hub_begins_with_tags_and_licence(unpacked, tmp_path, monkeypatch):
    """``push_to_hf_hub`` writes docs/README.md behind YAML front matter; here without the upload."""
    from monai.bundle import scripts

    sent = {}

    class Hub:
        def __init__(self, token):
            assert token is None

        def create_repo(self, **repository):
            sent["repository"] = repository

        def upload_folder(self, repo_id, folder_path):
            sent["card"] = Path(folder_path, "README.md").read_text(encoding="utf-8")
            return repo_id

    monkeypatch.setattr(scripts.huggingface_hub, "HfApi", Hub)
    (tmp_path / NAME / "docs").mkdir(parents=True)
    for name in ("LICENSE", "docs/README.md"):
        (tmp_path / NAME / name).write_bytes((unpacked / name).read_bytes())
    scripts.push_to_hf_hub(repo=f"someone/{NAME}", name=NAME, bundle_dir=str(tmp_path))
    start, front, card = sent["card"].split("---\n", 2)
    assert start == ""
    assert yaml.safe_load(front) == {"tags": ["monai", "medical"], "library_name": "monai", "license": "apache-2.0"}
    assert card == (unpacked / "docs" / "README.md").read_text(encoding="utf-8")
    assert "not a medical device" in card[:300]


def first_of(mapping):
    return next(iter(mapping.items()))


def test_what_takes_the_first_output_gets_the_lesions(unpacked):
    """MONAI Label takes the first input and output, and the labels from ``channel_def``, without the background."""
    formats = json.loads((unpacked / "configs" / "metadata.json").read_text())["network_data_format"]
    name, output = first_of(formats["outputs"])
    labels = {word.lower(): int(index) for index, word in output["channel_def"].items() if word != "background"}
    assert (first_of(formats["inputs"])[0], name) == ("image", "pred")
    assert labels == {"microaneurysm": 1, "haemorrhage": 2, "hard exudate": 3, "soft exudate": 4}


def test_monai_labels_way_makes_the_mask_that_inference_writes(folder, unpacked, tools):
    """Its bundle reader calls the transforms of both ids on a request, and between them the inferer on a batch of one.

    Inference may have computed in bfloat16, which changes a pixel here and there.
    """
    parser = ConfigParser()
    parser.read_config(unpacked / "configs" / "inference.yaml")
    parser["bundle_root"] = str(unpacked)
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(unpacked / "models" / "model.pt", weights_only=True))
    request = {"image": str(folder / "eye.png"), "image_path": str(folder / "eye.png"), "result_extension": ".png"}
    for transform in parser.get_parsed_content("preprocessing").transforms:
        request = transform(request)
    with torch.no_grad():
        request["pred"] = parser.get_parsed_content("inferer")(request["image"][None], network)[0]
    for transform in parser.get_parsed_content("postprocessing").transforms:
        request = transform(request)
    (path,) = (folder / "from_python" / "masks").iterdir()
    mask_HW, pred_WH = np.asarray(Image.open(path)), np.asarray(request["pred"])
    assert len(np.unique(mask_HW)) >= 3
    assert (mask_HW != pred_WH.T).mean() < 0.05
    assert (mask_HW[::-1, ::-1] != pred_WH.T).mean() > 0.2
    assert request["result_extension"] == ".png"


def test_deploy_gets_every_output_that_it_sends_on(unpacked, network):
    """Deploy puts the one tensor of a TorchScript bundle under the first output, then sends every output on by name.

    A second entry, such as the grade, would be a KeyError there: ``forward`` has no second output.
    """
    with zipfile.ZipFile(unpacked / "models" / "model.ts") as archive:
        formats = json.loads(archive.read("model/extra/metadata.json"))["network_data_format"]
    image = torch.rand(1, 3, 64, 96)
    predicted = torch.jit.load(unpacked / "models" / "model.ts").eval()(image)
    found = {first_of(formats["outputs"])[0]: predicted}
    sent = {name: found[name] for name in formats["outputs"]}
    assert sent["pred"].shape == (1, 5, 64, 96)
    assert torch.allclose(sent["pred"], network(image), atol=1e-5)
    assert {one["type"] for one in [*formats["inputs"].values(), *formats["outputs"].values()]} == {"image"}
