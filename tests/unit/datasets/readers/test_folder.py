"""Photographs of your own are read as the options describe them; contradictory options are refused."""

import os
import pickle
import sys

import numpy as np
import pytest
from bundle.datasets.build import build_manifest
from bundle.datasets.readers.folder import DrawGrey, DrawIndexed, read_folder
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

WIDTH_PX, HEIGHT_PX = 60, 40
FILES = ("007-0004-000.jpg", "b.JPEG", "c.png", "d.tif", "e.TIFF")
STEMS = ("007-0004-000", "b", "c", "d", "e")
MASKS = "MA=masks/ma,EX=masks/ex,OD=masks/disc"
INDICES = "EX=1,HE=2,MA=3,SE=4"


def eye(seed):
    """Draw a bright disc on black, patched at random so that no two seeds look alike."""
    patches = np.random.default_rng(seed).integers(80, 255, (12, 12, 3), dtype=np.uint8)
    smooth = Image.fromarray(patches).resize((WIDTH_PX, HEIGHT_PX), Image.Resampling.BICUBIC)
    y, x = np.mgrid[:HEIGHT_PX, :WIDTH_PX]
    disc = (x - 29.5) ** 2 + (y - 19.5) ** 2 < 18**2
    return Image.fromarray(np.where(disc[..., None], np.asarray(smooth), 3).astype(np.uint8))


def square(side_px, value=255, x=20, y=15):
    pixels = np.zeros((HEIGHT_PX, WIDTH_PX), np.uint8)
    pixels[y : y + side_px, x : x + side_px] = value
    return pixels


