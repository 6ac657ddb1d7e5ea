"""Predictions are made in the photograph's own frame: sizes, counts, areas and heat are in native pixels."""

import dataclasses
import threading

import numpy as np
import pytest
import torch
from bundle.handlers.predictions import COLUMNS, OF_THE_GRADE, PredictionHandler, prediction_row, unread_row
from bundle.metrics.likeness import Likeness
from bundle.transforms.quality import Quality
from ignite.engine import Engine

SIDE = 30
GEOMETRY = torch.tensor([15.0, 0.0, 60.0, 90.0, 60.0])
"""The square, seen at half its size, of a photograph of 90 x 60 pixels."""

NOTHING = {"MA": 0, "HE": 0, "EX": 0, "SE": 0}


FIELD_PX = 2345

ORDINARY = Quality(field_inside=0.95, sharpness=40.0, brightness=60.0, contrast=8.0)
DARK = ORDINARY._replace(brightness=3.0)


class Collected:
    """A writer that keeps what it is given, and how much that was when it was told to finish."""

    def __init__(self):
        self.drawn, self.noted, self.started = [], [], False

    def start(self):
        self.started = True

    def draw(self, prediction):
        assert self.started
        self.drawn.append(prediction)
        return f"drawn {prediction.name}"

    def note(self, row, drawn):
        self.noted.append((row, drawn))

    def finish(self):
        self.finished_at = len(self.noted)
        return {"files/read": self.finished_at}


def outputs(lesions=(), grade=2, heat=0.5, map_side=SIDE):
    """Predict (lesion class, rows, columns) in the square."""
    scores = torch.zeros(1, 5, SIDE, SIDE)
    scores[:, 0] = 1
    for value, rows, columns in lesions:
        scores[0, :, rows, columns] = torch.eye(5)[value].view(5, 1, 1)
    probabilities = torch.full((1, 5), 0.1)
    probabilities[0, grade] = 0.6
    maps = torch.zeros(1, 5, map_side, map_side)
    maps[0, grade] = heat
    return {"lesions": scores, "grade": probabilities, "maps": maps, "features": torch.tensor([[2.0, 7.0]])}


def batch(name="deep/a.jpg", quality=ORDINARY, **more):
    measured = {"field_px": torch.tensor([FIELD_PX]), "quality": torch.tensor([quality])}
    return {"id": [name], "geometry": GEOMETRY[None], **measured, **more}


def run(writers, batches, output, **settings):
    paths = {name: f"/in/{name}" for one in batches for name in one["id"]}
    engine = Engine(lambda engine, batch: output)
    PredictionHandler(paths, writers, **settings).attach(engine)
    engine.run(batches)


def predict(*arguments, writers=1, settings=None, **more):
    got = [Collected() for _ in range(writers)]
    run(got, [batch()], outputs(*arguments, **more), **settings or {})
    return got


def one(*arguments, **settings):
    return predict(*arguments, **settings)[0].drawn[0]


def test_counts_and_areas_are_in_native_pixels():
    spots = [(1, slice(4, 6), slice(4, 6)), (1, slice(10, 12), slice(20, 23)), (3, slice(20, 21), slice(5, 6))]
    found = one(spots)
    assert found.lesions_HW.shape == (60, 90)
    assert found.lesions_HW.dtype == np.uint8
    assert found.counts == {**NOTHING, "MA": 2, "EX": 1}
    assert found.areas_px == {**NOTHING, "MA": 4 * (4 + 6), "EX": 4}  # one pixel of the square is 2 x 2 native ones
    assert (found.lesions_HW[8:12, 15 + 8 : 15 + 12] == 1).all()


def test_heat_is_that_of_the_predicted_grade_and_none_outside_the_square():
    heat = one(grade=4, heat=0.5).heat_hw
    assert heat.shape == (60, 90)
    assert heat[:, 15:75] == pytest.approx(0.5)
    assert (heat[:, :15] == 0).all()
    assert (heat[:, 75:] == 0).all()


def test_a_map_of_any_size_covers_the_square():
    assert one(map_side=2).heat_hw == pytest.approx(one(map_side=SIDE).heat_hw, abs=1e-6)


