"""DDR is read as published, partial copies included, and ungradable photographs get no grade."""

import os
import shutil
import sys

import numpy as np
import pytest
from bundle.datasets.build import build_manifest
from bundle.datasets.readers.ddr import read_ddr
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.conftest import eye

LABELS = {"train": "label", "valid": "segmentation label", "test": "label"}
GRADES = {
    "train": {"007-0004-000": 0, "20170413101213456": 2, "007-0010-100": 5, "007-0011-200": 1},
    "valid": {"007-0020-000": 3, "007-0021-000": 5},
    "test": {"007-0030-000": 4, "007-0031-000": 1},
}
SEEDS = {name: seed for seed, name in enumerate(name for rows in GRADES.values() for name in rows)}
OUTLINED = {"train": {"007-0004-000": SEEDS["007-0004-000"], "007-0040-000": 20}, "valid": {"007-0041-000": 21},
            "test": {"007-0042-000": 22}}  # fmt: skip


def size_px(seed):
    """Sizes differ in DDR."""
    return 60 + 3 * (seed % 4), 40 + 2 * (seed % 4)


def save(image, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **({"quality": 95} if path.suffix == ".jpg" else {}))


class TinyDdr:
    """Paths in the official tree."""

    def __init__(self, root):
        self.root = root
        self.grading, self.segmentation = root / "DR_grading", root / "lesion_segmentation"

    def list(self, split):
        return self.grading / f"{split}.txt"

    def graded(self, split, stem):
        return self.grading / split / f"{stem}.jpg"

    def outlined(self, split, stem):
        return self.segmentation / split / "image" / f"{stem}.jpg"

    def mask(self, split, stem, lesion):
        return self.segmentation / split / LABELS[split] / lesion / f"{stem}.tif"


@pytest.fixture
def ddr(tmp_path):
    """Seven graded photographs, two of them ungradable, and four outlined ones; one is in both parts."""
    tree = TinyDdr(tmp_path / "DDR-dataset")
    for split, grades in GRADES.items():
        for stem in grades:
            save(Image.fromarray(eye(SEEDS[stem], *size_px(SEEDS[stem]))), tree.graded(split, stem))
        tree.list(split).write_text("".join(f"{stem}.jpg {grade}\n" for stem, grade in grades.items()))
    for split, stems in OUTLINED.items():
        for stem, seed in stems.items():
            width_px, height_px = size_px(seed)
            save(Image.fromarray(eye(seed, width_px, height_px)), tree.outlined(split, stem))
            for lesion, side_px in {"MA": 3, "HE": 0, "EX": 5, "SE": 0}.items():
                mask = np.zeros((height_px, width_px), np.uint8)
                mask[15 : 15 + side_px, 25 : 25 + side_px] = 255
                save(Image.fromarray(mask), tree.mask(split, stem, lesion))
    return tree


def by_id(found):
    return {row.id: row for row in found.photographs}


def test_reads_both_parts_and_all_splits(ddr):
    rows = by_id(read_ddr(ddr.root))
    assert len(rows) == 6 + 4
    assert rows["grading/train/20170413101213456"].grade == 2
    assert rows["grading/test/007-0030-000"].grade == 4
    assert rows["segmentation/test/007-0042-000"].grade is None


def test_valid_is_trained_on_and_stays_in_the_id(ddr):
    rows = by_id(read_ddr(ddr.root))
    assert {id_.split("/")[1]: row.split for id_, row in rows.items()} == {
        "train": "train", "valid": "train", "test": "test",
    }  # fmt: skip


def test_nothing_is_taken_off_a_name(ddr):
    row = by_id(read_ddr(ddr.root))["grading/train/007-0004-000"]
    assert row.image == ddr.graded("train", "007-0004-000")


def test_one_name_may_stand_in_both_parts(ddr):
    rows = by_id(read_ddr(ddr.root))
    assert {"grading/train/007-0004-000", "segmentation/train/007-0004-000"} <= rows.keys()


def test_ungradable_photographs_are_left_out_with_one_note(ddr):
    reading = read_ddr(ddr.root)
    assert reading.notes == [
        "left out: 2 ungradable photographs (grading/train/007-0010-100, grading/valid/007-0021-000)"
    ]
    assert {row.grade for row in reading.photographs} == {0, 1, 2, 3, 4, None}


def test_every_outlined_photograph_has_four_masks(ddr):
    for id_, row in by_id(read_ddr(ddr.root)).items():
        if id_.startswith("segmentation"):
            assert row.annotated == ("MA", "HE", "EX", "SE")
            assert sorted(row.masks) == ["EX", "HE", "MA", "SE"]
            assert all(path.is_file() for path in row.masks.values())