def save(path, pixels, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(path)


@pytest.fixture
def root(tmp_path):
    """Five photographs of five suffixes, masks of some, masks of indices, and two tables."""
    for seed, name in enumerate(FILES):
        save(tmp_path / "images" / name, np.asarray(eye(seed)))
    (tmp_path / "images" / "._b.jpeg").write_bytes(b"\0")
    (tmp_path / "images" / "Thumbs.db").write_bytes(b"\0")
    for stem in STEMS[:3]:
        save(tmp_path / "masks" / "ma" / f"{stem}_MA.png", square(3))
    save(tmp_path / "masks" / "ex" / "c.tif", square(5))
    for stem in STEMS[:4]:
        save(tmp_path / "masks" / "disc" / f"{stem}.bmp", square(6, x=36))
    for stem in STEMS:
        save(tmp_path / "indexed" / f"{stem}.png", square(5, 3) + square(2, 1, x=40))
    grades = zip(STEMS, (0, 1, 2, 3, 4), ("train", "valid", "train", "train", "test"), strict=True)
    rows = [f"{stem},{grade},{split}" for stem, grade, split in grades]
    (tmp_path / "grades.csv").write_text("\n".join(["image,grade,split", *rows]) + "\n")
    return tmp_path


def by_id(found):
    return {row.id: row for row in found.photographs}


def build(root, name="own", **options):
    photographs, notes = read_folder(root, **options)
    return build_manifest(name, photographs, root, drawn_root=root / "drawn", folds=2, notes=notes)


def test_a_table_of_grades_is_enough(root):
    rows = by_id(read_folder(root, grades="grades.csv"))
    assert [row.grade for row in rows.values()] == [0, 1, 2, 3, 4]
    assert [row.image.name for row in rows.values()] == list(FILES)
    assert list(rows) == [f"photographs/train/{stem}" for stem in STEMS]
    assert {row.annotated for row in rows.values()} == {()}


def test_a_column_may_say_what_is_for_testing_and_valid_is_trained_on(root):
    rows = by_id(read_folder(root, grades="grades.csv", split_column="split"))
    assert [id_ for id_ in rows if "/test/" in id_] == ["photographs/test/e"]
    assert rows["photographs/train/b"].split == "train"
    assert rows["photographs/test/e"].split == "test"


def test_the_columns_may_have_other_names_and_the_table_may_lie_elsewhere(root, tmp_path_factory):
    table = tmp_path_factory.mktemp("elsewhere") / "labels.csv"
    table.write_text("id_code,diagnosis\n" + "".join(f"{stem},2\n" for stem in STEMS))
    reading = read_folder(root, grades=str(table), name_column="id_code", grade_column="diagnosis")
    assert [row.grade for row in reading.photographs] == [2] * 5


def test_an_absent_mask_is_an_absent_lesion_and_each_image_counts_as_outlined(root):
    rows = by_id(read_folder(root, masks=MASKS))
    assert {row.annotated for row in rows.values()} == {("MA", "EX")}
    masks_of = {id_.split("/")[-1]: sorted(row.masks) for id_, row in rows.items()}
    assert masks_of == {"007-0004-000": ["MA"], "b": ["MA"], "c": ["EX", "MA"], "d": [], "e": []}
    assert rows["photographs/train/d"].optic_disc == root / "masks" / "disc" / "d.bmp"
    assert rows["photographs/train/e"].optic_disc is None


def test_masks_are_drawn_only_where_they_must_be(root):
    assert [row.draw for row in read_folder(root, masks=MASKS).photographs] == [None] * 5
    grey = by_id(read_folder(root, masks=MASKS, mask_min=128))
    assert grey["photographs/train/e"].draw is None
    assert grey["photographs/train/c"].masks == {}
    assert sorted(grey["photographs/train/c"].draw(60, 40).masks) == ["EX", "MA", "optic_disc"]
    assert grey["photographs/train/d"].drawn_from == (root / "masks" / "disc" / "d.bmp",)


def test_the_name_of_an_image_goes_before_that_of_a_lesion(root):
    save(root / "images" / "b_MA.png", np.asarray(eye(9)))
    rows = by_id(read_folder(root, masks="MA=masks/ma"))
    assert rows["photographs/train/b"].masks == {}
    assert rows["photographs/train/b_MA"].masks == {"MA": root / "masks" / "ma" / "b_MA.png"}


def test_indices_are_told_apart(root):
    row = by_id(read_folder(root, indexed_masks="indexed", indices=INDICES))["photographs/train/c"]
    assert row.annotated == ("MA", "HE", "EX", "SE")
    assert row.drawn_from == (root / "indexed" / "c.png",)
    masks = row.draw(60, 40).masks
    assert {lesion: mask.sum() for lesion, mask in masks.items()} == {"EX": 4, "HE": 0, "MA": 25, "SE": 0}


def test_an_index_may_be_that_of_a_palette_or_of_a_single_bit(root):
    palette = Image.fromarray(square(5, 3), mode="P")
    palette.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0, 9, 9, 9])
    palette.save(root / "palette.png")
    assert DrawIndexed(root / "palette.png", {"MA": 3})(60, 40).masks["MA"].sum() == 25
    save(root / "bit.png", square(4), mode="1")
    assert DrawIndexed(root / "bit.png", {"optic_disc": 1})(60, 40).masks["optic_disc"].sum() == 16


def test_a_grey_pixel_belongs_to_the_lesion_from_the_least_value_on(root):
    save(root / "grey.png", square(5, 127) + square(2, 1))
    assert DrawGrey({"MA": root / "grey.png"}, 128)(60, 40).masks["MA"].sum() == 4
    assert DrawGrey({"MA": root / "grey.png"}, 127)(60, 40).masks["MA"].sum() == 25
    assert DrawGrey({"MA": root / "grey.png"}, 129)(60, 40).masks["MA"].sum() == 0


@pytest.mark.parametrize("mode", ["L", "RGB", "1"])
def test_grey_may_be_stored_as_three_equal_channels_or_as_a_bit(root, mode):
    save(root / "grey.png", square(4), mode=mode)
    draw = pickle.loads(pickle.dumps(DrawGrey({"EX": root / "grey.png"}, 128)))
    assert draw(60, 40).masks["EX"].sum() == 16