def test_heat_of_a_large_photograph_is_1024_pixels_long():
    large = {"geometry": torch.tensor([[512.0, -256.0, 2048.0, 4096.0, 1536.0]])}
    got = Collected()
    run([got], [batch(**large)], outputs(heat=1.0))
    heat = got.drawn[0].heat_hw
    assert heat.shape == (384, 1024)
    assert np.flatnonzero(heat[200]).tolist() == list(range(128, 640))
    assert got.drawn[0].lesions_HW.shape == (1536, 4096)


@pytest.mark.parametrize(
    ("value", "grade", "contradiction"), [(3, 2, False), (3, 1, True), (1, 1, False), (1, 2, True), (0, 0, False)]
)
def test_a_grade_that_its_own_lesions_do_not_allow_is_a_contradiction(value, grade, contradiction):
    found = one([(value, slice(4, 8), slice(4, 8))], grade=grade)
    assert found.grade == grade
    assert found.contradiction is contradiction


@pytest.mark.parametrize(
    ("value", "grade", "consistent", "rules"), [(3, 4, 4, 2), (3, 1, 2, 2), (1, 1, 1, 1), (1, 4, 1, 1), (0, 3, 0, 0)]
)
def test_both_tasks_answer_together_beside_the_grade_head_and_the_lesions_alone(value, grade, consistent, rules):
    """Grades other than the head's own are equally probable, so that the lowest that is allowed is taken."""
    found = one([(value, slice(4, 8), slice(4, 8))], grade=grade)
    row = prediction_row(found)
    assert (row["grade"], row["consistent_grade"], row["rules_grade"]) == (grade, consistent, rules)
    assert found.consistent_grade in found.feasible


def test_thresholds_and_smallest_areas_decide_what_is_consistent():
    spot = [(3, slice(4, 5), slice(4, 5))]  # 4 native pixels
    assert one(spot, grade=4).consistent_grade == 4
    assert one(spot, grade=4, settings={"min_area_ppm": 1e6 * 5 / FIELD_PX}).consistent_grade == 0
    assert one(spot, grade=4, settings={"lesion_thresholds": (0.5, 0.5, 1.0, 0.5)}).consistent_grade == 0


def test_a_lesion_below_the_smallest_share_of_the_field_does_not_make_a_grade_infeasible():
    spot = [(3, slice(4, 5), slice(4, 5))]  # 4 native pixels
    just_ppm = 1e6 * 4 / FIELD_PX
    assert one(spot, settings={"min_area_ppm": just_ppm * 0.999}).feasible == {2, 3, 4}
    assert one(spot, settings={"min_area_ppm": just_ppm * 1.001}).feasible == {0}
    assert one(spot, settings={"min_area_ppm": just_ppm * 1.001}).counts["EX"] == 1


def test_small_components_do_not_add_up_to_a_large_one():
    spots = [(3, slice(row, row + 1), slice(4, 5)) for row in (4, 8, 12)]  # 4 native pixels each
    assert one(spots, settings={"min_area_ppm": 1e6 * 8 / FIELD_PX}).feasible == {0}


def test_lesion_thresholds_decide_masks_counts_and_what_is_feasible():
    faint = outputs([(3, slice(4, 6), slice(4, 6))])
    faint["lesions"] = 0.3 * faint["lesions"]
    faint["lesions"][:, 0] += 0.7
    plain, decided = Collected(), Collected()
    run([plain], [batch()], faint)
    run([decided], [batch()], faint, lesion_thresholds=(0.5, 0.5, 0.15, 0.5))
    assert (plain.drawn[0].counts["EX"], plain.drawn[0].feasible) == (0, {0})
    assert (decided.drawn[0].counts["EX"], decided.drawn[0].feasible) == (1, {2, 3, 4})
    assert (decided.drawn[0].lesions_HW[8:12, 15 + 8 : 15 + 12] == 3).all()


def test_thresholds_of_other_lesions_are_refused_before_the_network_runs():
    with pytest.raises(
        ValueError, match=r"expected lesion thresholds in \(0, 1\], one for each of 4 classes, got \[0.2"
    ):
        PredictionHandler({}, [], lesion_thresholds=[0.2, 0.3])


@pytest.mark.parametrize(("abstain_below", "abstained"), [(None, False), (0.6, False), (0.61, True)])
def test_a_grade_below_the_threshold_abstains_and_keeps_its_probabilities(abstain_below, abstained):
    found = one(settings={"abstain_below": abstain_below})
    assert found.abstained is abstained
    assert max(found.probabilities) == pytest.approx(0.6)
    assert prediction_row(found)["abstained"] is abstained


