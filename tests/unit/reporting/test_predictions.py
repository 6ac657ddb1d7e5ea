"""What inference leaves behind can be opened again: masks, overlays, heat maps, a table and a report."""

import csv
import dataclasses
import json
import multiprocessing
import re
import time
import tracemalloc

import nibabel
import numpy as np
import pandas as pd
import pytest
from bundle.files import release
from bundle.handlers.predictions import OF_THE_GRADE, Prediction, prediction_row, unread_row
from bundle.labels import LESION_COLOURS
from bundle.reporting.predictions import Drawing, PredictionFiles
from bundle.transforms import load_photograph
from bundle.transforms.quality import Quality
from PIL import Image

WIDTH, HEIGHT = 90, 60


def prediction(tmp_path, name="deep/a.jpg", grade=2, lesion=(slice(20, 30), slice(40, 55)), size=(WIDTH, HEIGHT)):
    """Write a grey photograph and predict one exudate on it."""
    path = tmp_path / "in" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((size[1], size[0], 3), 90, np.uint8)).save(path)
    lesions = np.zeros((size[1], size[0]), np.uint8)
    lesions[lesion] = 3
    area_px = int((lesions == 3).sum())
    return Prediction(
        name=name,
        path=str(path),
        lesions_HW=lesions,
        heat_hw=np.linspace(0, 1, size[0] * size[1], dtype=np.float32).reshape(size[1], size[0]),
        probabilities=tuple(0.6 if one == grade else 0.1 for one in range(5)),
        field_px=size[0] * size[1] // 2,
        counts={"MA": 0, "HE": 0, "EX": 1, "SE": 0},
        areas_px={"MA": 0, "HE": 0, "EX": area_px, "SE": 0},
        feasible=frozenset({2, 3, 4}),
    )


def write(tmp_path, *predictions, facts=None, unread=(), **options):
    files = PredictionFiles(tmp_path / "out", facts or {}, **options)
    files.start()
    for one in predictions:
        files.note(prediction_row(one), files.draw(one))
    for name, reason in unread:
        files.note(unread_row(name, reason), None)
    files.finish()
    return tmp_path / "out"


def rows_of(out):
    with (out / "predictions.csv").open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def test_every_photograph_has_a_mask_an_overlay_and_a_heat_map_under_its_name(tmp_path):
    out = write(tmp_path, prediction(tmp_path), prediction(tmp_path, "a.png"))
    found = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    assert found == [
        ".run.lock", "heatmaps/a.png.png", "heatmaps/deep/a.jpg.png", "masks/a.png.png", "masks/deep/a.jpg.png",
        "overlays/a.png.jpg", "overlays/deep/a.jpg.jpg", "predictions.csv", "predictions.jsonl",
        "report.html",
    ]  # fmt: skip


def test_a_mask_has_the_classes_at_the_size_of_the_photograph(tmp_path):
    one = prediction(tmp_path)
    mask = np.asarray(Image.open(write(tmp_path, one) / "masks/deep/a.jpg.png"))
    assert np.array_equal(mask, one.lesions_HW)


def test_an_overlay_has_the_colour_of_the_lesion_and_else_the_photograph(tmp_path):
    written = write(tmp_path, prediction(tmp_path)) / "overlays/deep/a.jpg.jpg"
    overlay = load_photograph(written).pixels.astype(int)
    inside = 90 + 0.45 * (np.array(LESION_COLOURS["EX"]) - 90)
    assert np.abs(overlay[23:27, 44:51].mean(axis=(0, 1)) - inside).max() < 12  # JPEG
    assert np.abs(overlay[:10, :20] - 90).max() < 4


def test_a_heat_map_is_grey(tmp_path):
    heat = Image.open(write(tmp_path, prediction(tmp_path)) / "heatmaps/deep/a.jpg.png")
    assert (heat.mode, heat.size, heat.getextrema()) == ("L", (WIDTH, HEIGHT), (0, 255))


