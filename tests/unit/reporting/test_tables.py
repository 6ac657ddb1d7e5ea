"""Tables of scores and of pseudo-labels."""

import pytest
from bundle.experiments.results import write_results
from bundle.files import write_json_whole
from bundle.manifest import Manifest
from bundle.reporting.tables import evaluation_table, grader_table, markdown_table, pseudo_label_table
from hypothesis import given, settings
from hypothesis import strategies as st

DASH = "\N{EN DASH}"
METRICS = {
    "subset": {"lesions": "test", "grade": "test"},
    "counts": {"lesions": 27, "grade": 103},
    "scores": {
        "lesions/dice_EX": 0.41239,
        "lesions/dice_SE": float("nan"),
        "lesions/dice_EX_predicting_nothing": 0.0,
        "lesions/dice_EX_predicting_everywhere": 0.0213,
        "lesions/average_precision_mean": 0.3,
        "lesions/average_precision_mean_random": 0.008,
        "lesions/paper_dice": 0.971,
        "lesions/paper_dice_predicting_nothing": 0.9805,
        "lesions/images_EX": 26.0,
        "grade/accuracy": 0.55,
        "grade/accuracy_majority": 0.33,
        "grade/accuracy_training_majority": 0.31,
        "grade/recall_2": None,
    },
    "intervals": {"lesions/dice_EX": [0.38, 0.443], "grade/accuracy": (float("nan"), float("nan"))},
}
SUMMARY = {
    "n": 81, "n_known": 60, "n_taught": 52, "n_keep": 50, "n_move": 21, "n_abstain": 10,
    "n_supported": 12, "n_changed_by_heat": 5,
    "proposed/accuracy": 0.5, "proposed/accuracy_low": 0.4, "proposed/accuracy_high": 0.6,
    "proposed/quadratic_kappa": None, "proposed/quadratic_kappa_low": None, "proposed/quadratic_kappa_high": None,
    "decided/accuracy": 0.7, "decided/accuracy_low": 0.6, "decided/accuracy_high": 0.8,
    "gain/accuracy": 0.2, "gain/accuracy_low": -0.05, "gain/accuracy_high": 0.4,
    "taught/accuracy": 0.75, "taught/log_probability": -0.4, "majority/accuracy": 0.45,
    "truth_feasible": 0.9, "truth_feasible_low": 0.8, "truth_feasible_high": 0.95,
    "R2/n": 80, "R2/n_known": 59, "R2/truth_feasible": 0.91,
}  # fmt: skip


def cells(table, first):
    """Return the cells of the row that begins with this one."""
    (row,) = [line for line in table.splitlines() if line.startswith(f"| {first} ")]
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_a_score_stands_beside_its_interval_and_the_best_trivial_score():
    table = evaluation_table(METRICS)
    assert cells(table, "Dice, hard exudate") == [
        "Dice, hard exudate", "0.412", "0.380 to 0.443", "0.021", "this lesion everywhere",
    ]  # fmt: skip


def test_the_papers_dice_stands_beside_that_of_predicting_nothing():
    row = cells(evaluation_table(METRICS), "Dice as in the paper, with background")
    assert row[1] == "0.971"
    assert row[3:] == ["0.981", "predicting no lesion"]


def test_a_fused_lesion_has_its_row_and_its_trivial_score():
    scores = {
        "lesions/dice_lesion": 0.61, "lesions/dice_lesion_predicting_nothing": 0.0,
        "lesions/dice_lesion_predicting_everywhere": 0.043, "lesions/images_lesion": 27.0,
    }  # fmt: skip
    table = evaluation_table({"scores": scores})
    assert cells(table, "Dice, any lesion") == [
        "Dice, any lesion", "0.610", DASH, "0.043", "this lesion everywhere",
    ]  # fmt: skip
    assert "Photographs with: any lesion 27." in table


def test_the_results_page_says_what_a_fused_lesion_is(tmp_path):
    page = results_page(tmp_path, fuse=True, fuse_radius_px=2)
    assert "closed by a disc of radius 2 px at 512 px" in page
    assert "plain union of the outlines" in page
    assert "plain union" not in results_page(tmp_path, fuse=False, fuse_radius_px=None)
    assert "plain union" not in results_page(tmp_path)


def test_the_results_page_says_what_was_trained_and_how_the_tasks_pull(tmp_path):
    page = results_page(tmp_path, balance_norm_ratio=3.25, balance_cosine=-0.5, balance_weight=0.8)
    assert "The network (MultiTaskUNet, width 0.5) was trained on 40 photographs for 3 epochs, 60 steps, at 512" in page
    assert "3.25 times as long as that of the lesions" in page
    assert "the cosine between them is -0.50" in page
    assert "times as long" not in results_page(tmp_path)


