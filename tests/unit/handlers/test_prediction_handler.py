"""Predictions are made in the photograph's own frame: sizes, counts, areas and heat are in native pixels."""

import numpy as np
import pytest
import torch
from ignite.engine import Engine

from bundle.handlers.predictions import PredictionHandler, prediction_row

SIDE = 30
GEOMETRY = torch.tensor([15.0, 0.0, 60.0, 90.0, 60.0])
"""The square, seen at half its size, of a photograph of 90 x 60 pixels."""

NOTHING = {"MA": 0, "HE": 0, "EX": 0, "SE": 0}


class Collected(list):
    """A writer that keeps what it is given, and how much that was when it was told to finish."""

    __call__ = list.append

    def finish(self):
        self.finished_at = len(self)


def predict(lesions=(), grade=2, heat=0.5, lit_rows=SIDE, min_area_px=1, writers=1):
    """Predict (lesion class, rows, columns) in the square; return what each writer got."""
    scores = torch.zeros(1, 5, SIDE, SIDE)
    scores[:, 0] = 1
    for value, rows, columns in lesions:
        scores[0, :, rows, columns] = torch.eye(5)[value].view(5, 1, 1)
    probabilities = torch.full((1, 5), 0.1)
    probabilities[0, grade] = 0.6
    maps = torch.zeros(1, 5, SIDE, SIDE)
    maps[0, grade] = heat
    image = torch.zeros(1, 3, SIDE, SIDE, dtype=torch.uint8)
    image[:, 1, :lit_rows] = 102
    got = [Collected() for _ in range(writers)]
    handler = PredictionHandler({"deep/a.jpg": "/in/deep/a.jpg"}, got, min_area_px)
    engine = Engine(lambda engine, batch: {"lesions": scores, "grade": probabilities, "maps": maps})
    handler.attach(engine)
    engine.run([{"id": ["deep/a.jpg"], "image": image, "geometry": GEOMETRY[None]}])
    return got


def one(*arguments, **settings):
    return predict(*arguments, **settings)[0][0]


def test_counts_and_areas_are_in_native_pixels():
    spots = [(1, slice(4, 6), slice(4, 6)), (1, slice(10, 12), slice(20, 23)), (3, slice(20, 21), slice(5, 6))]
    found = one(spots)
    assert found.lesions_HW.shape == (60, 90)
    assert found.lesions_HW.dtype == np.uint8
    assert found.counts == {**NOTHING, "MA": 2, "EX": 1}
    assert found.areas_px == {**NOTHING, "MA": 4 * (4 + 6), "EX": 4}  # one pixel of the square is 2 x 2 native ones
    assert (found.lesions_HW[8:12, 15 + 8 : 15 + 12] == 1).all()


def test_the_field_of_view_is_what_is_lit():
    assert one(lit_rows=SIDE).field_px == 60 * 60
    assert one(lit_rows=15).field_px == 30 * 60


def test_heat_is_that_of_the_predicted_grade_and_none_outside_the_square():
    heat = one(grade=4, heat=0.5).heat_HW
    assert heat.shape == (60, 90)
    assert heat[:, 15:75] == pytest.approx(0.5)
    assert (heat[:, :15] == 0).all()
    assert (heat[:, 75:] == 0).all()


@pytest.mark.parametrize(
    ("value", "grade", "contradiction"), [(3, 2, False), (3, 1, True), (1, 1, False), (1, 2, True), (0, 0, False)]
)
def test_a_grade_that_its_own_lesions_do_not_allow_is_a_contradiction(value, grade, contradiction):
    found = one([(value, slice(4, 8), slice(4, 8))], grade=grade)
    assert found.grade == grade
    assert found.contradiction is contradiction


def test_a_lesion_below_the_smallest_area_does_not_make_a_grade_infeasible():
    spot = [(3, slice(4, 5), slice(4, 5))]  # 4 native pixels
    assert one(spot, min_area_px=4).feasible == {2, 3, 4}
    assert one(spot, min_area_px=5).feasible == {0}
    assert one(spot, min_area_px=5).counts["EX"] == 1


def test_every_writer_gets_the_prediction():
    first, second = predict(writers=2)
    assert first == second
    assert first.finished_at == second.finished_at == 1
    assert (first[0].name, first[0].path) == ("deep/a.jpg", "/in/deep/a.jpg")


def test_a_row_has_every_number_flat():
    row = prediction_row(one([(3, slice(4, 8), slice(4, 8))], grade=1))
    assert (row["file"], row["grade"], row["contradiction"], row["feasible"]) == ("deep/a.jpg", 1, True, "2 3 4")
    assert row["confidence"] == row["probability_1"] == pytest.approx(0.6)
    assert (row["EX_count"], row["EX_area_px"], row["field_px"]) == (1, 64, 3600)
    assert row["EX_area_percent"] == pytest.approx(100 * 64 / 3600)
    assert not any(isinstance(value, (dict, list, tuple)) for value in row.values())