def test_the_masks_of_valid_lie_under_another_name_and_either_name_will_do(ddr):
    folder = ddr.segmentation / "valid"
    assert (
        by_id(read_ddr(ddr.root))["segmentation/valid/007-0041-000"]
        .masks["MA"]
        .is_relative_to(folder / "segmentation label")
    )
    (folder / "segmentation label").rename(folder / "label")
    (ddr.segmentation / "test" / "label").rename(ddr.segmentation / "test" / "segmentation label")
    rows = by_id(read_ddr(ddr.root))
    assert rows["segmentation/valid/007-0041-000"].masks["MA"].is_relative_to(folder / "label")
    assert "segmentation/test/007-0042-000" in rows


def test_the_folder_that_holds_the_tree_will_do(ddr):
    assert read_ddr(ddr.root.parent) == read_ddr(ddr.root)


@pytest.mark.parametrize("absent", ["grading", "segmentation"])
def test_one_part_is_enough(ddr, absent):
    shutil.rmtree(getattr(ddr, absent))
    parts = {row.id.split("/")[0] for row in read_ddr(ddr.root).photographs}
    assert parts == {"grading", "segmentation"} - {absent}


def test_any_split_may_be_absent(ddr):
    shutil.rmtree(ddr.segmentation / "train")
    shutil.rmtree(ddr.grading / "test")
    ddr.list("test").unlink()
    found = {row.id.rpartition("/")[0] for row in read_ddr(ddr.root).photographs}
    assert found == {"grading/train", "grading/valid", "segmentation/valid", "segmentation/test"}


def test_blank_lines_and_carriage_returns_do_not_matter(ddr):
    text = ddr.list("test").read_text()
    ddr.list("test").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode() + b"\r\n")
    assert by_id(read_ddr(ddr.root))["grading/test/007-0031-000"].grade == 1


def test_the_manifest_drops_empty_masks_and_finds_the_photograph_that_stands_in_both_parts(ddr):
    photographs, notes = read_ddr(ddr.root)
    manifest = build_manifest("ddr", photographs, ddr.root, folds=2, notes=notes)
    rows = by_id(manifest)
    outlined = rows["ddr/segmentation/valid/007-0041-000"]
    assert outlined.areas_px == {"MA": 9, "EX": 25}
    assert outlined.masks["EX"] == "ddr/lesion_segmentation/valid/segmentation label/EX/007-0041-000.tif"
    assert outlined.annotated == ("MA", "HE", "EX", "SE")
    both = rows["ddr/segmentation/train/007-0004-000"], rows["ddr/grading/train/007-0004-000"]
    assert both[0].group == both[1].group
    assert manifest.known_grades()[both[0].group] == 0
    assert manifest.notes[0] == notes[0]


@given(grades=st.lists(st.integers(0, 5), min_size=1, max_size=12).filter(lambda grades: min(grades) < 5))
def test_every_row_is_a_graded_photograph_or_counted_as_ungradable(tmp_path_factory, grades):
    tree = TinyDdr(tmp_path_factory.mktemp("ddr"))
    tree.graded("train", "x").parent.mkdir(parents=True)
    for number in range(len(grades)):
        tree.graded("train", f"007-{number:04}-000").write_bytes(b"")
    tree.list("train").write_text("".join(f"007-{n:04}-000.jpg {grade}\n" for n, grade in enumerate(grades)))
    reading = read_ddr(tree.root)
    assert [row.grade for row in reading.photographs] == [grade for grade in grades if grade < 5]
    ungradable = grades.count(5)
    assert [f"left out: {ungradable} ungradable" in note for note in reading.notes] == [True] * (ungradable > 0)


def test_rows_without_an_image_are_counted_and_named(ddr):
    ddr.graded("test", "007-0030-000").unlink()
    with pytest.raises(ValueError, match=r"1 rows of 'test\.txt' without an image \(007-0030-000\)"):
        read_ddr(ddr.root)


def test_images_without_a_row_are_counted_and_named(ddr):
    ddr.list("train").unlink()
    with pytest.raises(ValueError, match=r"4 grading train images without a row in 'train\.txt' \(007-0004-000, "):
        read_ddr(ddr.root)


def test_images_without_a_mask_are_counted_and_named(ddr):
    ddr.mask("valid", "007-0041-000", "SE").unlink()
    with pytest.raises(ValueError, match=r"1 segmentation valid images without a mask of SE \(007-0041-000\)"):
        read_ddr(ddr.root)


def test_masks_without_an_image_are_counted_and_named(ddr):
    ddr.outlined("test", "007-0042-000").unlink()
    with pytest.raises(ValueError, match=r"1 HE masks of segmentation test without an image \(007-0042-000\)"):
        read_ddr(ddr.root)


