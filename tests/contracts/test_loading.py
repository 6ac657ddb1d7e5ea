"""Nothing that is loaded is executed: no pickle in a weights file, and no expression in the text of a data file."""

import ast
import json
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from bundle import ROOT
from bundle.handlers.training_state import TrainingState
from bundle.manifest import Manifest, Photograph, load_manifest, save_manifest
from bundle.networks.graders import Grader
from bundle.networks.imagenet import imagenet_weights, read_weights
from bundle.networks.multitask_unet import MultiTaskUNet
from bundle.networks.weights import (
    load_grader,
    load_graders,
    load_teacher,
    load_weights,
    provenance,
    provenances,
    refuse_fused,
    save_weights,
)  # fmt: skip
from ignite.engine import Engine
from monai.bundle.workflows import ConfigWorkflow
from PIL import Image
from torch import nn

SOURCES = sorted([*(ROOT / "bundle").rglob("*.py"), *(ROOT / "scripts").rglob("*.py")])
RESTRICTED = {"load", "load_state_dict_from_url", "get_state_dict"}
"""Functions of torch and torchvision that unpickle."""

FORBIDDEN = {
    "eval", "exec", "compile", "pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.load", "marshal.loads",
    "shelve.open", "joblib.load", "dill.load", "dill.loads", "os.system", "os.popen", "yaml.load", "yaml.unsafe_load",
    "yaml.full_load", "torch.hub.load", "pandas.read_pickle",
}  # fmt: skip


