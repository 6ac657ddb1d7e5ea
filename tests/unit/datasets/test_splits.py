"""Every selection is exactly what its stage may see."""

from pathlib import Path

import pytest
from bundle.datasets.splits import (
    counts,
    evaluation,
    evaluation_with_copies,
    fold_is_lesion_test,
    graded_copies,
    graded_training,
    graded_validation,
    lesion_labelling,
    lesion_training,
    lesion_validation,
    scored,
    training,
    training_grades,
    validation,
)
from bundle.manifest import Manifest, Photograph


def row(name, group=None, split="train", grade=None, outlined=False, fold=None, left_out=None):
    return Photograph(
        id=name, image=f"made/{name}.jpg", split=split, sha256="0" * 64,
        perceptual_hash="0" * 64, width_px=60, height_px=40, grade=grade,
        annotated=("MA", "HE", "EX", "SE") if outlined else (), group=group or name,
        fold=fold, left_out=left_out,
    )  # fmt: skip


def manifest(*rows, folds=2):
    return Manifest(name="made", roots={"made": Path(".")}, folds=folds, seed=0, photographs=rows)


def ids(rows):
    return [photograph.id for photograph in rows]


MADE = manifest(
    row("graded0", grade=0, fold=0),
    row("graded1", grade=1, fold=1),
    row("graded_copy", "eye", grade=3, fold=0),
    row("graded_leak", "leak", grade=2, left_out="copy"),
    row("graded_test", "leak", "test", grade=2),
    row("outlined0", "eye", outlined=True, fold=0),
    row("outlined1", outlined=True, fold=1),
    row("outlined_leak", "test_eye", outlined=True, left_out="copy"),
    row("outlined_test", "test_eye", "test", outlined=True),
    row("regraded", "test_eye", grade=4, left_out="copy"),
)


def test_lesion_training_is_what_is_outlined_outside_the_fold():
    assert ids(lesion_training(MADE)) == ["outlined0", "outlined1"]
    assert ids(lesion_training(MADE, fold=0)) == ["outlined1"]
    assert ids(lesion_validation(MADE, fold=0)) == ["outlined0"]
    assert lesion_validation(MADE, fold=None) == []


def test_no_grader_sees_a_copy_of_an_outlined_photograph():
    assert ids(graded_training(MADE)) == ["graded0", "graded1"]
    assert ids(graded_training(MADE, fold=1)) == ["graded0"]
    assert ids(graded_validation(MADE, fold=0)) == ["graded0"]


def test_what_the_graders_miss_are_the_graded_copies_of_outlined_photographs():
    assert ids(graded_copies(MADE)) == ["graded_copy", "regraded"]  # of an outlined training and test photograph
    seen = graded_training(MADE)
    left_out = [r for r in MADE.photographs if r.split == "train" and r.grade is not None and r not in seen]
    assert ids(left_out) == ["graded_copy", "graded_leak", "regraded"]  # the one in the middle copies a graded one
    assert graded_copies(manifest(row("a", grade=1, fold=0))) == []


def test_a_photograph_that_is_graded_and_outlined_itself_is_counted_too():
    both = row("both", grade=3, outlined=True, fold=0)
    assert ids(graded_copies(manifest(both, row("a", grade=1, fold=0)))) == ["both"]


def test_all_outlined_photographs_that_training_may_see_are_labelled():
    assert ids(lesion_labelling(MADE)) == ["outlined0", "outlined1"]


def test_evaluation_takes_the_test_split_where_it_can():
    assert evaluation(MADE, fold=1, task="lesions") == ("test", [MADE.photographs[8]])


def test_the_grades_of_the_official_test_are_measured_on_and_no_others():
    name, rows = evaluation(MADE, fold=None, task="grade")
    assert (name, ids(rows)) == ("test", ["graded_test"])


def test_every_official_grade_counts_whatever_its_copies_have():
    graded = [row("leak", "a", grade=0, left_out="copy"), row("regraded", "a", "test", grade=3)]
    twice = [row("twin", "b", "test", grade=1), row("twin_again", "b", "test", grade=2)]
    assert ids(evaluation(manifest(*graded, *twice), None, "grade")[1]) == ["regraded", "twin", "twin_again"]


def test_a_grade_known_through_a_copy_counts_under_another_name():
    name, rows = evaluation_with_copies(MADE)
    assert (name, ids(rows)) == ("test and copies", ["graded_test", "outlined_test"])


def test_with_copies_each_eye_of_the_official_test_stands_as_often_as_there():
    twins = [row("twin", "b", "test", grade=1), row("twin_again", "b", "test", grade=1)]
    outlined = [row("seen", "b", "test", outlined=True), row("new", "c", "test", outlined=True), row("c", grade=4)]
    rows = manifest(*twins, *outlined, row("train", "c", grade=4, left_out="copy"), row("unknown", "d", "test"))
    assert ids(evaluation_with_copies(rows)[1]) == ["twin", "twin_again", "new"]


def test_where_copies_add_nothing_there_is_no_second_set():
    assert evaluation_with_copies(manifest(row("a", split="test", grade=1))) == ("test and copies", [])
    torn = [row("b", "eye", grade=1), row("c", "eye", grade=2), row("d", "eye", "test", outlined=True)]
    assert evaluation_with_copies(manifest(row("a", split="test", grade=1), *torn)) == ("test and copies", [])


def test_evaluation_falls_back_to_the_held_out_fold_with_each_eye_once():
    trained = manifest(*(r for r in MADE.photographs if r.split == "train"))
    assert evaluation(trained, fold=1, task="lesions")[0] == "fold 1"
    name, rows = evaluation(trained, fold=0, task="grade")
    assert (name, ids(rows)) == ("fold 0", ["graded0", "graded_copy"])


