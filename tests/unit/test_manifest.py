"""A manifest survives saving, and refuses what no data set can hold."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest
from bundle.labels import LESIONS
from bundle.manifest import Manifest, Photograph, load_manifest, save_manifest
from hypothesis import given, settings
from hypothesis import strategies as st

ROW = Photograph(
    id="made/a", image="made/a.jpg", split="train", sha256="0" * 64, perceptual_hash="f" * 64, width_px=60,
    height_px=40, group="made/a",
)  # fmt: skip


def manifest(*rows, root=Path("/data")):
    return Manifest(name="made", roots={"made": root}, folds=2, seed=0, photographs=rows or (ROW,), notes=("found",))


rows = st.builds(
    Photograph,
    id=st.uuids().map(str), image=st.just("made/images/ö.jpg"), split=st.just("train"), sha256=st.just("ab" * 32),
    perceptual_hash=st.just("cd" * 32),
    width_px=st.integers(1, 9000), height_px=st.integers(1, 9000), grade=st.none() | st.integers(0, 4),
    annotated=st.just(LESIONS), masks=st.just({"EX": "made/m.tif"}), areas_px=st.just({"EX": 7}),
    disputed=st.just(("MA", "SE")),
    optic_disc=st.none() | st.just("made/masks/od.tif"),
    fovea_px=st.none() | st.just((0.0, -0.25)), disc_px=st.none() | st.just((0, 0)),
    drawn_from=st.just(("made/a.xml",)),
    group=st.uuids().map(str), patient=st.none() | st.uuids().map(str),
    columns=st.just({}) | st.just({"Gerät": "Größe 1", "site": "north"}), fold=st.none() | st.integers(0, 4),
)  # fmt: skip


@given(st.lists(rows, max_size=4))
@settings(max_examples=30, deadline=None)
def test_saving_and_loading_gives_the_same(tmp_path_factory, photographs):
    path = tmp_path_factory.mktemp("made") / "made.json"
    saved = manifest(*photographs) if photographs else replace(manifest(), photographs=())
    save_manifest(saved, path)
    loaded = load_manifest(path)
    assert replace(loaded, sha256="") == saved
    assert loaded.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_root_inside_the_manifests_folder_moves_with_it(tmp_path):
    (tmp_path / "old").mkdir()
    save_manifest(manifest(root=tmp_path / "old" / "images"), tmp_path / "old" / "made.json")
    assert json.loads((tmp_path / "old" / "made.json").read_text())["roots"] == {"made": "images"}
    (tmp_path / "old").rename(tmp_path / "new")
    found = load_manifest(tmp_path / "new" / "made.json").path("made/a.jpg")
    assert found == tmp_path / "new" / "images" / "a.jpg"


def test_files_have_roles():
    row = replace(
        ROW, annotated=LESIONS, masks={"EX": "made/ex.png"}, areas_px={"EX": 9}, optic_disc="made/od.png",
        drawn_from=("made/1.xml", "made/2.xml"),
    )  # fmt: skip
    assert manifest(row).files(row) == {
        "image": Path("/data/a.jpg"),
        "EX": Path("/data/ex.png"),
        "optic_disc": Path("/data/od.png"),
        "drawn_from/0": Path("/data/1.xml"),
        "drawn_from/1": Path("/data/2.xml"),
    }


def test_a_grade_is_known_where_all_copies_agree():
    a, b = replace(ROW, id="b", group="eye", grade=2), replace(ROW, id="c", group="eye", grade=2)
    torn = [replace(ROW, id=str(grade), group="torn", grade=grade) for grade in (0, 1)]
    assert manifest(replace(ROW, group="eye"), a, b, *torn).known_grades() == {"eye": 2}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"split": "validation"}, "expected split in"),
        ({"grade": 5}, "expected a grade in 0-4 or null, got 5"),
        ({"grade": True}, "expected a grade in 0-4 or null, got True"),
        ({"annotated": ("NV",)}, "expected masks of annotated lesions"),
        ({"masks": {"MA": "made/m.tif"}}, "expected masks of annotated lesions"),
        ({"height_px": 0}, "got 60x0"),
        ({"annotated": LESIONS, "masks": {"MA": "made/m.tif"}}, "expected an area for each of the masks"),
        ({"annotated": ("MA",), "disputed": ("EX",)}, r"expected disputed lesions among the anno.* got \['EX'\]"),
        (
            {"annotated": LESIONS, "masks": {"MA": "made/m.tif"}, "areas_px": {"MA": 7}, "disputed": ("MA",)},
            r"among the annotated ones without a mask, got \['MA'\]",
        ),
        ({"patient": 0}, r"names and paths as text, without NUL; \['patient'\] are not"),
        ({"columns": {"camera": ""}}, "as text of 1 to 80 printable characters, got ''"),
        ({"columns": {"camera": "x" * 81}}, "got 81 characters"),
        ({"columns": {"two\nlines": "A"}}, r"printable characters, got 'two\\nlines'"),
        ({"columns": {"camera": 7}}, "printable characters, got 7"),
        ({"sha256": "0"}, "expected sha256 as 64 hexadecimal digits"),
        ({"perceptual_hash": "g" * 64}, "expected perceptual_hash as 64 hexadecimal digits"),
        ({"drawn_from": ("made/../a.xml",)}, "expected a path below"),
        ({"image": "/etc/passwd"}, "expected a path below"),
        ({"optic_disc": "../od.tif"}, "expected a path below"),
        ({"split": "test", "fold": 0}, "a fold belongs to training photographs"),
        ({"left_out": "copy", "fold": 0}, "a fold belongs to training photographs"),
    ],
)
def test_refuses_a_row_that_cannot_be(change, message):
    with pytest.raises(ValueError, match=message):
        replace(ROW, **change)


@pytest.mark.parametrize(
    "point", [(60, 20), (20, 40), (-1, 3), (3,), (1, 2, 3), ("3", 4), (True, 4), (float("nan"), 4)]
)
@pytest.mark.parametrize("name", ["fovea_px", "disc_px"])
def test_refuses_a_place_outside_the_photograph_and_what_is_none(name, point):
    with pytest.raises(ValueError, match=rf"'made/a': expected {name} as column and row, .* inside 60x40 px, got \("):
        replace(ROW, **{name: point})


def test_a_place_is_known_through_a_copy_in_the_pixels_of_the_photograph_itself():
    """The copy has a fifth of the pixels along a side: its pixel 3 covers the pixels 15 to 19, with 17 amid them."""
    small = replace(ROW, id="made/b", width_px=12, height_px=8, fovea_px=(3, 3.5))
    own = replace(ROW, id="made/c", fovea_px=(7, 8))
    both = manifest(ROW, small)
    assert both.landmark(ROW, "fovea_px") == (17, 19.5)
    assert both.landmark(small, "fovea_px") == (3, 3.5)
    assert both.landmark(ROW, "disc_px") is None
    assert manifest(small, own).landmark(own, "fovea_px") == (7, 8)


def test_a_cropped_copy_and_another_photograph_tell_no_place():
    cropped = replace(ROW, id="made/b", width_px=40, fovea_px=(3, 3))
    other = replace(ROW, id="made/c", group="made/c", fovea_px=(3, 3))
    assert manifest(ROW, cropped, other).landmark(ROW, "fovea_px") is None


def test_refuses_an_id_twice():
    with pytest.raises(ValueError, match=r"expected unique ids, got 1 twice: \['made/a'\]"):
        manifest(ROW, ROW)


def test_refuses_a_path_without_a_known_root():
    with pytest.raises(ValueError, match=r"expected paths that begin with one of \['made'\], 1 photographs"):
        manifest(replace(ROW, image="other/a.jpg"))


def test_refuses_copies_in_two_folds():
    with pytest.raises(ValueError, match=r"copies of one photograph lie in two folds: \['made/a'\]"):
        manifest(replace(ROW, fold=0), replace(ROW, id="b", fold=1))


def test_refuses_a_patient_in_two_folds():
    one, other = (replace(ROW, id=name, group=name, patient="made/p", fold=n) for n, name in enumerate("ab"))
    with pytest.raises(ValueError, match=r"photographs of one patient lie in two folds: \['made/p'\]"):
        manifest(one, other)
    assert len(manifest(one, replace(other, patient=None)).photographs) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "got a file that does not parse"),
        ("[]", "expected a manifest of schema 4 in .*, got 'list'"),
        ('{"schema": 3}', "expected a manifest of schema 4 in .*, got 3; run `scripts.prepare` again"),
        ('{"schema": 4}', "a key is missing, unknown or of the wrong type: 'photographs'"),
    ],
)
def test_refuses_a_file_that_is_no_manifest(tmp_path, text, message):
    (tmp_path / "made.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_manifest(tmp_path / "made.json")


def test_refuses_an_unknown_key(tmp_path):
    save_manifest(manifest(), tmp_path / "made.json")
    content = json.loads((tmp_path / "made.json").read_text())
    content["photographs"][0]["age"] = 7
    (tmp_path / "made.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="unexpected keyword argument 'age'"):
        load_manifest(tmp_path / "made.json")


def test_refuses_a_manifest_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"none\.json"):
        load_manifest(tmp_path / "none.json")
