"""What inference leaves behind can be opened again: masks, overlays, heat maps, a table and a report."""

import csv

import numpy as np
import pytest
from PIL import Image

from bundle.handlers.predictions import Prediction
from bundle.labels import LESION_COLOURS
from bundle.reporting.predictions import PredictionFiles, read_rgb

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
        heat_HW=np.linspace(0, 1, size[0] * size[1], dtype=np.float32).reshape(size[1], size[0]),
        probabilities=tuple(0.6 if one == grade else 0.1 for one in range(5)),
        field_px=size[0] * size[1] // 2,
        counts={"MA": 0, "HE": 0, "EX": 1, "SE": 0},
        areas_px={"MA": 0, "HE": 0, "EX": area_px, "SE": 0},
        feasible=frozenset({2, 3, 4}),
    )


def write(tmp_path, *predictions, facts=None):
    files = PredictionFiles(tmp_path / "out", facts or {})
    for one in predictions:
        files(one)
    files.finish()
    return tmp_path / "out"


def test_every_photograph_has_a_mask_an_overlay_and_a_heat_map_under_its_name(tmp_path):
    out = write(tmp_path, prediction(tmp_path), prediction(tmp_path, "a.png"))
    found = sorted(path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file())
    assert found == [
        "heatmaps/a.png.png", "heatmaps/deep/a.jpg.png", "masks/a.png.png", "masks/deep/a.jpg.png",
        "overlays/a.png.jpg", "overlays/deep/a.jpg.jpg", "predictions.csv", "report.html",
    ]  # fmt: skip


def test_a_mask_has_the_classes_at_the_size_of_the_photograph(tmp_path):
    one = prediction(tmp_path)
    mask = np.asarray(Image.open(write(tmp_path, one) / "masks/deep/a.jpg.png"))
    assert np.array_equal(mask, one.lesions_HW)


def test_an_overlay_has_the_colour_of_the_lesion_and_else_the_photograph(tmp_path):
    overlay = read_rgb(write(tmp_path, prediction(tmp_path)) / "overlays/deep/a.jpg.jpg").astype(int)
    inside = 90 + 0.45 * (np.array(LESION_COLOURS["EX"]) - 90)
    assert np.abs(overlay[23:27, 44:51].mean(axis=(0, 1)) - inside).max() < 12  # JPEG
    assert np.abs(overlay[:10, :20] - 90).max() < 4


def test_a_heat_map_is_grey_and_at_most_1024_pixels_long(tmp_path):
    out = write(tmp_path, prediction(tmp_path), prediction(tmp_path, "large.png", size=(2048, 1024)))
    small, large = (Image.open(out / "heatmaps" / name) for name in ("deep/a.jpg.png", "large.png.png"))
    assert (small.mode, small.size, small.getextrema()) == ("L", (WIDTH, HEIGHT), (0, 255))
    assert large.size == (1024, 512)


def test_the_table_has_a_row_of_every_photograph(tmp_path):
    out = write(tmp_path, prediction(tmp_path), prediction(tmp_path, "b.jpg", grade=0))
    with (out / "predictions.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["file"], row["grade"], row["contradiction"]) for row in rows] == [
        ("deep/a.jpg", "2", "False"),
        ("b.jpg", "0", "True"),
    ]
    assert float(rows[0]["EX_area_percent"]) == pytest.approx(100 * 150 / 2700)


def test_the_report_shows_every_photograph_and_says_what_it_was_made_with(tmp_path):
    out = write(tmp_path, prediction(tmp_path), prediction(tmp_path, "b.jpg"), facts={"weights": "model.pt"})
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("<article") == 2
    for text in ("<dt>weights</dt><dd>model.pt</dd>", "<dt>photographs</dt><dd>2</dd>", "deep/a.jpg", "b.jpg"):
        assert text in page


def test_a_lesion_of_one_pixel_on_a_large_photograph_is_in_the_report(tmp_path):
    one = prediction(tmp_path, "large.jpg", lesion=(slice(701, 702), slice(999, 1000)), size=(2048, 1024))
    page = (write(tmp_path, one) / "report.html").read_text(encoding="utf-8")
    assert 'data-layer="EX"' in page.split("<article")[1]


def test_no_photograph_leaves_an_empty_table_and_report(tmp_path):
    out = write(tmp_path)
    assert (out / "predictions.csv").read_text().strip() == ""
    assert "<article" not in (out / "report.html").read_text(encoding="utf-8")
