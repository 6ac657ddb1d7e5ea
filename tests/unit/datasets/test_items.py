"""Items name the files of photographs, grades and labels are attached by id, and an epoch has its graded share."""

import pytest
import torch
from bundle.datasets.items import (
    NO_VALUE,
    OutlinedAndGraded,
    column_values,
    count_patients,
    eyes_shown,
    file_items,
    grades,
    ids,
    initial_labels,
    items,
    measured_grades,
    paths,
    patients,
    patients_shown,
    taught_labels,
    true_grades,
    union,
)
from bundle.manifest import Manifest, Photograph
from bundle.method.initial_labels import InitialLabel

from tests.conftest import eye

LABEL = InitialLabel(soft=(0.0, 0.0, 0.5, 0.3, 0.2), feasible=(False, False, True, True, True), weight=0.9)
PHOTOGRAPHS = range(26)  # 6 outlined, 20 graded


def photograph(name, group="g1", **changes):
    fields = {
        "id": name, "image": f"tiny/images/{name}.jpg", "split": "train", "sha256": "a" * 64,
        "perceptual_hash": "b" * 64, "width_px": 60, "height_px": 40, "group": group,
    }  # fmt: skip
    return Photograph(**(fields | changes))


def manifest(tmp_path, *rows):
    return Manifest(name="tiny", roots={"tiny": tmp_path}, folds=2, seed=0, photographs=rows)


def test_each_photograph_has_its_value_in_a_column_or_says_that_it_has_none(tmp_path):
    rows = [photograph("a", columns={"camera": "Topcon"}), photograph("b", columns={"site": "north"})]
    assert column_values(manifest(tmp_path, *rows), rows, "camera") == {"a": "Topcon", "b": NO_VALUE}
    assert column_values(manifest(tmp_path, *rows), rows, None) == {}


def test_a_column_that_is_not_there_and_one_of_names_are_refused(tmp_path):
    rows = [photograph(str(n), columns={"camera": "A", "person": f"p{n}"}) for n in range(31)]
    with pytest.raises(ValueError, match=r"--score_by out of its columns \(camera, person\), got 'camra'; prepare it"):
        column_values(manifest(tmp_path, *rows), rows, "camra")
    with pytest.raises(ValueError, match="as a column of at most 30 values, got 'person', which has 31"):
        column_values(manifest(tmp_path, *rows), rows, "person")
    assert len(column_values(manifest(tmp_path, *rows), rows[:30], "person")) == 30


def test_an_item_names_the_files_of_its_photograph(tmp_path):
    row = photograph(
        "a",
        annotated=("MA", "EX"),
        masks={"EX": "tiny/masks/a_EX.tif"},
        areas_px={"EX": 3},
        optic_disc="tiny/masks/a_OD.tif",
        drawn_from=("tiny/a.xml",),
    )
    assert items(manifest(tmp_path, row), [row]) == [
        {
            "id": "a",
            "image": str(tmp_path / "images/a.jpg"),
            "masks": {"EX": str(tmp_path / "masks/a_EX.tif")},
            "annotated": ("MA", "EX"),
            "optic_disc": str(tmp_path / "masks/a_OD.tif"),
            "files": {
                "image": str(tmp_path / "images/a.jpg"),
                "EX": str(tmp_path / "masks/a_EX.tif"),
                "optic_disc": str(tmp_path / "masks/a_OD.tif"),
                "drawn_from/0": str(tmp_path / "a.xml"),
            },
            "sha256": "a" * 64,
        }
    ]


def test_an_ungraded_photograph_has_the_grade_of_its_copy(tmp_path):
    rows = photograph("a"), photograph("b", grade=3), photograph("c", group="g2")
    table = true_grades(manifest(tmp_path, *rows), rows)
    assert table == {"a": {"grade": 3}, "b": {"grade": 3}, "c": {"grade": -1}}


def test_initial_labels_become_tensors_next_to_the_true_grade(tmp_path):
    row = photograph("a", grade=2)
    found = initial_labels(manifest(tmp_path, row), [row], {"a": LABEL})["a"]
    assert found["initial"].tolist() == pytest.approx([0, 0, 0.5, 0.3, 0.2])
    assert (found["initial"].dtype, found["feasible"].dtype) == (torch.float32, torch.bool)
    assert found["weight"].item() == pytest.approx(0.9)
    assert found["grade"] == 2