@given(values=st.lists(st.integers(0, 4), min_size=12, max_size=12), order=st.permutations(("MA", "HE", "EX", "SE")))
def test_each_pixel_goes_to_one_lesion_or_to_none(tmp_path_factory, values, order):
    path = tmp_path_factory.getbasetemp() / "indexed.png"
    stored = np.array(values, np.uint8).reshape(3, 4)
    save(path, stored)
    masks = DrawIndexed(path, {lesion: index for index, lesion in enumerate(order, start=1)})(4, 3).masks
    assert np.array_equal(sum(masks[lesion] * (index + 1) for index, lesion in enumerate(order)), stored)


@given(mask_min=st.integers(1, 255), values=st.lists(st.integers(0, 255), min_size=12, max_size=12))
def test_as_many_pixels_belong_to_the_lesion_as_reach_the_value(tmp_path_factory, mask_min, values):
    path = tmp_path_factory.getbasetemp() / "grey.png"
    save(path, np.array(values, np.uint8).reshape(3, 4))
    assert DrawGrey({"SE": path}, mask_min)(4, 3).masks["SE"].sum() == sum(value >= mask_min for value in values)


def test_the_manifest_names_the_masks_as_they_are(root):
    manifest = build(root, masks=MASKS, grades="grades.csv", split_column="split")
    row = next(row for row in manifest.photographs if row.id == "own/photographs/train/c")
    assert row.masks == {"MA": "own/masks/ma/c_MA.png", "EX": "own/masks/ex/c.tif"}
    assert row.areas_px == {"MA": 9, "EX": 25}
    assert row.optic_disc == "own/masks/disc/c.bmp"
    assert row.grade == 2
    assert [row.split for row in manifest.photographs].count("test") == 1


@pytest.mark.parametrize(
    ("options", "areas_px"),
    [
        ({"masks": MASKS, "mask_min": 128}, {"MA": 9, "EX": 25}),
        ({"indexed_masks": "indexed", "indices": f"{INDICES},OD=5"}, {"EX": 4, "MA": 25}),
    ],
)
def test_the_manifest_holds_what_was_drawn_and_what_from(root, options, areas_px):
    row = next(row for row in build(root, **options).photographs if row.id == "own/photographs/train/c")
    assert row.areas_px == areas_px
    # The folder of what is drawn lies below the root here.
    assert row.masks["MA"].startswith("own/drawn/photographs/train/c_MA.")
    assert row.drawn_from
    assert (row.optic_disc is None) == ("indices" in options)


def test_grey_masks_without_a_least_value_are_refused_when_they_are_opened(root):
    save(root / "masks" / "ex" / "c.tif", square(5, 100) + square(2, 50))
    with pytest.raises(
        ValueError, match=r"expected a mask of two values, .* got 100, 150 as well as 0 in .*c\.tif; .* --mask_min"
    ):
        build(root, masks=MASKS)
    assert build(root, masks=MASKS, mask_min=128).photographs


def test_images_without_a_row_and_rows_without_an_image_are_counted_and_named(root):
    table = (root / "grades.csv").read_text().replace("\nb,", "\nz,")
    (root / "grades.csv").write_text(table)
    with pytest.raises(
        ValueError,
        match=r"1 rows of 'grades\.csv' without an image \(z\); 1 images without a row in 'grades\.csv' \(b\)",
    ):
        read_folder(root, grades="grades.csv")
    reading = read_folder(root, grades="grades.csv", masks=MASKS, allow_missing=True)
    assert [row.id.split("/")[-1] for row in reading.photographs] == ["007-0004-000", "c", "d", "e"]
    assert len(reading.notes) == 2


def test_masks_without_an_image_are_counted_and_named(root):
    (root / "images" / "b.JPEG").unlink()
    with pytest.raises(ValueError, match=r"1 MA masks without an image \(b\); 1 OD masks without an image \(b\)"):
        read_folder(root, masks=MASKS)


