"""IDRiD is read as published, partial copies included, and nothing is passed over in silence."""

import os
import re
import shutil

import pytest
from bundle.datasets.readers.idrid import read_idrid
from PIL import Image

from tests.conftest import DISC_TABLES, FOVEA_TABLES


def by_id(reading):
    return {row.id: row for row in reading.photographs}


def test_reads_both_parts_and_splits(tiny_idrid):
    rows = by_id(read_idrid(tiny_idrid.root))
    assert len(rows) == 13
    assert rows["grading/train/IDRiD_004"].grade == 3
    assert rows["grading/test/IDRiD_002"].grade == 4
    assert rows["segmentation/train/IDRiD_01"].grade is None
    assert rows["segmentation/test/IDRiD_55"].split == "test"


def test_paths_are_absolute_and_exist(tiny_idrid):
    for row in read_idrid(tiny_idrid.root).photographs:
        for path in (row.image, *row.masks.values(), *([row.optic_disc] if row.optic_disc else [])):
            assert path.is_absolute()
            assert path.is_file()


def test_an_absent_file_in_a_lesion_folder_is_an_absent_lesion(tiny_idrid):
    row = by_id(read_idrid(tiny_idrid.root))["segmentation/train/IDRiD_02"]
    assert row.annotated == ("MA", "HE", "EX", "SE")
    assert sorted(row.masks) == ["EX", "MA"]
    assert row.optic_disc.name == "IDRiD_02_OD.tif"


def test_an_absent_lesion_folder_is_a_lesion_that_was_not_looked_for(tiny_idrid):
    shutil.rmtree(tiny_idrid.mask("train", "IDRiD_01", "SE").parent)
    rows = by_id(read_idrid(tiny_idrid.root))
    assert rows["segmentation/train/IDRiD_01"].annotated == ("MA", "HE", "EX")
    assert rows["segmentation/test/IDRiD_55"].annotated == ("MA", "HE", "EX", "SE")


@pytest.mark.parametrize("absent", ["segmentation", "grading"])
def test_one_part_is_enough(tiny_idrid, absent):
    shutil.rmtree(getattr(tiny_idrid, absent))
    assert {row.id.split("/")[0] for row in read_idrid(tiny_idrid.root).photographs} == {"segmentation", "grading"} - {
        absent
    }


def test_the_training_half_is_enough(tiny_idrid):
    for folder in tiny_idrid.root.rglob("b. Testing Set"):
        shutil.rmtree(folder)
    tiny_idrid.table("test").unlink()
    assert {row.split for row in read_idrid(tiny_idrid.root).photographs} == {"train"}


def test_fovea_and_disc_are_those_of_the_graded_photographs_and_of_their_split(tiny_idrid):
    tiny_idrid.mark(FOVEA_TABLES["train"], {"IDRiD_001": (1494, 1970), "IDRiD_003": (2270, 1329)})
    tiny_idrid.mark(FOVEA_TABLES["test"], {"IDRiD_001": (1914, 1617)})
    tiny_idrid.mark(DISC_TABLES["train"], {"IDRiD_001": (2858, 1805)})
    rows = by_id(read_idrid(tiny_idrid.root))
    assert rows["grading/train/IDRiD_001"].fovea == (1494, 1970, (4288, 2848))
    assert rows["grading/train/IDRiD_001"].disc == (2858, 1805, (4288, 2848))
    assert rows["grading/test/IDRiD_001"].fovea == (1914, 1617, (4288, 2848))
    assert rows["grading/test/IDRiD_001"].disc is None
    assert [name for name, row in rows.items() if row.fovea] == [
        "grading/train/IDRiD_001", "grading/train/IDRiD_003", "grading/test/IDRiD_001",
    ]  # fmt: skip