def test_the_table_has_a_row_of_every_photograph(tmp_path):
    out = write(tmp_path, prediction(tmp_path), prediction(tmp_path, "b.jpg", grade=0))
    rows = rows_of(out)
    assert [(row["file"], row["grade"], row["contradiction"]) for row in rows] == [
        ("deep/a.jpg", "2", "False"),
        ("b.jpg", "0", "True"),
    ]
    assert [(row["consistent_grade"], row["rules_grade"]) for row in rows] == [("2", "2"), ("2", "2")]
    assert float(rows[0]["EX_area_percent"]) == pytest.approx(100 * 150 / 2700)


def test_a_spreadsheet_shows_the_names_of_photographs_as_they_are(tmp_path):
    """Excel needs the mark at the beginning; pandas reads the table back with it."""
    out = write(tmp_path, prediction(tmp_path, "Jürgen/Auge ö.jpg"), patients={"Jürgen/Auge ö.jpg": "Jürgen"})
    assert (out / "predictions.csv").read_bytes().startswith(b"\xef\xbb\xbffile,patient,grade,")
    (row,) = pd.read_csv(out / "predictions.csv").to_dict("records")
    assert (row["file"], row["patient"], row["grade"]) == ("Jürgen/Auge ö.jpg", "Jürgen", 2)


def test_the_report_shows_every_photograph_and_says_what_it_was_made_with(tmp_path):
    out = write(tmp_path, prediction(tmp_path), prediction(tmp_path, "b.jpg"), facts={"weights": "model.pt"})
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("<article") == 2
    for text in ("<dt>weights</dt><dd>model.pt</dd>", "<dt>photographs</dt><dd>2</dd>", "deep/a.jpg", "b.jpg"):
        assert text in page


def test_the_card_says_what_both_tasks_answer_together(tmp_path):
    out = write(tmp_path, prediction(tmp_path, grade=4), prediction(tmp_path, "b.jpg", grade=0))
    first, second = (out / "report.html").read_text(encoding="utf-8").split("<article")[1:]
    assert "Together with the lesions: 4 proliferative. Lesions alone: 2 moderate." in first
    assert "<b>0</b>" in second  # the head's own grade stays
    assert "Together with the lesions: 2 moderate. Lesions alone: 2 moderate." in second


def test_a_lesion_of_one_pixel_on_a_large_photograph_is_in_the_report(tmp_path):
    one = prediction(tmp_path, "large.jpg", lesion=(slice(701, 702), slice(999, 1000)), size=(2048, 1024))
    page = (write(tmp_path, one) / "report.html").read_text(encoding="utf-8")
    assert 'data-layer="EX"' in page.split("<article")[1]


def test_both_tables_say_the_same(tmp_path):
    out = write(tmp_path, prediction(tmp_path), unread=[("b.jpg", "cut off")])
    lines = [json.loads(line) for line in (out / "predictions.jsonl").read_text(encoding="utf-8").splitlines()]
    told = [{key: "" if value is None else str(value) for key, value in line.items()} for line in lines]
    assert told == rows_of(out)
    assert (lines[0]["grade"], lines[0]["contradiction"], lines[1]["grade"]) == (2, False, None)


def test_no_photograph_leaves_a_table_without_rows(tmp_path):
    out = write(tmp_path)
    assert rows_of(out) == []
    assert (out / "predictions.jsonl").read_text() == ""


def test_the_report_may_be_left_out(tmp_path):
    assert not (write(tmp_path, prediction(tmp_path), report=False) / "report.html").exists()


def test_a_label_map_is_a_nifti_too_where_that_is_asked_for(tmp_path):
    one = prediction(tmp_path)
    image = nibabel.load(write(tmp_path, one, nifti=True) / "nifti/deep/a.jpg.nii.gz")
    assert image.shape == (WIDTH, HEIGHT, 1)
    assert np.array_equal(np.asarray(image.dataobj)[..., 0].T, one.lesions_HW)
    assert np.diag(image.affine).tolist() == [-1, -1, 1, 1]