def results_page(folder, **facts):
    weights = {
        "seed": 0, "num_training_images": 40, "epochs": 3, "steps": 60, "image_size": 512, "pretrained": True,
        "network": "MultiTaskUNet", "width": 0.5,
    }  # fmt: skip
    write_stage1(folder)
    write_json_whole(folder / "train" / "metrics.json", {**METRICS, "weights": {**weights, **facts}})
    write_results(folder, Manifest(name="tiny", roots={}, folds=2, seed=0, photographs=()), stages=[])
    return (folder / "results.md").read_text(encoding="utf-8")


GRADER = {
    "architecture": "densenet201", "num_training_images": 300, "epochs": 6, "image_size": 128, "pretrained": False,
    "num_left_out_copies": 13, "seed": 0, "temperature": 1.7, "calibration_images": 80, "calibration_ece": 0.21,
    "calibration_ece_scaled": 0.04, "validation_accuracy": 0.41, "validation_accuracy_majority": 0.325,
    "validation_quadratic_kappa": 0.3, "validation_auroc": None,
}  # fmt: skip


def write_stage1(folder):
    write_json_whole(folder / "pseudo" / "summary.json", SUMMARY)
    write_json_whole(folder / "pseudo" / "pseudo_labels.json", {"settings": {"graders": [GRADER]}})


def test_graders_stand_beside_the_most_frequent_grade():
    row = cells(grader_table([GRADER]), "densenet201")
    assert row == ["densenet201", "80", "0.410", "0.325", "0.300", DASH, "1.700", "0.210", "0.040"]
    assert cells(grader_table([{"architecture": "a"}]), "a") == ["a", "0", *[DASH] * 7]


def test_a_page_of_stage_1_alone_says_what_the_graders_saw(tmp_path):
    write_stage1(tmp_path)
    shown = write_results(tmp_path, Manifest(name="tiny", roots={}, folds=2, seed=0, photographs=()), stages=[])
    page = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert "300 photographs, 6 epochs at 128 px from random weights; 13 graded photographs were left out" in page
    assert "## Evaluation" not in page
    assert "## Graders on the held-out fold" in shown
    assert "What the graders saw" not in shown
    assert "report.html" not in shown


def test_grades_through_copies_stand_under_a_heading_of_their_own():
    scores = {"grade/accuracy": 0.5, "grade_with_copies/accuracy": 0.25, "grade_with_copies/accuracy_majority": 0.75}
    subset = {"grade": "test", "grade_with_copies": "test and copies"}
    counts = {"grade": 103, "grade_with_copies": 117}
    metrics = {"scores": scores, "subset": subset, "counts": counts}
    official, _, with_copies, table = evaluation_table(metrics).split("\n\n")
    assert official == "### Grades (test, 103 photographs)"
    assert with_copies == "### Grades, also of photographs graded through a copy (test and copies, 117 photographs)"
    assert cells(table, "accuracy")[1:] == ["0.250", "\N{EN DASH}", "0.750", "always the most frequent grade"]


def test_where_lower_is_better_the_lowest_trivial_score_is_the_one_to_beat():
    scores = {
        "lesions/false_alarm_EX": 0.25, "lesions/false_alarm_EX_predicting_nothing": 0.0,
        "lesions/false_alarm_EX_predicting_everywhere": 1.0, "lesions/hd95_px_SE": 31.5,
        "grade/ece": 0.1, "joint/contradictions": 0.2, "joint/contradictions_dealt": 0.45,
    }  # fmt: skip
    table = evaluation_table({"scores": scores, "subset": {"joint": "test"}, "counts": {"joint": 9}})
    alarm = "photographs without the lesion on which it is predicted, hard exudate (lower is better)"
    assert cells(table, alarm)[3:] == ["0.000", "predicting no lesion"]
    assert cells(table, "95 % Hausdorff distance in native px, soft exudate (lower is better)")[1] == "31.500"
    assert cells(table, "expected calibration error (lower is better)")[1] == "0.100"
    contradictions = cells(table, "grade contradicts the predicted lesions (lower is better)")
    assert contradictions[3:] == ["0.450", "the same grades, dealt out at random"]
    assert "### Grades against lesions (test, 9 photographs)" in table


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("lesions/average_precision_11_EX", "average precision at 11 thresholds, hard exudate"),
        ("lesions/image_dice_mean", "Dice, mean over photographs, mean of lesions"),
        ("lesions/sensitivity_at_0.125_fp_MA", "sensitivity at 0.125 false positives a photograph, microaneurysm"),
        ("lesions/froc_MA", "FROC, mean of the sensitivities, microaneurysm"),
        ("grade/auroc", "AUROC"),
        ("grade/auroc_referable", "AUROC, grades 2 to 4"),
        ("grade/sensitivity_at_0.95_vision_threatening", "sensitivity at specificity 0.95, grades 3 and 4"),
        ("grade/accuracy_at_coverage_0.8", "accuracy on the most confident 80 %"),
        ("joint/rules_accuracy", "accuracy of the rules on the predicted lesions"),
        ("joint/head_accuracy", "accuracy of the grade head alone"),
        (
            "joint/consistent_quadratic_kappa",
            "quadratic kappa of the head among the grades that the predicted lesions allow",
        ),
        ("joint/consistent_gain_accuracy", "accuracy that the predicted lesions add to the head"),
    ],
)
def test_every_score_has_a_name_in_words(key, name):
    assert cells(evaluation_table({"scores": {key: 0.5}}), name)[1] == "0.500"