def test_a_graded_photograph_is_taught_its_true_grade_and_has_no_outlines(tmp_path):
    outlined, graded = photograph("a", annotated=("MA", "EX")), photograph("b", grade=3)
    found = taught_labels(manifest(tmp_path, outlined, graded), [outlined], {"a": LABEL}, [graded])
    assert found["b"]["initial"].tolist() == [0, 0, 0, 1, 0]
    assert found["b"]["feasible"].tolist() == [False, False, False, True, False]
    assert (found["b"]["weight"].item(), found["b"]["looked_for"].any().item()) == (1.0, False)
    assert found["a"]["looked_for"].tolist() == [True, False, True, False]
    assert found["a"]["initial"].tolist() == pytest.approx([0, 0, 0.5, 0.3, 0.2])


@pytest.mark.parametrize("believed", [True, False])
def test_a_healthy_photograph_shows_no_lesion_and_a_mild_one_at_most_microaneurysms(tmp_path, believed):
    graded = [photograph(name, group=name, grade=grade) for name, grade in (("a", 0), ("b", 1), ("c", 2))]
    found = taught_labels(manifest(tmp_path, *graded), [], {}, graded, absent_by_grade=believed)
    absent = {name: facts["looked_for"].tolist() for name, facts in found.items()}
    assert absent["a"] == [believed] * 4
    assert absent["b"] == [False, believed, believed, believed]
    assert absent["c"] == [False] * 4


def test_photographs_of_a_folder_stand_by_name_with_what_is_below(tmp_path):
    for name in ("b.JPG", "a.png", "notes.txt", "deep/a.tif"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())
    found = file_items(str(tmp_path))
    assert [item["id"] for item in found] == ["a.png", "b.JPG", "deep/a.tif"]
    assert paths(found)["deep/a.tif"] == str(tmp_path / "deep/a.tif")


