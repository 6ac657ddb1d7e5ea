"""The rows of the tables lead to configs that are there, and a row that two tables share is run once."""

import pytest
from bundle import ROOT
from bundle.experiments.suites import GRADERS, SUITES, helper, homes, suite_named

ROWS = {(name, row.name): row for name, suite in SUITES.items() for row in suite.rows}


@pytest.mark.parametrize("key", ROWS, ids="/".join)
def test_a_row_has_overlays_of_its_stage_and_tasks_that_exist(key):
    row = ROWS[key]
    assert all((ROOT / "configs" / path).is_file() for path in row.overlays)
    assert all(path.endswith(f"/{row.stage}.yaml") for path in row.overlays)
    assert set(row.tasks) <= {"lesions", "grade"}
    assert row.teacher is None or helper(row.teacher).stage == "train"


@pytest.mark.parametrize("name", SUITES)
def test_a_baseline_is_one_of_its_suite_and_no_name_stands_twice(name):
    names = [row.name for row in SUITES[name].rows]
    assert SUITES[name].baseline in names
    assert len(set(names)) == len(names) <= 12  # what a page can show


def test_a_row_counts_where_it_is_the_very_same_and_nowhere_else():
    assert homes("table3")["pldmlt"] == {"table1", "table3", "generality", "precision", "labels"}
    assert homes("table2")["pldmlt"] == {"table2"}  # another beta
    assert homes("table3")["unit_weight"] == {"table3"}


def test_the_graders_of_the_pseudo_labels_can_be_trained():
    assert [helper(name).stage for name in GRADERS] == ["pretrain", "pretrain"]


def test_an_unknown_suite_is_refused():
    with pytest.raises(ValueError, match=r"expected --suite out of \['beta', .*\], got 'table4'"):
        suite_named("table4")
