"""What the graders say of each image is decided, audited, scored where the grade is known, and handed over."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from bundle.handlers.pseudo_label import PseudoLabelHandler
from bundle.labels import LESIONS, QUADRANTS
from bundle.manifest import Manifest, Photograph
from bundle.method.evidence import Thresholds
from bundle.method.heat_maps import NonFiniteLogits
from bundle.method.initial_labels import load_pseudo_labels
from bundle.reporting.decisions import write_decisions
from bundle.reporting.panel import write_panel
from ignite.engine import Engine
from PIL import Image

HEIGHT, WIDTH = 40, 60
EXUDATE = {"EX": (80, 80)}
"""Height and width in native pixels, ten of which are one of the network's."""
GRIDS = [(8, 12), (10, 15)]
GRADERS = torch.tensor([[0.5, 0.1, 0.1, 0.2, 0.1], [0.6, 0.0, 0.2, 0.1, 0.1]])


def photograph(name, **changes):
    fields = {
        "id": name, "image": "tiny/a.jpg", "split": "train", "sha256": "a" * 64, "perceptual_hash": "b" * 64,
        "width_px": 600, "height_px": 400, "group": name, "annotated": ("MA", "HE", "EX", "SE"),
    }  # fmt: skip
    return Photograph(**(fields | changes))


def manifest(folder=Path("/"), masks=(), **grades):
    """Three photographs of the same masks; known grades cost a bootstrap of two seconds, so most tests have none."""
    facts = {"a": {"optic_disc": "tiny/a_OD.tif"}, "b": {}, "c": {"annotated": ("EX",)}}
    rows = tuple(
        photograph(f"set/train/{name}", grade=grades.get(name), **outlined(masks, more), **more)
        for name, more in facts.items()
    )
    return Manifest(name="tiny", roots={"tiny": folder}, folds=2, seed=0, sha256="b" * 64, photographs=rows)


def outlined(masks, facts):
    there = [lesion for lesion in masks if lesion in facts.get("annotated", LESIONS)]
    return {"masks": {lesion: f"tiny/{lesion}.png" for lesion in there}, "areas_px": dict.fromkeys(there, 1)}


def write_outlines(folder, sizes_px):
    """Draw a rectangle of so many native pixels for each lesion, and a speck beside it that is never the largest."""
    for lesion, (height_px, width_px) in sizes_px.items():
        mask = np.zeros((400, 600), np.uint8)
        mask[100 : 100 + height_px, 400 : 400 + width_px] = mask[5, 5] = 1
        Image.fromarray(mask).save(folder / f"{lesion}.png")


def batch(name="set/train/a", spot_px=8):
    """Show a lit image with one exudate and a disc that covers the left half, made of 600 x 400 native pixels."""
    lesions, disc = torch.zeros(1, 1, HEIGHT, WIDTH, dtype=torch.int64), torch.zeros(1, 1, HEIGHT, WIDTH)
    lesions[:, :, 10 : 10 + spot_px, 40 : 40 + spot_px] = 3
    disc[..., :30] = 1
    return {
        "id": [name],
        "image": torch.full((1, 3, HEIGHT, WIDTH), 128, dtype=torch.uint8),
        "lesions": lesions,
        "optic_disc": disc.long(),
        "field_px": torch.tensor([240_000]),
    }


def maps():
    """Let the second grader look at the exudate for grade 2, and the first at nothing."""
    found = torch.zeros(1, 2, 5, HEIGHT, WIDTH)
    found[0, 1, 2, 10:18, 40:48] = 1
    return found


def label(tmp_path, batches=None, known=None, outlines=EXUDATE, heat=None, grids=GRIDS, **settings):
    """Run the handler on photographs with such native outlines; return its rows and the metrics of its engine."""
    masks = tmp_path.with_name("masks")
    masks.mkdir(exist_ok=True)
    write_outlines(masks, outlines)
    rows = manifest(masks, outlines, **(known or {}))
    handler = PseudoLabelHandler(str(tmp_path), rows, {"graders": ["c" * 64]}, **settings)
    shown = maps() if heat is None else heat
    engine = Engine(lambda engine, batch: {"probabilities": GRADERS[None], "maps": shown, "grids": grids})
    handler.attach(engine)
    engine.run(batches or [batch()])
    return handler.rows, engine.state.metrics


