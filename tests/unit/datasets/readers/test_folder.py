"""Photographs of your own are read as the options describe them; contradictory options are refused."""

import os
import pickle
import sys
from dataclasses import replace

import numpy as np
import pytest
from bundle.datasets.build import build_manifest
from bundle.datasets.copies import perceptual_hash
from bundle.datasets.readers.folder import DrawGrey, DrawIndexed, read_folder
from bundle.manifest import load_manifest, save_manifest
from bundle.transforms import field_of_view, load_mask
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.conftest import HEIGHT_PX, WIDTH_PX, eye

FILES = ("007-0004-000.jpg", "b.JPEG", "c.png", "d.tif", "e.TIFF")
STEMS = ("007-0004-000", "b", "c", "d", "e")
MASKS = "MA=masks/ma,EX=masks/ex,OD=masks/disc"
INDICES = "EX=1,HE=2,MA=3,SE=4"


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
        save(tmp_path / "images" / name, eye(seed))
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


def perceptual_hash_of(path):
    with Image.open(path) as image:
        return perceptual_hash(image.crop(field_of_view(np.asarray(image))))


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
    save(root / "images" / "b_MA.png", eye(9))
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
    manifest = build(root, masks=MASKS, grades="grades.csv", outlined="all", split_column="split")
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
    reading = read_folder(root, grades="grades.csv", allow_missing=True)
    assert [row.id.split("/")[-1] for row in reading.photographs] == ["007-0004-000", "c", "d", "e"]
    assert len(reading.notes) == 2


def names_of(rows):
    return [row.id.split("/")[-1] for row in rows]


def test_outlined_and_graded_photographs_may_lie_in_one_folder(root):
    """Three have masks of lesions; of these, b has no row, and c an empty cell. d and e have a grade alone."""
    (root / "grades.csv").write_text("image,grade\n007-0004-000,0\nc,\nd,3\ne,4\n")
    photographs, notes = read_folder(root, grades="grades.csv", masks=MASKS, outlined="masked")
    assert names_of(photographs) == list(STEMS)
    assert [row.grade for row in photographs] == [0, None, None, 3, 4]
    assert [row.annotated for row in photographs] == [("MA", "EX")] * 3 + [()] * 2
    assert photographs[3].optic_disc == root / "masks" / "disc" / "d.bmp"
    assert "outlined photographs without a grade: 2 (b, c)" in notes


def test_photographs_without_a_mask_are_not_taken_for_free_of_lesions_unless_that_is_said(root):
    for allow_missing in (False, True):
        with pytest.raises(
            ValueError,
            match=r"expected --outlined with --masks and --grades, because 2 photographs have no mask of any lesion \(d"
            r", e\): --outlined masked if .* not outlined, --outlined all if they were searched",
        ):
            read_folder(root, grades="grades.csv", masks=MASKS, allow_missing=allow_missing)
    rows = read_folder(root, grades="grades.csv", masks=MASKS, outlined="all").photographs
    assert {row.annotated for row in rows} == {("MA", "EX")}


def test_allow_missing_drops_no_outlined_photograph(root):
    (root / "grades.csv").write_text("image,grade\nb,5\nd,3\n")
    options = {"grades": "grades.csv", "masks": MASKS, "outlined": "masked"}
    with pytest.raises(ValueError, match=r"1 rows of 'grades\.csv' with '5' as .*\(b in line 2\); 1 images .* \(e\)"):
        read_folder(root, **options)
    photographs, _ = read_folder(root, **options, allow_missing=True)
    assert names_of(photographs) == ["007-0004-000", "b", "c", "d"]
    assert [bool(row.annotated) for row in photographs] == [True, True, True, False]


def test_a_graded_photograph_without_an_indexed_mask_was_not_outlined(root):
    (root / "indexed" / "d.png").unlink()
    rows = read_folder(root, indexed_masks="indexed", indices=INDICES, grades="grades.csv").photographs
    assert [(bool(row.annotated), row.grade) for row in rows] == [
        (True, 0),
        (True, 1),
        (True, 2),
        (False, 3),
        (True, 4),
    ]


