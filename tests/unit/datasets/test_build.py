"""The manifest says what the files hold: sizes, hashes, copies, leaks and folds."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from bundle.datasets.build import build_manifest
from bundle.datasets.idrid import read_idrid
from bundle.datasets.raw import RawPhotograph
from bundle.datasets.splits import graded_training
from bundle.manifest import file_sha256, load_manifest, save_manifest
from bundle.transforms import field_of_view


def build(tree, folds=2, **options):
    reading = read_idrid(tree.root)
    return build_manifest("tiny", reading.photographs, tree.root, field_of_view, folds=folds, **options)


def by_id(manifest):
    return {row.id: row for row in manifest.photographs}


def add_copies(tree):
    """Put an outlined eye among the graded, byte for byte, and another, re-encoded, among the graded test eyes."""
    shutil.copy(tree.image(tree.segmentation, "train", "IDRiD_01"), tree.image(tree.grading, "train", "IDRiD_002"))
    with Image.open(tree.image(tree.segmentation, "train", "IDRiD_02")) as image:
        image.save(tree.image(tree.grading, "test", "IDRiD_001"), quality=60)


def test_sizes_and_hashes_are_those_of_the_files(tiny_idrid):
    row = by_id(build(tiny_idrid))["tiny/segmentation/train/IDRiD_02"]
    files = [row.image, *sorted([*row.masks.values(), row.optic_disc])]
    assert (row.width_px, row.height_px) == (60, 40)
    assert row.sha256 == file_sha256([tiny_idrid.root / path for path in files])


def test_without_copies_each_photograph_is_a_group_and_nothing_is_noted(tiny_idrid):
    manifest = build(tiny_idrid)
    assert {row.group for row in manifest.photographs} == {row.id for row in manifest.photographs}
    assert manifest.notes == ()
    assert {row.fold for row in manifest.photographs if row.split == "train"} == {0, 1}
    assert {row.fold for row in manifest.photographs if row.split == "test"} == {None}


def test_outlined_photographs_are_spread_over_the_folds(tiny_idrid):
    folds = [row.fold for row in build(tiny_idrid).photographs if row.outlined and row.split == "train"]
    assert sorted(folds) == [0, 0, 1, 1]


def test_a_copy_shares_the_group_and_its_grade_is_known(tiny_idrid):
    add_copies(tiny_idrid)
    manifest = build(tiny_idrid)
    rows = by_id(manifest)
    copy, outlined = rows["tiny/grading/train/IDRiD_002"], rows["tiny/segmentation/train/IDRiD_01"]
    assert copy.group == outlined.group
    assert copy.fold == outlined.fold
    assert manifest.known_grades()[outlined.group] == 1
    assert copy not in graded_training(manifest)
    assert "4 files show only 2 different photographs" in manifest.notes[0]
    assert "1 of the files are copies byte for byte" in manifest.notes[0]


def test_a_training_copy_of_a_test_photograph_is_left_out(tiny_idrid):
    add_copies(tiny_idrid)
    manifest = build(tiny_idrid)
    leak = by_id(manifest)["tiny/segmentation/train/IDRiD_02"]
    assert leak.left_out == "copy of the test photograph tiny/grading/test/IDRiD_001"
    assert leak.fold is None
    assert manifest.notes[-1].endswith("test photographs: 1 (tiny/segmentation/train/IDRiD_02)")


def test_copies_of_different_grades_are_noted(tiny_idrid):
    shutil.copy(
        tiny_idrid.image(tiny_idrid.grading, "train", "IDRiD_001"),
        tiny_idrid.image(tiny_idrid.grading, "train", "IDRiD_003"),
    )
    manifest = build(tiny_idrid)
    assert "1 photographs whose copies differ in grade count as ungraded" in manifest.notes[1]
    assert "tiny/grading/train/IDRiD_001" not in manifest.known_grades()


def test_a_mask_without_a_pixel_is_an_absent_lesion(tiny_idrid):
    Image.new("L", (60, 40)).save(tiny_idrid.mask("train", "IDRiD_01", "HE"))
    row = by_id(build(tiny_idrid))["tiny/segmentation/train/IDRiD_01"]
    assert "HE" in row.annotated
    assert "HE" not in row.masks


def test_the_notes_of_the_reader_come_first_and_all_survive_saving(tiny_idrid, tmp_path):
    manifest = build(tiny_idrid, notes=["left out: 3"])
    save_manifest(manifest, tmp_path / "tiny.json")
    loaded = load_manifest(tmp_path / "tiny.json")
    assert loaded.notes == ("left out: 3",)
    assert loaded.photographs == manifest.photographs


def test_building_twice_gives_the_same(tiny_idrid):
    assert build(tiny_idrid, seed=3) == build(tiny_idrid, seed=3)


@pytest.mark.parametrize("kept", [0.5, 0.99])
def test_refuses_a_cut_off_photograph_and_names_it(tiny_idrid, kept):
    path = tiny_idrid.image(tiny_idrid.grading, "train", "IDRiD_003")
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(ValueError, match=r"expected a whole image in .*IDRiD_003\.jpg, .* truncated"):
        build(tiny_idrid)


def test_refuses_a_cut_off_mask(tiny_idrid):
    path = tiny_idrid.mask("train", "IDRiD_01", "MA")
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(ValueError, match=r"expected a whole image in .*IDRiD_01_MA\.tif"):
        build(tiny_idrid)


@pytest.mark.parametrize("code", ["MA", "OD"])
def test_refuses_a_mask_of_another_size(tiny_idrid, code):
    Image.new("L", (40, 60), 1).save(tiny_idrid.mask("train", "IDRiD_01", code))
    with pytest.raises(ValueError, match=rf"expected a mask of 60x40 px .* got 40x60 px in .*IDRiD_01_{code}\.tif"):
        build(tiny_idrid)


def test_refuses_a_mask_of_several_channels(tiny_idrid):
    Image.new("RGB", (60, 40), (255, 0, 0)).save(tiny_idrid.mask("train", "IDRiD_01", "MA"))
    with pytest.raises(ValueError, match="expected a mask of one channel, got RGB"):
        build(tiny_idrid)


def test_refuses_a_black_photograph_and_names_it(tiny_idrid):
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(tiny_idrid.image(tiny_idrid.grading, "train", "IDRiD_003"))
    with pytest.raises(ValueError, match=r"IDRiD_003\.jpg: expected a bright round field"):
        build(tiny_idrid)


def test_refuses_more_folds_than_photographs(tiny_idrid):
    with pytest.raises(ValueError, match="got 11 folds and 10 photographs"):
        build(tiny_idrid, folds=11)


def test_refuses_an_empty_data_set(tmp_path):
    with pytest.raises(ValueError, match="data set 'none': expected at least one photograph"):
        build_manifest("none", [], tmp_path, field_of_view)


@pytest.mark.real
@pytest.mark.skipif("IDRID_ROOT" not in os.environ, reason="IDRID_ROOT is not set")
def test_the_two_parts_of_the_real_data_share_photographs_and_one_crosses_the_split():
    names = {
        "segmentation/train/IDRiD_01", "grading/train/IDRiD_102",
        "segmentation/train/IDRiD_09", "grading/test/IDRiD_091",
        "segmentation/train/IDRiD_02", "grading/train/IDRiD_001",
    }  # fmt: skip
    root = os.environ["IDRID_ROOT"]
    rows: list[RawPhotograph] = [r for r in read_idrid(root, allow_missing=True).photographs if r.id in names]
    found = by_id(build_manifest("idrid", rows, root, field_of_view, folds=2))
    assert found["idrid/segmentation/train/IDRiD_01"].group == found["idrid/grading/train/IDRiD_102"].group
    assert (
        found["idrid/segmentation/train/IDRiD_09"].left_out
        == "copy of the test photograph idrid/grading/test/IDRiD_091"
    )
    assert len({row.group for row in found.values()}) == 4
