"""A table of grades is read as spreadsheets write it, and what is no grade is refused or counted."""

import csv
from pathlib import Path

import pytest
from bundle.datasets.readers.files import Gaps, read_grades, read_points, read_splits
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


def grades_of(path, name_column="image", grade_column="grade", *, allow_missing=False):
    """Read the grades, and refuse the gaps or return their notes too."""
    gaps = Gaps("a set", Path(path).parent)
    grades = read_grades(path, name_column, grade_column, gaps)
    notes = gaps.notes(allow_missing)
    return (grades, notes) if allow_missing else grades


def test_reads_the_two_columns_wherever_they_stand(table):
    path = table("level,eye,image\n2,left,10_left\n0,right,10_right\n")
    assert grades_of(path, "image", "level") == {"10_left": 2, "10_right": 0}


def test_spaces_empty_lines_and_empty_columns_do_not_matter(table):
    path = table(" image ,grade ,,\r\n\r\na.jpg , 4,,\r\n,,,\r\nb, 1\r\n")
    assert grades_of(path) == {"a": 4, "b": 1}


def test_the_mark_that_spreadsheets_put_first_does_not_matter(table):
    assert grades_of(table(b"\xef\xbb\xbfimage,grade\na,3\n")) == {"a": 3}


def test_only_the_suffix_of_an_image_is_taken_off(table):
    path = table("image,grade\n007-0004-000.JPG,1\nvisit.2,2\nc.tiff,3\n")
    assert list(grades_of(path)) == ["007-0004-000", "visit.2", "c"]


@given(st.dictionaries(st.text("abc-_,\"' ", min_size=1).map(lambda s: f"x{s}x"), st.integers(0, 4), min_size=1))
def test_what_a_csv_writer_writes_is_read_back(tmp_path_factory, grades):
    path = tmp_path_factory.getbasetemp() / "written.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "grade"), *grades.items()])
    assert grades_of(path) == grades


def test_splits_are_train_and_test_and_valid_is_train(table):
    path = table("image,split\na,train\nb,Valid\nc,val\nd,VALIDATION\ne,Test\n")
    assert read_splits(path, "image", "split") == {"a": "train", "b": "train", "c": "train", "d": "train", "e": "test"}


ROWS = "image,grade\na,2\nb,0\n"


@pytest.mark.parametrize(
    "content",
    [
        "image,grade\na,2.0\nb,0.\n",
        "image;grade\na;2\nb;0\n",
        "image;grade\na;2,0\nb;0,0\n",
        "image\tgrade\na\t2\nb\t0\n",
        "sep=;\nimage;grade\na;2\nb;0\n",
        "IMAGE,Grade\nimages/a.png,2\nC:\\eyes\\b.WEBP,0\n",
        'image,"left, or right",grade\na,"left",2\nb,"right",0\n',
        ROWS.encode("utf-16"),
        b"\xfe\xff" + ROWS.encode("utf-16-be"),
        b"\xef\xbb\xbf" + ROWS.replace("\n", "\r").encode(),
    ],
    ids=["pandas", ";", "decimal comma", "tab", "sep=", "folders", "quoted", "utf-16", "utf-16 be", "old Mac"],
)
def test_a_table_is_read_as_people_have_it(table, content):
    assert grades_of(table(content)) == {"a": 2, "b": 0}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252"])
def test_names_are_composed_and_read_in_the_encoding_of_windows_too(table, encoding):
    assert grades_of(table("image,grade\nmüller.jpg,3\n".encode(encoding))) == {"müller": 3}
    assert grades_of(table("image,grade\nmu\N{COMBINING DIAERESIS}ller,3\n".encode())) == {"müller": 3}


def test_the_exact_name_of_a_column_goes_before_one_in_other_case(table):
    assert grades_of(table("image,Grade,grade\na,0,2\n")) == {"a": 2}
    with pytest.raises(ValueError, match=r"expected a column 'grade', got \['image', 'Grade', 'GRADE'\]"):
        grades_of(table("image,Grade,GRADE\na,0,2\n"))