def test_a_table_of_splits_and_patients_needs_no_grades(root):
    lines = [f"{stem},{'test' if stem in 'de' else 'train'},{stem[0]}" for stem in STEMS]
    (root / "splits.csv").write_text("\n".join(["image,split,person", *lines]) + "\n")
    options = {"table": "splits.csv", "split_column": "split"}
    rows = read_folder(root, masks=MASKS, patient_column="person", **options).photographs
    assert [row.id.split("/")[1] for row in rows] == ["train", "train", "train", "test", "test"]
    assert [row.patient for row in rows] == ["0", "b", "c", "d", "e"]
    (root / "splits.csv").write_text("\n".join(["image,split", *lines[:4]]) + "\n")
    with pytest.raises(ValueError, match=r"1 images without a split in 'splits\.csv' \(e\)"):
        read_folder(root, masks=MASKS, **options)


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
        ({"masks": MASKS, "split_column": "split"}, "expected --table or --grades with --split_column, got none"),
        ({"masks": MASKS, "table": "grades.csv"}, "expected --table with --split_column, --patient_column or --col"),
        ({"masks": MASKS, "outlined": "all"}, "expected --masks and --grades with --outlined, got one of them"),
        (
            {"masks": MASKS, "grades": "grades.csv", "outlined": "some"},
            "expected --outlined out of all, masked, got 'some'",
        ),
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
    with pytest.raises(
        ValueError, match=r"expected --grades and --table to name tables below .*, got '\.\./grades\.csv'"
    ):
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
    with pytest.raises(ValueError, match=r"1 rows of 'grades\.csv' with '1\.5' as the grade, .*\(b in line 2\)"):
        read_folder(root, grades="grades.csv")


@pytest.mark.parametrize("allow_missing", [False, True])
def test_refuses_masks_that_are_misnamed_because_no_photograph_would_have_the_lesion(root, allow_missing):
    for path in (root / "masks" / "ma").iterdir():
        path.rename(path.with_name(path.name.replace("_MA", "_ma")))
    with pytest.raises(
        ValueError, match=r"found 007.*_ma\.png, b_ma\.png, c_ma\.png, none of which belongs to a photo"
    ):
        read_folder(root, masks=MASKS, allow_missing=allow_missing)


@pytest.mark.parametrize("allow_missing", [False, True])
@pytest.mark.parametrize("name", ["b_ma.png", "b-MA.png", "B_MA.png", "b.mask.png", "b_EX.png"])
def test_refuses_one_mask_that_only_begins_like_a_photograph(root, allow_missing, name):
    (root / "masks" / "ma" / "b_MA.png").rename(root / "masks" / "ma" / name)
    with pytest.raises(ValueError, match=rf"got 1 that only begin like one \({name}\), which would count as free"):
        read_folder(root, masks=MASKS, allow_missing=allow_missing)


def test_masks_of_photographs_that_are_not_there_are_left_out_on_request(root):
    (root / "images" / "b.JPEG").unlink()
    reading = read_folder(root, masks="MA=masks/ma", allow_missing=True)
    assert reading.notes == ["left out: 1 MA masks without an image (b)"]


@pytest.mark.parametrize("name", ["a.npy", "inner/c_MA.png"])
def test_refuses_a_lesion_folder_that_holds_no_mask_but_something_else(root, name):
    path = root / "masks" / "he" / name
    path.parent.mkdir(parents=True)
    path.touch()
    with pytest.raises(ValueError, match=r"expected masks of HE in .*he, found (a\.npy|inner), none of which belongs"):
        read_folder(root, masks=f"{MASKS},HE=masks/he", allow_missing=True)


@pytest.mark.parametrize(("suffix", "kind"), [
    (".bmp", "BMP"), (".jfif", "JPEG"), (".jpe", "JPEG"), (".webp", "WEBP"), (".gif", "GIF"), (".PPM", "PPM"),
])  # fmt: skip
def test_a_photograph_of_any_suffix_that_can_be_decoded_is_read(root, suffix, kind):
    Image.fromarray(eye(9)).save(root / "images" / f"z{suffix}", format=kind)
    (root / "grades.csv").write_text((root / "grades.csv").read_text() + f"z{suffix},3,train\n")
    row = next(row for row in build(root, grades="grades.csv").photographs if row.id.endswith("/z"))
    assert (row.grade, row.width_px, row.height_px) == (3, WIDTH_PX, HEIGHT_PX)


