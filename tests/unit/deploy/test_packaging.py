"""A package holds sources and nothing else, its config fits its weights, and the same parts give the same bytes."""

import hashlib
import json
import re
import zipfile
from pathlib import Path

import pytest
import torch
import yaml
from bundle import ROOT
from bundle.deploy import packaging
from bundle.deploy.packaging import fitted_config, measured, source_files, write_package
from bundle.files import file_sha256, write_json_whole
from bundle.networks.multitask_unet import MultiTaskUNet
from bundle.networks.segmenters import GradedSegmenter
from bundle.networks.weights import load_weights, network_of, save_weights

FACTS = {"image_size": 64, "fuse": False, "data": {"phantom": {"outlined": 40, "graded": 0}}}
CONFIG = """# Of eyes.
imports:
- $import bundle

# ---- options
width: 1.0  # of every channel
seed: null
network: {channels: '@width'}

initialize:
- $check()
- $load(@network)  # again
run:
- $go()
finalize:
- $stop()
"""


@pytest.fixture
def checkpoint(tmp_path):
    """Random weights, with a path of this machine among their facts."""
    torch.manual_seed(0)
    facts = {**FACTS, "pretrained": str(tmp_path / "vgg16.pth")}
    save_weights(tmp_path / "model.pt", MultiTaskUNet(pretrained=False, width=1 / 16), facts)
    return tmp_path / "model.pt"


@pytest.fixture
def _no_torchscript(monkeypatch):
    """Without the process that exports TorchScript; tests/integration/test_package.py has it."""
    monkeypatch.setattr(packaging, "_export_torchscript", lambda tree: zipfile.ZipFile(tree / "models/model.ts", "w"))


@pytest.fixture
def sources(tmp_path):
    """The smallest tree that could be packaged."""
    for name in ("LICENSE", "bundle/a.py", "configs/metadata.json", "docs/a.md", "scripts/a.py"):
        path = tmp_path / "sources" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return tmp_path / "sources"


def content(path):
    with zipfile.ZipFile(path) as archive:
        return {name.removeprefix("fundus_dr_multitask/"): archive.read(name) for name in archive.namelist()}


def test_a_fitted_config_keeps_its_options_in_their_order_and_their_comments():
    fitted = fitted_config(CONFIG)
    config = yaml.safe_load(fitted)
    assert list(config) == ["imports", "width", "seed", "network", "run", "finalize"]
    assert (config["width"], config["seed"], config["network"]) == (1.0, None, {"channels": "@width"})
    assert set(CONFIG.splitlines()) - set(fitted.splitlines()) == {"initialize:"}


def test_what_was_initialised_runs_first_behind_the_check_of_the_package():
    config = yaml.safe_load(fitted_config(CONFIG))
    assert config["run"] == ["$packaging.check_home()", "$check()", "$load(@network)", "$go()"]
    assert config["imports"] == ["$import bundle.deploy.packaging as packaging", "$import bundle"]
    assert config["finalize"] == ["$stop()"]


@pytest.mark.parametrize(
    ("other", "found"),
    [
        (fitted_config(CONFIG), "imports, width, seed, network, run, finalize"),
        (CONFIG.replace("run:", "later: 1\nrun:"), "imports, width, seed, network, initialize, later, run, finalize"),
        ("run:\n- $go()\n", "run"),
        ("", "nothing"),
    ],
)
def test_another_config_is_refused(other, found):
    with pytest.raises(
        ValueError, match=f"expected a config with imports, and run right after .*, got one with {found}$"
    ):
        fitted_config(other)


def test_the_real_config_can_be_fitted():
    source = (ROOT / "configs" / "inference.yaml").read_text(encoding="utf-8")
    fitted = fitted_config(source)
    assert yaml.safe_load(fitted)["run"][:2] == ["$packaging.check_home()", "$workflow.check_options()"]
    assert set(source.splitlines()) - set(fitted.splitlines()) == {"initialize:"}


def test_sources_are_what_is_listed_by_name(sources):
    (sources / "bundle" / "__pycache__").mkdir()
    (sources / "bundle" / "__pycache__" / "a.pyc").write_bytes(b"")
    (sources / "outputs").mkdir()
    (sources / "outputs" / "model.pt").write_bytes(b"")
    names = ["LICENSE", "bundle/a.py", "configs/metadata.json", "docs/a.md", "scripts/a.py"]
    assert dict(source_files(sources)) == {name: name.encode() for name in names}


