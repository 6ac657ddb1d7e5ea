"""The manifest has what the files contain: sizes, hashes, copies, leaks and folds."""

import os
import shutil
import struct
import zlib
from dataclasses import replace

import numpy as np
import pytest
from bundle.datasets.build import build_manifest
from bundle.datasets.readers.idrid import read_idrid
from bundle.datasets.readers.raw import Drawn, Landmark, RawPhotograph
from bundle.datasets.splits import graded_training
from bundle.files import content_sha256
from bundle.manifest import load_manifest, save_manifest
from bundle.transforms import field_of_view, load_mask
from PIL import Image, ImageOps

from tests.conftest import FOVEA_TABLES


def build(tree, folds=2, **options):
    reading = read_idrid(tree.root)
    return build_manifest("tiny", reading.photographs, tree.root, folds=folds, **options)


def by_id(manifest):
    return {row.id: row for row in manifest.photographs}


def test_places_are_in_the_pixels_of_the_file(tiny_idrid):
    """The file has 60x40 of 4288x2848 pixels; the middle stays the middle, and a corner pixel has its middle within."""
    tiny_idrid.mark(FOVEA_TABLES["train"], {"IDRiD_001": (2143.5, 1423.5), "IDRiD_002": (0, 2847)})
    rows = by_id(build(tiny_idrid))
    assert rows["tiny/grading/train/IDRiD_001"].fovea_px == (29.5, 19.5)
    assert rows["tiny/grading/train/IDRiD_001"].disc_px is None
    assert rows["tiny/grading/train/IDRiD_002"].fovea_px == pytest.approx((-0.493, 39.493), abs=1e-3)
    assert rows["tiny/grading/train/IDRiD_003"].fovea_px is None


def test_a_file_of_another_shape_than_the_marked_picture_has_no_place_and_is_noted(tiny_idrid):
    path = tiny_idrid.image(tiny_idrid.grading, "train", "IDRiD_001")
    Image.open(path).crop((10, 0, 50, 40)).save(path, quality=95)
    tiny_idrid.mark(FOVEA_TABLES["train"], {"IDRiD_001": (2143, 1423), "IDRiD_002": (2143, 1423)})
    found = build(tiny_idrid)
    assert by_id(found)["tiny/grading/train/IDRiD_001"].fovea_px is None
    assert by_id(found)["tiny/grading/train/IDRiD_002"].fovea_px is not None
    note = "fovea and disc not placed, for they were marked on a picture of another shape: 1 (grading/train/IDRiD_001)"
    assert note in found.notes


def test_a_place_beyond_the_picture_on_which_it_was_marked_is_refused(tiny_idrid):
    row = read_idrid(tiny_idrid.root).photographs[0]
    marked = replace(row, disc=Landmark(61, 20, (60, 40)))
    with pytest.raises(ValueError, match=r"expected disc_px as column and row, two numbers inside 60x40 px, got \(61"):
        build_manifest("tiny", [marked], tiny_idrid.root, folds=2)


def bomb(path):
    """Write a PNG that declares 60000x60000 pixels, and holds one."""
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    chunks = (b"IHDR", header), (b"IDAT", zlib.compress(bytes(4))), (b"IEND", b"")
    framed = [struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in chunks]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(framed))