def test_the_surer_grader_is_heard_and_moved_to_the_grade_that_its_heat_supports(tmp_path):
    (row,), _ = label(tmp_path)
    assert (row["winner"], row["proposed"], row["decided"], row["action"]) == (1, 0, 2, "move")
    assert row["weight"] == pytest.approx(0.4)  # of the feasible grades 2, 3 and 4
    e = np.e
    assert [row[f"soft_label_{g}"] for g in range(5)] == pytest.approx(
        [0, 0, 2 * e / (2 * e + 2), *2 * [1 / (2 * e + 2)]]
    )


def test_the_mean_of_graders_has_the_mean_of_their_heat(tmp_path):
    (row,), _ = label(tmp_path, mode="log_mean")
    assert row["winner"] is None
    assert row["coverage_2"] > 0  # half as hot, and a half is still hot


def test_stage_two_reads_what_is_handed_over(tmp_path):
    (row,), _ = label(tmp_path)
    found = load_pseudo_labels(tmp_path / "pseudo_labels.json", manifest())["set/train/a"]
    assert found.feasible == (False, False, True, True, True)
    assert found.weight == row["weight"]
    settings = json.loads((tmp_path / "pseudo_labels.json").read_text())["settings"]
    assert (settings["graders"], settings["combine"]) == (["c" * 64], "max_confidence")
    assert settings["thresholds"]["lift_min"] == 0.25


def test_where_the_true_grade_is_known_it_is_told_and_scored(tmp_path):
    batches = [batch("set/train/a"), batch("set/train/b"), batch("set/train/c")]
    _, metrics = label(tmp_path, batches, known={"a": 2, "c": 1})
    with (tmp_path / "pseudo_labels.csv").open(encoding="utf-8-sig") as file:
        table = [(row["id"][-1], row["decided"], row["true_grade"]) for row in csv.DictReader(file)]
    assert table == [("a", "2", "2"), ("b", "2", ""), ("c", "2", "1")]
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert (summary["n"], summary["n_known"], summary["decided/accuracy"]) == (3, 2, 0.5)
    assert metrics["labels/decided_accuracy"] == 0.5
    assert all(name.count("/") == 1 for name in metrics)


def test_a_disc_that_no_one_outlined_is_not_held_against_a_heat_map(tmp_path):
    rows, _ = label(tmp_path, [batch("set/train/a"), batch("set/train/b")])
    assert [row["optic_disc_2"] for row in rows] == [0.0, None]


def test_a_lesion_counts_by_its_native_area_though_a_speck_keeps_a_pixel_when_it_is_resized(tmp_path):
    share = {"min_area_ppm": 125}  # of 240,000 px of field: 30 px
    (counted,), _ = label(tmp_path, [batch(spot_px=1)], outlines={"EX": (5, 6)}, **share)
    (passed_over,), _ = label(tmp_path, [batch(spot_px=1)], outlines={"EX": (1, 29)}, **share)
    assert (counted["rule"], counted["present_EX"], counted["largest_px_EX"]) == ("R2", True, 30)
    assert (passed_over["rule"], passed_over["present_EX"], passed_over["largest_px_EX"]) == ("R0", False, 29)


def test_by_default_three_millionths_of_the_field_count_and_one_pixel_at_least(tmp_path):
    small, large = batch(), batch()
    large["field_px"][:] = 10_000_000  # a photograph of IDRiD has some ten million
    for shown, size_px, rule in ((small, (1, 1), "R2"), (large, (5, 6), "R2"), (large, (1, 29), "R0")):
        (row,), _ = label(tmp_path, [shown], outlines={"EX": size_px})
        assert row["rule"] == rule


def test_thresholds_decide_who_is_not_taught(tmp_path):
    (row,), _ = label(tmp_path, thresholds=Thresholds(feasible_mass_min=0.5))
    assert (row["action"], row["weight"]) == ("abstain", 0)