def test_a_place_that_is_none_is_refused_with_its_table(tiny_idrid):
    tiny_idrid.mark(FOVEA_TABLES["train"], {"IDRiD_001": (1494, "left")})
    with pytest.raises(ValueError, match=r"Fovea_Center_Training.*: expected a place .* for IDRiD_001, got 'left'"):
        read_idrid(tiny_idrid.root)


def test_a_doubled_top_folder_is_found(tiny_idrid):
    whole = {row.id for row in read_idrid(tiny_idrid.root).photographs}
    tiny_idrid.segmentation.rename(tiny_idrid.root / "inner")
    tiny_idrid.segmentation.mkdir()
    (tiny_idrid.root / "inner").rename(tiny_idrid.segmentation / tiny_idrid.segmentation.name)
    assert {row.id for row in read_idrid(tiny_idrid.root).photographs} == whole
    outer = tiny_idrid.root.with_name("outer")
    outer.mkdir()
    tiny_idrid.root.rename(outer / "outer")
    assert {row.id for row in read_idrid(outer).photographs} == whole


def test_companion_files_of_an_archive_are_not_photographs(tiny_idrid):
    tiny_idrid.image(tiny_idrid.grading, "train", "._IDRiD_001").write_bytes(b"\0")
    assert len(read_idrid(tiny_idrid.root).photographs) == 13


def test_names_may_carry_their_suffix(tiny_idrid):
    tiny_idrid.write_table("test", "Image name,Retinopathy grade\nIDRiD_001.jpg,2\nIDRiD_002.jpg,4\n")
    assert by_id(read_idrid(tiny_idrid.root))["grading/test/IDRiD_002"].grade == 4


def test_rows_without_an_image_are_counted_and_named(tiny_idrid):
    tiny_idrid.image(tiny_idrid.grading, "test", "IDRiD_002").unlink()
    with pytest.raises(ValueError, match=r"1 rows of 'b\. .*Testing Labels.csv' without an image \(IDRiD_002\)"):
        read_idrid(tiny_idrid.root)


def test_images_without_a_row_are_counted_and_named(tiny_idrid):
    tiny_idrid.write_table("train", "Image name,Retinopathy grade\nIDRiD_001,0\n")
    with pytest.raises(ValueError, match=r"5 grading train images without a row .*IDRiD_002, .*IDRiD_004, \.\.\.\)"):
        read_idrid(tiny_idrid.root)


def test_an_outline_without_its_image_is_named(tiny_idrid):
    tiny_idrid.image(tiny_idrid.segmentation, "train", "IDRiD_02").unlink()
    with pytest.raises(ValueError, match=r"1 MA outlines of segmentation train without an image \(IDRiD_02\)"):
        read_idrid(tiny_idrid.root)


def test_images_without_any_outline_folder_are_named(tiny_idrid):
    shutil.rmtree(tiny_idrid.mask("test", "IDRiD_55", "HE").parent.parent)
    with pytest.raises(ValueError, match=r"1 segmentation test images .* without any folder of lesion outlines"):
        read_idrid(tiny_idrid.root)


def test_what_is_missing_is_left_out_on_request_and_noted(tiny_idrid):
    tiny_idrid.image(tiny_idrid.grading, "test", "IDRiD_002").unlink()
    reading = read_idrid(tiny_idrid.root, allow_missing=True)
    assert len(reading.photographs) == 12
    assert len(reading.notes) == 1
    assert "left out: 1 rows of" in reading.notes[0]


@pytest.mark.parametrize("grade", ["5", "-1", "2.5", "", "mild"])
def test_a_photograph_without_a_grade_is_named_and_left_out_on_request(tiny_idrid, grade):
    tiny_idrid.write_table("test", f"Image name,Retinopathy grade\nIDRiD_001,{grade}\nIDRiD_002,4\n")
    held = f"'{grade}' as the grade, which is not in 0-4" if grade else "an empty grade"
    what = f"1 rows of 'b. IDRiD_Disease Grading_Testing Labels.csv' with {held} (IDRiD_001 in line 2)"
    with pytest.raises(ValueError, match=re.escape(what)):
        read_idrid(tiny_idrid.root)
    reading = read_idrid(tiny_idrid.root, allow_missing=True)
    assert reading.notes == [f"left out: {what}"]
    assert "grading/test/IDRiD_001" not in by_id(reading)