def test_counts_stand_above_the_scores_of_lesions():
    scores = {
        "lesions/dice_EX": 0.5, "lesions/images_EX": 26.0, "lesions/images_without_EX": 1.0,
        "lesions/images_hd95_px_EX": 20.0,
    }  # fmt: skip
    table = evaluation_table({"scores": scores})
    assert (
        "Photographs with: hard exudate 26. Annotated photographs without: hard exudate 1. "
        "Photographs on which the distance of borders is defined: hard exudate 20.\n\n| score"
    ) in table
    assert len([line for line in table.splitlines() if line.startswith("| ")]) == 3


def test_what_is_undefined_is_an_en_dash():
    table = evaluation_table(METRICS)
    assert cells(table, "Dice, soft exudate")[1:] == [DASH] * 4
    assert cells(table, "recall, 2 moderate")[1:] == [DASH] * 4
    assert cells(table, "accuracy")[2] == DASH


def test_every_task_has_its_own_table_and_says_on_what_it_was_scored():
    table = evaluation_table(METRICS)
    assert "### Lesions (test, 27 photographs)\n\nPhotographs with: hard exudate 26.\n\n| score" in table
    assert "### Grades (test, 103 photographs)\n\n| score" in table
    assert sum(line.startswith("| :--") for line in table.splitlines()) == 2


def test_trivial_scores_have_no_row_of_their_own():
    table = evaluation_table(METRICS)
    assert "nothing, " not in table
    assert cells(table, "accuracy")[3:] == ["0.330", "always the most frequent grade"]


def test_the_columns_of_all_rows_line_up():
    lines = markdown_table(["score", "ours"], [["Dice", "0.412"], ["a longer name", DASH]]).splitlines()
    assert len({len(line) for line in lines}) == 1


@settings(max_examples=50)
@given(st.lists(st.tuples(st.text("|\n\r\u2028 a"), st.text("|\n\\ b")), min_size=1, max_size=5))
def test_no_cell_can_break_the_table(rows):
    lines = markdown_table(["a", "b"], rows).splitlines()
    assert len(lines) == len(rows) + 2
    assert all(line.replace(r"\|", "").count("|") == 3 for line in lines)


def test_pseudo_labels_before_and_after_the_rules_stand_below_each_other():
    table = pseudo_label_table(SUMMARY)
    assert cells(table, "proposed by the graders") == [
        "proposed by the graders", "60", "0.500", "0.400 to 0.600", DASH, DASH, DASH,
    ]  # fmt: skip
    assert cells(table, "decided by the rules")[2] == "0.700"
    taught = cells(table, "taught: likeliest of the soft label, without abstentions")
    assert (taught[1], taught[2], taught[-1]) == ("52", "0.750", "-0.400")
    assert cells(table, "81") == ["81", "50", "21", "10", "12", "5", "60"]
    assert cells(table, "always the most frequent grade")[2] == "0.450"


def test_the_gain_has_a_sign():
    table = pseudo_label_table(SUMMARY)
    assert cells(table, "gain: decided minus proposed") == [
        "gain: decided minus proposed", "60", "+0.200", "-0.050 to +0.400", DASH, DASH, DASH,
    ]  # fmt: skip


def test_each_rule_says_how_often_it_admits_the_truth():
    table = pseudo_label_table(SUMMARY)
    assert cells(table, "R2") == ["R2", "80", "59", "0.910", DASH]
    assert cells(table, "all") == ["all", "81", "60", "0.900", "0.800 to 0.950"]


def test_rejects_a_ragged_table():
    with pytest.raises(ValueError, match=r"expected 2 cells in every row, got 1: \['x'\]"):
        markdown_table(["a", "b"], [["x"]])


def test_rejects_metrics_without_scores():
    with pytest.raises(ValueError, match=r"expected metrics with scores, got keys \['subset'\]"):
        evaluation_table({"subset": {}})