def test_indexed_masks_and_images_without_each_other_are_counted_and_named(root):
    (root / "indexed" / "b.png").rename(root / "indexed" / "z.png")
    with pytest.raises(
        ValueError, match=r"1 indexed masks without an image \(z\); 1 images without an indexed mask \(b\)"
    ):
        read_folder(root, indexed_masks="indexed", indices=INDICES)
    reading = read_folder(root, indexed_masks="indexed", indices=INDICES, allow_missing=True)
    assert len(reading.photographs) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "expected --masks, --indexed_masks or --grades, got none"),
        (
            {"masks": MASKS, "indexed_masks": "indexed", "indices": INDICES},
            "expected --masks or --indexed_masks, got b",
        ),
        ({"indexed_masks": "indexed"}, "expected --indexed_masks and --indices together, got one of them"),
        ({"grades": "grades.csv", "indices": INDICES}, "expected --indexed_masks and --indices together, got one"),
        ({"grades": "grades.csv", "mask_min": 128}, "expected --masks with --mask_min, got none"),
        ({"masks": MASKS, "split_column": "split"}, "expected --grades with --split_column, got none"),
    ],
)
def test_refuses_options_that_contradict_each_other(root, options, message):
    with pytest.raises(ValueError, match=message):
        read_folder(root, **options)


@pytest.mark.parametrize("mask_min", [0, 256, -1, 12.5, "128", True])
def test_refuses_a_least_value_that_no_grey_can_have(root, mask_min):
    with pytest.raises(ValueError, match=rf"expected --mask_min as a whole number in 1-255, got {mask_min!r}"):
        read_folder(root, masks=MASKS, mask_min=mask_min)


@pytest.mark.parametrize("masks", ["masks/ma", "MA=", "XX=masks/ma", "MA=masks/ma,MA=masks/ex", "MA=masks/ma,", ""])
def test_refuses_masks_without_a_code_for_each(root, masks):
    with pytest.raises(
        ValueError, match=rf"expected --masks as CODE=\.\.\., .* MA, HE, EX, SE, OD, each once, got '{masks}'"
    ):
        read_folder(root, masks=masks)


@pytest.mark.parametrize("indices", ["EX=0", "EX=1,HE=1", "EX=1.5", "EX=one", "EX=256", "EX=-1"])
def test_refuses_indices_that_are_no_indices(root, indices):
    with pytest.raises(ValueError, match=rf"expected --indices as different whole numbers in 1-255, got '{indices}'"):
        read_folder(root, indexed_masks="indexed", indices=indices)


@pytest.mark.parametrize("folder", ["..", "images/../../other", "/"])
@pytest.mark.parametrize("option", ["images", "masks", "indexed_masks"])
def test_refuses_a_folder_that_leads_out_of_the_root(root, option, folder):
    options = {"indices": INDICES} if option == "indexed_masks" else {"grades": "grades.csv"}
    named = f"MA={folder}" if option == "masks" else folder
    with pytest.raises(ValueError, match=rf"expected --{option} to name a folder below .*, got '{folder}'"):
        read_folder(root, **options, **{option: named})


def test_refuses_a_table_that_leads_out_of_the_root(root):
    with pytest.raises(ValueError, match=r"expected --grades to name a table below .*, got '\.\./grades\.csv'"):
        read_folder(root, grades="../grades.csv")


@pytest.mark.parametrize(
    "options", [{"images": "photos", "grades": "grades.csv"}, {"masks": "MA=photos"},
                {"indexed_masks": "photos", "indices": INDICES}],
)  # fmt: skip
def test_refuses_a_folder_that_is_not_there_and_says_which_option_named_it(root, options):
    named = next(name for name, value in options.items() if "photos" in value)
    with pytest.raises(ValueError, match=rf"expected a folder at .*photos, named by --{named}, found none"):
        read_folder(root, **options)


def test_refuses_a_root_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"expected the folder of the photographs, found none at .*nowhere"):
        read_folder(tmp_path / "nowhere", grades="grades.csv")


def test_refuses_a_folder_without_photographs_and_says_what_is_there(root):
    with pytest.raises(ValueError, match=r"expected photographs \(\.jpg, .*\) in .*masks, found disc, ex, ma"):
        read_folder(root, images="masks", grades="grades.csv")