@pytest.mark.parametrize("name", ["bundle/eye.jpg", "configs/idrid.json", "docs/IDRiD_01.tif", "scripts/model.pt"])
def test_what_may_be_data_is_refused(sources, name):
    (sources / name).write_bytes(b"1")
    with pytest.raises(ValueError, match=rf"expected only .* in {name.split('/')[0]}/, got {name}; move it away"):
        dict(source_files(sources))


def test_a_link_is_refused(sources, tmp_path):
    (tmp_path / "elsewhere.py").write_text("")
    (sources / "bundle" / "b.py").symlink_to(tmp_path / "elsewhere.py")
    with pytest.raises(ValueError, match=r"got bundle/b\.py"):
        dict(source_files(sources))


def test_an_installed_package_without_sources_is_refused(tmp_path):
    (tmp_path / "bundle").mkdir()
    with pytest.raises(ValueError, match="found no configs, docs, scripts, LICENSE; run it from there"):
        dict(source_files(tmp_path))


def test_the_real_sources_are_sources():
    names = {name for name, _ in source_files(ROOT)}
    assert {"LICENSE", "bundle/__init__.py", "configs/train.yaml", "docs/data_license.txt", "scripts/cli.py"} <= names
    assert not {name for name in names if name.startswith(("models/", "tests/"))}


@pytest.mark.usefixtures("_no_torchscript")
def test_a_package_holds_bare_weights_that_say_what_they_are(checkpoint, tmp_path):
    made = write_package(checkpoint, tmp_path / "dist")
    version = json.loads((ROOT / "configs" / "metadata.json").read_text())["version"]
    assert made.path.name == f"fundus_dr_multitask_v{version}.zip"
    files = content(made.path)
    (tmp_path / "models").mkdir()
    for name in ("model.pt", "model.json"):
        (tmp_path / "models" / name).write_bytes(files[f"models/{name}"])
    state = torch.load(tmp_path / "models" / "model.pt", weights_only=True)
    network = MultiTaskUNet(pretrained=False, width=1 / 16)
    network.load_state_dict(state)
    facts = load_weights(network, tmp_path / "models" / "model.pt", {"image_size": 64})
    assert facts == {**network.settings(), **FACTS, "pretrained": "vgg16.pth"}
    assert network_of(tmp_path / "models" / "model.pt").settings() == network.settings()
    assert str(tmp_path).encode() not in b"".join(files.values())


@pytest.mark.usefixtures("_no_torchscript")
def test_the_same_parts_give_the_same_bytes(checkpoint, tmp_path):
    first, second = (write_package(checkpoint, tmp_path / name) for name in ("a", "b"))
    assert file_sha256(first.path) == file_sha256(second.path)
    with zipfile.ZipFile(first.path) as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert archive.namelist() == sorted(archive.namelist())


@pytest.mark.usefixtures("_no_torchscript")
def test_both_inference_configs_are_one_and_ask_the_weights_for_their_network(checkpoint, tmp_path):
    files = content(write_package(checkpoint, tmp_path / "dist").path)
    config = yaml.safe_load(files["configs/inference.yaml"])
    assert config == json.loads(files["configs/inference.json"])
    assert config["network_def"] == "$ensembles.network_of(@checkpoint)"
    assert json.loads(files["models/model.json"])["facts"]["width"] == 0.0625


@pytest.mark.usefixtures("_no_torchscript")
@pytest.mark.parametrize("url", ["https://example.org/v1", "https://example.org/v1/"])
def test_large_files_are_listed_with_their_address_and_hash(checkpoint, tmp_path, monkeypatch, url):
    monkeypatch.setattr(packaging, "ZOO_LIMIT_BYTES", 395_000)
    made = write_package(checkpoint, tmp_path / "dist", url)
    files = content(made.path)
    assert made.large == ["models/model.pt"]
    (listed,) = yaml.safe_load(files["large_files.yml"])["large_files"]
    assert (listed["path"], listed["url"]) == ("models/model.pt", "https://example.org/v1/model.pt")
    assert (listed["hash_type"], listed["hash_val"]) == ("sha256", hashlib.sha256(files["models/model.pt"]).hexdigest())


