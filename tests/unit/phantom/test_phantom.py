"""The phantom is IDRiD's tree to the byte, and its photographs mean the grade that the table gives."""

import hashlib
from collections import Counter

import numpy as np
import pytest
from bundle.grade_rules import feasible_grades
from bundle.labels import GRADES, LESIONS
from bundle.phantom.drawing import (
    SEVERE_PER_QUADRANT,
    SMALLEST_HEIGHT_PX,
    Drawing,
    _eye,
    _Lesions,
    _trunks,
    draw_photograph,
)
from bundle.phantom.tree import GRADE_SHARES, grades_of_part, macular_edema_risk, write_phantom
from bundle.transforms import components_by_quadrant, runs_of
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

SMALL = {"width_px": 288, "height_px": 192}
COUNTS = {"num_lesion_train": 6, "num_lesion_test": 3, "num_graded_train": 4, "num_graded_test": 3}
SEGMENTATION_IMAGES = "A. Segmentation/1. Original Images"
GRADING_IMAGES = "B. Disease Grading/1. Original Images"


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "phantom"
    write_phantom(root, **COUNTS, **SMALL, seed=3)
    return root


def draw(grade, seed=0, width_px=360, height_px=240):
    return draw_photograph(grade, np.random.default_rng(seed), width_px, height_px)


def content(root, pattern="*"):
    return {
        str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob(pattern))
        if path.is_file()
    }


def haemorrhages_per_quadrant(drawing):
    labelled, count = ndimage.label(drawing.masks["HE"], np.ones((3, 3)))
    y, x = np.array(ndimage.center_of_mass(drawing.masks["HE"], labelled, range(1, count + 1))).T
    return np.bincount((x > drawing.fovea_px[0]) + 2 * (y > drawing.fovea_px[1]), minlength=4)


def contrast(drawing, lesion):
    """Median green of a lesion less that of the ring around it."""
    mask, others = drawing.masks[lesion], np.any([*drawing.masks.values(), drawing.optic_disc], axis=0)
    ring = ndimage.binary_dilation(mask, iterations=4) & ~ndimage.binary_dilation(others)
    green = drawing.image[..., 1].astype(float)
    return np.median(green[mask]) - np.median(green[ring])


def thumbnail(path):
    return np.asarray(Image.open(path).convert("RGB").resize((48, 32)), float)


def table(root, name):
    text = (root / "B. Disease Grading/2. Groundtruths" / name).read_bytes().decode()
    assert text.count("\r\n") == text.count("\n")
    return text.split("\r\n")[:-1]


# -------------------------------------------------------------- what is drawn


def test_fifty_photographs_are_shared_out_by_hand():
    assert Counter(grades_of_part(50, np.random.default_rng(0))) == {0: 13, 1: 7, 2: 13, 3: 8, 4: 9}


@given(st.integers(1, 300))
def test_every_grade_gets_its_share_within_one_photograph(count):
    grades = Counter(grades_of_part(count, np.random.default_rng(0)))
    assert grades.total() == count
    assert all(abs(grades[grade] - share * count) <= 1 for grade, share in enumerate(GRADE_SHARES))


@pytest.mark.parametrize("grade", GRADES)
def test_the_outlines_allow_the_grade(grade):
    drawing = draw(grade, seed=grade)
    present = {lesion for lesion in LESIONS if drawing.masks[lesion].any()}
    assert drawing.grade in feasible_grades(present).grades


@pytest.mark.parametrize("grade", [2, 3, 4])
def test_rule_r3_tells_grade_3_by_the_haemorrhages_about_the_fovea(grade):
    drawing = draw(grade, seed=grade)
    quadrants = components_by_quadrant(runs_of(drawing.masks["HE"]), drawing.fovea_px)
    found = feasible_grades({"HE"}, quadrants=quadrants)
    assert (found.grades, found.rule) == (({3, 4}, "R3") if grade == 3 else ({2, 3, 4}, "R2"))


@settings(max_examples=12, deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([(360, 240), (220, SMALLEST_HEIGHT_PX)]))
def test_only_grade_3_has_more_than_twenty_haemorrhages_in_every_quadrant(seed, size_px):
    assert haemorrhages_per_quadrant(draw(3, seed, *size_px)).min() > SEVERE_PER_QUADRANT
    assert haemorrhages_per_quadrant(draw(2, seed, *size_px)).min() <= SEVERE_PER_QUADRANT


@pytest.mark.parametrize("seed", range(6))
def test_what_makes_grade_4_is_drawn_but_in_no_mask(seed):
    rng = np.random.default_rng(seed)
    lesions = _Lesions(_eye(rng, 360, 240), rng, np.zeros((240, 360), np.float32))
    lesions._proliferate(list(_trunks(rng)))
    assert (lesions.unannotated.plane() > 0.3).sum() > 40
    assert not any(canvas.plane().any() for canvas in lesions.canvas.values())