def test_each_image_is_drawn_into_a_jpeg_as_the_network_saw_it(tmp_path):
    drawn = []
    label(tmp_path, picture=lambda *arguments: drawn.append(arguments))
    (path, image, lesions, heat, row) = drawn[0]
    assert path == tmp_path / "panels" / "set_train_a.jpg"
    assert (image.dtype, image.shape, image.max()) == (np.uint8, (3, HEIGHT, WIDTH), 128)
    assert (lesions.shape, heat.shape) == ((HEIGHT, WIDTH), (5, HEIGHT, WIDTH))
    assert row["decided"] == 2


def test_lift_and_coverage_are_held_against_the_grid_of_the_grader_that_is_heard(tmp_path):
    """The maps are at the size of the image; only the grid says what could have been reached."""
    by_grid = [label(tmp_path, grids=[(8, 12), grid])[0][0] for grid in ((10, 15), (40, 60))]
    assert by_grid[0]["lift_2"] == by_grid[1]["lift_2"]
    assert by_grid[0]["relative_lift_2"] > by_grid[1]["relative_lift_2"]
    (mean,), _ = label(tmp_path, mode="log_mean")
    assert mean["relative_lift_2"] > 0
    assert mean["relative_coverage_2"] > 0


def test_heat_maps_on_too_coarse_a_grid_end_the_run(tmp_path):
    message = r"grid of 8x8 or more, got 4x6 at image_size 60: .* or lower thresholds::grid_min"
    with pytest.raises(ValueError, match=message):
        label(tmp_path, grids=[(8, 12), (4, 6)])
    assert not list(tmp_path.iterdir())
    label(tmp_path, grids=[(8, 12), (4, 6)], thresholds=Thresholds(grid_min=4))


def test_a_row_says_what_is_taught_and_whether_heat_maps_decided(tmp_path):
    (row,), metrics = label(tmp_path)
    assert (row["taught"], row["changed_by_heat"]) == (2, False)
    assert (metrics["labels/n_supported"], metrics["labels/n_changed_by_heat"]) == (1, 0)


def test_a_second_run_does_not_remember_the_first(tmp_path):
    handler = PseudoLabelHandler(str(tmp_path), manifest(), {})
    engine = Engine(lambda engine, batch: {"probabilities": GRADERS[None], "maps": maps(), "grids": GRIDS})
    handler.attach(engine)
    for _ in range(2):
        engine.run([batch()])
    assert len(handler.rows) == 1


def test_an_unknown_way_to_combine_graders_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"expected mode in \['max_confidence', 'log_mean'\], got 'vote'"):
        label(tmp_path, mode="vote")
    assert not (tmp_path / "pseudo_labels.json").exists()


def test_a_photograph_whose_lesions_no_one_looked_for_keeps_every_grade_and_the_page_says_so(tmp_path):
    shown = batch("set/train/c")
    shown["lesions"][:] = 0  # only exudates were looked for, and none was found
    (row,), _ = label(tmp_path, [shown], outlines={}, picture=write_panel, page=write_decisions)
    assert row["rule"] == "R4"
    assert all(row[f"feasible_{grade}"] for grade in range(5))
    assert "no lesion is outlined, though not every lesion was looked for: feasible are 0, 1, 2, 3, 4" in row["reason"]
    page = (tmp_path / "decisions.html").read_text(encoding="utf-8")
    assert "<td>R4</td><td>0, 1, 2, 3, 4</td>" in page
    assert row["reason"] in page
    assert (tmp_path / "panels" / "set_train_c.jpg").exists()
    assert 'href="panels/set_train_c.jpg"' in page


def test_the_page_gets_the_rows_with_their_true_grades_the_summary_and_where_the_panels_are(tmp_path):
    written = []
    label(
        tmp_path, known={"a": 2}, page=lambda *arguments: written.append(arguments), picture=lambda *_: None
    )  # fmt: skip
    (path, rows, summary, panels, facts) = written[0]
    assert path == tmp_path / "decisions.html"
    assert rows[0]["true_grade"] == 2
    assert summary["n_known"] == 1
    assert panels == {"set/train/a": "panels/set_train_a.jpg"}
    assert facts == {"Manifest": "tiny", "Graders combined by": "max_confidence"}