def test_refuses_a_folder_without_masks_because_no_photograph_would_have_the_lesion(root):
    (root / "masks" / "he").mkdir()
    with pytest.raises(ValueError, match=r"expected masks \(\.jpg, .*\) of HE in .*he, found none"):
        read_folder(root, masks=f"{MASKS},HE=masks/he")


def test_refuses_two_masks_of_one_lesion(root):
    save(root / "masks" / "ma" / "b.png", square(3))
    with pytest.raises(ValueError, match=r"expected one MA mask of b, got b\.png and b_MA\.png in .*ma"):
        read_folder(root, masks=MASKS)


def test_refuses_discs_alone_because_nothing_could_be_learnt_from_them(root):
    with pytest.raises(ValueError, match=r"expected photographs with a grade or with outlines of lesions in .*, found"):
        read_folder(root, masks="OD=masks/disc")
    assert len(read_folder(root, masks="OD=masks/disc", grades="grades.csv").photographs) == 5


def test_refuses_a_table_without_the_column(root):
    with pytest.raises(ValueError, match=r"grades\.csv: expected a column 'level', got \['image', 'grade', 'split'\]"):
        read_folder(root, grades="grades.csv", grade_column="level")
    with pytest.raises(ValueError, match=r"grades\.csv: expected a column 'fold', got \['image', 'grade', 'split'\]"):
        read_folder(root, grades="grades.csv", split_column="fold")


def test_refuses_a_grade_that_is_none(root):
    (root / "grades.csv").write_text("image,grade\nb,1.5\n")
    with pytest.raises(ValueError, match=r"expected a grade in 0-4 for b, got '1\.5'"):
        read_folder(root, grades="grades.csv")


def test_refuses_a_photograph_that_stands_twice(root):
    (root / "grades.csv").write_text("image,grade\nb.jpeg,1\nb.jpeg,1\n")
    with pytest.raises(ValueError, match="got 'b' twice"):
        read_folder(root, grades="grades.csv")
    save(root / "images" / "b.png", np.asarray(eye(7)))
    with pytest.raises(ValueError, match=r"expected one file called b in .*images, got b\.png too"):
        read_folder(root, masks=MASKS)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not store such a name")
def test_refuses_a_file_name_that_is_not_utf8(root):
    with open(os.path.join(os.fsencode(root / "images"), b"\xff.png"), "wb"):
        pass
    with pytest.raises(ValueError, match=r"expected file names in UTF-8 in .*images, got b'\\xff\.png'"):
        read_folder(root, grades="grades.csv")


def test_refuses_an_index_without_a_name(root):
    save(root / "indexed" / "c.png", square(5, 3) + square(3, 9, x=40) + square(2, 1, x=50))
    rows = by_id(read_folder(root, indexed_masks="indexed", indices="EX=1,HE=2"))
    with pytest.raises(ValueError, match=r"expected indices out of 0, 1, 2 in .*c\.png, got 3, 9 too; name all of"):
        rows["photographs/train/c"].draw(60, 40)


def test_refuses_a_mask_of_colours_where_indices_or_grey_are_expected(root):
    save(root / "colours.png", np.asarray(eye(0)))
    with pytest.raises(ValueError, match=r"expected a mask of indices \(one channel.* in .*colours\.png, got colours"):
        DrawIndexed(root / "colours.png", {"MA": 1})(60, 40)
    with pytest.raises(
        ValueError, match=r"expected a grey mask of 8 bits in .*colours\.png, got colours; a mask of two"
    ):
        DrawGrey({"MA": root / "colours.png"}, 128)(60, 40)
    save(root / "indexed.png", square(3, 1), "P")
    with pytest.raises(ValueError, match=r"expected a grey mask of 8 bits in .*indexed\.png, got indices of a palette"):
        DrawGrey({"MA": root / "indexed.png"}, 128)(60, 40)
    save(root / "deep.png", square(3, 1).astype(np.uint16))
    with pytest.raises(ValueError, match=r"expected a grey mask of 8 bits in .*deep\.png, got 16 bits"):
        DrawGrey({"MA": root / "deep.png"}, 128)(60, 40)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_grey_and_indices_may_come_as_colours_with_an_opacity_that_says_nothing(root, mode):
    save(root / "grey.png", square(3, 200), mode)
    assert (DrawGrey({"MA": root / "grey.png"}, 128)(60, 40).masks["MA"] == (square(3) > 0)).all()
    save(root / "indexed.png", square(3, 2), mode)
    assert (DrawIndexed(root / "indexed.png", {"EX": 2})(60, 40).masks["EX"] == (square(3) > 0)).all()