@pytest.mark.parametrize(
    ("quantiles", "expected"),
    [(None, ()), ([0.5] * 5, (2,)), ([0.65] * 5, (1, 2)), ([0.75, *[0.5] * 4], (0, 1, 2)), ([1] * 5, (0, 1, 2, 3, 4))],
)
def test_a_set_has_the_grade_and_its_neighbours_up_to_the_limits(quantiles, expected):
    found = one(settings={"grade_set_quantiles": quantiles})  # 2 has 0.6, the others 0.1: 1 at 0.6, 0 at 0.7, 3, 4
    assert found.grade_set == expected
    assert prediction_row(found)["grade_set"] == " ".join(map(str, expected))


def test_limits_of_other_grades_are_refused_before_the_network_runs():
    with pytest.raises(
        ValueError, match=r"expected grade_set_quantiles as 5 numbers in \[0, 1\], one a grade, got \[0"
    ):
        PredictionHandler({}, [], grade_set_quantiles=[0.2, 0.3])


def likeness(limit):
    """The features of ``outputs`` are 3 standard deviations from the mean, along the only axis."""
    one = np.ones(2)
    return Likeness(np.array([2.0, 1.0]), 2 * one, np.array([[0.0, 1.0]]), np.ones(1), rest=1.0, limit=limit)


def doubtful(quality=ORDINARY, **settings):
    got = Collected()
    run([got], [batch(quality=quality)], outputs(grade=2), **settings)
    return got.drawn[0]


def test_a_photograph_beyond_the_limit_is_unlike_the_training_and_keeps_its_grade():
    found = doubtful(likeness=likeness(limit=2.0))
    row = prediction_row(found)
    assert found.unlikeness == pytest.approx(3 / 2)
    assert (row["doubts"], row["grade"]) == ("unlike the training photographs", 2)
    assert row["unlikeness"] == found.unlikeness
    assert prediction_row(doubtful(likeness=likeness(limit=3.0)))["doubts"] == ""


def test_all_doubts_are_told_with_the_numbers_behind_them():
    row = prediction_row(doubtful(DARK, likeness=likeness(limit=2.0)))
    assert row["doubts"] == "unlike the training photographs; dark"
    assert (row["brightness"], row["sharpness"], row["field_inside"]) == pytest.approx((3.0, 40.0, 0.95))


def test_without_a_likeness_there_is_no_distance_but_still_a_quality():
    row = prediction_row(doubtful(DARK))
    assert (row["unlikeness"], row["doubts"]) == (None, "dark")


def test_the_grade_of_a_doubtful_photograph_can_be_withheld():
    settings = {"likeness": likeness(limit=3.0), "withhold_doubtful": True}
    withheld, ordinary = prediction_row(doubtful(DARK, **settings)), prediction_row(doubtful(**settings))
    assert {withheld[name] for name in OF_THE_GRADE} == {None}
    assert (withheld["doubts"], withheld["EX_count"], tuple(withheld)) == ("dark", 0, COLUMNS)
    assert (ordinary["grade"], ordinary["doubts"]) == (2, "")


def test_withholding_by_weights_without_a_likeness_is_refused():
    with pytest.raises(
        ValueError, match=r"expected weights with a likeness .* for withhold_doubtful true, got weights"
    ):
        PredictionHandler({}, [], withhold_doubtful=True)


def test_every_writer_gets_the_prediction():
    first, second = predict(writers=2)
    assert first.drawn == second.drawn
    assert first.finished_at == second.finished_at == 1
    assert (first.drawn[0].name, first.drawn[0].path) == ("deep/a.jpg", "/in/deep/a.jpg")
    assert first.noted == second.noted == [(prediction_row(first.drawn[0]), "drawn deep/a.jpg")]


def test_rows_come_in_the_order_of_the_input_however_long_drawing_takes():
    class SlowFirst(Collected):
        second_is_drawn = threading.Event()

        def draw(self, prediction):
            if prediction.name == "0":
                assert self.second_is_drawn.wait(30)
            drawn = super().draw(prediction)
            self.second_is_drawn.set()
            return drawn

    slow = SlowFirst()
    run([slow], [batch(str(number)) for number in range(9)], outputs(), threads=2)
    assert [row["file"] for row, _ in slow.noted] == [str(number) for number in range(9)]
    assert [drawn for _, drawn in slow.noted] == [f"drawn {number}" for number in range(9)]
    assert slow.drawn[0].name != "0"


