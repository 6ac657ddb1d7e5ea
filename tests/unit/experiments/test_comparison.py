"""The tables of a suite: means, paired differences, trivial scores, the paper's numbers, and what is missing."""

import csv
import dataclasses
import math

import numpy as np
import pytest
from bundle.experiments.comparison import (
    Comparison,
    csv_rows,
    difference_table,
    external_table,
    grade_table,
    label_table,
    lesion_table,
)
from bundle.experiments.comparison import paper_table as in_papers_terms
from bundle.experiments.comparison_figure import write_comparison_figure
from bundle.experiments.comparison_page import write_comparison
from bundle.experiments.paper import NAMES, PAPER
from bundle.experiments.runs import Evaluated, Found, Repeat
from bundle.experiments.suites import SUITES, Row, Suite
from PIL import Image

DASH = "\N{EN DASH}"
SUITE = Suite(
    title="A table", baseline="plain",
    rows=[
        Row(name="grader", title="Grader", stage="pretrain", tasks=["grade"]),
        Row(name="plain", title="Plain", tasks=["lesions"]),
        Row(name="both", title="Both"),
    ],
)  # fmt: skip


def run(row, fold, seed=0, labels=None, settings=None, **scores):
    scores = {name.replace("__", "/"): value for name, value in scores.items()}
    return Evaluated(
        row=row, repeat=Repeat(fold, seed), scores=scores, subsets={"lesions": f"fold {fold}"}, labels=labels or {},
        settings={"image_size": "64", "facts.manifest_sha256": "f" * 64, **(settings or {})}, commit="c0ffee",
        started_ms=0, duration_s=90.0,
    )  # fmt: skip


RUNS = [
    run("plain", 0, lesions__dice_mean=0.4, lesions__paper_dice=0.9),
    run("plain", 1, lesions__dice_mean=0.6, lesions__paper_dice=0.92, grade__accuracy=0.99),  # never taught
    run("both", 0, lesions__dice_mean=0.5, lesions__paper_dice=0.91, grade__accuracy=0.5),
    run("both", 1, lesions__dice_mean=0.9, lesions__paper_dice=0.95, grade__accuracy=0.7),
    run("grader", 0, grade__accuracy=0.4, grade__accuracy_majority=0.3, grade__accuracy_training_majority=0.2),
    run("grader", 1, grade__accuracy=0.6, grade__accuracy_majority=0.5),
]
COMPARED = Comparison("table1", SUITE, RUNS)
ROWS = {row.name: row for row in SUITE.rows}


def cells(table, first):
    """Return the cells of the row that begins with this one."""
    (row,) = [line for line in table.splitlines() if line.startswith(f"| {first} ")]
    return [cell.strip() for cell in row.strip("|").split("|")]


def found(runs=RUNS, **more):
    return Found(runs=runs, sweeps=more.pop("sweeps", []), unfinished=more.pop("unfinished", {}), **more)


def written(folder, runs=RUNS, **more):
    write_comparison(folder, "table1", SUITE, found(runs, **more), ["/home/me/scripts/compare.py", "--suite", "table1"])
    return (folder / "table1.md").read_text()


def test_a_row_has_the_mean_and_standard_deviation_over_its_runs():
    assert cells(lesion_table(COMPARED), "Plain") == ["Plain", "2", "0.500 ± 0.141"]
    assert cells(lesion_table(COMPARED), "Both") == ["Both", "2", "0.700 ± 0.283"]


def test_columns_in_which_nothing_stands_are_left_out():
    assert cells(lesion_table(COMPARED), "system") == ["system", "runs", "mean Dice"]


def test_a_task_that_no_run_was_for_has_no_table():
    graders = Comparison("table1", SUITE, RUNS[-2:])
    assert (lesion_table(graders), difference_table(graders, "lesions")) == ("", "")
    assert cells(grade_table(graders), "Grader")[1] == "2"


def test_scores_of_a_task_that_a_row_does_not_learn_are_not_shown():
    assert "Plain" not in grade_table(COMPARED)
    assert "Grader" not in lesion_table(COMPARED)
    assert cells(in_papers_terms(COMPARED), "Plain")[-1] == DASH


def test_trivial_predictors_end_the_table_with_the_mean_over_folds():
    rows = grade_table(COMPARED).splitlines()[-2:]
    assert [[cell.strip() for cell in row.strip("|").split("|")] for row in rows] == [
        ["*always the most frequent grade*", DASH, "0.400"],
        ["*always the most frequent grade in training*", DASH, "0.200"],
    ]


def test_every_fold_counts_once_in_a_trivial_score():
    more = [run("both", 0, seed=seed, grade__accuracy_majority=0.3) for seed in (1, 2, 3)]
    assert Comparison("table1", SUITE, [*RUNS, *more]).trivial("grade/accuracy")["_majority"] == pytest.approx(0.4)