def test_everything_else_in_the_folder_of_photographs_is_noted(root):
    (root / "images" / "IM0001").write_bytes(b"\0" * 132)
    (root / "images" / "left").mkdir()
    reading = read_folder(root, grades="grades.csv")
    assert reading.notes == ["passed over: 2 files or folders in 'images' (IM0001, left)"]


def test_an_inverted_mask_is_read_the_other_way_round_and_noted(root):
    save(root / "masks" / "ma" / "b_MA.png", 255 - square(3))
    save(root / "masks" / "disc" / "c.bmp", 255 - square(6, x=36))
    manifest = build(root, masks=MASKS)
    rows = {row.id.rpartition("/")[2]: row for row in manifest.photographs}
    assert rows["b"].areas_px == {"MA": 9}
    assert (load_mask(manifest.path(rows["b"].masks["MA"])) == (square(3) > 0)).all()
    assert rows["b"].drawn_from == ("own/masks/ma/b_MA.png",)
    assert load_mask(manifest.path(rows["c"].optic_disc)).sum() == 36
    assert rows["c"].masks["MA"] == "own/masks/ma/c_MA.png"
    assert manifest.notes == (
        "changed: 2 masks read the other way round, because they mark more than half of the photograph "
        "(photographs/train/b MA, photographs/train/c optic_disc)",
    )


def test_a_mask_of_half_of_the_photograph_is_taken_as_it_is(root):
    half = np.zeros((HEIGHT_PX, WIDTH_PX), np.uint8)
    half[: HEIGHT_PX // 2] = 255
    save(root / "masks" / "ma" / "b_MA.png", half)
    manifest = build(root, masks="MA=masks/ma")
    assert [row.areas_px for row in manifest.photographs if row.id.endswith("/b")] == [{"MA": 1200}]
    assert manifest.notes == ()


@pytest.mark.parametrize("options", [
    {"indexed_masks": "indexed", "indices": "EX=9,HE=1,MA=3"}, {"masks": "MA=masks/ma", "mask_min": 128},
])  # fmt: skip
def test_refuses_drawn_masks_of_more_than_half_of_the_photograph(root, options):
    save(root / "indexed" / "b.png", np.where(square(5) > 0, 1, 9).astype(np.uint8))
    save(root / "masks" / "ma" / "b_MA.png", 255 - square(3))
    with pytest.raises(
        ValueError, match=r"on less than half of .*b\.JPEG, got more of (EX|MA) in b.*\.png: name the ind"
    ):
        build(root, **options)


def grey_eye(seed):
    return np.asarray(Image.fromarray(eye(seed)).convert("L"))


def deep(root, bits):
    """Store the photographs as grey of so many bits in 16."""
    for seed, stem in enumerate(STEMS):
        for path in (root / "images").glob(f"{stem}.*"):
            path.unlink()
        save(root / "images" / f"{stem}.png", grey_eye(seed).astype(np.uint16) << (bits - 8))


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_16_bit_photographs_are_audited_by_the_8_bits_that_the_network_sees(root, bits):
    expected = []
    for seed in range(5):
        save(root / "eight.png", grey_eye(seed))
        expected.append(perceptual_hash_of(root / "eight.png"))
    deep(root, bits)
    manifest = build(root, grades="grades.csv")
    assert [row.perceptual_hash for row in manifest.photographs] == expected
    assert len({row.group for row in manifest.photographs}) == 5
    assert [note[: note.find(" (")] for note in manifest.notes] == (
        [f"changed: 5 photographs scaled from the {bits} bits that they use"] if bits < 16 else []
    )


def test_refuses_a_photograph_that_stands_twice(root):
    (root / "grades.csv").write_text("image,grade\nb.jpeg,1\nb.jpeg,1\n")
    with pytest.raises(ValueError, match="got 'b' twice"):
        read_folder(root, grades="grades.csv")
    save(root / "images" / "b.png", eye(7))
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
    save(root / "colours.png", eye(0))
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


# patients


def patients_of(reading):
    return {row.id.rsplit("/", 1)[-1]: row.patient for row in reading.photographs}


def tabulate(root, *patients):
    lines = [f"{stem},2,{patient}" for stem, patient in zip(STEMS, patients, strict=True)]
    (root / "grades.csv").write_text("\n".join(["image,grade,person", *lines]) + "\n")


def test_a_column_says_whose_a_photograph_is(root):
    tabulate(root, "anna", "anna", " bo ", "007", "7")
    found = patients_of(read_folder(root, grades="grades.csv", patient_column="person"))
    assert found == dict(zip(STEMS, ("anna", "anna", "bo", "007", "7"), strict=True))


def test_a_pattern_says_whose_a_photograph_is_with_outlines_alone_too(root):
    found = patients_of(read_folder(root, masks=MASKS, patient_pattern="([bc]|[^bc]).*"))
    assert found == dict(zip(STEMS, "0bcde", strict=True))


def test_the_manifest_has_the_pseudonym_of_a_patient_and_not_the_id(root):
    tabulate(root, "anna", "anna", "bo", "cy", "cy")
    manifest = build(root, grades="grades.csv", patient_column="person")
    rows = {row.id.rsplit("/", 1)[-1]: row for row in manifest.photographs}
    assert rows["b"].patient == "own/55579b557896d0ce"  # echo -n anna | sha256sum
    assert (rows["b"].fold, rows["d"].fold) == (rows["007-0004-000"].fold, rows["e"].fold)
    save_manifest(manifest, root / "own.json")
    assert "anna" not in (root / "own.json").read_text()


def test_photographs_of_unknown_patients_are_refused_or_left_out(root):
    tabulate(root, "anna", "", "bo", "cy", "")
    options = {"grades": "grades.csv", "patient_column": "person"}
    with pytest.raises(ValueError, match=r"2 images without a patient in column 'person' \(b, e\); .* --allow_missing"):
        read_folder(root, **options)
    reading = read_folder(root, **options, allow_missing=True)
    assert set(patients_of(reading)) == {"007-0004-000", "c", "d"}
    assert reading.notes == ["left out: 2 images without a patient in column 'person' (b, e)"]
    with pytest.raises(ValueError, match=r"4 images without a name that --patient_pattern '\(b\)' matches \(007-0004"):
        read_folder(root, masks=MASKS, patient_pattern="(b)")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"patient_column": "eye", "patient_pattern": "(.).*"},
            "expected --patient_column or --patient_pattern, got b",
        ),
        ({"patient_column": "eye"}, r"grades\.csv: expected a column 'eye', got \['image', 'grade', 'split'\]"),
        ({"patient_pattern": ".*"}, "which has no group"),
        ({"patient_pattern": "(left|right)"}, "which matches none of 5"),
    ],
)
def test_refuses_options_that_find_no_patient(root, options, message):
    with pytest.raises(ValueError, match=message):
        read_folder(root, grades="grades.csv", **options)