def calls(text):
    """Yield the dotted name of everything that is called, and its keywords."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), {one.arg: ast.unparse(one.value) for one in node.keywords}


def unpickles(name):
    module, _, function = name.rpartition(".")
    return function in RESTRICTED and (function != "load" or module == "torch")


def is_unsafe(name, keywords):
    return (
        name in FORBIDDEN
        or (unpickles(name) and keywords.get("weights_only") != "True")
        or keywords.get("allow_pickle", "False") != "False"
        or keywords.get("shell", "False") != "False"
    )


@pytest.mark.parametrize(
    ("text", "unsafe"),
    [
        ("torch.load(path)", True),
        ("torch.load(path, weights_only=False)", True),
        ("torch.load(path, map_location='cpu', weights_only=True)", False),
        ("weights.DEFAULT.get_state_dict(progress=True)", True),
        ("np.load(path, allow_pickle=True)", True),
        ("np.load(path)", False),
        ("yaml.load(text, yaml.SafeLoader)", True),
        ("yaml.safe_load(text)", False),
        ("subprocess.run(words, shell=True)", True),
        ("network.eval()", False),
        ("re.compile('a')", False),
    ],
)
def test_what_executes_data_is_found(text, unsafe):
    assert any(is_unsafe(*call) for call in calls(text)) is unsafe


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_nothing_loads_by_what_executes(path):
    found = [name for name, keywords in calls(path.read_text(encoding="utf-8")) if is_unsafe(name, keywords)]
    assert found == []


def test_the_loaders_of_weights_are_looked_at():
    found = [name for path in SOURCES for name, _ in calls(path.read_text(encoding="utf-8")) if unpickles(name)]
    assert {"torch.load", "load_state_dict_from_url"} <= set(found)


def test_no_config_loads_weights_by_another_way():
    """MONAI's CheckpointLoader restricts the unpickler too, but its errors name no file; ignite's do not."""
    for path in (ROOT / "configs").rglob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        assert "torch.load" not in text
        assert "CheckpointLoader" not in text
        assert "pickle" not in text


class Bomb:
    """Unpickling it leaves a file behind."""

    def __init__(self, crater):
        self.crater = crater

    def __reduce__(self):
        return Path.touch, (self.crater,)


def restored(path):
    TrainingState(str(path), {"network": nn.Linear(3, 2)}, {}, resume=True).attach(Engine(lambda engine, batch: None))


LOADERS = {
    "read_weights": read_weights,
    "imagenet_weights": lambda path: imagenet_weights("vgg16", str(path)),
    "load_weights": lambda path: load_weights(nn.Linear(3, 2), path),
    "load_teacher": lambda path: load_teacher(nn.Linear(3, 2), path),
    "load_grader": load_grader,
    "load_graders": lambda path: load_graders([path]),
    "refuse_fused": refuse_fused,
    "provenance": provenance,
    "provenances": lambda path: provenances([path]),
    "TrainingState": restored,
    "Grader": lambda path: Grader("resnext50_32x4d", str(path)),
    "MultiTaskUNet": lambda path: MultiTaskUNet(pretrained=str(path)),
}


def as_zip(content, path):
    torch.save(content, path)


def as_old(content, path):
    torch.save(content, path, _use_new_zipfile_serialization=False)


def as_pickle(content, path):
    path.write_bytes(pickle.dumps(content))


@pytest.mark.parametrize("write", [as_zip, as_old, as_pickle])
@pytest.mark.parametrize("name", LOADERS)
def test_no_loader_executes_what_a_weights_file_holds(tmp_path, name, write):
    path, crater = tmp_path / "model.pt", tmp_path / "crater"
    write({"model": {"weight": torch.zeros(2, 3)}, "network": "Linear", "facts": {"seed": Bomb(crater)}}, path)
    with pytest.raises(ValueError, match=r"expected weights \(a torch state dict\) in .*model\.pt"):
        LOADERS[name](path)
    assert not crater.exists()


def test_the_bomb_goes_off_where_nothing_holds_it_back(tmp_path):
    as_zip(Bomb(tmp_path / "crater"), tmp_path / "model.pt")
    with zipfile.ZipFile(tmp_path / "model.pt") as archive:
        pickle.loads(archive.read("model/data.pkl"))
    assert (tmp_path / "crater").exists()


CONFIG = """
imports:
- $import bundle.datasets.items as items
- $import bundle.files as files
- $import bundle.manifest as manifest
- $import bundle.networks.weights as weights
manifest: null
metrics: null
checkpoint: null
input: null
dataset_dir: $@data#manifest.dataset_dir
data:
  manifest: $manifest.load_manifest(@manifest)
  items: $items.items(@data#manifest, @data#manifest.photographs)
  files: $items.file_items(@input)
  ids: $items.ids(@data#manifest.photographs)
  name: $@data#manifest.name
settings:
  graders: $weights.provenances(@checkpoint)
  metrics: $files.load_json(@metrics)
  named: '@data#name'
dataset: {_target_: Dataset, data: '@data#items'}
seen: {_target_: builtins.dict, ids: '@data#ids', files: '@data#files', settings: '@settings', dataset: '@dataset'}
run:
- $@seen
"""


@pytest.mark.parametrize("sign", ["$", "@", "%", "$@", "_target_: "])
def test_no_name_in_a_data_file_is_evaluated(tmp_path, sign):
    """A manifest, a JSON file, the facts of a weights file and the name of a photograph all hold an expression."""
    name = f"{sign}__import__('pathlib').Path('crater').touch()"
    row = Photograph(
        id=name, image="made/a.jpg", split="train", sha256="0" * 64, perceptual_hash="f" * 64, width_px=60,
        height_px=40, group=name,
    )  # fmt: skip
    made = Manifest(name=name, roots={"made": tmp_path}, folds=2, seed=0, photographs=(row,), notes=(name,))
    save_manifest(made, tmp_path / "manifest.json")
    assert load_manifest(tmp_path / "manifest.json").photographs == made.photographs
    (tmp_path / "metrics.json").write_text(json.dumps({name: [name, {"_target_": "os.getcwd"}]}))
    save_weights(tmp_path / "model.pt", nn.Linear(3, 2), {"seed": name, name: 1})
    photograph = tmp_path / "photographs" / f"{name.replace('/', '')}.png"
    photograph.parent.mkdir()
    Image.new("RGB", (60, 40)).save(photograph)
    (tmp_path / "config.yaml").write_text(CONFIG)
    places = {"manifest": "manifest.json", "metrics": "metrics.json", "checkpoint": "model.pt", "input": "photographs"}
    workflow = ConfigWorkflow(
        str(tmp_path / "config.yaml"), meta_file=[], logging_file=False,
        **{option: str(tmp_path / place) for option, place in places.items()},
    )  # fmt: skip
    workflow.initialize()
    (seen,) = workflow.run()
    assert seen["ids"] == [name]
    assert seen["dataset"][0]["id"] == name
    assert seen["files"][0]["id"] == photograph.name
    assert seen["settings"]["graders"][0]["seed"] == name
    assert seen["settings"]["metrics"] == {name: [name, {"_target_": "os.getcwd"}]}
    assert seen["settings"]["named"] == name
    assert list(tmp_path.rglob("crater")) == list(Path.cwd().glob("crater")) == []


def test_yaml_tags_of_python_are_refused(tmp_path):
    """By the loader of MONAI, which reads the configs, and by the pipeline's."""
    (tmp_path / "config.yaml").write_text(f"output_dir: !!python/object/apply:pathlib.Path.touch [{tmp_path}/crater]\n")
    with pytest.raises(yaml.YAMLError, match="could not determine a constructor"):
        ConfigWorkflow(str(tmp_path / "config.yaml"), meta_file=[], logging_file=False)
    with pytest.raises(yaml.YAMLError, match="could not determine a constructor"):
        yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert not (tmp_path / "crater").exists()


def test_a_symbolic_link_out_of_the_root_is_not_followed(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "outside.jpg").touch()
    (tmp_path / "images" / "a.jpg").symlink_to(tmp_path / "outside.jpg")
    (tmp_path / "images" / "up").symlink_to(tmp_path)
    (tmp_path / "images" / "real.jpg").touch()
    (tmp_path / "images" / "b.jpg").symlink_to("real.jpg")
    row = Photograph(
        id="a", image="made/a.jpg", split="train", sha256="0" * 64, perceptual_hash="f" * 64, width_px=6, height_px=4,
        group="a",
    )  # fmt: skip
    made = Manifest(name="made", roots={"made": tmp_path / "images"}, folds=2, seed=0, photographs=(row,))
    for path in ("made/a.jpg", "made/up/outside.jpg"):
        with pytest.raises(
            ValueError, match=rf"expected {path} below .*images, found a symbolic link to .*outside\.jpg"
        ):
            replace(made, photographs=(replace(row, image=path),)).files(replace(row, image=path))
    assert made.path("made/b.jpg") == tmp_path / "images" / "b.jpg"