def test_a_folder_may_hold_masks_of_two_colours_and_of_16_bits(root):
    colour = np.zeros((HEIGHT_PX, WIDTH_PX, 4), np.uint8)
    colour[..., 0], colour[..., 3] = square(3), 255
    save(root / "masks" / "ma" / "b_MA.png", colour)
    save(root / "masks" / "ma" / "c_MA.png", square(4).astype(np.uint16) * 257)
    areas_px = {row.id: dict(row.areas_px) for row in build(root, masks="MA=masks/ma").photographs}
    assert areas_px["own/photographs/train/b"] == {"MA": 9}
    assert areas_px["own/photographs/train/c"] == {"MA": 16}


def test_refuses_a_mask_of_another_size_or_that_is_cut_off(root):
    path = root / "indexed" / "c.png"
    for draw in (DrawIndexed(path, {"EX": 1, "MA": 3}), DrawGrey({"MA": path}, 128)):
        with pytest.raises(ValueError, match=r"expected a mask of 40x60 px, .* got 60x40 px in .*c\.png"):
            draw(40, 60)
    path.write_bytes(path.read_bytes()[:-30])
    for draw in (DrawIndexed(path, {"EX": 1, "MA": 3}), DrawGrey({"MA": path}, 128)):
        with pytest.raises(ValueError, match=r"expected a whole mask in .*c\.png"):
            draw(60, 40)


# DICOM


def test_dicom_photographs_are_read_beside_others_whatever_their_names(root):
    made = pytest.importorskip("tests.dicom_files", reason="the extra `dicom` is not installed")
    names = {"f.dcm": "f", "g.DCM": "g", "IM0001": "IM0001", "1.2.840.7": "1.2.840.7"}
    for seed, name in enumerate(names, start=10):
        made.save(root / "images" / name, made.photograph(np.asarray(eye(seed))))
    made.save(root / "images" / "DICOMDIR", made.photograph(np.asarray(eye(0))))
    save(root / "masks" / "ma" / "1.2.840.7.png", square(4))
    table = root / "grades.csv"
    table.write_text(table.read_text() + "f.dcm,2,train\ng,3,train\nIM0001,0,train\n1.2.840.7,1,train\n")
    manifest = build(root, grades="grades.csv", masks=MASKS)
    found = {row.id.split("/")[-1]: row for row in manifest.photographs}
    assert set(found) == {*STEMS, *names.values()}
    assert [found[stem].grade for stem in names.values()] == [2, 3, 0, 1]
    assert found["1.2.840.7"].areas_px == {"MA": 16}
    assert (found["f"].width_px, found["f"].height_px) == (WIDTH_PX, HEIGHT_PX)
    assert found["f"].perceptual_hash != found["g"].perceptual_hash


def test_a_dicom_and_a_picture_of_one_name_are_refused(root):
    made = pytest.importorskip("tests.dicom_files", reason="the extra `dicom` is not installed")
    made.save(root / "images" / "c.dcm", made.photograph(np.asarray(eye(2))))
    with pytest.raises(ValueError, match="expected one file called c in"):
        read_folder(root, grades="grades.csv")


def test_without_pydicom_a_dicom_photograph_says_what_to_install(root, monkeypatch):
    made = pytest.importorskip("tests.dicom_files", reason="the extra `dicom` is not installed")
    made.save(root / "images" / "f.dcm", made.photograph(np.asarray(eye(9))))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ValueError, match=r"pydicom for DICOM photographs, found none; say .*\[dicom\]"):
        build(root, masks=MASKS)