def test_files_and_folders_may_be_listed_together(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("one.jpg", "deep/two.jpg"):
        (tmp_path / name).write_bytes(b"")
    assert [item["id"] for item in file_items([tmp_path / "one.jpg", tmp_path / "deep"])] == ["one.jpg", "two.jpg"]


def test_niftis_are_photographs_too_and_what_is_hidden_is_none(tmp_path):
    for name in ("a.nii", "b.NII.GZ", "c.gz", "._d.jpg", ".trash/e.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    assert [item["id"] for item in file_items(tmp_path)] == ["a.nii", "b.NII.GZ"]


def test_two_photographs_of_one_name_are_refused_by_their_paths(tmp_path):
    for folder in ("left", "right"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"got 'a\.jpg' twice: .*left.a\.jpg and .*right.a\.jpg; give a folder"):
        file_items([tmp_path / "left", tmp_path / "right"])
    assert [item["id"] for item in file_items(tmp_path)] == ["left/a.jpg", "right/a.jpg"]


@pytest.mark.parametrize(
    ("source", "output_dir", "apart"),
    [
        ("in", "out", True),
        ("in", "in", False),
        ("in", "in/out", False),
        ("in/a.jpg", "in", True),
        ("in/a.jpg", "in/out", True),
        ("in", ".", False),
        ("in/a.jpg", ".", False),
    ],
)
def test_results_and_photographs_are_kept_apart(tmp_path, source, output_dir, apart):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(b"")
    if apart:
        assert len(file_items(tmp_path / source, tmp_path / output_dir)) == 1
    else:
        with pytest.raises(ValueError, match="expected --output_dir apart from --input"):
            file_items(tmp_path / source, tmp_path / output_dir)


def test_lists_of_ids_and_grades_and_a_union_without_repeats():
    rows = photograph("a", grade=3), photograph("b"), photograph("c", grade=0)
    assert ids(rows) == ["a", "b", "c"]
    assert grades(rows) == [3, 0]
    assert ids(union(rows[:2], rows[1:])) == ["a", "b", "c"]


@pytest.mark.parametrize("sources", [None, "", []])
def test_no_photograph_says_which_option_names_it(sources):
    with pytest.raises(ValueError, match="expected --input DIR_OR_FILE"):
        file_items(sources)


def test_a_missing_folder_and_an_empty_one_are_told_apart(tmp_path):
    with pytest.raises(ValueError, match=r"found nothing at .*nowhere"):
        file_items(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"expected photographs \(\.jpg, .*\) in .*, found nothing"):
        file_items(tmp_path)
    (tmp_path / "notes.txt").touch()
    with pytest.raises(ValueError, match=r"expected photographs \(\.jpg, .*\) in .*, found notes\.txt"):
        file_items(tmp_path)


def test_a_photograph_without_an_initial_label_is_named(tmp_path):
    rows = photograph("a"), photograph("b")
    with pytest.raises(ValueError, match=r"every lesion image, 1 have none: \['b'\]"):
        initial_labels(manifest(tmp_path, *rows), rows, {"a": LABEL})


def test_a_photograph_is_measured_by_the_grade_of_its_own_file(tmp_path):
    rows = [photograph("a", grade=0), photograph("b", grade=3), photograph("c")]
    rows += [photograph("d", "g2", grade=4), photograph("e", "g2"), photograph("f", "g3")]
    found = measured_grades(manifest(tmp_path, *rows), rows)
    assert [facts["grade"] for facts in found.values()] == [0, 3, -1, 4, 4, -1]


def epoch(number, share=0.25, **parts):
    sampler = OutlinedAndGraded(PHOTOGRAPHS, num_outlined=6, share=share, seed=3, **parts)
    sampler.set_epoch(number)
    shown = list(sampler)
    assert len(sampler) == len(shown)
    return shown


def test_a_share_of_a_quarter_adds_two_graded_photographs_to_six():
    shown = epoch(1)
    assert sorted(one for one in shown if one < 6) == [0, 1, 2, 3, 4, 5]
    assert len([one for one in shown if one >= 6]) == 2


def test_without_a_share_every_photograph_is_shown_once():
    assert sorted(epoch(1, share=0.0)) == list(PHOTOGRAPHS)


def test_epochs_differ_and_repeat_themselves():
    assert epoch(1) == epoch(1)
    assert epoch(1) != epoch(2)
    drawn = {one for number in range(100) for one in epoch(number) if one >= 6}
    assert drawn == set(range(6, 26))


def test_a_large_share_shows_all_graded_photographs_before_one_comes_again():
    graded = [one for one in epoch(1, share=0.8) if one >= 6]
    assert len(graded) == 24
    assert set(graded) == set(range(6, 26))


def test_two_processes_divide_an_epoch():
    first, second = (epoch(1, share=0.5, num_replicas=2, rank=rank) for rank in range(2))
    assert len(first) == len(second) == 6
    assert sorted(first + second) == sorted(epoch(1, share=0.5))


@pytest.mark.parametrize(
    ("photographs", "share", "message"),
    [
        (PHOTOGRAPHS, 1.0, r"expected a graded_share in \[0, 1\), got 1.0"),
        (range(6), 0.5, "expected graded photographs for a graded_share of 0.5, found none"),
    ],
)
def test_a_share_that_cannot_be_is_refused(photographs, share, message):
    with pytest.raises(ValueError, match=message):
        OutlinedAndGraded(photographs, num_outlined=6, share=share, seed=0)


def test_photographs_of_a_patient_stand_together_in_the_order_of_appearance(tmp_path):
    for name in ("left/2.jpg", "left/10.nii.gz", "right/10.png", "right/2.jpg", "chart.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    found = file_items(tmp_path, patient_pattern=r"(?:left|right)/(\d+)")
    assert [item["id"] for item in found] == [
        "chart.jpg",
        "left/10.nii.gz",
        "right/10.png",
        "left/2.jpg",
        "right/2.jpg",
    ]
    assert patients_shown(found) == {
        "left/10.nii.gz": "10",
        "right/10.png": "10",
        "left/2.jpg": "2",
        "right/2.jpg": "2",
    }
    assert patients_shown(file_items(tmp_path)) == {}
    with pytest.raises(ValueError, match=r"which matches none of 5: chart, left/10, left/2"):
        file_items(tmp_path, patient_pattern="(.+)_left")


def test_dicom_of_a_patient_stands_together_under_its_pseudonym_unless_a_pattern_is_given(tmp_path):
    made = pytest.importorskip("tests.dicom_files", reason="the extra `dicom` is not installed")
    (tmp_path / "c.png").write_bytes(b"")
    (tmp_path / "broken.dcm").write_bytes(b"")
    for seed, (name, patient) in enumerate({"1.2.3": "anna", "a.dcm": "bo", "b.dcm": "anna", "d.dcm": ""}.items()):
        made.save(tmp_path / name, made.photograph(eye(seed), PatientID=patient, ImageLaterality="LRRB"[seed]))
    found = file_items(tmp_path)
    assert [item["id"] for item in found] == ["1.2.3", "b.dcm", "a.dcm", "broken.dcm", "c.png", "d.dcm"]
    anna, bo = "55579b557896d0ce", "3d099d0f13df9d0b"  # echo -n anna | sha256sum
    assert patients_shown(found) == {"1.2.3": anna, "b.dcm": anna, "a.dcm": bo}
    assert eyes_shown(found) == {"1.2.3": "left", "a.dcm": "right", "b.dcm": "right"}  # B: both
    assert patients_shown(file_items(tmp_path, patient_pattern=r"1\.2\.(.)")) == {"1.2.3": "3"}


def test_known_patients_are_listed_and_counted():
    rows = photograph("a", patient="tiny/p"), photograph("b"), photograph("c", patient="tiny/p")
    assert patients(rows) == {"a": "tiny/p", "c": "tiny/p"}
    assert (count_patients(rows), count_patients(rows[1:2])) == (1, 0)
