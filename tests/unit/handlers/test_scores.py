"""An evaluation is scored at the photograph's own size, on the photographs that count, and written with its facts."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from bundle.datasets.items import NO_VALUE
from bundle.handlers.scores import ScoreGrades, ScoreLesions, WriteScores, metric_parts
from bundle.manifest import Manifest, Photograph
from hypothesis import given
from hypothesis import strategies as st
from ignite.engine import Engine
from mlflow.utils.validation import _validate_metric_name
from PIL import Image

WIDTH_PX, HEIGHT_PX = 12, 8
GEOMETRY = torch.tensor([2.0, 0.0, 8.0, WIDTH_PX, HEIGHT_PX])
"""The square about the middle, at native scale."""


def photograph(name, **changes):
    fields = {
        "id": name, "image": f"tiny/{name}.jpg", "split": "test", "sha256": "a" * 64,
        "perceptual_hash": "b" * 64, "width_px": WIDTH_PX, "height_px": HEIGHT_PX, "group": name,
        "annotated": ("MA", "HE", "EX", "SE"), "masks": {"MA": "tiny/a_MA.tif"}, "areas_px": {"MA": 4},
    }  # fmt: skip
    return Photograph(**(fields | changes))


@pytest.fixture
def manifest(tmp_path):
    mask = np.zeros((HEIGHT_PX, WIDTH_PX), np.uint8)
    mask[2:4, 5:7] = 1
    Image.fromarray(mask).save(tmp_path / "a_MA.tif")
    rows = photograph("a"), photograph("b", masks={}, areas_px={}), photograph("c")
    return Manifest(name="tiny", roots={"tiny": tmp_path}, folds=2, seed=0, photographs=rows)


def batch():
    """On the first photograph four pixels are called MA, two of which are; on the second none."""
    lesions = torch.zeros(2, 5, 8, 8)
    lesions[:, 0] = 1
    lesions[0, :2, 2:4, 2:4] = torch.tensor([0.0, 1.0]).view(2, 1, 1)
    grade = torch.tensor([[0.7, 0.3, 0, 0, 0], [0, 0, 0.2, 0.8, 0]])
    return {"id": ["a", "b"], "grade": torch.tensor([0, 3]), "geometry": GEOMETRY.expand(2, 5)}, {
        "lesions": lesions, "grade": grade,
    }  # fmt: skip


def evaluate(*handlers, batches=None, times=1):
    """Run an evaluation whose step gives what the batch comes with; return its metrics."""

    def step(engine, pair):
        engine.state.batch, output = pair
        return output

    engine = Engine(step)
    for handler in handlers:
        handler.attach(engine)
    for _ in range(times):
        engine.run(batches or [batch()])
    return engine.state.metrics


def test_lesions_are_scored_against_their_outlines_at_native_size(manifest):
    found = evaluate(ScoreLesions(manifest, manifest.photographs))
    assert found["lesions/dice_MA"] == pytest.approx(0.5)  # TP 2, FP 2, FN 2
    assert found["lesions/iou_MA"] == pytest.approx(1 / 3)
    assert found["lesions/paper_dice"] == pytest.approx(1 - 4 / (2 * WIDTH_PX * HEIGHT_PX))


def test_photographs_that_do_not_count_are_passed_over(manifest):
    found = evaluate(ScoreLesions(manifest, manifest.photographs[1:]))
    assert found["lesions/images_MA"] == 0
    assert found["lesions/paper_dice"] == 1
    assert evaluate(ScoreLesions(manifest, [])) == {}


def test_shapes_are_scored_at_native_size_when_asked_for(manifest):
    found = evaluate(ScoreLesions(manifest, manifest.photographs, shapes=True))
    assert found["lesions/component_recall_MA"] == 1
    assert found["lesions/froc_MA"] == 0  # the candidate is in the middle of the square, row 3 and column 4
    assert found["lesions/false_alarm_MA"] == 0
    assert "lesions/froc_MA" not in evaluate(ScoreLesions(manifest, manifest.photographs))


def test_a_fused_network_is_scored_for_shapes_too(manifest):
    row = photograph("a")
    found = evaluate(ScoreLesions(manifest, [row], fuse=True, shapes=True), batches=[fused_batch()])
    assert found["lesions/component_recall_lesion"] == 1
    assert found["lesions/hd95_px_lesion"] == 1  # two columns of two, one column apart
    assert "lesions/froc_MA" not in found


def fused_batch():
    """As ``batch``, of a network with one lesion class."""
    facts, output = batch()
    return facts, {**output, "lesions": output["lesions"][:, :2]}


def test_a_fused_network_is_scored_against_the_union_of_the_outlines(manifest):
    exudate = np.zeros((HEIGHT_PX, WIDTH_PX), np.uint8)
    exudate[2:4, 6:9] = 1  # two of its six pixels are outlined as MA too
    Image.fromarray(exudate).save(manifest.path("tiny/a_EX.tif"))
    row = photograph("a", masks={"MA": "tiny/a_MA.tif", "EX": "tiny/a_EX.tif"}, areas_px={"MA": 4, "EX": 6})
    found = evaluate(ScoreLesions(manifest, [row], fuse=True), batches=[fused_batch()])
    assert found["lesions/dice_lesion"] == pytest.approx(2 * 2 / (4 + 8))  # TP 2 of 4 predicted and of 8 outlined
    assert found["lesions/paper_dice"] == pytest.approx(1 - 8 / (WIDTH_PX * HEIGHT_PX))  # FP 2, FN 6
    assert found["lesions/paper_dice_predicting_nothing"] == pytest.approx(1 - 8 / (WIDTH_PX * HEIGHT_PX))
    assert "lesions/dice_MA" not in found


def test_a_fused_network_is_scored_where_all_four_lesions_were_annotated(manifest):
    partly = photograph("a", annotated=("MA", "HE"))
    rows = partly, photograph("b", masks={}, areas_px={})
    scorer = ScoreLesions(manifest, rows, fuse=True)
    found = evaluate(scorer, batches=[fused_batch()])
    assert found["lesions/images_lesion"] == 0
    assert found["lesions/paper_dice"] == 1
    assert len(scorer.rows) == 1
    assert evaluate(ScoreLesions(manifest, [partly], fuse=True), batches=[fused_batch()]) == {}
    assert len(ScoreLesions(manifest, rows).rows) == 2


def test_a_network_of_other_classes_than_it_is_scored_for_is_refused(manifest):
    with pytest.raises(ValueError, match=r"expected probabilities of shape \(2, H, W\), got \(5, 8, 12\)"):
        evaluate(ScoreLesions(manifest, manifest.photographs, fuse=True))


def test_a_second_evaluation_does_not_remember_the_first(manifest):
    scorers = ScoreLesions(manifest, manifest.photographs), ScoreGrades(["a", "b"])
    assert evaluate(*scorers, times=2) == pytest.approx(evaluate(*scorers), nan_ok=True)


def test_grades_are_scored_where_they_are_known_and_count():
    (facts, output), (other, _) = batch(), batch()
    unknown = {**other, "id": ["c", "d"], "grade": torch.tensor([-1, 4])}
    batches = [(facts, output), (unknown, output)]
    found = evaluate(ScoreGrades(["a", "b", "c", "d"]), batches=batches)
    assert found["grade/accuracy"] == pytest.approx(2 / 3)  # 0 and 3 are right, 3 for 4 is wrong, -1 is unknown
    assert evaluate(ScoreGrades(["a", "b", "c"]), batches=batches)["grade/accuracy"] == 1
    assert evaluate(ScoreGrades([]), batches=batches) == {}


def test_two_sets_of_photographs_are_scored_under_two_names():
    first = ScoreGrades(["a"], [0])
    second = ScoreGrades(["a", "b"], [0], task="grade_with_copies")
    found = evaluate(first, second)
    assert found["grade/accuracy_training_majority"] == 1
    assert found["grade_with_copies/accuracy_training_majority"] == 0.5  # their grades are 0 and 3
    assert second.intervals()["grade_with_copies/accuracy"] == (1, 1)
    ours = {key.split("/")[1] for key in found if key.startswith("grade/")}
    assert ours == {key.split("/")[1] for key in found if key.startswith("grade_with_copies/")}


def test_scores_are_written_with_facts_and_intervals(manifest, tmp_path):
    scorers = ScoreLesions(manifest, manifest.photographs), ScoreGrades(["a", "b"])
    writer = WriteScores(str(tmp_path / "out" / "metrics.json"), {"subset": {"lesions": "test"}}, scorers)
    metrics = evaluate(*scorers, writer)
    content = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert content["subset"] == {"lesions": "test"}
    assert content["scores"]["lesions/dice_MA"] == metrics["lesions/dice_MA"]
    assert content["scores"]["lesions/dice_SE"] is None  # no photograph has one: undefined, and NaN is not JSON
    low, high = content["intervals"]["lesions/dice_MA"]
    assert low <= 0.5 <= high
    assert content["intervals"]["grade/accuracy"] == [1, 1]


def test_an_outline_of_another_size_is_refused(manifest):
    Image.fromarray(np.ones((8, 8), np.uint8)).save(manifest.path("tiny/a_MA.tif"))
    with pytest.raises(ValueError, match=r"expected a mask of 12x8 px, as its photograph, got 8x8 px"):
        evaluate(ScoreLesions(manifest, manifest.photographs))


def test_thresholds_decide_at_native_size(manifest):
    facts, output = batch()
    faint = {**output, "lesions": 0.3 * output["lesions"]}
    faint["lesions"][:, 0] += 0.7
    scorer = ScoreLesions(manifest, manifest.photographs, shapes=True, thresholds=(0.2, 0.5, 0.5, 0.5))
    found = evaluate(scorer, batches=[(facts, faint)])
    assert found["lesions/dice_MA"] == pytest.approx(0.5)  # as the sure network of the first test
    assert found["lesions/component_recall_MA"] == 1
    assert found["lesions/argmax_dice_MA"] == 0
    with pytest.raises(ValueError, match="one for each of 1 classes"):
        ScoreLesions(manifest, manifest.photographs, fuse=True, thresholds=(0.2, 0.5, 0.5, 0.5))


def test_intervals_are_over_patients_where_they_are_known(manifest):
    """Of two photographs one has a Dice of 0.5 and one none; with one patient, every resample is both."""
    one_patient = [replace(row, patient="tiny/p") for row in manifest.photographs]
    lesions, grades = ScoreLesions(manifest, one_patient), ScoreGrades(["a", "b"], patient_of={"a": "p", "b": "p"})
    evaluate(lesions, grades)
    assert lesions.intervals()["lesions/paper_dice"] == pytest.approx((1 - 4 / 192, 1 - 4 / 192))
    assert grades.intervals()["grade/brier"] == pytest.approx((0.13, 0.13))  # (2 * 0.3² + 2 * 0.2²) / 2
    lesions, grades = ScoreLesions(manifest, manifest.photographs), ScoreGrades(["a", "b"])
    evaluate(lesions, grades)
    assert lesions.intervals()["lesions/paper_dice"] == pytest.approx((1 - 8 / 192, 1))
    assert grades.intervals()["grade/brier"] == pytest.approx((0.08, 0.18))


def same(found, expected):
    """Return whether two mappings are equal, NaN to NaN."""
    return sorted(map(repr, found.items())) == sorted(map(repr, expected.items()))


def test_each_group_is_scored_as_if_its_photographs_were_all(manifest):
    group_of = {"a": "Topcon", "b": "Größe/1"}
    lesions = ScoreLesions(manifest, manifest.photographs, shapes=True, thresholds=(0.4,) * 4, group_of=group_of)
    grades = ScoreGrades(["a", "b"], [0, 0, 3], group_of=group_of)
    for _ in range(2):  # the second evaluation forgets the first
        whole = evaluate(lesions, grades)
    for name, group in group_of.items():
        rows = [row for row in manifest.photographs if row.id == name]
        alone = ScoreLesions(manifest, rows, shapes=True, thresholds=(0.4,) * 4), ScoreGrades([name], [0, 0, 3])
        expected = evaluate(*alone)
        for scorer, one in zip((lesions, grades), alone, strict=True):
            found = scorer.groups()[group]
            assert found.photographs == 1
            assert same(found.scores, {key: value for key, value in expected.items() if key.startswith(found.task)})
            assert same(found.intervals, one.intervals())
    assert lesions.groups()["Topcon"].scores["lesions/dice_MA"] == 0.5
    assert not any("Topcon" in key for key in whole)


def test_groups_change_nothing_of_the_whole_and_a_group_of_all_is_the_whole(manifest):
    plain = ScoreLesions(manifest, manifest.photographs, shapes=True), ScoreGrades(["a", "b"])
    grouped = [
        ScoreLesions(manifest, manifest.photographs, shapes=True, group_of=dict.fromkeys("abc", "all")),
        ScoreGrades(["a", "b"], group_of=dict.fromkeys("abc", "all")),
    ]
    expected, found = evaluate(*plain), evaluate(*grouped)
    assert same(found, expected)
    for scorer, one in zip(grouped, plain, strict=True):
        assert one.groups() == {}
        assert scorer.groups()["all"].photographs == 2
        assert same(scorer.groups()["all"].intervals, one.intervals())
        assert same(scorer.groups()["all"].scores, {k: expected[k] for k in scorer.groups()["all"].scores})


def test_groups_are_written_by_value_and_stand_in_mlflow_beside_the_whole(manifest, tmp_path):
    """Photograph b has no value; photograph c was graded and outlined, and is in no batch."""
    group_of = {"a": "N/A", "b": NO_VALUE, "c": "never seen"}
    scorers = ScoreLesions(manifest, manifest.photographs, group_of=group_of), ScoreGrades(["a"], group_of=group_of)
    metrics = evaluate(*scorers, WriteScores(str(tmp_path / "metrics.json"), {}, scorers, column="camera"))
    content = json.loads((tmp_path / "metrics.json").read_text())
    assert content["groups"]["column"] == "camera"
    assert list(content["groups"]["values"]) == ["N/A", NO_VALUE]
    with_value, without = content["groups"]["values"].values()
    assert (with_value["counts"], without["counts"]) == ({"lesions": 1, "grade": 1}, {"lesions": 1})
    assert (with_value["scores"]["lesions/dice_MA"], with_value["scores"]["grade/accuracy"]) == (0.5, 1)
    assert without["scores"]["lesions/dice_MA"] is None  # no such lesion on the photograph
    assert with_value["intervals"]["lesions/dice_MA"] == [0.5, 0.5]
    assert (metrics["lesions/camera N_A/dice_MA"], metrics["grade/camera N_A/accuracy"]) == (0.5, 1)
    assert not any("camera" in key for key in content["scores"])


def test_a_fused_network_is_scored_by_groups_too(manifest):
    facts, output = batch()
    lesions = output["lesions"][:, :2]
    scorer = ScoreLesions(manifest, manifest.photographs, fuse=True, group_of={"a": "A", "b": "B"})
    evaluate(scorer, batches=[(facts, {**output, "lesions": lesions})])
    assert scorer.groups()["A"].scores["lesions/dice_lesion"] == 0.5


@given(st.lists(st.text(min_size=1, max_size=80), unique=True, max_size=6), st.text(min_size=1, max_size=80))
def test_whatever_a_value_is_mlflow_takes_its_name_and_no_two_share_one(values, column):
    parts = metric_parts(column, values)
    assert len(set(parts.values())) == len(parts) == len(values)
    for part in parts.values():
        _validate_metric_name(f"fold 12/lesions/{part}/sensitivity_at_0.95_vision_threatening")