def test_refuses_a_column_of_no_table(root):
    with pytest.raises(ValueError, match="expected --table or --grades with --patient_column, got none"):
        read_folder(root, masks=MASKS, patient_column="person")


# Further columns


def with_columns(root, *cells, name="eyes.csv"):
    """Write a table of names that no page may show, and of cameras in the language of this clinic."""
    rows = [f"{stem};Anna Müller;{cell}" for stem, cell in zip(STEMS, cells, strict=True)]
    (root / name).write_text("\n".join(["image;person;Gerät;site", *rows]), encoding="utf-8")
    return {"masks": MASKS, "table": name}


def test_the_columns_that_are_named_reach_the_manifest_and_no_other_does(root):
    options = with_columns(root, "Größe 1;north", ";north", "Größe 1;", "B;south", ";")
    manifest = build(root, **options, columns="gerät, site")
    found = {row.id.split("/")[-1]: row.columns for row in manifest.photographs}
    assert found == {
        "007-0004-000": {"gerät": "Größe 1", "site": "north"}, "b": {"site": "north"}, "c": {"gerät": "Größe 1"},
        "d": {"gerät": "B", "site": "south"}, "e": {},
    }  # fmt: skip
    save_manifest(manifest, root / "own.json")
    assert load_manifest(root / "own.json").photographs == manifest.photographs
    assert not {"Anna", "person"} & set((root / "own.json").read_text().replace('"', " ").split())
    assert "photographs without a value in column 'gerät': 2 (b, e)" in manifest.notes


