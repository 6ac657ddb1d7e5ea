"""Pairs that look alike: the rows, and the sheet to judge them by eye."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bundle.datasets.copies import group_copies, near_pairs, unpack
from bundle.manifest import Manifest, Photograph
from bundle.reporting import copies
from bundle.reporting.copies import contact_sheet, copy_rows, printable, write_copies
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

WIDTH_PX, HEIGHT_PX = 90, 60
RED, GREEN = (200, 60, 60), (60, 200, 60)


def hashed(seed, flipped=0):
    """Return 256 random bits as hexadecimal digits, the first few of them turned over."""
    bits = np.random.default_rng(seed).integers(0, 2, 256, dtype=np.uint8)
    bits[:flipped] ^= 1
    return np.packbits(bits).tobytes().hex()


def photograph(name, seed, flipped=0, **changes):
    split = name.split("/")[-2]
    fields = {
        "id": name, "image": f"{name}.png", "split": split, "sha256": "0" * 64,
        "perceptual_hash": hashed(seed, flipped), "width_px": WIDTH_PX, "height_px": HEIGHT_PX, "group": name,
    }  # fmt: skip
    return Photograph(**(fields | changes))


def manifest_of(*rows, root=Path("nowhere")):
    """Make a manifest with the copies grouped, as a dealt one has them."""
    if rows:
        first = group_copies(len(rows), near_pairs(unpack([row.perceptual_hash for row in rows])))
        rows = tuple(replace(row, group=rows[index].id) for row, index in zip(rows, first, strict=True))
    return Manifest(name="eyes", roots={"eyes": root}, folds=2, seed=0, photographs=rows)


def write_eye(root, name, colour):
    """Write a round field of one colour in the middle of a black picture."""
    y, x = np.mgrid[:HEIGHT_PX, :WIDTH_PX]
    field = (x - 44.5) ** 2 + (y - 29.5) ** 2 < 20**2
    path = root / f"{name.removeprefix('eyes/')}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.where(field[..., None], colour, 2).astype(np.uint8)).save(path)


@pytest.fixture
def pair(tmp_path):
    """A red test photograph and its green copy in training, which is left out."""
    first = photograph("eyes/grading/test/a", 1, grade=2)
    second = photograph("eyes/outlines/train/b", 1, flipped=4, left_out="copy of the test photograph a")
    write_eye(tmp_path, first.id, RED)
    write_eye(tmp_path, second.id, GREEN)
    return manifest_of(first, second, root=tmp_path)


@pytest.fixture
def written(monkeypatch):
    """Collect the lines of text that are written on a sheet."""
    lines, write = [], copies._write

    def listen(image, corner, text, *rest, **options):
        lines.append(text)
        write(image, corner, text, *rest, **options)

    monkeypatch.setattr(copies, "_write", listen)
    return lines


def test_a_pair_is_described_from_both_ends(pair):
    assert copy_rows(pair) == [
        {
            "first": "eyes/grading/test/a",
            "second": "eyes/outlines/train/b",
            "distance_bits": 4,
            "first_split": "test",
            "second_split": "train",
            "first_grade": 2,
            "second_grade": None,
            "crosses_split": True,
            "left_out": "eyes/outlines/train/b",
        }
    ]


def test_pairs_across_the_split_come_first_then_the_doubtful_ones():
    manifest = manifest_of(
        photograph("eyes/a/train/1", 1),
        photograph("eyes/a/train/2", 1),  # equal to 1
        photograph("eyes/a/train/3", 2),
        photograph("eyes/a/train/4", 2, flipped=30),
        photograph("eyes/a/train/5", 3),
        photograph("eyes/a/test/6", 3, flipped=6),
        photograph("eyes/a/train/7", 4),  # like none
        photograph("eyes/a/train/8", 2, flipped=67),  # 37 bits from the fourth: one too many
    )
    found = [(row["first"][-1] + row["second"][-1], row["distance_bits"]) for row in copy_rows(manifest)]
    assert found == [("56", 6), ("34", 30), ("12", 0)]


def test_a_hundred_equal_photographs_make_ninety_nine_pairs():
    manifest = manifest_of(*(photograph(f"eyes/a/train/{n:03}", 1) for n in range(100)))
    rows = copy_rows(manifest)
    assert len(rows) == 99
    assert {row["first"] for row in rows} == {"eyes/a/train/000"}


def test_both_ends_can_be_left_out():
    rows = [photograph(f"eyes/a/train/{n}", 1, left_out="copy") for n in range(2)]
    assert copy_rows(manifest_of(*rows))[0]["left_out"] == "eyes/a/train/0; eyes/a/train/1"


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 40), st.sampled_from(["train", "test"])), max_size=12))
@settings(max_examples=30)
def test_rows_are_in_order_and_none_is_farther_than_a_copy_may_be(drawn):
    photographs = [photograph(f"eyes/a/{split}/{n}", *kind) for n, (*kind, split) in enumerate(drawn)]
    rows = copy_rows(manifest_of(*photographs))
    ranks = [(not row["crosses_split"], -row["distance_bits"]) for row in rows]
    assert ranks == sorted(ranks)
    assert all(row["distance_bits"] <= 36 and row["first"] != row["second"] for row in rows)
    assert all(row["crosses_split"] == (row["first_split"] != row["second_split"]) for row in rows)


def test_without_photographs_there_are_no_pairs():
    assert copy_rows(manifest_of()) == []


def test_the_sheet_shows_each_photograph_cut_to_its_field_and_equally_high(pair):
    sheet = np.asarray(contact_sheet(pair, copy_rows(pair)))
    top = copies.MARGIN_PX + 2 * copies.LINE_PX
    width_px, height_px = copies.PHOTOGRAPH_PX
    for left, colour in ((copies.MARGIN_PX, RED), (copies.MARGIN_PX + width_px + copies.BETWEEN_PX, GREEN)):
        place = sheet[top : top + height_px, left : left + width_px]
        assert place[height_px // 2, width_px // 2].tolist() == list(colour)
        lit = place.max(axis=2) > 100  # the field is 40 of 60 pixels high, and fills the whole height here
        assert [line.any() for line in (lit[2], lit[-3])] == [True, True]
        assert not lit[:, :20].any()


def test_under_a_pair_stands_what_is_known_of_it(pair, written):
    contact_sheet(pair, copy_rows(pair))
    assert written[:3] == ["eyes/grading/test/a", "test, grade 2 moderate", "90 x 60 px"]
    assert written[3:6] == ["eyes/outlines/train/b", "train, no grade", "90 x 60 px"]
    assert written[6:8] == [
        "4 of 256 bits differ, crosses the official split",
        "left out of training: eyes/outlines/train/b",
    ]


def test_grades_that_differ_are_marked(tmp_path, written):
    rows = [photograph(f"eyes/a/train/{n}", 1, grade=n + 2) for n in range(2)]
    manifest = manifest_of(*rows, root=tmp_path)
    contact_sheet(manifest, copy_rows(manifest))
    assert "0 of 256 bits differ, grades differ (2 and 3)" in written


def test_the_last_line_counts_the_pairs_that_are_not_shown(tmp_path, written):
    manifest = manifest_of(*(photograph(f"eyes/a/train/{n}", 1) for n in range(6)), root=tmp_path)
    rows = copy_rows(manifest)
    some, most = contact_sheet(manifest, rows, pairs_max=3), contact_sheet(manifest, rows, pairs_max=4)
    assert [line for line in written if "not shown" in line] == ["2 more pairs not shown", "1 more pair not shown"]
    assert most.height - some.height == copies.PHOTOGRAPH_PX[1] + 5 * copies.LINE_PX + copies.MARGIN_PX  # one row more
    written.clear()
    contact_sheet(manifest, rows)
    assert not any("not shown" in line for line in written)


def test_a_photograph_that_cannot_be_opened_leaves_its_place_to_the_reason(pair, tmp_path, written):
    (tmp_path / "outlines" / "train" / "b.png").write_bytes(b"no picture")
    sheet = np.asarray(contact_sheet(pair, copy_rows(pair)))
    text = " ".join(written)
    assert "cannot be shown:" in written
    assert "eyes/outlines/train/b.png" in text
    assert str(tmp_path) not in text
    top, left = copies.MARGIN_PX + 2 * copies.LINE_PX, copies.MARGIN_PX
    assert sheet[top + 110, left + 138].tolist() == list(RED)  # the other end is shown all the same


def test_an_all_but_black_photograph_leaves_its_place_to_the_reason(pair, tmp_path, written):
    write_eye(tmp_path, "eyes/grading/test/a", (3, 3, 3))
    contact_sheet(pair, copy_rows(pair))
    assert "all but black" in " ".join(written)


def test_a_long_name_stays_in_its_column_and_keeps_its_end(tmp_path):
    name = f"eyes/a/train/{'long ' * 200}end"
    fitted = copies._fitted(name, copies._font(False), 276)
    assert fitted.startswith("…")
    assert fitted.endswith(" end")
    assert 250 < copies._font(False).getlength(fitted) <= 276
    manifest = manifest_of(photograph(name, 1), photograph("eyes/a/train/b", 1), root=tmp_path)
    sheet = np.asarray(contact_sheet(manifest, copy_rows(manifest)))
    below = copies.MARGIN_PX + 2 * copies.LINE_PX + copies.PHOTOGRAPH_PX[1]
    between = copies.MARGIN_PX + copies.PHOTOGRAPH_PX[0]
    line = sheet[below : below + copies.LINE_PX]
    assert line[:, :between].min() < 100
    assert (line[:, between + 1 : between + copies.BETWEEN_PX] == 255).all()


def test_both_files_are_written_whole_under_their_names(pair, tmp_path):
    stem = tmp_path / "out" / "eyes.v1"
    table, sheet = write_copies(pair, stem)
    assert (table.name, sheet.name) == ("eyes.v1.copies.csv", "eyes.v1.copies.jpg")
    assert sorted(file.name for file in stem.parent.iterdir()) == [table.name, sheet.name]
    with table.open(newline="", encoding="utf-8-sig") as lines:
        (row,) = csv.DictReader(lines)
    assert (row["second"], row["distance_bits"], row["second_grade"]) == ("eyes/outlines/train/b", "4", "")
    with Image.open(sheet) as picture:
        assert (picture.format, picture.width) == ("JPEG", 1764)


def test_without_pairs_nothing_is_written_and_what_is_stale_goes(pair, tmp_path):
    write_copies(pair, tmp_path / "out" / "eyes")
    alone = manifest_of(pair.photographs[0], root=tmp_path)
    assert write_copies(alone, tmp_path / "out" / "eyes") == ()
    assert write_copies(alone, tmp_path / "out" / "eyes") == ()
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("hostile", ["\x1b[2Jgone", "a\nb", "\u202egpj.a", "\ud800"])
def test_nothing_that_steers_a_terminal_is_printable(hostile):
    assert printable(hostile).isprintable()
    assert printable("Größe 网膜 a") == "Größe 网膜 a"


def test_rejects_a_sheet_without_pairs(pair):
    with pytest.raises(ValueError, match="expected at least one pair to draw, got 0 and a limit of 60"):
        contact_sheet(pair, [])
    with pytest.raises(ValueError, match="got 1 and a limit of 0"):
        contact_sheet(pair, copy_rows(pair), pairs_max=0)


def test_rejects_pairs_of_another_manifest(pair):
    other = manifest_of(photograph("eyes/a/train/1", 1))
    with pytest.raises(ValueError, match=r"pairs of manifest 'eyes', which has no photograph \['eyes/grading/test/a'"):
        contact_sheet(other, copy_rows(pair))