def test_red_lesions_are_darker_and_bright_ones_brighter_than_their_surroundings():
    drawing = next(found for found in (draw(3, seed, 720, 480) for seed in range(20)) if found.masks["SE"].any())
    assert contrast(drawing, "HE") < -8
    assert contrast(drawing, "MA") < -8
    assert contrast(drawing, "EX") > 20
    assert contrast(drawing, "SE") > 20


def test_the_field_is_round_clipped_above_and_below_and_everything_lies_in_it():
    drawing = draw(3, seed=1)
    bright = drawing.image[..., 0] > 40
    assert drawing.image.shape == (240, 360, 3)
    assert bright[[0, -1], 180].all()
    assert not bright[:, [0, -1]].any()
    assert 0.6 < bright.mean() < 0.75
    assert bright[np.any([*drawing.masks.values(), drawing.optic_disc], axis=0)].mean() > 0.99


def test_the_optic_disc_is_the_brightest_and_lies_two_to_three_diameters_from_the_fovea():
    drawing = draw(0, seed=2)
    green = drawing.image[..., 1]
    y, x = ndimage.center_of_mass(drawing.optic_disc)
    diameter_px = 2 * np.sqrt(drawing.optic_disc.sum() / np.pi)
    assert green[drawing.optic_disc].mean() > 1.5 * green[~drawing.optic_disc & (green > 20)].mean()
    assert 2 < np.hypot(x - drawing.fovea_px[0], y - drawing.fovea_px[1]) / diameter_px < 3


def test_left_and_right_eyes_are_drawn():
    sides = {ndimage.center_of_mass(drawing.optic_disc)[1] > 180 for drawing in (draw(0, seed) for seed in range(8))}
    assert sides == {True, False}


@pytest.mark.parametrize(("distance_px", "risk"), [(None, 0), (19, 2), (22, 1)])
def test_the_risk_of_edema_changes_one_disc_diameter_from_the_fovea(distance_px, risk):
    optic_disc, exudate = np.zeros((40, 90), bool), np.zeros((40, 90), bool)
    optic_disc[10:28, 60:78] = True  # 324 px: as large as a circle of diameter 20.3
    if distance_px:
        exudate[20, 10 + distance_px] = True
    drawing = Drawing(np.zeros((40, 90, 3), np.uint8), {"EX": exudate}, optic_disc, (10.0, 20.0), 2)
    assert macular_edema_risk(drawing) == risk


@pytest.mark.parametrize("grade", [5, -1])
def test_a_grade_that_is_none_is_refused(grade):
    with pytest.raises(ValueError, match=rf"expected a grade in \[0, 1, 2, 3, 4\], got {grade}"):
        draw(grade)


@pytest.mark.parametrize("size_px", [(300, 240), (200, 100)])
def test_a_size_that_cannot_be_drawn_is_refused(size_px):
    with pytest.raises(ValueError, match=rf"at least 160 px and a width .* got {size_px[0]}x{size_px[1]} px"):
        draw(0, 0, *size_px)


# ------------------------------------------------------------- what is written


def test_photographs_are_numbered_as_in_idrid(root):
    names = {folder: [path.name for path in sorted((root / folder).iterdir())] for folder in (
        f"{SEGMENTATION_IMAGES}/a. Training Set", f"{SEGMENTATION_IMAGES}/b. Testing Set",
        f"{GRADING_IMAGES}/a. Training Set", f"{GRADING_IMAGES}/b. Testing Set",
    )}  # fmt: skip
    train, test, graded_train, graded_test = names.values()
    assert train == [f"IDRiD_0{number}.jpg" for number in range(1, 7)]
    assert test == [f"IDRiD_0{number}.jpg" for number in range(7, 10)]
    assert graded_train == [f"IDRiD_00{number}.jpg" for number in range(1, 10)]
    assert graded_test == [f"IDRiD_00{number}.jpg" for number in range(1, 8)]


def test_the_tables_have_the_official_headers_and_a_row_for_every_photograph(root):
    train = table(root, "a. IDRiD_Disease Grading_Training Labels.csv")
    test = table(root, "b. IDRiD_Disease Grading_Testing Labels.csv")
    assert train[0] == "Image name,Retinopathy grade,Risk of macular edema,,,,,,,,,"
    assert test[0] == "Image name,Retinopathy grade,Risk of macular edema"
    assert [line.split(",")[0] for line in train[1:]] == [f"IDRiD_00{number}" for number in range(1, 10)]
    assert [line.split(",")[0] for line in test[1:]] == [f"IDRiD_00{number}" for number in range(1, 8)]