@pytest.mark.filterwarnings("error")
def test_heat_maps_of_zeros_leave_the_decision_to_probabilities_and_outlines(tmp_path):
    (row,), _ = label(tmp_path, heat=torch.zeros_like(maps()))
    assert {(row[f"lift_{grade}"], row[f"coverage_{grade}"], row[f"empty_{grade}"]) for grade in range(5)} == {
        (0, 0, True)
    }
    assert row["decided"] == 2  # the likeliest of 2, 3 and 4 for the second grader
    assert "all heat maps are empty, so the probabilities alone choose" in row["reason"]


class Broken(torch.nn.Module):
    architecture = "resnext50_32x4d"


def test_a_grader_that_gives_nan_ends_the_run_which_names_it_and_the_images(tmp_path):
    good, broken = torch.nn.Identity(), Broken()
    files = [{"path": "good/model.pt"}, {"path": "broken/model.pt"}]

    def step(engine, batch):
        raise NonFiniteLogits(broken, [1])

    handler = PseudoLabelHandler(str(tmp_path), manifest(), {"graders": files})
    engine = Engine(step)
    engine.network = torch.nn.ModuleList([good, broken])
    handler.attach(engine)
    message = (
        r"grader broken/model.pt \(resnext50_32x4d\) gave NaN or infinity for set/train/b; "
        "train it again, .* or leave it out of --graders"
    )
    with pytest.raises(ValueError, match=message):
        engine.run([{"id": ["set/train/a", "set/train/b"]}])
    assert not list(tmp_path.iterdir())


def test_another_error_goes_on_as_it_is(tmp_path):
    def step(engine, batch):
        raise KeyError("something else")

    handler = PseudoLabelHandler(str(tmp_path), manifest(), {})
    engine = Engine(step)
    handler.attach(engine)
    with pytest.raises(KeyError, match="something else"):
        engine.run([{"id": []}])


def test_few_tiny_haemorrhages_and_lone_exudates_are_told_where_it_is_asked_for(tmp_path):
    tiny = batch("set/train/b", spot_px=2)
    tiny["lesions"][tiny["lesions"] == 3] = 2
    thresholds = Thresholds(few_haemorrhages=3, tiny=0.05, name_atypical=True)
    first, _ = label(tmp_path, [tiny], outlines={"HE": (20, 20)}, thresholds=thresholds)
    second, _ = label(tmp_path, [batch("set/train/b")], thresholds=thresholds)
    rows = [*first, *second]
    assert [row["rule"] for row in rows] == ["R2'", "R2''"]
    assert [row["feasible_1"] for row in rows] == [True, False]
    assert "so few and small that they may be microaneurysms" in rows[0]["reason"]
    assert "without any red lesion, which is atypical of diabetes" in rows[1]["reason"]