# what could not be read, and what nobody looked at


def test_what_could_not_be_read_stands_in_tables_and_report(tmp_path):
    out = write(tmp_path, prediction(tmp_path), unread=[("b.jpg", "cut off <here>")])
    assert [(row["file"], row["error"]) for row in rows_of(out)] == [("deep/a.jpg", ""), ("b.jpg", "cut off <here>")]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "b.jpg" in page
    assert "cut off &lt;here&gt;" in page
    assert page.count("<article") == 1


def test_a_run_that_read_nothing_leaves_its_reasons_and_no_report(tmp_path):
    out = write(tmp_path, unread=[("b.jpg", "cut off")])
    assert rows_of(out)[0]["error"] == "cut off"
    assert not (out / "report.html").exists()


def test_what_was_passed_over_or_scaled_is_counted_in_one_line_and_listed_at_the_end_of_the_page(tmp_path):
    deep, plain = prediction(tmp_path, "deep.png"), prediction(tmp_path, "plain.png")
    Image.fromarray(np.full((HEIGHT, WIDTH), 4000, np.uint16)).save(deep.path)
    files = PredictionFiles(tmp_path / "out", {}, passed_over=["IM0001", "<b>.txt"])
    files.start()
    for one in (deep, plain):
        files.note(prediction_row(one), files.draw(one))
    files.note(unread_row("c.jpg", "cut off"), None)
    counts = {"files/read": 2, "files/left_out": 1, "files/passed_over": 2, "files/changed": 1, "files/doubtful": 0}
    assert files.finish() == counts
    assert files.summary() == (
        "photographs: 2 read; 1 left out, could not be read (c.jpg); 2 passed over, not photographs by their suffix "
        "(<b>.txt, IM0001); 1 changed, scaled from the 12 bits that they use (deep.png)"
    )
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "<dt>other files</dt>" in page
    assert "<h2>2 files passed over, not photographs by their suffix</h2><ul><li>IM0001</li><li>&lt;b&gt;.txt" in page
    assert "<h2>1 file changed, scaled from the 12 bits that they use</h2><ul><li>deep.png</li>" in page
    overlay = np.asarray(Image.open(tmp_path / "out" / "overlays" / "deep.png.jpg"))
    assert abs(int(overlay[2, 2, 0]) - 250) <= 2  # 4000 of 4095 is 250 of 255


def test_without_anything_to_say_the_line_counts_the_photographs(tmp_path):
    files = PredictionFiles(tmp_path / "out", {})
    files.start()
    files.finish()
    assert files.summary() == "photographs: 0 read"


@pytest.mark.parametrize(("unread", "code"), [([], None), ([("b.jpg", "cut off")], 3)])
def test_the_process_ends_with_code_3_if_something_was_not_read(tmp_path, capsys, unread, code):
    files = PredictionFiles(tmp_path / "out", {})
    files.start()
    for name, reason in unread:
        files.note(unread_row(name, reason), None)
    files.finish()
    if code is None:
        files.exit_if_unread()
        assert capsys.readouterr().err == ""
    else:
        with pytest.raises(SystemExit) as ended:
            files.exit_if_unread()
        assert ended.value.code == code
        assert "could not read 1 of 1 photographs: b.jpg: cut off" in capsys.readouterr().err


DARK = Quality(field_inside=0.95, sharpness=40.0, brightness=3.0, contrast=8.0)


def doubtful(tmp_path, name, **changes):
    return dataclasses.replace(prediction(tmp_path, name), quality=DARK, **changes)