def test_masks_are_one_bit_palettes_and_have_a_photograph_of_their_size(root):
    masks = sorted((root / "A. Segmentation/2. All Segmentation Groundtruths").rglob("*.tif"))
    assert len(masks) > 9
    for path in masks:
        mask = Image.open(path)
        assert (mask.mode, mask.size, mask.tag_v2[258]) == ("P", (288, 192), (1,))
        assert set(np.unique(mask)) == {0, 1}
        assert (root / SEGMENTATION_IMAGES / path.parent.parent.name / f"{path.stem[:8]}.jpg").is_file()


def test_a_mask_on_disk_is_the_mask_that_was_drawn(tmp_path):
    write_phantom(tmp_path / "odd", **dict.fromkeys(COUNTS, 1), width_px=291, height_px=191)
    part_seed = np.random.SeedSequence(0).spawn(5)[0]
    grade = grades_of_part(1, np.random.default_rng(part_seed))[0]
    drawing = draw_photograph(grade, np.random.default_rng(part_seed.spawn(1)[0]), 291, 191)
    path = next((tmp_path / "odd").rglob("IDRiD_01_OD.tif"))
    assert np.array_equal(np.asarray(Image.open(path)), drawing.optic_disc)


def test_an_absent_lesion_has_no_file_but_its_folder(root):
    outlines = root / "A. Segmentation/2. All Segmentation Groundtruths/a. Training Set"
    lesions_of = {number: len(list(outlines.rglob(f"IDRiD_0{number}_*.tif"))) for number in range(1, 7)}
    assert len(list(outlines.iterdir())) == 5
    assert min(lesions_of.values()) == 1  # grade 0: the optic disc alone
    assert max(lesions_of.values()) > 2


def test_half_of_the_copies_are_the_same_file_and_one_training_photograph_is_among_the_graded_test_ones(root):
    def same_files(split):
        outlined, graded = (content(root / images / split).values() for images in (SEGMENTATION_IMAGES, GRADING_IMAGES))
        return len(set(outlined) & set(graded))

    crossing = thumbnail(root / SEGMENTATION_IMAGES / "a. Training Set/IDRiD_06.jpg")
    graded_test = [thumbnail(path) for path in (root / GRADING_IMAGES / "b. Testing Set").iterdir()]
    assert same_files("a. Training Set") == 3  # of the 5 that stay; the other 2 are encoded again
    assert same_files("b. Testing Set") == 2  # of 3
    assert sum(np.abs(crossing - other).mean() < 1 for other in graded_test) == 1


def test_every_outlined_photograph_has_exactly_one_copy_in_the_grading_part(root):
    graded = [thumbnail(path) for path in sorted((root / GRADING_IMAGES).rglob("*.jpg"))]
    for path in sorted((root / SEGMENTATION_IMAGES).rglob("*.jpg")):
        assert sum(np.abs(thumbnail(path) - other).mean() < 1 for other in graded) == 1


def test_the_same_seed_gives_the_same_bytes_and_another_seed_other_photographs(root, tmp_path):
    write_phantom(tmp_path / "same", **COUNTS, **SMALL, seed=3)
    write_phantom(tmp_path / "other", **COUNTS, **SMALL, seed=4)
    assert content(tmp_path / "same") == content(root)
    assert not set(content(tmp_path / "other", "*.jpg").values()) & set(content(root, "*.jpg").values())


def test_a_part_that_grows_changes_no_other_part(root, tmp_path):
    write_phantom(tmp_path / "more", **{**COUNTS, "num_lesion_test": 4}, **SMALL, seed=3)
    folder = f"{SEGMENTATION_IMAGES}/a. Training Set"
    assert content(tmp_path / "more" / folder) == content(root / folder)


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "empty").mkdir()
    write_phantom(tmp_path / "empty", **dict.fromkeys(COUNTS, 1), **SMALL)
    assert len(list((tmp_path / "empty").rglob("*.jpg"))) == 6


def test_a_folder_that_holds_something_is_refused_and_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(ValueError, match=r"holds something; remove it or name another"):
        write_phantom(tmp_path)
    assert content(tmp_path).keys() == {"mine.txt"}


def test_a_part_without_photographs_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"at least one photograph in each of the four parts, got \[40, 0, 60, 30\]"):
        write_phantom(tmp_path / "phantom", num_lesion_test=0)


def test_a_run_that_fails_leaves_nothing_behind(tmp_path):
    with pytest.raises(ValueError, match="got 288x64 px"):
        write_phantom(tmp_path / "phantom", **COUNTS, width_px=288, height_px=64)
    assert list(tmp_path.iterdir()) == []