def test_both_decisions_stand_in_the_table_under_clear_names():
    scores = {"lesions/dice_MA": 0.281, "lesions/argmax_dice_MA": 0.085, "lesions/argmax_iou_mean": 0.25}
    table = evaluation_table({"scores": scores, "lesion_thresholds": [0.2, 0.35, 0.45, 0.5]})
    assert "Lesions are decided by thresholds: MA above 0.20, HE above 0.35, EX above 0.45, SE above 0.50." in table
    assert cells(table, "Dice, microaneurysm")[1] == "0.281"
    assert cells(table, "Dice of the most probable class, microaneurysm")[1] == "0.085"
    assert cells(table, "IoU of the most probable class, mean of lesions")[1] == "0.250"
    fused = evaluation_table({"scores": {"lesions/dice_lesion": 0.5}, "lesion_thresholds": [0.25]})
    assert "Lesions are decided by thresholds: lesion above 0.25." in fused
    assert "decided" not in evaluation_table(METRICS)


def test_patients_are_counted_beside_the_photographs_where_they_are_known():
    metrics = {"scores": {"grade/accuracy": 0.5}, "subset": {"grade": "test"}, "counts": {"grade": 8}}
    assert "### Grades (test, 8 photographs, 4 patients)" in evaluation_table({**metrics, "patients": {"grade": 4}})
    assert "### Grades (test, 8 photographs)\n" in evaluation_table({**metrics, "patients": {"grade": 0}})


def test_a_lesion_that_nobody_looked_for_is_a_dash_among_the_counts():
    scores = {
        "lesions/dice_EX": 0.5, "lesions/images_EX": 0.0, "lesions/images_SE": 0.0,
        "lesions/images_without_EX": 4.0, "lesions/images_without_SE": 0.0, "lesions/images_hd95_px_SE": 0.0,
    }  # fmt: skip
    assert (
        f"Photographs with: hard exudate 0, soft exudate {DASH}. "
        f"Annotated photographs without: hard exudate 4, soft exudate {DASH}. "
        f"Photographs on which the distance of borders is defined: soft exudate {DASH}."
    ) in evaluation_table({"scores": scores})


GROUPS = {
    "column": "camera",
    "values": {
        "N|A": {
            "counts": {"lesions": 9},
            "scores": {
                "lesions/dice_EX": 0.25, "lesions/images_EX": 3.0, "lesions/images_without_EX": 5.0,
                "lesions/dice_EX_predicting_everywhere": 0.1, "lesions/average_precision_mean": None,
            },
            "intervals": {"lesions/dice_EX": [0.2, 0.3]},
        },
        "Topcon": {"counts": {"grade": 4}, "scores": {"grade/accuracy": 0.75}, "intervals": {}},
    },
}  # fmt: skip


def test_groups_stand_below_the_whole_with_a_dash_where_nothing_can_be_scored():
    lesions, grades = evaluation_table({**METRICS, "groups": GROUPS}).partition("### Lesions by camera")[2].split("###")
    rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines_of(lesions)]
    assert rows[:3] == [
        ["Dice, hard exudate", "all", "27", "0.412", "0.380 to 0.443", "0.021", "this lesion everywhere"],
        ["Dice, hard exudate", r"N\|A", "3 of 8", "0.250", "0.200 to 0.300", "0.100", "this lesion everywhere"],
        ["Dice, hard exudate", "Topcon", *[DASH] * 5],
    ]
    assert ["average precision, mean of lesions", r"N\|A", "9", *[DASH] * 4] in rows
    assert " Grades by camera" in grades
    assert [cell.strip() for cell in lines_of(grades)[2].strip("|").split(" | ")][:5] == [
        "accuracy", "Topcon", "4", "0.750", DASH,
    ]  # fmt: skip


def lines_of(section):
    """Return the rows of a table without its head."""
    return [line for line in section.splitlines() if line.startswith("| ")][2:]


def test_a_score_that_no_group_can_have_is_left_out_of_their_table():
    groups = evaluation_table({**METRICS, "groups": GROUPS}).partition("### Lesions by camera")[2]
    assert "Dice, soft exudate" not in groups  # NaN for all photographs, and in the table above


def test_scores_of_sets_have_names_and_small_sets_are_better():
    scores = {"grade/set_coverage": 0.9, "grade/set_coverage_2": 0.8, "grade/set_size": 2.5, "grade/set_single": 0.1}
    table = evaluation_table({"scores": scores, "intervals": {"grade/set_coverage": [0.8, 0.95]}})
    assert cells(table, "sets of likely grades that have the true one")[1:3] == ["0.900", "0.800 to 0.950"]
    assert cells(table, "sets of likely grades that have the true one, 2 moderate")[1] == "0.800"
    assert cells(table, "grades in a set of likely grades, mean (lower is better)")[1] == "2.500"
