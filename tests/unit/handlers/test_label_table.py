"""The labels that are taught: what their curves say, and when a run of them has to end."""

import csv
import math
from types import SimpleNamespace

import pytest
import torch
from bundle.handlers.label_table import LabelTable
from bundle.handlers.monitors import FailOnLabelCollapse

INITIAL = torch.tensor([[0.0, 0.0, 0.5, 0.3, 0.2], [0.0, 0.0, 0.2, 0.5, 0.3], [0.0, 1.0, 0.0, 0.0, 0.0]])
GRADES = [3, -1, 1]


def table(initial=INITIAL):
    known = {"weight": torch.tensor(1.0)}
    return LabelTable(
        {
            str(place): {**known, "initial": soft, "feasible": soft > 0, "grade": GRADES[place]}
            for place, soft in enumerate(initial)
        }
    )


def test_curves_are_of_the_labels_that_are_taught_now():
    labels = table()
    labels.replace(torch.tensor([[0.0, 0.0, 0.25, 0.75, 0.0], [0.0, 0.0, 0.2, 0.5, 0.3], [0.0, 1.0, 0.0, 0.0, 0.0]]))
    curves = labels.curves()
    assert curves["labels/movement"] == pytest.approx(0.45 / 3)
    assert curves["labels/top_grade_changed"] == pytest.approx(1 / 3)
    assert curves["labels/initial_accuracy"] == 0.5  # of the two whose grade is known
    assert curves["labels/accuracy"] == 1.0
    assert curves["labels/grades_in_use"] == 2  # 3 and 1
    entropy = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75)) - sum(p * math.log(p) for p in (0.2, 0.5, 0.3))
    assert curves["labels/entropy"] == pytest.approx(entropy / 3)


def test_labels_are_looked_up_by_name_in_any_order_and_go_on_after_a_cut():
    labels, resumed = table(), table()
    labels.replace(INITIAL[[1, 0, 2]])
    assert torch.equal(labels.of(["2", "0"]), INITIAL[[2, 1]])
    resumed.load_state_dict(labels.state_dict())
    assert torch.equal(resumed.current_M5, labels.current_M5)
    other = LabelTable({"9": {"initial": INITIAL[0], "feasible": INITIAL[0] > 0, "weight": torch.ones(()), "grade": 0}})
    with pytest.raises(ValueError, match="expected the labels of these 1 photographs, got those of 3 others"):
        other.load_state_dict(labels.state_dict())


def test_the_file_of_labels_holds_what_is_taught(tmp_path):
    labels = table()
    labels.replace(INITIAL[[1, 0, 2]])
    labels.write(tmp_path / "labels.csv")
    with (tmp_path / "labels.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    assert [row["true_grade"] for row in rows] == ["3", "", "1"]
    assert float(rows[0]["initial_2"]) == 0.5
    assert float(rows[0]["taught_3"]) == 0.5


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (torch.eye(5)[[2, 4, 1]], r"become certain at epoch 3 \(mean entropy 0.000 nats, 1.030 at first\)"),
        (INITIAL[[0, 0, 2]], "become the same for all photographs at epoch 3"),
    ],
)
def test_a_run_ends_where_its_labels_collapse(labels, message):
    collapsing = table()
    check = FailOnLabelCollapse(collapsing)
    engine = SimpleNamespace(state=SimpleNamespace(epoch=3))
    check(engine)
    collapsing.replace(labels)
    with pytest.raises(RuntimeError, match=message):
        check(engine)


def test_labels_that_were_certain_or_alike_at_first_have_not_collapsed():
    certain = torch.eye(5)[[2, 4, 1]] * 0.996 + torch.tensor([0, 0, 1, 1, 1]) * 0.004 / 3
    for initial in (certain, INITIAL[[0, 0, 2]]):
        FailOnLabelCollapse(table(initial))(SimpleNamespace(state=SimpleNamespace(epoch=1)))