@pytest.mark.parametrize("suffix", [".tif", ".png", ".tiff", ".BMP"])
@pytest.mark.parametrize("code", ["MA", "ma"])
def test_masks_may_have_another_suffix_and_their_code_in_lower_case(tiny_idrid, suffix, code):
    whole = {row.id: sorted(row.masks) for row in read_idrid(tiny_idrid.root).photographs}
    for number in range(1, 5):
        path = tiny_idrid.mask("train", f"IDRiD_0{number}", "MA")
        with Image.open(path) as mask:
            mask.convert("L").save(path.with_name(f"IDRiD_0{number}_{code}{suffix}"))
        if suffix != ".tif" or code != "MA":
            path.unlink()
    assert {row.id: sorted(row.masks) for row in read_idrid(tiny_idrid.root).photographs} == whole


@pytest.mark.parametrize("allow_missing", [False, True])
def test_refuses_a_lesion_folder_with_files_that_belong_to_no_photograph(tiny_idrid, allow_missing):
    mask = tiny_idrid.mask("test", "IDRiD_55", "HE")
    mask.rename(mask.with_name("55-haemorrhages.tif"))
    with pytest.raises(
        ValueError, match=r"masks of HE in .*2\. Haemorrhages, found 55-haemorrhages\.tif, none of which"
    ):
        read_idrid(tiny_idrid.root, allow_missing=allow_missing)


def test_photographs_may_have_another_suffix_and_other_files_are_noted(tiny_idrid):
    path = tiny_idrid.image(tiny_idrid.grading, "test", "IDRiD_001")
    with Image.open(path) as image:
        image.save(path.with_suffix(".webp"))
    path.unlink()
    (path.parent / "Thumbs.db").touch()
    (path.parent / "readme.txt").touch()
    reading = read_idrid(tiny_idrid.root)
    assert len(reading.photographs) == 13
    place = "B. Disease Grading/1. Original Images/b. Testing Set"
    assert reading.notes == [f"passed over: 1 files or folders in '{place}' (readme.txt)"]


def test_refuses_a_table_without_the_column(tiny_idrid):
    tiny_idrid.write_table("test", "Image name,Grade,\r\nIDRiD_001,2,\r\n")
    with pytest.raises(ValueError, match=r"expected a column 'Retinopathy grade', got \['Image name', 'Grade'\]"):
        read_idrid(tiny_idrid.root)


def test_refuses_a_photograph_graded_twice(tiny_idrid):
    tiny_idrid.write_table("test", "Image name,Retinopathy grade\nIDRiD_001,2\nIDRiD_001,3\n")
    with pytest.raises(ValueError, match="got 'IDRiD_001' twice"):
        read_idrid(tiny_idrid.root)


def test_refuses_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"expected the folder of IDRiD, found none at .*nowhere"):
        read_idrid(tmp_path / "nowhere")


def test_refuses_another_tree_and_says_what_it_looked_for(tmp_path):
    (tmp_path / "holidays").mkdir()
    with pytest.raises(ValueError, match=r"'A\. Segmentation/1\. Original Images' .*, found holidays"):
        read_idrid(tmp_path)


@pytest.mark.real
@pytest.mark.skipif("IDRID_ROOT" not in os.environ, reason="IDRID_ROOT is not set")
def test_the_real_tables_hold_the_published_grades():
    reading = read_idrid(os.environ["IDRID_ROOT"], allow_missing=True)
    grades = [row.grade for row in reading.photographs if row.id.startswith("grading/train")]
    assert [grades.count(grade) for grade in range(5)] == [134, 20, 136, 74, 49]