@pytest.mark.usefixtures("_no_torchscript")
def test_scores_enter_the_metadata_if_they_are_of_these_weights(checkpoint, tmp_path):
    sha256 = file_sha256(checkpoint)
    found = {"scores": {"lesions/dice_mean": 0.25}, "subset": {"lesions": "test"}, "counts": {"lesions": 27}}
    found |= {"trained_on": "phantom (synthetic drawings), 40 outlined photographs", "scored_on": "idrid"}
    write_json_whole(checkpoint.with_name("metrics.json"), {**found, "weights": {"sha256": sha256}})
    files = content(write_package(checkpoint, tmp_path / "dist").path)
    metrics = json.loads(files["configs/metadata.json"])["eval_metrics"]
    assert metrics == {"lesions/dice_mean": 0.25, **{name: found[name] for name in found if name != "scores"}}
    assert measured(checkpoint, "f" * 64) == {}
    write_json_whole(checkpoint.with_name("metrics.json"), {**found, "weights": [{"sha256": sha256}] * 2})  # of several
    assert measured(checkpoint, sha256) == {}


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"width": 0.125}, "its facts belong to other weights"),
        ({"fuse": True}, "expected weights that tell the four lesions apart"),
        ({"image_size": None}, "expected an image_size in pixels in .*, got None"),
    ],
)
def test_weights_that_the_packaged_config_could_not_load_are_refused(tmp_path, facts, message):
    said = {name: fact for name, fact in {**FACTS, **facts}.items() if fact is not None}
    save_weights(tmp_path / "model.pt", MultiTaskUNet(pretrained=False, width=1 / 16), said)
    with pytest.raises(ValueError, match=message):
        write_package(tmp_path / "model.pt", tmp_path / "dist")
    assert not (tmp_path / "dist").exists()


def test_weights_of_a_compared_segmenter_are_refused(tmp_path):
    network = GradedSegmenter("linknet", "resnet18", pretrained=False)
    save_weights(tmp_path / "model.pt", network, FACTS)
    with pytest.raises(ValueError, match=r"expected weights of MultiTaskUNet in .*, got weights of GradedSegmenter"):
        write_package(tmp_path / "model.pt", tmp_path / "dist")


@pytest.mark.usefixtures("_no_torchscript")
def test_the_metadata_say_that_the_network_learned_from_drawings(checkpoint, tmp_path):
    metadata = json.loads(content(write_package(checkpoint, tmp_path / "dist").path)["configs/metadata.json"])
    assert metadata["trained_on"] == "phantom (synthetic drawings), 40 outlined photographs"
    assert metadata["eval_metrics"] == {}


def test_no_weights_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"expected weights at .*, found no such file"):
        write_package(tmp_path / "model.pt", tmp_path / "dist")


def requirements():
    """Map what the project needs, in lower case, to the version that was tested."""
    text = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    needed = re.findall(r'^    "([\w-]+)>=', text[: text.index("[project.optional-dependencies]")], flags=re.MULTILINE)
    assert len(needed) > 10
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = {name.lower(): version for name, _, version in (line.partition("==") for line in lines) if version}
    return {name.lower(): pins[name.lower()] for name in needed}


def test_the_metadata_name_what_the_project_needs_in_the_tested_versions():
    metadata = json.loads((ROOT / "configs" / "metadata.json").read_text(encoding="utf-8"))
    found = {name.lower(): version for name, version in metadata["required_packages_version"].items()}
    found |= {"monai": metadata["monai_version"], "torch": metadata["pytorch_version"]}
    assert found == requirements()
    pins = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert f"\nnumpy=={metadata['numpy_version']}\n" in pins


def test_the_version_is_one_everywhere_and_has_an_entry_in_the_changelog():
    metadata = json.loads((ROOT / "configs" / "metadata.json").read_text(encoding="utf-8"))
    assert f'\nversion = "{metadata["version"]}"\n' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert metadata["version"] in metadata["changelog"]
    assert f"\n## [{metadata['version']}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def links(page):
    text = page.read_text(encoding="utf-8")
    return [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]


def test_every_link_of_the_docs_leads_to_a_file_of_the_package():
    names = {name for name, _ in source_files(ROOT)}
    pages = [ROOT / name for name in names if name.startswith("docs/") and name.endswith(".md")]
    targets = {(page, (page.parent / link).resolve()) for page in pages for link in links(page)}
    inside = {(ROOT / name).resolve() for name in names} | {(ROOT / Path(name).parent).resolve() for name in names}
    assert len(targets) > 10
    assert {(page.name, target.name) for page, target in targets if target not in inside} == set()