def test_rows_without_a_grade_are_left_out_on_request_and_counted_by_reason(table):
    path = table("image,grade\na,0\nb,\nc,5\nd,NA\n\ne,4\nf,5\n")
    with pytest.raises(
        ValueError, match=r"1 rows of 'grades\.csv' with an empty grade \(b in line 3\); 2 .*'5' as the"
    ):
        grades_of(path)
    grades, notes = grades_of(path, allow_missing=True)
    assert grades == {"a": 0, "b": None, "c": None, "d": None, "e": 4, "f": None}
    assert notes == [
        "left out: 1 rows of 'grades.csv' with an empty grade (b in line 3)",
        "left out: 2 rows of 'grades.csv' with '5' as the grade, which is not in 0-4 (c in line 4, f in line 8)",
        "left out: 1 rows of 'grades.csv' with 'NA' as the grade, which is not in 0-4 (d in line 5)",
    ]


@pytest.mark.parametrize("content", [b"PK\x03\x04 xl/workbook.xml", b"\xd0\xcf\x11\xe0\xa1\xb1"])
def test_refuses_a_workbook_and_says_how_to_save_it(table, content):
    with pytest.raises(ValueError, match=r"\(CSV\) at .*grades\.csv, got a workbook; save its sheet as CSV UTF-8"):
        grades_of(table(content))


@pytest.mark.parametrize("text", ["5", "-1", "2.5", "mild", "٣"])
def test_refuses_what_is_no_grade(table, text):
    path = table(f"image,grade\na,{text}\nb,1\n")
    with pytest.raises(ValueError, match=rf"1 rows of 'grades\.csv' with '{text}' as the grade, .*\(a in line 2\)"):
        grades_of(path)


@pytest.mark.parametrize("text", ["dev", "", "0"])
def test_refuses_what_is_no_split(table, text):
    path = table(f"image,split\na,{text}\nb,test\n")
    with pytest.raises(
        ValueError, match=rf"grades\.csv: expected a split out of train, .* for a, got '{text}' in line 2"
    ):
        read_splits(path, "image", "split")


@pytest.mark.parametrize("columns", [("image", "level"), ("id", "grade")])
def test_refuses_a_table_without_the_column_and_says_which_there_are(table, columns):
    missing = "level" if "level" in columns else "id"
    with pytest.raises(ValueError, match=rf"expected a column '{missing}', got \['image', 'grade'\]"):
        grades_of(table("image,grade,\na,1,\n"), *columns)


def test_refuses_an_empty_table(table):
    with pytest.raises(ValueError, match=r"expected a column 'image', got \[\]"):
        grades_of(table(""))


def test_refuses_a_photograph_that_stands_twice(table):
    with pytest.raises(ValueError, match="expected one row for each photograph, got 'a' twice or without a name"):
        grades_of(table("image,grade\na.jpg,1\na.png,1\n"))


def test_refuses_a_row_without_a_name(table):
    with pytest.raises(ValueError, match="got '' twice or without a name"):
        grades_of(table("image,grade\n,1\n"))


def test_refuses_a_table_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"expected a table of grades \(CSV\) at .*nowhere\.csv, got: .*No such file"):
        grades_of(tmp_path / "nowhere.csv")


def test_places_are_read_with_the_empty_rows_and_columns_of_a_spreadsheet(table):
    path = table("Image No,X- Coordinate,Y - Coordinate,,\r\nIDRiD_001, 1494,1970.5,,\r\n,,,,\r\n")
    assert read_points(path, "Image No", "X- Coordinate", "Y - Coordinate") == {"IDRiD_001": (1494, 1970.5)}


@pytest.mark.parametrize("cell", ["", "left", "-3", "nan", "inf"])
def test_a_place_that_is_none_is_refused(table, cell):
    with pytest.raises(ValueError, match=rf"grades.csv: expected a place in pixels for a, got '{cell}'"):
        read_points(table(f"image,x,y\na,5,{cell}\n"), "image", "x", "y")
