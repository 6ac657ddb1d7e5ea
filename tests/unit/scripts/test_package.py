"""The command names the zip that it wrote and what the zoo needs besides, or says in one line what is wrong."""

import zipfile

import pytest
import torch
from bundle.deploy import packaging
from bundle.networks.multitask_unet import MultiTaskUNet
from bundle.networks.weights import save_weights
from scripts import package as script


@pytest.fixture
def command(run_script, monkeypatch):
    """Run ``scripts.package`` with some arguments, without the process that exports TorchScript."""
    monkeypatch.setattr(packaging, "_export_torchscript", lambda tree: zipfile.ZipFile(tree / "models/model.ts", "w"))
    return lambda *arguments: run_script(script.package, "package", *arguments)


@pytest.fixture
def checkpoint(tmp_path):
    torch.manual_seed(0)
    save_weights(tmp_path / "model.pt", MultiTaskUNet(pretrained=False, width=1 / 16), {"image_size": 64})
    return tmp_path / "model.pt"


def test_a_small_package_needs_nothing_more(command, checkpoint, tmp_path):
    code, out, err = command("--checkpoint", checkpoint, "--out", tmp_path / "dist")
    (made,) = (tmp_path / "dist").iterdir()
    assert (code, err) == (0, "")
    path, following = out.splitlines()
    assert path.startswith(f"{made}, sha256 ")
    assert following.endswith(f" -m zipfile -e {made} {made.parent}")


def test_above_the_limit_it_says_how_to_write_large_files(command, checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(packaging, "ZOO_LIMIT_BYTES", 395_000)
    code, out, _ = command("--checkpoint", checkpoint, "--out", tmp_path / "dist")
    assert code == 0
    assert "models/model.pt: above the 25 MB that the zoo takes in a pull request" in out
    assert "again with --weights_url ADDRESS_OF_THEIR_FOLDER" in out
    code, out, _ = command("--checkpoint", checkpoint, "--out", tmp_path / "dist", "--weights_url", "https://e.org")
    assert (code, out.count("\n")) == (0, 2)


def test_an_address_that_nothing_needs_is_said(command, checkpoint, tmp_path):
    words = ("--checkpoint", checkpoint, "--out", tmp_path / "dist", "--weights_url", "https://e.org")
    assert "there is no large_files.yml" in command(*words)[1]


def test_what_is_wrong_takes_one_line_and_leaves_nothing(command, tmp_path):
    code, _, err = command("--checkpoint", tmp_path / "model.pt", "--out", tmp_path / "dist")
    assert (code, err.count("\n")) == (2, 1)
    assert err.startswith("error: expected weights at ")
    assert not (tmp_path / "dist").exists()