def test_copies_of_different_grades_are_not_measured_on_in_a_fold():
    torn = manifest(row("a", "eye", grade=1, fold=0), row("b", "eye", grade=2, fold=0), row("c", grade=0, fold=0))
    assert ids(evaluation(torn, 0, "grade")[1]) == ["c"]


@pytest.mark.parametrize("select", [lesion_training, lesion_validation, graded_training, graded_validation])
@pytest.mark.parametrize("fold", [-1, 2, True])
def test_refuses_a_fold_that_is_not_there(select, fold):
    with pytest.raises(ValueError, match=f"expected a fold in 0-1 or none, got {fold}"):
        select(MADE, fold)


@pytest.mark.parametrize("select", [lesion_training, lesion_validation])
def test_refuses_an_empty_selection_of_outlined_photographs(select):
    with pytest.raises(ValueError, match=r"expected outlined photographs .* \(fold 0 of 2\), found none"):
        select(manifest(row("a", grade=1, fold=0)), 0)


@pytest.mark.parametrize("select", [graded_training, graded_validation])
def test_refuses_an_empty_selection_of_graded_photographs(select):
    with pytest.raises(ValueError, match=r"expected graded photographs .* \(fold 1 of 2\), found none"):
        select(manifest(row("a", outlined=True, fold=1)), 1)


def test_refuses_to_measure_on_nothing():
    with pytest.raises(ValueError, match="expected photographs to measure 'grade' on"):
        evaluation(manifest(row("a", outlined=True, fold=1)), 1, "grade")


def test_refuses_an_unknown_task():
    with pytest.raises(ValueError, match="expected task 'lesions' or 'grade', got 'both'"):
        evaluation(MADE, 0, "both")


def test_a_fold_is_the_test_where_there_is_no_other():
    alone = manifest(row("a", outlined=True, fold=0), row("b", outlined=True, fold=1))
    assert fold_is_lesion_test(alone, 0)
    assert not fold_is_lesion_test(alone, None)  # nothing is held out, and nothing is fitted on it
    assert not fold_is_lesion_test(MADE, 1)


def named(found):
    return {task: (name, ids(rows)) for task, (name, rows) in found.items()}


def test_both_tasks_are_scored_on_the_test_where_it_has_them():
    assert named(scored(MADE, fold=1)) == {
        "lesions": ("test", ["outlined_test"]),
        "grade": ("test", ["graded_test"]),
        "grade_with_copies": ("test and copies", ["graded_test", "outlined_test"]),
    }


@pytest.mark.parametrize(
    ("split", "lesions", "grade"),
    [
        ("fold", ("fold 0", ["outlined0"]), ("fold 0", ["graded0", "graded_copy"])),
        ("train", ("train", ["outlined0", "outlined1"]), ("train", ["graded0", "graded1", "graded_copy"])),
        (
            "all",
            ("all", ["outlined0", "outlined1", "outlined_test"]),
            ("all", ["graded0", "graded1", "graded_copy", "graded_test", "outlined_test"]),
        ),
    ],
)
def test_any_split_is_scored_without_what_was_left_out(split, lesions, grade):
    found = named(scored(MADE, fold=0, split=split))
    assert (found["lesions"], found["grade"], found["grade_with_copies"]) == (lesions, grade, ("none", []))


def test_outlines_alone_and_grades_alone_are_scored():
    outlined = manifest(row("a", outlined=True, fold=0), row("b", split="test", outlined=True))
    graded = manifest(row("c", grade=1, fold=0), row("d", split="test", grade=4))
    nothing = ("none", [])
    assert named(scored(outlined, None)) == {"lesions": ("test", ["b"]), "grade": nothing, "grade_with_copies": nothing}
    assert named(scored(graded, None)) == {"lesions": nothing, "grade": ("test", ["d"]), "grade_with_copies": nothing}


def test_without_a_test_and_a_fold_all_are_scored():
    own = manifest(row("a", outlined=True, fold=0), row("b", outlined=True, fold=1))
    assert named(scored(own, None))["lesions"] == ("all", ["a", "b"])
    assert named(scored(own, 1))["lesions"] == ("fold 1", ["b"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "validation"}, r"expected --split out of \['test', 'fold', 'train', 'all'\], or none, got 'valid"),
        ({"fold": 2}, "expected a fold in 0-1 or none, got 2"),
        ({"split": "fold"}, r"expected outlined or graded photographs to measure on \(split fold, fold None\)"),
    ],
)
def test_refuses_what_cannot_be_scored(options, message):
    with pytest.raises(ValueError, match=message):
        scored(MADE, **{"fold": None, **options})


def test_grades_of_training_are_those_outside_the_fold_of_its_own_manifest():
    assert training_grades(MADE, 0, was_trained_on=True) == [1]
    assert training_grades(MADE, None, was_trained_on=False) == []


def test_each_eye_that_training_may_use_is_there_once_outlined_if_it_can_be():
    assert ids(training(MADE, 0)) == ["graded1", "outlined1"]
    assert ids(validation(MADE, 0)) == ["graded0", "outlined0"]  # not graded_copy, of the same eye
    assert ids(training(MADE, None)) == ["graded0", "graded1", "outlined0", "outlined1"]
    assert validation(MADE, None) == []


def test_photographs_are_counted_by_data_set():
    rows = [row(f"{name}/{number}") for name, number in (("phantom", 1), ("phantom", 2), ("idrid", 1))]
    assert counts(rows, rows[2:]) == {"idrid": {"outlined": 1, "graded": 1}, "phantom": {"outlined": 2, "graded": 0}}