def test_doubtful_photographs_are_counted_with_their_reasons_and_marked_on_their_cards(tmp_path):
    both = doubtful(tmp_path, "b.jpg", unlikeness=1.5)
    files = PredictionFiles(tmp_path / "out", {})
    files.start()
    for one in (prediction(tmp_path, "a.jpg"), both, doubtful(tmp_path, "c.jpg", unlikeness=0.9)):
        files.note(prediction_row(one), files.draw(one))
    assert files.finish()["files/doubtful"] == 2
    assert files.summary() == (
        "photographs: 3 read; 1 doubtful (unlike the training photographs; dark) (b.jpg); 1 doubtful (dark) (c.jpg)"
    )
    head, *cards = (tmp_path / "out/report.html").read_text(encoding="utf-8").split("<article")
    assert "<dd>1 unlike the training photographs; dark, 1 dark</dd>" in head
    assert "Doubtful photograph: unlike the training photographs, dark" in cards[1]
    assert ["Doubtful photograph" in card for card in cards] == [False, True, True]
    assert [row["doubts"] for row in rows_of(tmp_path / "out")] == ["", "unlike the training photographs; dark", "dark"]


def test_a_withheld_grade_is_in_no_table_and_on_no_card(tmp_path):
    out = write(tmp_path, doubtful(tmp_path, "a.jpg", withhold_doubtful=True))
    (row,) = rows_of(out)
    card = (out / "report.html").read_text(encoding="utf-8").split("<article")[1].split("</article>")[0]
    assert {row[name] for name in OF_THE_GRADE} == {""}
    assert "grade withheld" in card
    assert not any(word in card for word in ("moderate", "confidence", "data-grade", "Together", 'class="bar"'))
    assert (row["EX_count"], "hard exudate" in card) == ("1", True)


@pytest.mark.parametrize(("count", "is_said"), [(20, False), (21, True)])
def test_it_is_said_if_no_lesion_is_found_on_any_of_more_than_20_photographs(tmp_path, count, is_said):
    none = prediction_row(prediction(tmp_path)) | {"EX_count": 0}
    drawn = Drawing("", ())
    files = PredictionFiles(tmp_path / "out", {})
    files.start()
    for number in range(count):
        files.note(none | {"file": f"{number}.jpg"}, drawn)
    files.note(unread_row("cut.jpg", "cut off"), None)
    files.finish()
    told = f"none found on any of {count} photographs"
    assert (told in files.summary()) is is_said
    assert (told in (tmp_path / "out/report.html").read_text(encoding="utf-8")) is is_said


def test_one_lesion_on_one_of_many_photographs_is_enough_to_say_nothing(tmp_path):
    one = prediction_row(prediction(tmp_path))
    files = PredictionFiles(tmp_path / "out", {}, report=False)
    files.start()
    for number in range(30):
        files.note(one | {"EX_count": int(number == 7)}, Drawing("", ()))
    files.finish()
    assert files.summary() == "photographs: 30 read"


def test_the_card_of_a_grade_that_was_abstained_from_says_so(tmp_path):
    page = (write(tmp_path, dataclasses.replace(prediction(tmp_path), abstained=True)) / "report.html").read_text(
        encoding="utf-8"
    )
    assert "Abstained" in page.split("<article")[1]


# patients


def sections(out):
    page = (out / "report.html").read_text(encoding="utf-8")
    return page.split('<section class="patient"')[1:]


def test_both_eyes_of_a_patient_stand_in_a_section_with_the_higher_grade(tmp_path):
    eyes = [prediction(tmp_path, f"{name}.jpg", grade) for name, grade in (("0_l", 1), ("0_r", 3), ("1_l", 2))]
    patients = {"0_l.jpg": "0", "0_r.jpg": "0", "1_l.jpg": "1"}
    out = write(tmp_path, *eyes, prediction(tmp_path, "chart.jpg", 4), patients=patients)
    first, second = sections(out)
    assert (first.count("<article"), second.split("</section>")[0].count("<article")) == (2, 1)
    assert (
        "Patient 0: grade 3 severe<span>, the higher of 2 photographs: 0_r.jpg. Together with the lesions: 3 sev"
        in first
    )
    assert "Patient 1: grade 2 moderate<span>, in the only photograph. Together" in second
    assert "<dt>patients</dt><dd>2, and 1 photograph without one</dd>" in (out / "report.html").read_text()
    assert [(row["file"], row["patient"]) for row in rows_of(out)] == [*patients.items(), ("chart.jpg", "")]
    assert list(rows_of(out)[0])[:3] == ["file", "patient", "grade"]