def test_differences_are_paired_and_two_folds_share_all_their_photographs():
    # 0.1 and 0.3: mean 0.2, s² = 0.02; two folds: n_test/n_train = 1; half = 12.7062 sqrt((1/2 + 1) 0.02) = 2.2008
    gap = COMPARED.difference(ROWS["both"], "lesions/dice_mean")
    assert (gap.n, gap.mean, gap.sd) == (2, pytest.approx(0.2), pytest.approx(math.sqrt(0.02)))
    assert (gap.low, gap.high) == (pytest.approx(0.2 - 2.2008, abs=1e-4), pytest.approx(0.2 + 2.2008, abs=1e-4))


def test_seeds_on_one_split_do_not_overlap():
    runs = [run("both", 0, seed, lesions__dice_mean=value) for seed, value in enumerate([0.0, 0.1, 0.2])]
    one = Comparison("table1", SUITE, runs)
    assert one.test_share == 0.0
    assert one.estimate(ROWS["both"], "lesions/dice_mean").high == pytest.approx(0.1 + 0.2484138)


def test_a_run_without_its_pair_is_left_out_of_the_difference():
    alone = Comparison("table1", SUITE, [one for one in RUNS if (one.row, one.repeat.fold) != ("plain", 1)])
    gap = alone.difference(ROWS["both"], "lesions/dice_mean")
    assert (gap.n, gap.mean) == (1, pytest.approx(0.1))
    assert cells(difference_table(alone, "lesions"), "Both")[1:4] == ["1", "+0.100", DASH]


def test_grades_are_compared_with_the_first_grader_where_the_baseline_has_none():
    table = difference_table(COMPARED, "grade")
    assert cells(table, "minus Grader")[2] == "accuracy"
    assert cells(table, "Both")[1:3] == ["2", "+0.100"]
    assert "Plain" not in table


def test_the_papers_dice_differs_in_points_of_percent():
    assert cells(difference_table(COMPARED, "lesions"), "Both")[4] == "+2.00"


def test_a_score_that_is_missing_in_a_run_is_passed_over():
    runs = [run("both", 0, lesions__dice_SE=0.5), run("both", 1), run("both", 2, lesions__dice_SE=math.nan)]
    assert Comparison("table1", SUITE, runs).estimate(ROWS["both"], "lesions/dice_SE").n == 1


def test_the_one_class_of_fused_networks_is_their_mean():
    fused = Comparison(
        "x", SUITE, [run("both", 0, lesions__dice_lesion=0.8, lesions__dice_lesion_predicting_nothing=0)]
    )
    assert fused.estimate(ROWS["both"], "lesions/dice_mean").mean == 0.8
    assert fused.trivial("lesions/dice_mean") == {"_predicting_nothing": 0}


def test_the_papers_number_stands_beside_ours():
    suite = Suite(title="", baseline="unet", rows=[Row(name="pldmlt", title="PLDMLT"), Row(name="unet", title="U-Net")])
    table = in_papers_terms(Comparison("table1", suite, [run("pldmlt", 0, lesions__paper_dice=0.97)]))
    assert cells(table, "PLDMLT") == ["PLDMLT", f"97.00 ± {DASH}", "96.949", "94.164", "57.69"]
    assert cells(table, "U-Net") == ["U-Net", DASH, "91.859", DASH, DASH]


def test_the_papers_numbers_belong_to_rows_and_are_percentages():
    for suite, rows in PAPER.items():
        assert set(rows) <= {row.name for row in SUITES[suite].rows}
        for numbers in rows.values():
            assert set(numbers) <= set(NAMES.values())
            assert all(50 < value < 100 for value in numbers.values())


def test_scores_on_another_data_set_have_a_table_of_their_own(tmp_path):
    elsewhere = {"external/lesions/presence_auroc_MA": 0.75, "external/lesions/presence_auroc_MA_random": 0.5}
    plain = dataclasses.replace(
        run("plain", 0, **elsewhere, lesions__dice_mean=0.5), subsets={"external": "clinic, all"}
    )
    table = external_table(Comparison("table1", SUITE, [plain]))
    assert cells(table, "Plain") == ["Plain", "1", f"0.750 ± {DASH}"]
    assert cells(table, "*random scores*") == ["*random scores*", DASH, "0.500"]
    assert "Both" not in table  # was not scored there
    assert external_table(COMPARED) == ""
    assert "On clinic, all: no photograph of it was trained on" in written(tmp_path, [plain])


