"""What people mistype ends with one sentence, exit code 1 or 2, and at most three lines on the terminal."""

import runpy
import shlex
import shutil
from pathlib import Path

import pytest
import torch
from bundle import ROOT
from bundle.networks.multitask_unet import MultiTaskUNet
from bundle.networks.weights import save_weights
from PIL import Image

from tests.conftest import eye
from tests.mistakes import MISTAKES

LINES_MAX = 3
READY = ("bundle.workflow", "bundle.deploy.packaging", "bundle.experiments.sweep", "bundle.experiments.executors")
"""Imported once for all commands; with them, a mistake takes tenths of a second."""


@pytest.fixture(scope="module")
def typed():
    """Run ``python -m module words`` and return what ``subprocess.run`` would."""
    ready = runpy.run_path(str(Path(__file__).with_name("ready_python.py")))["ReadyPython"](READY)
    yield ready
    ready.close()


@pytest.fixture(scope="module")
def desk(tmp_path_factory, write_phantom_manifest):
    """A folder with what people name by mistake, and the configs."""
    desk = tmp_path_factory.mktemp("desk")
    counts = {"num_lesion_train": 8, "num_lesion_test": 1, "num_graded_train": 9, "num_graded_test": 1}
    write_phantom_manifest(desk, **counts)
    (desk / "configs").symlink_to(ROOT / "configs")
    for name in ("photographs", "letters", "folder"):
        (desk / name).mkdir()
    for name, seed in (("a", 3), ("b", 4)):
        Image.fromarray(eye(seed, 150, 100)).save(desk / "photographs" / f"{name}.png")
    (desk / "letters" / "letter.docx").write_bytes(b"PK")
    shutil.make_archive(str(desk / "photographs"), "zip", desk / "photographs")
    (desk / "cut.json").write_bytes((desk / "manifest.json").read_bytes()[:500])
    (desk / "table.csv").write_text("image,grade\na,0\n")
    (desk / "broken.yaml").write_text("a: [1\nb: 2\n")
    save_weights(desk / "model.pt", MultiTaskUNet(pretrained=False, width=1 / 16), {"image_size": 64})
    (desk / "cut.pt").write_bytes((desk / "model.pt").read_bytes()[:5000])
    torch.save(
        {"model": {}, "network": "Grader", "facts": {"architecture": "resnext50_32x4d", "image_size": 64}},
        desk / "grader.pt",
    )
    return desk


def as_module(line):
    """Return module and words of a line; ``fundus`` is a module, too."""
    program, *words = shlex.split(line)
    return ("scripts.fundus", *words) if program == "fundus" else tuple(words[1:])


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda one: one.line.replace("python -m monai.bundle run", "")[-60:])
def test_a_mistake_ends_with_one_sentence(typed, desk, mistake):
    done = typed(*as_module(mistake.line), cwd=desk, environment={"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"})
    lines = (done.stdout + done.stderr).strip().splitlines()
    assert done.returncode == (2 if mistake.line.startswith("fundus") else 1), lines
    assert lines[-1].startswith("error: ")
    assert mistake.says in lines[-1]
    assert len(lines) <= LINES_MAX
    assert not list((desk / "out").rglob("*.pt"))


def test_there_are_thirty_and_more_of_them_each_once():
    assert len({one.line for one in MISTAKES}) == len(MISTAKES) >= 30