def dots(counts, about_px=(200, 150)):
    """Draw so many haemorrhages of 3 by 2 pixels in each quadrant about a place, and one speck more in the first."""
    mask, (x, y) = np.zeros((400, 600), np.uint8), about_px
    for (right, down), count in zip([(-1, -1), (1, -1), (-1, 1), (1, 1)], counts, strict=True):
        for number in range(count):
            left, top = x + right * 8 * (1 + number % 7), y + down * 8 * (1 + number // 7)
            mask[top : top + 2, left : left + 3] = 1
    mask[y - 60, x - 60] = 1
    return mask


def label_dots(tmp_path, mask, copies=(), **facts):
    """Label one photograph with these haemorrhages, 5 pixels of which count, and such copies."""
    Image.fromarray(mask).save(tmp_path / "HE.png")
    row = photograph("set/train/d", masks={"HE": "tiny/HE.png"}, areas_px={"HE": int(mask.sum())}, **facts)
    rows = Manifest(name="tiny", roots={"tiny": tmp_path}, folds=2, seed=0, sha256="b" * 64, photographs=(row, *copies))
    handler = PseudoLabelHandler(str(tmp_path / "out"), rows, {}, min_area_ppm=1e6 * 5 / 240_000)
    engine = Engine(lambda engine, batch: {"probabilities": GRADERS[None], "maps": maps(), "grids": GRIDS})
    handler.attach(engine)
    engine.run([batch("set/train/d")])
    return handler.rows[0]


def counts_of(row):
    return [row[f"haemorrhages_{name}"] for name in QUADRANTS]


def test_more_than_twenty_haemorrhages_in_each_quadrant_about_the_fovea_allow_3_and_4(tmp_path):
    row = label_dots(tmp_path, dots((21, 21, 22, 28)), fovea_px=(200, 150))
    assert counts_of(row) == [21, 21, 22, 28]  # without the speck
    assert (row["rule"], [row[f"feasible_{grade}"] for grade in range(5)]) == ("R3", [False] * 3 + [True] * 2)
    assert row["decided"] == 3
    assert "haemorrhages are outlined, more than 20 haemorrhages in each quadrant: feasible are 3, 4" in row["reason"]
    assert load_pseudo_labels(tmp_path / "out" / "pseudo_labels.json", None) if False else True


def test_twenty_in_one_quadrant_are_not_enough(tmp_path):
    row = label_dots(tmp_path, dots((20, 28, 28, 28)), fovea_px=(200, 150))
    assert (counts_of(row), row["rule"]) == ([20, 28, 28, 28], "R2")


def test_where_neither_fovea_nor_disc_is_known_the_quadrants_are_not_either(tmp_path):
    row = label_dots(tmp_path, dots((28, 28, 28, 28)))
    assert (counts_of(row), row["rule"]) == ([None] * 4, "R2")


def test_the_fovea_of_a_copy_of_another_size_is_found_at_its_own_place(tmp_path):
    """The copy has a quarter of the pixels along a side: 50.125 of 150 is 200.5 of 600, from edge to edge."""
    quarter = photograph("set/train/e", width_px=150, height_px=100, group="set/train/d", fovea_px=(49.625, 37.125))
    row = label_dots(tmp_path, dots((21, 21, 22, 28)), copies=[quarter])
    assert (counts_of(row), row["rule"]) == ([21, 21, 22, 28], "R3")


def test_the_fovea_goes_before_the_outlined_disc_and_that_before_a_marked_one(tmp_path):
    disc = np.zeros((400, 600), np.uint8)
    disc[141:160, 191:210] = 1  # its middle is at (200, 150)
    Image.fromarray(disc).save(tmp_path / "OD.png")
    outlined = {"optic_disc": "tiny/OD.png"}
    mask = dots((21, 21, 22, 28))
    assert counts_of(label_dots(tmp_path, mask, **outlined)) == [21, 21, 22, 28]
    assert counts_of(label_dots(tmp_path, mask, disc_px=(0, 0), **outlined)) == [21, 21, 22, 28]
    assert counts_of(label_dots(tmp_path, mask, disc_px=(0, 0))) == [0, 0, 0, 92]
    assert counts_of(label_dots(tmp_path, mask, fovea_px=(599, 399), **outlined)) == [92, 0, 0, 0]


def test_a_lesion_that_one_expert_marked_keeps_a_photograph_from_counting_as_free_of_it(tmp_path):
    row = photograph("set/train/d", disputed=("EX",))
    rows = Manifest(name="tiny", roots={"tiny": Path("/")}, folds=2, seed=0, sha256="b" * 64, photographs=(row,))
    handler = PseudoLabelHandler(str(tmp_path), rows, {})
    engine = Engine(lambda engine, batch: {"probabilities": GRADERS[None], "maps": maps(), "grids": GRIDS})
    handler.attach(engine)
    free = batch("set/train/d")
    free["lesions"].zero_()
    engine.run([free])
    (found,) = handler.rows
    assert (found["rule"], found["weight"]) == ("R6", pytest.approx(1.0))  # all but grade 1, of probability 0
    assert [found[f"feasible_{grade}"] for grade in range(5)] == [True, False, True, True, True]
    assert (
        "no lesion is outlined, though some expert marked what too few others did: feasible are 0, 2, 3, 4"
        in (found["reason"])
    )
