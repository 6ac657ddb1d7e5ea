"""The command draws both figures from the finished runs of a sweep, or says in one line what is missing."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from bundle.experiments.figures import failed_rules, scores_below
from bundle.experiments.sweep import Sweep, lay_out
from bundle.files import file_sha256, write_json_whole
from bundle.labels import GRADES
from bundle.manifest import load_manifest
from bundle.method.evidence import Thresholds, evidence
from bundle.method.initial_labels import save_pseudo_labels
from bundle.networks.graders import Grader
from bundle.networks.multitask_unet import MultiTaskUNet
from bundle.networks.weights import save_weights
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scripts import figures as script
from scripts import prepare

HAEMORRHAGE, HARD_EXUDATE, BACKGROUND = 2, 3, 0


def seeing(lesion):
    """A network that sees one class everywhere, whatever it is shown."""
    network = MultiTaskUNet(pretrained=False, width=0.25, batch_norm=True)
    torch.nn.init.zeros_(network.segmentation_head.weight)
    torch.nn.init.zeros_(network.segmentation_head.bias)
    network.segmentation_head.bias.data[lesion] = 9.0
    return network


def audit_row(name):
    """Grade 0 was proposed, 3 decided; the heat maps are the numbers' business alone."""
    row = {
        "id": name, "proposed": 0, "decided": 3, "action": "move", "rule": "R2", "weight": 0.6, "winner": 0,
        "reason": "hard exudates are outlined: feasible are 2, 3, 4; decided 3",
    }  # fmt: skip
    for grade in GRADES:
        row |= {
            f"probability_{grade}": 0.2, f"soft_label_{grade}": (grade > 1) / 3, f"feasible_{grade}": grade > 1,
            f"lift_{grade}": 3.1, f"coverage_{grade}": 0.4, f"relative_lift_{grade}": 0.6,
            f"relative_coverage_{grade}": 0.5, f"optic_disc_{grade}": 0.1 * grade + 0.05,
            f"supported_{grade}": grade < 3, f"empty_{grade}": False,
        }  # fmt: skip
    return row


@pytest.fixture
def command(run_script):
    """Run ``scripts.figures`` with some arguments; return exit code, stdout and stderr."""
    return lambda *arguments: run_script(script.figures, "scripts/figures.py", *arguments)


@pytest.fixture
def swept(tiny_idrid, tmp_path, run_script):
    """A finished sweep of two rows on a tiny IDRiD: ``pldmlt`` sees haemorrhages everywhere, ``mtunet`` nothing."""
    manifest, sweep = tmp_path / "idrid.json", tmp_path / "sweep"
    run_script(
        prepare.prepare, "prepare", "--dataset", "idrid", "--root", tiny_idrid.root, "--out", manifest, "--folds", 2
    )
    read = load_manifest(manifest)
    plan = Sweep(
        suite="table1", manifest=manifest, output_dir=sweep, folds=1, seeds=1, experiment="two_cores",
        rows=["pldmlt", "mtunet"],
    )  # fmt: skip
    facts = {"manifest_sha256": read.sha256, "fold": 0, "seed": 0, "image_size": 64, "fuse": False}
    for stage in (one for task in lay_out(plan) for one in task.stages if one.name == "train"):
        write_json_whole(stage.marker, {"command": stage.command()})
        sees = HAEMORRHAGE if "pldmlt" in str(stage.output_dir) else BACKGROUND
        save_weights(stage.output_dir / "model.pt", seeing(sees), facts)
    grader = sweep / "resnext50" / "fold0_seed0" / "model.pt"
    save_weights(grader, Grader("resnext50_32x4d", pretrained=False), {"architecture": "resnext50_32x4d"})
    settings = {
        "graders": [{"path": f"/elsewhere/{grader.relative_to(tmp_path)}", "sha256": file_sha256(grader)}],
        "image_size": 64, "heat_map_stride": 16, "thresholds": dataclasses.asdict(Thresholds()),
    }  # fmt: skip
    rows = [audit_row(row.id) for row in read.photographs if row.outlined and row.split == "train"]
    save_pseudo_labels(sweep / "pseudo_label" / "fold0_seed0" / "pseudo_labels.json", read, settings, rows)
    return sweep, manifest