def test_what_is_missing_is_left_out_on_request_and_noted(ddr):
    ddr.mask("train", "007-0040-000", "MA").unlink()
    ddr.graded("valid", "007-0020-000").unlink()
    reading = read_ddr(ddr.root, allow_missing=True)
    assert len(reading.photographs) == 10 - 2
    assert reading.notes[:2] == [
        "left out: 1 rows of 'valid.txt' without an image (007-0020-000)",
        "left out: 1 segmentation train images without a mask of MA (007-0040-000)",
    ]


@pytest.mark.parametrize(
    "line", ["007-0031-000.jpg 6", "007-0031-000.jpg -1", "007-0031-000.jpg 1.0", "007-0031-000.jpg mild",
             "007-0031-000.jpg", "007-0031-000 1", "007 0031.jpg 1", "007-0031-000.jpg,1"],
)  # fmt: skip
def test_refuses_a_line_that_is_no_row_and_says_which(ddr, line):
    ddr.list("test").write_text(f"007-0030-000.jpg 4\n{line}\n")
    with pytest.raises(ValueError, match=rf"test\.txt, line 2: expected '<name>\.jpg <grade 0-5>', got '{line}'"):
        read_ddr(ddr.root)


def test_refuses_a_photograph_that_stands_twice(ddr):
    ddr.list("test").write_text("007-0030-000.jpg 4\n\n007-0030-000.JPG 4\n")
    with pytest.raises(ValueError, match=r"test\.txt, line 3: expected one row .*, got '007-0030-000' twice"):
        read_ddr(ddr.root)


def test_refuses_two_folders_of_masks(ddr):
    shutil.copytree(ddr.segmentation / "valid" / "segmentation label", ddr.segmentation / "valid" / "label")
    with pytest.raises(ValueError, match=r"expected one folder of masks in .*valid, got 'label' and 'segmentation "):
        read_ddr(ddr.root)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not store such a name")
def test_refuses_a_file_name_that_is_not_utf8(ddr):
    with open(os.path.join(os.fsencode(ddr.grading / "train"), b"007-\xff.jpg"), "wb"):
        pass
    with pytest.raises(ValueError, match=r"expected file names in UTF-8 in .*train, got b'007-\\xff\.jpg'"):
        read_ddr(ddr.root)


def test_refuses_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"expected the folder of DDR, found none at .*nowhere"):
        read_ddr(tmp_path / "nowhere")


def test_refuses_a_copy_with_another_layout_and_says_what_it_looked_for(tmp_path):
    save(Image.fromarray(eye(0, 60, 40)), tmp_path / "images" / "train" / "007-0004-000.jpg")
    save(Image.new("L", (60, 40), 255), tmp_path / "annotations" / "train" / "EX" / "007-0004-000.tif")
    with pytest.raises(ValueError, match=r"expected 'DR_grading' or 'lesion_segmentation' in .*found annotations, im"):
        read_ddr(tmp_path)


def test_refuses_a_part_with_another_layout_even_where_the_other_part_is_there(ddr):
    (ddr.segmentation / "valid" / "image").rename(ddr.segmentation / "valid" / "images")
    (ddr.segmentation / "valid" / "segmentation label").rename(ddr.segmentation / "valid" / "masks")
    with pytest.raises(ValueError, match=r"expected 'image' or 'label' or 'segmentation label' in .*valid, .*images, "):
        read_ddr(ddr.root)


def test_refuses_a_copy_of_which_nothing_can_be_used(ddr):
    shutil.rmtree(ddr.segmentation)
    for split in GRADES:
        shutil.rmtree(ddr.grading / split)
    with pytest.raises(ValueError, match=r"expected photographs with a grade or with outlines in .*, found none"):
        read_ddr(ddr.root, allow_missing=True)


@pytest.mark.parametrize("allow_missing", [False, True])
def test_refuses_a_mask_folder_none_of_whose_files_belongs_to_a_photograph(ddr, allow_missing):
    for stem in OUTLINED["train"]:
        path = ddr.mask("train", stem, "MA")
        path.rename(path.with_name(f"mask of {path.name}"))
    with pytest.raises(ValueError, match=r"expected masks of MA in .*MA, found mask of .*, none of which belongs"):
        read_ddr(ddr.root, allow_missing=allow_missing)


def test_masks_may_have_been_converted(ddr):
    for stem in OUTLINED["train"]:
        path = ddr.mask("train", stem, "MA")
        with Image.open(path) as mask:
            mask.save(path.with_suffix(".png"))
        path.unlink()
    rows = {row.id: row for row in read_ddr(ddr.root).photographs}
    assert rows["segmentation/train/007-0040-000"].masks["MA"].name == "007-0040-000.png"
