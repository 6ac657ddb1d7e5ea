"""Files are listed by name, and what is missing is counted and named."""

import os
import sys

import pytest
from bundle.datasets.readers.files import Gaps, files, names
from hypothesis import given
from hypothesis import strategies as st


def touch(folder, *file_names):
    for name in file_names:
        (folder / name).write_bytes(b"")


def test_files_are_found_by_stem_and_in_order_whatever_the_case_of_their_suffix(tmp_path):
    touch(tmp_path, "b.JPG", "a.jpg", "c.png", "notes.txt")
    assert files(tmp_path, ".jpg") == {"a": tmp_path / "a.jpg", "b": tmp_path / "b.JPG"}
    assert list(files(tmp_path, ".jpg", ".png")) == ["a", "b", "c"]


def test_companion_files_of_an_archive_are_no_files(tmp_path):
    touch(tmp_path, "._a.jpg", "a.jpg")
    assert list(files(tmp_path, ".jpg")) == ["a"]


def test_only_the_last_suffix_is_taken_off(tmp_path):
    touch(tmp_path, "007-0004-000.jpg", "a.b.jpg")
    assert list(files(tmp_path, ".jpg")) == ["007-0004-000", "a.b"]


def test_an_absent_folder_holds_nothing(tmp_path):
    assert files(tmp_path / "nowhere", ".jpg") == {}


def test_refuses_two_files_that_differ_in_their_suffix_alone(tmp_path):
    touch(tmp_path, "a.jpg", "a.png")
    with pytest.raises(ValueError, match=r"expected one file called a in .*, got a\.png too; rename it"):
        files(tmp_path, ".jpg", ".png")


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not store such a name")
def test_refuses_a_name_that_is_not_utf8(tmp_path):
    with open(os.path.join(os.fsencode(tmp_path), b"caf\xe9.jpg"), "wb"):
        pass
    with pytest.raises(ValueError, match=r"expected file names in UTF-8 in .*, got b'caf\\xe9\.jpg'; rename the file"):
        files(tmp_path, ".jpg")


def test_the_first_three_names_are_listed_in_order():
    assert names(["d", "b", "a", "c"]) == "a, b, c, ..."
    assert names(["b", "a"]) == "a, b"
    assert names([]) == "nothing"


@given(st.sets(st.text("abc", min_size=1, max_size=4)), st.integers(1, 5))
def test_no_more_names_are_listed_than_asked_for(found, count):
    listed = names(found, count).split(", ")
    assert len(listed) <= count + 1
    assert (listed[-1] == "...") == (len(found) > count)


def test_no_gap_is_no_note(tmp_path):
    gaps = Gaps("a set", tmp_path)
    gaps.add("images without a row", [])
    assert gaps.notes(allow_missing=False) == []


def test_gaps_are_one_note_each(tmp_path):
    gaps = Gaps("a set", tmp_path)
    gaps.add("images without a row", ["b", "a"])
    gaps.add("rows without an image", ["c"])
    assert gaps.notes(allow_missing=True) == [
        "left out: 2 images without a row (a, b)",
        "left out: 1 rows without an image (c)",
    ]


def test_refuses_gaps_that_are_not_allowed_and_names_them_all(tmp_path):
    gaps = Gaps("a set", tmp_path)
    gaps.add("images without a row", ["a"])
    gaps.add("rows without an image", ["c"])
    with pytest.raises(ValueError, match=r"a set in .*: 1 images .* \(a\); 1 rows .* \(c\); complete .*allow_missing"):
        gaps.notes(allow_missing=False)
