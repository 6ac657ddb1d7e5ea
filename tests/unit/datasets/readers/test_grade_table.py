"""A table of grades is read as spreadsheets write it, and what is no grade is refused."""

import csv

import pytest
from bundle.datasets.readers.files import read_grades, read_points, read_splits
from hypothesis import given
from hypothesis import strategies as st


@pytest.fixture
def table(tmp_path):
    """Write a table, and say where."""

    def write(text):
        path = tmp_path / "grades.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_reads_the_two_columns_wherever_they_stand(table):
    path = table("level,eye,image\n2,left,10_left\n0,right,10_right\n")
    assert read_grades(path, "image", "level") == {"10_left": 2, "10_right": 0}


def test_spaces_empty_lines_and_empty_columns_do_not_matter(table):
    path = table(" image ,grade ,,\r\n\r\na.jpg , 4,,\r\n,,,\r\nb, 1\r\n")
    assert read_grades(path, "image", "grade") == {"a": 4, "b": 1}


def test_the_mark_that_spreadsheets_put_first_does_not_matter(table):
    assert read_grades(table(b"\xef\xbb\xbfimage,grade\na,3\n"), "image", "grade") == {"a": 3}


def test_only_the_suffix_of_an_image_is_taken_off(table):
    path = table("image,grade\n007-0004-000.JPG,1\nvisit.2,2\nc.tiff,3\n")
    assert list(read_grades(path, "image", "grade")) == ["007-0004-000", "visit.2", "c"]


@given(st.dictionaries(st.text("abc-_,\"' ", min_size=1).map(lambda s: f"x{s}x"), st.integers(0, 4), min_size=1))
def test_what_a_csv_writer_writes_is_read_back(tmp_path_factory, grades):
    path = tmp_path_factory.getbasetemp() / "written.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "grade"), *grades.items()])
    assert read_grades(path, "image", "grade") == grades


def test_splits_are_train_and_test_and_valid_is_train(table):
    path = table("image,split\na,train\nb,Valid\nc,val\nd,VALIDATION\ne,Test\n")
    assert read_splits(path, "image", "split") == {"a": "train", "b": "train", "c": "train", "d": "train", "e": "test"}


@pytest.mark.parametrize("text", ["5", "-1", "2.0", "", "mild", "٣"])
def test_refuses_what_is_no_grade(table, text):
    path = table(f"image,grade\na,{text}\nb,1\n")
    with pytest.raises(ValueError, match=rf"grades\.csv: expected a grade in 0-4 for a, got '{text}'"):
        read_grades(path, "image", "grade")


@pytest.mark.parametrize("text", ["dev", "", "0"])
def test_refuses_what_is_no_split(table, text):
    path = table(f"image,split\na,{text}\nb,test\n")
    with pytest.raises(ValueError, match=rf"grades\.csv: expected a split out of train, .*, test for a, got '{text}'"):
        read_splits(path, "image", "split")


@pytest.mark.parametrize("columns", [("image", "level"), ("id", "grade")])
def test_refuses_a_table_without_the_column_and_says_which_there_are(table, columns):
    missing = "level" if "level" in columns else "id"
    with pytest.raises(ValueError, match=rf"expected a column '{missing}', got \['image', 'grade'\]"):
        read_grades(table("image,grade,\na,1,\n"), *columns)


def test_refuses_an_empty_table(table):
    with pytest.raises(ValueError, match=r"expected a column 'image', got \[\]"):
        read_grades(table(""), "image", "grade")


def test_refuses_a_photograph_that_stands_twice(table):
    with pytest.raises(ValueError, match="expected one row for each photograph, got 'a' twice or without a name"):
        read_grades(table("image,grade\na.jpg,1\na.png,1\n"), "image", "grade")


def test_refuses_a_row_without_a_name(table):
    with pytest.raises(ValueError, match="got '' twice or without a name"):
        read_grades(table("image,grade\n,1\n"), "image", "grade")


def test_refuses_a_table_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"expected a table of grades \(CSV\) at .*nowhere\.csv, got: .*No such file"):
        read_grades(tmp_path / "nowhere.csv", "image", "grade")


def test_places_are_read_with_the_empty_rows_and_columns_of_a_spreadsheet(table):
    path = table("Image No,X- Coordinate,Y - Coordinate,,\r\nIDRiD_001, 1494,1970.5,,\r\n,,,,\r\n")
    assert read_points(path, "Image No", "X- Coordinate", "Y - Coordinate") == {"IDRiD_001": (1494, 1970.5)}


@pytest.mark.parametrize("cell", ["", "left", "-3", "nan", "inf"])
def test_a_place_that_is_none_is_refused(table, cell):
    with pytest.raises(ValueError, match=rf"grades.csv: expected a place in pixels for a, got '{cell}'"):
        read_points(table(f"image,x,y\na,5,{cell}\n"), "image", "x", "y")
