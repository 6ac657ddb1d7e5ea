"""Pseudo-labels of a small phantom, as a user makes them: what they are worth, after a kill, and with a broken grader.

The graders have random weights, so what they propose is worthless: that the decided grades are better shows what the
outlines alone add, not that trained graders are good.
"""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from bundle import ROOT
from bundle.files import load_json
from bundle.manifest import load_manifest
from bundle.networks.graders import Grader
from bundle.networks.weights import save_weights

IMAGE_PX = 64
pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, write_phantom_manifest):
    """A phantom, its manifest, a grader with random weights, and one whose weights are broken."""
    folder = tmp_path_factory.mktemp("pseudo labels")
    write_phantom_manifest(
        folder, num_lesion_train=32, num_lesion_test=1, num_graded_train=1, num_graded_test=1, folds=2
    )
    sha256 = load_manifest(folder / "manifest.json").sha256
    facts = {"architecture": "resnext50_32x4d", "manifest_sha256": sha256, "image_size": IMAGE_PX}
    torch.manual_seed(0)
    grader = Grader("resnext50_32x4d", pretrained=False)
    save_weights(folder / "random.pt", grader, facts)
    with torch.no_grad():
        grader.classifier.fc.bias[2] = torch.nan
    save_weights(folder / "broken.pt", grader, facts)
    return folder


def command(folder, output, *graders):
    return (
        "monai.bundle", "run", "--config_file", ROOT / "configs" / "pseudo_label.yaml",
        "--manifest", folder / "manifest.json", "--graders", [str(folder / name) for name in graders],
        "--output_dir", output, "--cache_dir", folder / "cache", "--image_size", IMAGE_PX, "--batch_size", 1,
        "--num_workers", 0, "--track", "False", "--thresholds#grid_min", 2,
    )  # fmt: skip


def typed_anew(words):
    """Return the command line of a Python of its own."""
    return [sys.executable, "-m", *map(str, words)]


@pytest.fixture(scope="module")
def finished(folder):
    """The output of one undisturbed run."""
    words = typed_anew(command(folder, folder / "undisturbed", "random.pt"))
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return folder / "undisturbed"


def test_decided_grades_beat_proposed_ones_and_the_true_grade_is_always_feasible(finished):
    summary = load_json(finished / "summary.json")
    assert summary["n_known"] >= 30
    assert summary["truth_feasible"] == 1
    assert all(summary[key] in (1, None) for key in summary if key.endswith("/truth_feasible"))
    for score in ("accuracy", "quadratic_kappa"):
        assert summary[f"decided/{score}"] > summary[f"proposed/{score}"]
        assert summary[f"gain/{score}_low"] > 0


def test_every_photograph_has_a_panel_that_the_page_leads_to(finished):
    rows = load_json(finished / "pseudo_labels.json")["rows"]
    page = (finished / "decisions.html").read_text(encoding="utf-8")
    panels = {f"panels/{path.name}" for path in (finished / "panels").iterdir()}
    assert len(panels) == len(rows)
    assert all(f'href="{panel}"' in page for panel in panels)
    assert page.count("<tr data-action=") == len(rows)


def test_a_killed_run_leaves_no_half_of_a_file_and_the_next_one_gives_the_same_bytes(typed, folder, finished, tmp_path):
    output = tmp_path / "killed"
    words = command(folder, output, "random.pt")
    process = subprocess.Popen(typed_anew(words), cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 240
    while len(finals(output / "panels")) < 3:
        assert process.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline, "no three panels after 240 s"
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    undisturbed = {path.name: path.read_bytes() for path in finals(finished / "panels")}
    assert 3 <= len(finals(output / "panels")) < len(undisturbed)
    assert all(path.read_bytes() == undisturbed[path.name] for path in finals(output / "panels"))
    assert [path.name for path in output.iterdir()] == [".run.lock", "panels"]
    again = typed(*words, cwd=folder)
    assert again.returncode == 0, again.stderr[-3000:]
    for name in ("pseudo_labels.json", "pseudo_labels.csv", "summary.json", "decisions.html"):
        assert (output / name).read_bytes() == (finished / name).read_bytes()
    assert {path.name: path.read_bytes() for path in finals(output / "panels")} == undisturbed


def finals(panels):
    """List the pictures under their final names."""
    return [path for path in panels.glob("*.jpg") if not path.name.startswith(".")]


def test_a_grader_that_gives_nan_fails_the_run_which_names_its_file_and_the_photograph(typed, folder, tmp_path):
    done = typed(*command(folder, tmp_path / "broken", "random.pt", "broken.pt"), cwd=folder)
    assert done.returncode != 0
    assert f"grader {folder / 'broken.pt'} (resnext50_32x4d) gave NaN or infinity for" in done.stderr
    assert "/train/" in done.stderr.partition("gave NaN or infinity for")[2].splitlines()[0]
    assert not list(tmp_path.rglob("*.json"))