def test_what_labels_gained_is_paired_within_a_run():
    before = {"labels/initial_accuracy": 0.5, "labels/accuracy": 0.6, "labels/grades_in_use": 1.0}
    after = {"labels/initial_accuracy": 0.7, "labels/accuracy": 0.6, "labels/grades_in_use": 4.0}
    table = label_table(Comparison("labels", SUITE, [run("both", 0, 0, before), run("both", 0, 1, after)]))
    row = dict(zip(cells(table, "system"), cells(table, "Both"), strict=True))
    assert (row["accuracy before"], row["accuracy after"]) == ("0.600 ± 0.141", "0.600 ± 0.000")
    assert float(row["gain"]) == 0.0
    assert row["grades in use"] == "2.5 ± 2.1"
    assert label_table(COMPARED) == ""


def test_a_page_says_how_it_was_made_and_leaves_the_machines_folders_out(tmp_path):
    sweeps = [{"command": "/home/me/scripts/sweep.py --suite table1 --manifest /data/idrid.json", "folds": "2"}]
    page = written(tmp_path / "out", sweeps=sweeps, on_other_manifests=3)
    for fact in (
        "# A table", "- command: `python -m scripts.compare --suite table1`", "- commit of the runs: c0ffee",
        "- commit of this page: ", "- machine of this page: ", "- versions of this page: ",
        "- sweep: `python -m scripts.sweep --suite table1 --manifest idrid.json`", "- image_size: 64",
        f"- manifest: sha256 {'f' * 64}", "folds 0, 1; seeds 0", "9 minutes in all", "left out: 3 evaluations",
        "n_test/n_train = 1/1", "not legible in our source", "(table1.png)", "one ratio gives 92.117",
    ):  # fmt: skip
        assert fact in page, fact
    assert "/home" not in page
    assert "## Missing" not in page


def test_settings_in_which_rows_differ_are_named(tmp_path):
    runs = [run("plain", 0, settings={"beta": "1.0", "alpha": "0.25"}, lesions__dice_mean=0.5)]
    runs += [run("both", 0, settings={"beta": "0.8", "alpha": "0.25", "cache_dir": "/x"}, lesions__dice_mean=0.6)]
    page = written(tmp_path, runs)
    assert "- beta: 1.0 (`plain`), 0.8 (`both`)" in page
    assert "alpha" not in page
    assert "cache_dir" not in page


def test_missing_runs_are_listed_with_how_they_ended(tmp_path):
    runs = [one for one in RUNS if one.row == "both" or (one.row, one.repeat.fold) == ("plain", 0)]
    page = written(
        tmp_path, runs, sweeps=[{"folds": "3", "seeds": "1"}], unfinished={("plain", Repeat(1, 0)): "train failed"}
    )
    assert "- Grader (`grader`): all" in page
    assert "- Plain (`plain`): fold 1, seed 0 (train failed); fold 2, seed 0" in page
    assert "- Both (`both`): fold 2, seed 0" in page


def test_every_estimate_is_a_line_of_the_csv_file(tmp_path):
    written(tmp_path)
    with open(tmp_path / "table1.csv", newline="") as file:
        lines = list(csv.DictReader(file))
    (both,) = [one for one in lines if (one["row"], one["metric"]) == ("both", "lesions/dice_mean")]
    assert (both["n"], both["mean"], both["sd"], both["difference"]) == ("2", "0.7", "0.282843", "0.2")
    (trivial,) = [one for one in lines if (one["row"], one["metric"]) == ("majority", "grade/accuracy")]
    assert (trivial["mean"], trivial["n"]) == ("0.4", "")
    assert len(lines) == len({(one["row"], one["metric"]) for one in lines}) == 8


def test_the_papers_number_is_a_share_in_the_csv_file():
    suite = Suite(title="", baseline="unet", rows=[Row(name="unet", title="U-Net")])
    rows = csv_rows(Comparison("table1", suite, [run("unet", 0, lesions__paper_dice=0.97)]))
    assert [(row["metric"], row["paper"]) for row in rows] == [("lesions/paper_dice", 0.91859)]


def test_the_picture_shows_the_runs(tmp_path):
    write_comparison_figure(tmp_path / "a.png", COMPARED)
    write_comparison_figure(tmp_path / "b.png", Comparison("table1", SUITE, RUNS[:-1]))
    one, other = (np.asarray(Image.open(tmp_path / name).convert("L")).astype(int) for name in ("a.png", "b.png"))
    assert one.shape == other.shape
    half = one.shape[1] // 2
    assert (one[:, : half - 50] == other[:, : half - 50]).mean() > 0.99  # lesions: none of their runs is gone
    assert (one[:, half:] != other[:, half:]).any()


def test_runs_without_a_score_are_refused(tmp_path):
    with pytest.raises(ValueError, match="expected runs with lesions/dice_mean or grade/accuracy, got none among 1"):
        write_comparison_figure(tmp_path / "a.png", Comparison("table1", SUITE, [run("both", 0)]))
    assert list(tmp_path.iterdir()) == []