def test_no_more_than_two_photographs_a_thread_wait_to_be_written():
    fifth_is_through, looked_at, looked_at_first_note = threading.Event(), [], []

    class Blocked(Collected):
        def draw(self, prediction):
            assert fifth_is_through.wait(30)

        def note(self, row, drawn):
            looked_at_first_note.append(len(looked_at))

    def step(engine, batch):
        looked_at.append(batch["id"])
        if len(looked_at) == 5:
            fifth_is_through.set()
        return outputs()

    engine = Engine(step)
    PredictionHandler({str(number): "" for number in range(8)}, [Blocked()], threads=2).attach(engine)
    engine.run([batch(str(number)) for number in range(8)])
    assert (len(looked_at), looked_at_first_note[0]) == (8, 5)


@pytest.mark.parametrize("number", [1, 12])
def test_an_error_of_a_writer_is_an_error_of_the_run(number):
    class Full(Collected):
        def draw(self, prediction):
            raise OSError("no space left")

    full = Full()
    with pytest.raises(OSError, match="no space left"):
        run([full], [batch(str(one)) for one in range(number)], outputs())
    assert not hasattr(full, "finished_at")


def test_what_cannot_be_written_is_refused_before_the_network_runs():
    class Refusing(Collected):
        def start(self):
            raise ValueError("expected an --output_dir")

    engine = Engine(lambda engine, batch: pytest.fail("the network ran"))
    PredictionHandler({}, [Refusing()]).attach(engine)
    with pytest.raises(ValueError, match="expected an --output_dir"):
        engine.run([batch()])


def test_a_photograph_that_was_not_read_is_a_row_with_the_reason_and_nothing_is_drawn():
    got = Collected()
    run([got], [batch("bad.jpg", error=["cut off"]), batch("good.jpg", error=[""])], outputs())
    assert [one.name for one in got.drawn] == ["good.jpg"]
    (bad, drawn), (good, _) = got.noted
    assert drawn is None
    assert bad == unread_row("bad.jpg", "cut off")
    assert (bad["file"], bad["grade"], bad["error"], good["error"]) == ("bad.jpg", None, "cut off", "")


def test_a_row_has_every_number_flat():
    row = prediction_row(one([(3, slice(4, 8), slice(4, 8))], grade=1))
    assert (row["file"], row["grade"], row["contradiction"], row["feasible"]) == ("deep/a.jpg", 1, True, "2 3 4")
    assert row["confidence"] == row["probability_1"] == pytest.approx(0.6)
    assert (row["EX_count"], row["EX_area_px"], row["field_px"]) == (1, 64, FIELD_PX)
    assert row["EX_area_percent"] == pytest.approx(100 * 64 / FIELD_PX)
    assert not any(isinstance(value, (dict, list, tuple)) for value in row.values())


def test_every_row_has_the_same_columns():
    assert tuple(prediction_row(one())) == tuple(unread_row("a", "b")) == COLUMNS


@pytest.mark.parametrize("settings", [{"abstain_below": 1.5}, {"abstain_below": -0.1}, {"threads": 0}])
def test_refuses_a_threshold_that_is_no_probability_and_no_threads(settings):
    with pytest.raises(ValueError, match=r"expected (abstain_below to be a probability|one thread or more)"):
        PredictionHandler({}, [], **settings)


def with_probabilities(*probabilities):
    return dataclasses.replace(one(), probabilities=probabilities)


def test_a_prediction_without_five_probabilities_or_a_field_of_view_is_refused():
    with pytest.raises(ValueError, match=r"'deep/a.jpg': expected 5 probabilities, got \(0.25, 0.25, 0.25, 0.25\)"):
        with_probabilities(0.25, 0.25, 0.25, 0.25)
    with pytest.raises(ValueError, match=r"'deep/a.jpg': expected a field of view of at least one pixel, got 0"):
        dataclasses.replace(one(), field_px=0)


def test_a_probability_may_be_rounded_beyond_1_and_no_further():
    assert with_probabilities(0.0, 0.0, 1.0000001, 0.0, 0.0).grade == 2
    with pytest.raises(ValueError, match=r"'deep/a\.jpg': expected 5 probabilities, got \(0\.0, 0\.0, 1\.1"):
        with_probabilities(0.0, 0.0, 1.1, 0.0, 0.0)
