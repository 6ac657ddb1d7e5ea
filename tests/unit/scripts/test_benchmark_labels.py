"""What the page on label updates says, from labels made by hand."""

import pytest
import torch
from bundle.datasets.splits import lesion_labelling
from bundle.handlers.label_table import LabelTable
from bundle.manifest import load_manifest
from bundle.method.initial_labels import load_pseudo_labels
from scripts.benchmarks.labels import _row, outlines_alone, read_labels
from scripts.prepare import prepare

INITIAL = torch.tensor([[0.0, 0.0, 0.6, 0.2, 0.2], [0.0, 0.0, 0.2, 0.6, 0.2], [0.0, 1.0, 0.0, 0.0, 0.0]])
TAUGHT = torch.tensor([[0.0, 0.0, 0.2, 0.6, 0.2], [0.0, 0.0, 0.2, 0.6, 0.2], [0.0, 1.0, 0.0, 0.0, 0.0]])


def test_only_labels_that_can_move_are_counted(tmp_path):
    known = {"weight": torch.tensor(1.0)}
    table = LabelTable(
        {str(n): {**known, "initial": one, "feasible": one > 0, "grade": (3, 3, 1)[n]} for n, one in enumerate(INITIAL)}
    )
    table.replace(TAUGHT)
    table.write(tmp_path / "labels.csv")
    found = read_labels(tmp_path / "labels.csv")
    assert (found["before"], found["after"]) == (0.5, 1.0)
    assert found["movement"] == pytest.approx(0.2)  # 0.4 for one of two
    assert found["common"] == pytest.approx(0.5)  # one of two moved: half of its shift is the mean, |s/2|^2 / (|s|^2/2)


def test_a_row_has_paired_gains_with_their_interval_and_says_what_collapsed():
    found = [{"before": 0.5, "after": after, "movement": 0.1, "common": 1.0} for after in (0.5, 0.6, 0.7)]
    row = _row("graded", [*found, None])
    assert row[:5] == ["graded", "4", "0.500", "0.600", "+0.100"]
    assert row[5] == "-0.148 to +0.348"  # 0.1 -+ 4.303 * 0.1 / sqrt(3)
    assert row[-1] == "1 of 4"
    assert _row("literal", [None, None])[-1] == "2 of 2"


def test_initial_labels_know_the_outlines_alone(tiny_idrid, tmp_path):
    prepare("idrid", str(tiny_idrid.root), str(tmp_path / "tiny.json"), folds=2)
    manifest = load_manifest(tmp_path / "tiny.json")
    outlines_alone(manifest, tmp_path / "labels.json")
    labels = load_pseudo_labels(tmp_path / "labels.json", manifest)
    assert set(labels) == {row.id for row in lesion_labelling(manifest)}
    for label in labels.values():
        assert label.soft == pytest.approx([may / sum(label.feasible) for may in label.feasible])