def eye(seed):
    """Draw a disc that other seeds draw otherwise, with vessels as fine as an eye's."""
    y, x = np.mgrid[:360, :540]
    patches = np.random.default_rng(seed).integers(60, 250, (14, 14, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(patches).resize((540, 360), Image.Resampling.BICUBIC))
    return np.where(((x - 265) ** 2 + (y - 182) ** 2 < 170**2)[..., None], smooth, 2).astype(np.uint8)


def save_photograph(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)


def disc(width_px, height_px):
    y, x = np.mgrid[:height_px, :width_px]
    return (x - 30) ** 2 + (y - 20) ** 2 < 64


def add_copies(tree):
    """Put an outlined eye among the graded, byte for byte, and another, re-encoded, among the graded test eyes."""
    shutil.copy(tree.image(tree.segmentation, "train", "IDRiD_01"), tree.image(tree.grading, "train", "IDRiD_002"))
    with Image.open(tree.image(tree.segmentation, "train", "IDRiD_02")) as image:
        image.save(tree.image(tree.grading, "test", "IDRiD_001"), quality=60)


def test_sizes_and_hashes_are_those_of_the_files(tiny_idrid):
    row = by_id(build(tiny_idrid))["tiny/segmentation/train/IDRiD_02"]
    files = {role: tiny_idrid.root / path.removeprefix("tiny/") for role, path in row.files().items()}
    assert (row.width_px, row.height_px) == (60, 40)
    assert set(files) == {"image", "MA", "EX", "optic_disc"}
    assert row.sha256 == content_sha256(files)
    assert row.areas_px == {"MA": 9, "EX": 25}


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


def test_a_training_copy_of_a_test_photograph_is_left_out(tiny_idrid):
    add_copies(tiny_idrid)
    manifest = build(tiny_idrid)
    leak = by_id(manifest)["tiny/segmentation/train/IDRiD_02"]
    assert leak.left_out == "copy of the test photograph tiny/grading/test/IDRiD_001"
    assert leak.fold is None
    assert manifest.notes[-1] == (
        "taken out of training as copies of test photographs: 1 (tiny/segmentation/train/IDRiD_02)"
    )


def test_a_leak_can_be_kept_and_is_noted(tiny_idrid):
    add_copies(tiny_idrid)
    manifest = build(tiny_idrid, keep_leaks=True)
    leak = by_id(manifest)["tiny/segmentation/train/IDRiD_02"]
    assert (leak.left_out, leak.fold in (0, 1)) == (None, True)
    assert manifest.notes[-1].startswith("kept in training though copies of test photographs: 1")


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
    with pytest.raises(ValueError, match=r"expected a whole mask in .*IDRiD_01_MA\.tif"):
        build(tiny_idrid)


@pytest.mark.parametrize("code", ["MA", "OD"])
def test_refuses_a_mask_of_another_size(tiny_idrid, code):
    Image.new("L", (40, 60), 1).save(tiny_idrid.mask("train", "IDRiD_01", code))
    with pytest.raises(ValueError, match=rf"expected a mask of 60x40 px .* got 40x60 px in .*IDRiD_01_{code}\.tif"):
        build(tiny_idrid)


@pytest.mark.parametrize(("red", "opacity"), [(255, 255), (1, 255), (9, 77)])
def test_an_opaque_mask_of_colours_is_read_by_its_colours(tiny_idrid, red, opacity):
    rgba = np.zeros((40, 60, 4), np.uint8)
    rgba[10:13, 20:27, 0], rgba[..., 3] = red, opacity
    Image.fromarray(rgba).save(tiny_idrid.mask("train", "IDRiD_01", "EX"), compression="tiff_lzw")
    assert by_id(build(tiny_idrid))["tiny/segmentation/train/IDRiD_01"].areas_px["EX"] == 3 * 7


def test_a_black_opaque_mask_of_colours_is_an_absent_lesion(tiny_idrid):
    Image.new("RGBA", (60, 40), (0, 0, 0, 255)).save(tiny_idrid.mask("train", "IDRiD_01", "EX"))
    assert "EX" not in by_id(build(tiny_idrid))["tiny/segmentation/train/IDRiD_01"].masks


def test_refuses_a_mask_of_two_colours(tiny_idrid):
    rgb = np.zeros((40, 60, 3), np.uint8)
    rgb[10:13, 20:27], rgb[20:23, 20:27] = (255, 0, 0), (0, 255, 0)
    Image.fromarray(rgb).save(tiny_idrid.mask("train", "IDRiD_01", "MA"))
    with pytest.raises(
        ValueError, match=r"two values, .* got \(0, 255, 0\), \(255, 0, 0\) as well as 0 in .*01_MA\.tif; --da"
    ):
        build(tiny_idrid)


def test_refuses_a_mask_of_many_values(tiny_idrid):
    ramp = np.arange(40 * 60, dtype=np.uint8).reshape(40, 60) % 6
    Image.fromarray(ramp).save(tiny_idrid.mask("train", "IDRiD_01", "MA"))
    with pytest.raises(
        ValueError, match=r"two values, 0 and another, got 1, 2, 3, \.\.\. as well as 0 in .*--indexed_masks"
    ):
        build(tiny_idrid)


@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
def test_refuses_a_mask_without_background(tiny_idrid, mode):
    Image.new(mode, (60, 40), "white").save(tiny_idrid.mask("train", "IDRiD_01", "MA"))
    with pytest.raises(
        ValueError, match=r"with background, which is 0, got none in .*_MA\.tif: the whole of IDRiD_01\.jpg"
    ):
        build(tiny_idrid)


def test_refuses_a_picture_bomb(tiny_idrid):
    bomb(tiny_idrid.image(tiny_idrid.grading, "train", "IDRiD_003"))
    with pytest.raises(ValueError, match=r"expected a whole image in .*IDRiD_003\.jpg, .* exceeds limit of 178956970"):
        build(tiny_idrid)


@pytest.mark.parametrize("harm", ["empty", "cut off", "bomb", "black", "folder"])
def test_a_broken_photograph_is_left_out_on_request_and_named(tiny_idrid, harm):
    path = tiny_idrid.image(tiny_idrid.grading, "train", "IDRiD_003")
    {
        "empty": lambda: path.write_bytes(b""),
        "cut off": lambda: path.write_bytes(path.read_bytes()[:-300]),
        "bomb": lambda: bomb(path),
        "black": lambda: Image.new("RGB", (60, 40)).save(path),
        "folder": lambda: (path.unlink(), path.mkdir()),
    }[harm]()
    manifest = build(tiny_idrid, allow_missing=True)
    assert len(manifest.photographs) == 12
    assert len([note for note in manifest.notes if note.startswith("left out: ") and "IDRiD_003.jpg" in note]) == 1


def test_a_note_of_a_broken_photograph_names_no_place_of_this_machine(tiny_idrid):
    tiny_idrid.image(tiny_idrid.grading, "train", "IDRiD_003").write_bytes(b"")
    (note,) = [n for n in build(tiny_idrid, allow_missing=True).notes if "IDRiD_003" in n]
    assert "image in B. Disease Grading/1. Original Images/a. Training Set/IDRiD_003.jpg, got one" in note
    assert str(tiny_idrid.root) not in note


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_refuses_a_photograph_that_may_not_be_read(tiny_idrid):
    tiny_idrid.image(tiny_idrid.grading, "train", "IDRiD_003").chmod(0)
    with pytest.raises(ValueError, match=r"expected a whole image in .*IDRiD_003\.jpg, .* Permission denied"):
        build(tiny_idrid)


COPIES = {
    "re-encoded": lambda image: image,
    "resized": lambda image: image.resize((image.width // 2, image.height // 2)),
    "cropped to its field": lambda image: image.crop(field_of_view(np.asarray(image))),
    "padded": lambda image: ImageOps.expand(image, 37),
    "cropped, resized": lambda image: image.crop(field_of_view(np.asarray(image))).resize((180, 181)),
    "darker": lambda image: image.point(lambda level: level * 0.7),
}


@pytest.mark.parametrize("change", COPIES)
def test_a_renamed_copy_is_found_though_it_was(change, tmp_path):
    """Of four photographs the second has a copy under another name, as PNG or JPEG, among the test ones."""
    rows = []
    for seed in range(4):
        save_photograph(tmp_path / f"{seed}.jpg", eye(seed), quality=92)
        rows.append(RawPhotograph(id=f"photographs/train/{seed}", image=tmp_path / f"{seed}.jpg", split="train"))
    with Image.open(tmp_path / "1.jpg") as image:
        COPIES[change](image).save(tmp_path / "another.jpg", quality=60)
    rows.append(RawPhotograph(id="photographs/test/9", image=tmp_path / "another.jpg", split="test"))
    found = by_id(build_manifest("tiny", rows, tmp_path, folds=2))
    assert [row.id for row in found.values() if row.left_out] == ["tiny/photographs/train/1"]
    assert len({row.group for row in found.values()}) == 4


def test_refuses_a_data_set_of_which_nothing_can_be_used(tiny_idrid):
    row = RawPhotograph(id="a", image=tiny_idrid.root / "none.jpg", split="train")
    with pytest.raises(
        ValueError,
        match="expected at least one photograph that can be used, got none: left out: expected a whole image in ",
    ):
        build_manifest("tiny", [row], tiny_idrid.root, allow_missing=True)


def test_refuses_a_file_outside_of_the_root(tiny_idrid, tmp_path):
    outside = tmp_path / "outside.jpg"
    shutil.copy(tiny_idrid.image(tiny_idrid.grading, "train", "IDRiD_003"), outside)
    with pytest.raises(ValueError, match=r"expected a file below .*idrid, got .*outside\.jpg"):
        build_manifest("tiny", [RawPhotograph(id="a", image=outside, split="train")], tiny_idrid.root)


def drawn_row(tree, mask, name="IDRiD_003"):
    image = tree.image(tree.grading, "train", name)
    draw = lambda width_px, height_px: Drawn({"EX": mask, "optic_disc": mask})  # noqa: E731
    return RawPhotograph(
        id=name, image=image, split="train", annotated=("EX",), draw=draw, drawn_from=(tree.table("train"),)
    )


def test_what_is_drawn_becomes_files_named_by_their_content(tiny_idrid, tmp_path):
    mask = disc(60, 40)
    rows = [drawn_row(tiny_idrid, mask), drawn_row(tiny_idrid, mask, "IDRiD_004")]
    options = {"drawn_root": tmp_path / "drawn", "folds": 2}
    manifest = build_manifest("tiny", rows, tiny_idrid.root, **options)
    row = by_id(manifest)["tiny/IDRiD_003"]
    assert row.masks["EX"].startswith("tiny.masks/IDRiD_003_EX.")
    assert (load_mask(manifest.path(row.masks["EX"])) == mask).all()
    assert row.areas_px == {"EX": mask.sum()}
    assert manifest.path(row.drawn_from[0]) == tiny_idrid.table("train")
    rows[0] = drawn_row(tiny_idrid, mask[::-1, ::-1] | mask)
    again = build_manifest("tiny", rows, tiny_idrid.root, **options)
    assert again.path(by_id(again)["tiny/IDRiD_003"].masks["EX"]) != manifest.path(row.masks["EX"])
    assert (load_mask(manifest.path(row.masks["EX"])) == mask).all()


def test_drawing_needs_a_folder(tiny_idrid):
    with pytest.raises(ValueError, match="expected a drawn_root, because its masks must be drawn"):
        build_manifest("tiny", [drawn_row(tiny_idrid, disc(60, 40))], tiny_idrid.root)


def test_refuses_a_black_photograph_and_names_it(tiny_idrid):
    Image.fromarray(np.zeros((40, 60, 3), np.uint8)).save(tiny_idrid.image(tiny_idrid.grading, "train", "IDRiD_003"))
    with pytest.raises(ValueError, match=r"IDRiD_003\.jpg: expected a bright round field"):
        build(tiny_idrid)


def test_refuses_more_folds_than_photographs(tiny_idrid):
    with pytest.raises(ValueError, match="got 11 folds and 10 photographs"):
        build(tiny_idrid, folds=11)


def test_refuses_an_empty_data_set(tmp_path):
    with pytest.raises(ValueError, match="data set 'none': expected at least one photograph"):
        build_manifest("none", [], tmp_path)
