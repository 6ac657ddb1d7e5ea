"""A broken table, list or marking of a data set is refused in one sentence that names it."""

import pytest
from bundle.datasets.readers.diaretdb1 import DrawConsensus, read_diaretdb1
from bundle.datasets.readers.files import Gaps, read_grades, read_splits
from bundle.labels import GRADES
from hypothesis import strategies as st

from tests.conftest import HEIGHT_PX, WIDTH_PX
from tests.fuzz.broken import EXPRESSIONS, PATHS, broken_bytes, given_files, judged, written

TABLE = (
    '\ufeffimage ,grade,split,,\r\n007-0004.jpg, 2,train,,\r\n"b,""c",0,Test,,\r\n,,,,\r\nd.png ,4,valid,,\r\n'.encode()
)
CELLS = ("image", "grade", "split", "a.jpg", "0", "4", "5", "train", "", '"', '""', "\0", "٣", *PATHS, *EXPRESSIONS)

REGIONS = (
    "<circleregion><centroid><coords2d>20,15</coords2d></centroid><radius direction='x'>4</radius></circleregion>",
    "<ellipseregion><centroid><coords2d>20,15</coords2d></centroid><radius direction='x'>4</radius>"
    "<radius direction='y'>2</radius><angle>30</angle></ellipseregion>",
    "<polygonregion><centroid><coords2d>9,9</coords2d></centroid><coords2d>5,5</coords2d><coords2d>9,5</coords2d>"
    "<coords2d>9,9</coords2d></polygonregion>",
)
MARKINGS = "".join(
    f"<marking>{region}<confidencelevel>High</confidencelevel><markingtype>Hard_exudates</markingtype></marking>"
    for region in REGIONS
)
DOCUMENT = (
    f'<?xml version="1.0" encoding="ISO-8859-1"?>\n<imgannotooldata><markinglist>{MARKINGS}</markinglist>'
    f"</imgannotooldata>"
)
ENCODINGS = (
    "utf-8",
    "utf-16",
    "utf-7",
    "ascii",
    "cp037",
    "idna",
    "punycode",
    "rot13",
    "hex",
    "unicode_escape",
    "none",
    "",
)
NUMBERS = ("", "nan", "inf", "-inf", "1e400", "-1", "1e6", "1000001", "1_0", "٣", "0x10", "1e-400", "5,5", " 7 ")
PARTS = ("entity", "coords2d", "radius", "angle", "markingtype", "circleregion", "region", "marking", "imgannotooldata")


@st.composite
def broken_markings(draw):
    """Change numbers, words, elements and the encoding, then perhaps the bytes."""
    text = DOCUMENT
    for _ in range(draw(st.integers(1, 3))):
        edit = draw(st.sampled_from(["number", "element", "encoding", "confidence", "comment", "type"]))
        if edit == "number":
            text = text.replace(
                draw(st.sampled_from(["20", "15", ">4<", ">2<", "30", "9,9"])), draw(st.sampled_from(NUMBERS)), 1
            )
        elif edit == "element":
            text = text.replace(
                draw(st.sampled_from(PARTS)), draw(st.sampled_from(PARTS)), draw(st.sampled_from([1, 2, -1]))
            )
        elif edit == "encoding":
            text = text.replace("ISO-8859-1", draw(st.sampled_from(ENCODINGS)), 1)
        elif edit == "comment":
            text = text.replace(
                "<marking>", draw(st.sampled_from(["<!-- --><marking>", "<?php ?><marking>", "<marking>&x;"])), 1
            )
        elif edit == "type":
            text = text.replace(
                "\n",
                '\n<!DOCTYPE x [<!ENTITY x "y">]>\n'
                if draw(st.booleans())
                else '<!DOCTYPE x SYSTEM "file:///etc/passwd">',
                1,
            )
        else:
            text = text.replace("High", draw(st.sampled_from(["high", "", "Low", "High"])), 1)
    content = text.encode("latin-1", errors="xmlcharrefreplace")
    return draw(broken_bytes(content)) if draw(st.booleans()) else content


@st.composite
def broken_table(draw):
    if draw(st.booleans()):
        return draw(broken_bytes(TABLE))
    rows = draw(st.lists(st.lists(st.sampled_from(CELLS), max_size=5), max_size=5))
    return "\n".join(",".join(row) for row in [["image", "grade", "split"], *rows]).encode()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tables")
    for name in (
        "images/diaretdb1_image001.png",
        *(f"groundtruth/diaretdb1_image001_0{n}_plain.xml" for n in range(1, 5)),
    ):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    return folder


def grades_of(path):
    gaps = Gaps("a set", path.parent)
    grades = read_grades(path, "image", "grade", gaps)
    gaps.notes(allow_missing=False)
    return grades


@given_files(content=broken_table())
def test_a_broken_table_is_refused_by_name_or_holds_grades_and_splits(folder, content):
    path = written(folder / "grades.csv", content)
    grades = judged("CSV, grades", lambda: grades_of(path), "grades.csv")
    splits = judged("CSV, splits", lambda: read_splits(path, "image", "split"), "grades.csv")
    assert set((grades or {}).values()) <= set(GRADES)
    assert set((splits or {}).values()) <= {"train", "test"}


@given_files(content=broken_markings())
def test_broken_markings_are_refused_by_name_or_drawn(folder, content):
    path = written(folder / "expert.xml", content)
    drawn = judged("XML", lambda: DrawConsensus((path,), 0.5)(WIDTH_PX, HEIGHT_PX), "expert.xml")
    assert drawn is None or {mask.shape for mask in drawn.masks.values()} == {(HEIGHT_PX, WIDTH_PX)}


LIST = b"images/diaretdb1_image001.png " + b" ".join(b"groundtruth/diaretdb1_image001_0%d.xml" % n for n in range(1, 5))


@given_files(content=broken_bytes(LIST + b"\n"))
def test_a_broken_list_is_refused_by_name_or_names_files_of_the_data_set(folder, content):
    written(folder / "ddb1_v02_01_train_plain.txt", content)
    found = judged("list of photographs", lambda: read_diaretdb1(folder), str(folder))
    for row in found.photographs if found else ():
        assert all(path.is_relative_to(folder) for path in (row.image, *row.drawn_from))


def test_the_files_are_whole_before_they_are_broken(folder):
    assert grades_of(written(folder / "whole.csv", TABLE)) == {"007-0004": 2, 'b,"c': 0, "d": 4}
    drawn = DrawConsensus((written(folder / "whole.xml", DOCUMENT.encode()),), 0.5)(WIDTH_PX, HEIGHT_PX)
    assert drawn.masks["EX"].sum() > 50
    written(folder / "ddb1_v02_01_train_plain.txt", LIST)
    assert len(read_diaretdb1(folder).photographs) == 1