def test_finished_runs_become_two_figures_and_a_note(command, swept, tmp_path):
    sweep, manifest = swept
    out = tmp_path / "figures"
    options = ("--sweep", sweep, "--manifest", manifest, "--out", out, "--rows", "pldmlt,mtunet", "--photographs", 1)
    code, printed, _ = command(*options)
    assert code == 0
    assert printed.split() == [str(out / name) for name in ("figure6.png", "figure7.png", "figures.md")]
    assert Image.open(out / "figure6.png").size == (1340, 920)
    assert Image.open(out / "figure7.png").size[0] > 4 * 400
    note = (out / "figures.md").read_text(encoding="utf-8")
    assert str(tmp_path) not in note
    assert "- command: `python -m scripts.figures --sweep sweep --manifest idrid.json --out figures" in note
    # 16 px are outlined, and the square about the eye has 36 x 36: 2 * 16 / (16 + 1296) = 0.024.
    (scores,) = [line.split("|")[2:4] for line in note.splitlines() if line.startswith("| idrid/segmentation/test/")]
    assert [cell.strip() for cell in scores] == ["Dice HE 0.02", "no lesion; Dice HE 0.00"]
    assert "- photograph: idrid/segmentation/train/IDRiD_01" in note  # the test split has no pseudo-labels
    grades = [line.split("|")[1:-1] for line in note.splitlines() if line.startswith(("| 2 moderate", "| 3 severe"))]
    assert [cells[-1].strip() for cells in grades] == ["nothing", "o above 0.3"]  # 0.25 and 0.35 on the disc


def test_the_same_command_twice_draws_the_same(command, swept, tmp_path):
    sweep, manifest = swept
    for name in ("one", "two"):
        command(
            "--sweep", sweep, "--manifest", manifest, "--rows", "pldmlt", "--photographs", 1, "--out", tmp_path / name
        )
    for figure in ("figure6.png", "figure7.png"):
        one, two = (np.asarray(Image.open(tmp_path / name / figure)) for name in ("one", "two"))
        assert np.array_equal(one, two)


def test_what_is_wrong_takes_one_line_and_leaves_nothing(command, swept, tmp_path):
    sweep, manifest = swept
    grader, labels = sweep / "resnext50" / "fold0_seed0", sweep / "pseudo_label" / "fold0_seed0" / "pseudo_labels.json"
    other = tmp_path / "other.json"
    other.write_text(json.dumps(json.loads(manifest.read_text()) | {"seed": 1}))

    def refused(message, *changed, given=manifest):
        arguments = ("--sweep", sweep, "--manifest", given, "--out", tmp_path / "out", "--photographs", 1, *changed)
        code, _, err = command(*arguments)
        assert (code, err.count("\n")) == (2, 1)
        assert message in err
        assert not (tmp_path / "out").exists()

    refused("expected a finished training of row 'unet' (fold 0, seed 0)", "--rows", "pldmlt,unet")
    refused("expected --rows out of ['unet', 'linknet'", "--rows", "resnext50")
    refused("expected --suite out of", "--suite", "table9")
    refused("expected a fold in 0-1", "--fold", 7)
    refused("expected --photographs in 1-1, those of test, got 9", "--rows", "pldmlt", "--photographs", 9)
    refused("was trained on another", "--rows", "pldmlt", given=other)
    refused("expected a manifest at", given=tmp_path / "none.json")
    (grader / "model.pt").write_bytes(b"another grader")
    refused("expected the grader of the pseudo-labels", "--rows", "pldmlt")
    labels.unlink()
    refused("expected pseudo-labels at", "--rows", "pldmlt")


def test_dice_is_told_of_outlined_lesions_alone():
    lesions = np.zeros((4, 6), np.uint8)
    lesions[0, :4] = HARD_EXUDATE
    outline = np.zeros((4, 6), bool)
    outline[0, 2:6] = True  # two of four pixels agree
    nothing = np.zeros((4, 6), bool)
    assert scores_below(lesions, {"EX": outline, "MA": nothing, "SE": outline}) == "Dice EX 0.50, SE 0.00"
    assert scores_below(0 * lesions, {"EX": outline}) == "no lesion; Dice EX 0.00"
    assert scores_below(lesions, {}) == "nothing to score"


@given(st.integers(0, 2**32 - 1), st.booleans())
def test_a_grade_that_fails_no_rule_is_one_that_the_evidence_supports(seed, has_lesions):
    rng = np.random.default_rng(seed)
    maps = rng.random((5, 8, 12)) * rng.integers(0, 2, (5, 1, 1))
    lesions, field = (rng.random((8, 12)) > 0.7) & has_lesions, np.ones((8, 12), bool)
    thresholds = Thresholds(lift_min=0.01, halo=0.0)
    for found in evidence(maps, lesions, rng.random((8, 12)) > 0.7, field, thresholds, grids=[(4, 6)]):
        row = {f"{name}_{found.grade}": value for name, value in dataclasses.asdict(found).items()}
        assert (failed_rules(row, found.grade, thresholds) == []) == found.supported