def test_columns_may_stand_in_the_table_of_grades_and_change_nothing_else(root):
    lines = (root / "grades.csv").read_text().split()
    (root / "grades.csv").write_text("\n".join([f"{lines[0]},camera", *(f"{line},A" for line in lines[1:])]))
    plain, kept = (build(root, grades="grades.csv", columns=columns) for columns in (None, "camera"))
    assert {row.columns.get("camera") for row in kept.photographs} == {"A"}
    assert [replace(row, columns={}) for row in kept.photographs] == list(plain.photographs)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ("camra", r"expected a column 'camra', got \['image', 'person', 'Gerät', 'site'\]"),
        ("site,", "expected --columns as different names of columns, separated by commas, got 'site,'"),
        ("site,Site", "expected --columns as different names of columns"),
        ("site,Person", "without those of names, grades, splits and patients, got 'Person'"),
        ("image", "without those of names, grades, splits and patients, got 'image'"),
        ("Gerät", r"eyes\.csv, line 3: expected names and values of columns as text of 1 to 80 .* got 81 characters"),
    ],
)
def test_refuses_columns_that_are_not_there_or_may_not_be_shown(root, columns, message):
    options = with_columns(root, "A;north", f"{81 * 'x'};north", "A;", "B;south", ";")
    with pytest.raises(ValueError, match=message):
        read_folder(root, **options, columns=columns, patient_column="person")


def test_refuses_columns_without_a_table(root):
    with pytest.raises(ValueError, match="expected --table or --grades with --columns, got none"):
        read_folder(root, masks=MASKS, columns="site")


# DICOM


def test_dicom_photographs_are_read_beside_others_whatever_their_names(root):
    made = pytest.importorskip("tests.dicom_files", reason="the extra `dicom` is not installed")
    names = {"f.dcm": "f", "g.DCM": "g", "IM0001": "IM0001", "1.2.840.7": "1.2.840.7"}
    for seed, name in enumerate(names, start=10):
        made.save(root / "images" / name, made.photograph(eye(seed)))
    made.save(root / "images" / "DICOMDIR", made.photograph(eye(0)))
    save(root / "masks" / "ma" / "1.2.840.7.png", square(4))
    table = root / "grades.csv"
    table.write_text(table.read_text() + "f.dcm,2,train\ng,3,train\nIM0001,0,train\n1.2.840.7,1,train\n")
    manifest = build(root, grades="grades.csv", masks=MASKS, outlined="masked")
    found = {row.id.split("/")[-1]: row for row in manifest.photographs}
    assert set(found) == {*STEMS, *names.values()}
    assert [found[stem].grade for stem in names.values()] == [2, 3, 0, 1]
    assert found["1.2.840.7"].areas_px == {"MA": 16}
    assert (found["f"].width_px, found["f"].height_px) == (WIDTH_PX, HEIGHT_PX)
    assert found["f"].perceptual_hash != found["g"].perceptual_hash
    assert manifest.notes[0] == "passed over: 1 files or folders in 'images' (DICOMDIR)"


def of_patients(root):
    """Add photographs of two patients as DICOM, each eye under a name of its own, and one of no patient."""
    made = pytest.importorskip("tests.dicom_files", reason="the extra `dicom` is not installed")
    table = root / "grades.csv"
    ids = {"f.dcm": "anna", "1.2.3": "bo", "IM1": "anna", "IM2": "bo", "g.dcm": ""}
    for seed, (name, patient) in enumerate(ids.items(), start=10):
        made.save(root / "images" / name, made.photograph(eye(seed), PatientID=patient))
    table.write_text(table.read_text() + "f,2,train\n1.2.3,2,train\nIM1,0,train\nIM2,0,train\ng,1,train\n")
    return made


