"""Runs on machines as people have them: spawned loader processes, little shared memory, no network."""

import os
import shutil
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from bundle import ROOT
from bundle.networks.multitask_unet import MultiTaskUNet
from bundle.networks.weights import save_weights
from PIL import Image

from tests.conftest import eye

CONFIGS = ROOT / "configs"
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_phantom_manifest):
    """A phantom without grades, two photographs, and weights."""
    folder = tmp_path_factory.mktemp("machines")
    counts = {"num_lesion_train": 3, "num_lesion_test": 1, "num_graded_train": 1, "num_graded_test": 1}
    write_phantom_manifest(folder, folds=2, without="B. Disease Grading", **counts)
    (folder / "eyes").mkdir()
    for name, seed in (("a", 3), ("b", 4)):
        Image.fromarray(eye(seed, 150, 100)).save(folder / "eyes" / f"{name}.png")
    torch.manual_seed(0)
    save_weights(
        folder / "model.pt", MultiTaskUNet(pretrained=False, width=1 / 16, lesion_prior=None), {"image_size": 64}
    )
    return folder


def training(folder, *words):
    files = [str(CONFIGS / name) for name in ("train.yaml", *(f"experiments/{one}/train.yaml" for one in (
        "smoke", "segmentation_only")))]  # fmt: skip
    given = ("--manifest", folder / "manifest.json", "--max_epochs", "1", "--fold", "null", "--track", "no")
    return ("monai.bundle", "run", "--config_file", files, *given, *words)


def inference(folder, *words):
    given = ("--input", folder / "eyes", "--checkpoint", folder / "model.pt", "--track", "no", "--report", "no")
    return ("monai.bundle", "run", "--config_file", CONFIGS / "inference.yaml", *given, *words)


def masks(output_dir):
    return [np.asarray(Image.open(path)) for path in sorted((output_dir / "masks").iterdir())]


@pytest.mark.slow
def test_spawned_processes_load_what_forked_ones_do(typed, folder, tmp_path):
    spawn = ("--multiprocessing_context", "spawn")
    spawned = ("--num_workers", "2", *spawn)
    done = typed(*training(folder, "--num_workers", "1", *spawn, "--output_dir", tmp_path / "train"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    facts = torch.load(tmp_path / "train" / "model.pt", weights_only=True)["facts"]
    assert facts["data"]["phantom"]["outlined"] == 3
    for name, words in (("spawned", spawned), ("alone", ("--num_workers", "0"))):
        done = typed(*inference(folder, *words, "--output_dir", tmp_path / name), cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-3000:]
    found, expected = masks(tmp_path / "spawned"), masks(tmp_path / "alone")
    assert [mask.shape for mask in found] == [(100, 150)] * 2
    assert 0 < (found[0] > 0).mean() < 1
    assert all(map(np.array_equal, found, expected))


LITTLE = "mount -t tmpfs -o size=64k tmpfs /dev/shm"


@pytest.mark.slow
@pytest.mark.skipif(
    not shutil.which("unshare")
    or subprocess.run(["unshare", "-m", "sh", "-c", LITTLE], capture_output=True).returncode != 0,
    reason="no permission to mount a small /dev/shm",
)
@pytest.mark.parametrize("run", [training, inference])
def test_little_shared_memory_ends_the_run_and_says_what_to_do(folder, tmp_path, run):
    words = [
        str(word) for word in run(folder, "--num_workers", "1", "--output_dir", tmp_path / "out", "--image_size", "160")
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = ["unshare", "-m", "sh", "-c", f'{LITTLE}; exec "$@"', "sh", sys.executable, "-m", *words]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert done.returncode == 1
    said = done.stderr.splitlines()[-1]
    assert said.startswith("error: expected room in /dev/shm")
    assert "--num_workers 0" in said
    assert "--shm-size" in said


@pytest.mark.parametrize("answers", [False, True], ids=["no network", "a proxy that never answers"])
def test_weights_that_cannot_be_had_end_the_run_before_data_is_prepared(typed, folder, tmp_path, answers):
    with socket.create_server(("127.0.0.1", 0)) as server:
        if not answers:
            server.close()
        proxy = f"http://127.0.0.1:{server.getsockname()[1] if answers else 9}"
        environment = {"http_proxy": proxy, "https_proxy": proxy, "TORCH_HOME": str(tmp_path / "torch")}
        words = training(folder, "--pretrained", "true", "--width", "1", "--output_dir", tmp_path / "out" / "train")
        began_s = time.monotonic()
        done = typed(*words, cwd=tmp_path, environment=environment)
        took_s = time.monotonic() - began_s
    assert done.returncode == 1
    said = done.stderr.splitlines()[-1]
    assert said.startswith("error: expected to download ImageNet weights of vgg16 from https://download.pytorch.org/")
    assert took_s < 60  # a quarter of that on a machine that does nothing else
    assert not (tmp_path / "out").exists()


def test_names_as_people_give_them_reach_the_results(typed, folder, tmp_path):
    for name in ("2024", "Müller #1, O'Neil 50%"):
        shutil.copytree(folder / "eyes", tmp_path / name)
        output = f"{name} out"
        words = inference(folder, "--num_workers", "0", "--input", name, "--output_dir", output, "--device", "cpu")
        done = typed(*words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-3000:]
        assert len(masks(tmp_path / output)) == 2