def test_an_eye_that_was_not_read_or_abstained_from_is_named_beside_the_grade(tmp_path):
    unsure = dataclasses.replace(prediction(tmp_path, "0_l.jpg"), abstained=True)
    patients = {"0_l.jpg": "<0>", "0_r.jpg": "<0>", "1_l.jpg": "1", "1_r.jpg": "1"}
    unread = [("0_r.jpg", "cut off"), ("1_l.jpg", "cut off"), ("1_r.jpg", "cut off")]
    out = write(tmp_path, unsure, unread=unread, patients=patients)
    (section,) = sections(out)  # of 1, nothing was read
    assert "Patient &lt;0&gt;: grade 2 moderate<span>, in the only photograph that could be read." in section
    assert "Could not be read, so not in this grade: 0_r.jpg" in section
    assert "Abstained: 0_l.jpg" in section
    assert [row["patient"] for row in rows_of(out)] == ["<0>", "<0>", "1", "1"]


def test_a_patient_has_the_grade_of_the_eyes_that_have_one(tmp_path):
    withheld = doubtful(tmp_path, "0_l.jpg", withhold_doubtful=True)
    doubted = doubtful(tmp_path, "0_r.jpg")
    alone = doubtful(tmp_path, "1_l.jpg", withhold_doubtful=True)
    patients = {"0_l.jpg": "0", "0_r.jpg": "0", "1_l.jpg": "1"}
    first, second = sections(write(tmp_path, withheld, doubted, alone, patients=patients))
    assert "Patient 0: grade 2 moderate<span>, in the only photograph with one." in first
    assert "Grade withheld, so not in this grade: 0_l.jpg" in first
    assert "Doubtful: 0_r.jpg" in first
    assert "Patient 1: <span>no grade</span>" in second


@pytest.mark.parametrize(
    ("grades", "words"),
    [
        ((2, 2), "grade 2 moderate<span>, in both photographs."),
        ((2, 2, 2), "grade 2 moderate<span>, in all 3 photographs."),
        ((4, 2, 4), "grade 4 proliferative<span>, the highest of 3 photographs: 0.jpg, 2.jpg."),
    ],
)
def test_the_heading_says_which_photographs_have_the_grade_of_the_patient(tmp_path, grades, words):
    eyes = [prediction(tmp_path, f"{number}.jpg", grade) for number, grade in enumerate(grades)]
    (section,) = sections(write(tmp_path, *eyes, patients={eye.name: "p" for eye in eyes}))
    assert words in section


def test_an_eye_that_is_known_is_a_column_and_stands_beside_the_name(tmp_path):
    names = ["0.png", "1.png", "2.png"]
    eyes = {"0.png": "left", "2.png": "right"}
    out = write(tmp_path, *(prediction(tmp_path, name) for name in names), eyes=eyes, patients={"1.png": "p"})
    assert list(rows_of(out)[0])[:4] == ["file", "patient", "eye", "grade"]
    assert [(row["file"], row["eye"]) for row in rows_of(out)] == [("0.png", "left"), ("1.png", ""), ("2.png", "right")]
    headings = re.findall("<h2>(.\\.png.*)</h2>", (out / "report.html").read_text())
    assert headings == ["0.png<span>, left eye</span>", "1.png", "2.png<span>, right eye</span>"]


def test_without_patients_nothing_is_said_of_them(tmp_path):
    out = write(tmp_path, prediction(tmp_path, "0_l.jpg"), prediction(tmp_path, "0_r.jpg"), patients={})
    assert not {"patient", "eye"} & rows_of(out)[0].keys()
    assert sections(out) == []
    assert "<dt>patients" not in (out / "report.html").read_text()