def test_dicom_states_its_patient_and_the_manifest_has_the_pseudonym_alone(root):
    made = of_patients(root)
    manifest = build(root, grades="grades.csv")
    rows = {row.id.rsplit("/", 1)[-1]: row for row in manifest.photographs}
    anna, bo = "own/55579b557896d0ce", "own/3d099d0f13df9d0b"  # echo -n bo | sha256sum
    found = {stem: row.patient for stem, row in rows.items() if row.patient}
    assert found == {"f": anna, "IM1": anna, "1.2.3": bo, "IM2": bo}
    assert (rows["f"].fold, rows["1.2.3"].fold) == (rows["IM1"].fold, rows["IM2"].fold)
    assert "but not those of 6 images (007-0004-000.jpg, b.JPEG, c.png, ...)" in manifest.notes[0]
    save_manifest(manifest, root / "own.json")
    written = (root / "own.json").read_text()
    assert not any(told in written for told in ("anna", made.PATIENT_NAME, *made.PATIENT_NAME.split("^")))


def test_an_option_says_whose_a_dicom_photograph_is_in_place_of_its_header(root):
    of_patients(root)
    found = patients_of(read_folder(root, grades="grades.csv", patient_pattern="(.).*"))
    assert found == {**dict(zip(STEMS, "0bcde", strict=True)), "f": "f", "1.2.3": "1", "IM1": "I", "IM2": "I", "g": "g"}


def test_a_header_that_cannot_be_read_is_left_to_the_reader_of_pixels(root):
    of_patients(root)
    (root / "images" / "f.dcm").write_bytes(b"\0" * 200)
    photographs, notes = read_folder(root, grades="grades.csv")
    assert {row.image.name: row.patient for row in photographs}["f.dcm"] is None
    with pytest.raises(ValueError, match=r"expected a whole DICOM file in .*f\.dcm"):
        build_manifest("own", photographs, root, folds=2)
    manifest = build_manifest("own", photographs, root, folds=2, notes=notes, allow_missing=True)
    assert len(manifest.photographs) == 9


def test_a_dicom_and_a_picture_of_one_name_are_refused(root):
    made = pytest.importorskip("tests.dicom_files", reason="the extra `dicom` is not installed")
    made.save(root / "images" / "c.dcm", made.photograph(eye(2)))
    with pytest.raises(ValueError, match="expected one file called c in"):
        read_folder(root, grades="grades.csv")


def test_without_pydicom_a_dicom_photograph_says_what_to_install(root, monkeypatch):
    made = pytest.importorskip("tests.dicom_files", reason="the extra `dicom` is not installed")
    made.save(root / "images" / "f.dcm", made.photograph(eye(9)))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ValueError, match=r"pydicom for DICOM photographs, found none; say .*\[dicom\]"):
        build(root, masks=MASKS)


@pytest.fixture
def linked(root, tmp_path_factory):
    """A folder of links to the photographs and masks of ``root``, and the store where these lie."""
    folder = tmp_path_factory.mktemp("linked")
    for path in (root / "images" / "b.JPEG", root / "images" / "c.png", root / "masks" / "ma" / "b_MA.png"):
        link = folder / path.relative_to(root)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    return folder


def test_links_out_of_the_folder_are_refused_with_the_option_that_follows_them(linked):
    with pytest.raises(
        ValueError,
        match=r"expected own/images/b\.JPEG below .*, found a symbolic link to .*b\.JPEG; put .* --follow_links",
    ):
        build(linked, masks="MA=masks/ma")


@pytest.mark.parametrize("mask_min", [None, 128])
def test_followed_links_are_files_of_a_root_of_their_own_and_are_read_again(linked, root, tmp_path, mask_min):
    photographs, notes = read_folder(linked, masks="MA=masks/ma", mask_min=mask_min)
    manifest = build_manifest(
        "own", photographs, linked, drawn_root=tmp_path / "drawn", folds=2, notes=notes, follow_links=True
    )
    assert [row.id for row in manifest.photographs] == ["own/photographs/train/b", "own/photographs/train/c"]
    assert manifest.photographs[0].image == "own.links/images/b.JPEG"
    assert manifest.roots["own.links"] == root.resolve()
    save_manifest(manifest, tmp_path / "own.json")
    again = load_manifest(tmp_path / "own.json")
    assert again.path(again.photographs[0].image) == root.resolve() / "images" / "b.JPEG"
    assert load_mask(again.path(again.photographs[0].masks["MA"])).sum() == 9


def test_links_below_the_folder_need_no_option(root):
    (root / "images" / "z.png").symlink_to(root / "indexed" / ".." / "images" / "c.png")
    assert "own/images/z.png" in {row.image for row in build(root, masks=MASKS).photographs}