# the folder


def test_a_later_run_replaces_all_of_a_former_one_and_nothing_else(tmp_path):
    out = write(tmp_path, prediction(tmp_path, "old.jpg"), nifti=True)
    (out / "notes.txt").write_text("mine")
    write(tmp_path, prediction(tmp_path, "new.jpg"))
    found = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    assert [name for name in found if "old" in name] == []
    assert {"notes.txt", "masks/new.jpg.png"} <= set(found)
    assert [row["file"] for row in rows_of(out)] == ["new.jpg"]


def test_what_a_killed_run_left_is_replaced_too(tmp_path):
    killed = PredictionFiles(tmp_path / "out", {})
    killed.start()
    killed.draw(prediction(tmp_path, "old.jpg"))
    release(tmp_path / "out")  # as the system does when a process ends
    assert list((write(tmp_path, prediction(tmp_path, "new.jpg")) / "masks").iterdir()) == [
        tmp_path / "out" / "masks" / "new.jpg.png"
    ]


def test_files_of_unknown_origin_are_neither_removed_nor_mixed_with(tmp_path):
    (tmp_path / "out" / "masks").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"expected an --output_dir without 'masks', or one of a former inference"):
        PredictionFiles(tmp_path / "out", {}).start()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["masks"]


def test_a_second_run_in_one_folder_is_refused_and_a_killed_one_does_not_block(tmp_path):
    context = multiprocessing.get_context("fork")
    held = context.Event()

    def hold():
        PredictionFiles(tmp_path / "out", {}).start()
        held.set()
        time.sleep(600)

    first = context.Process(target=hold)
    first.start()
    try:
        assert held.wait(60)
        second = PredictionFiles(tmp_path / "out", {})
        with pytest.raises(ValueError, match=r"another run still works in .*out: wait for it, or name another"):
            second.start()
    finally:
        first.kill()
        first.join()
    second.start()
    second.finish()


@pytest.mark.parametrize("blocker", ["out", "out/.run.lock/in_the_way"])
def test_a_folder_that_cannot_be_written_is_named(tmp_path, blocker):
    (tmp_path / blocker).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / blocker).write_text("a file")
    with pytest.raises(ValueError, match=r"expected an --output_dir that can be written, got .*out: "):
        PredictionFiles(tmp_path / "out", {}).start()


def test_no_table_is_left_by_a_run_that_broke_off(tmp_path):
    files = PredictionFiles(tmp_path / "out", {})
    files.start()
    files.note(unread_row("b.jpg", "cut off"), None)
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".run.lock"]
    release(tmp_path / "out")
    files.rows.close()
    files.cards.close()


def test_memory_does_not_grow_with_the_photographs(tmp_path):
    """10,000 rows take some 8 MB as text, the table comes to 5 MB, the cards to 10 MB; none of them is in memory."""
    files = PredictionFiles(tmp_path / "out", {})
    row = prediction_row(prediction(tmp_path))
    write(tmp_path)  # compiles the template
    files.start()
    tracemalloc.start()
    for number in range(10_000):
        files.note({**row, "file": f"{number}.jpg"}, Drawing(f"<article>{number:1000}</article>\n", ()))
    files.finish()
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert sum(1 for _ in (tmp_path / "out" / "predictions.csv").open()) == 10_001
    assert (tmp_path / "out" / "predictions.jsonl").stat().st_size > 4_000_000
    assert (tmp_path / "out" / "report.html").stat().st_size > 10_000_000
    assert peak_bytes < 500_000


def test_a_photograph_is_decoded_once_for_all_its_files_and_none_of_them_is_read_back(tmp_path, monkeypatch):
    one, opened, image_open = prediction(tmp_path), [], Image.open
    monkeypatch.setattr(Image, "open", lambda path, **options: opened.append(path) or image_open(path, **options))
    write(tmp_path, one)
    assert opened == [one.path]
