"""On a real copy of IDRiD: the copies that are known are found and no others, and no lesion is lost on the way."""

import os
from collections import Counter
from pathlib import Path

import pytest
from bundle.datasets.items import items, measured_grades
from bundle.datasets.splits import evaluation, evaluation_with_copies
from bundle.handlers.pseudo_label import haemorrhages_by_quadrant
from bundle.manifest import load_manifest
from bundle.reporting.copies import copy_rows
from bundle.reporting.data_check import completeness
from scripts.benchmarks.data import lost_components
from scripts.prepare import prepare

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif("IDRID_ROOT" not in os.environ, reason="IDRID_ROOT is not set"),
    pytest.mark.timeout(600),
]

OUTLINED_COPIES = {
    "01": "train/IDRiD_102", "02": "train/IDRiD_366", "03": "train/IDRiD_369", "05": "train/IDRiD_082",
    "06": "train/IDRiD_196", "07": "train/IDRiD_029", "08": "train/IDRiD_207", "09": "test/IDRiD_091",
    "10": "train/IDRiD_224", "13": "train/IDRiD_231", "14": "train/IDRiD_232", "15": "train/IDRiD_236",
    "16": "train/IDRiD_237",
}  # fmt: skip
"""Segmentation-train number to grading photograph; every pair was looked at."""

GRADED_COPIES = {("013", "397"), ("021", "391"), ("028", "327"), ("045", "333"), ("073", "375"), ("079", "279")}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    out = tmp_path_factory.mktemp("real") / "idrid.json"
    prepare("idrid", os.environ["IDRID_ROOT"], str(out), allow_missing=True)
    return load_manifest(out)


def test_the_known_copies_are_found_and_no_others(manifest):
    present = {row.id for row in manifest.photographs}
    expected = {
        (f"idrid/grading/{graded}", f"idrid/segmentation/train/IDRiD_{number}")
        for number, graded in OUTLINED_COPIES.items()
    } | {(f"idrid/grading/train/IDRiD_{a}", f"idrid/grading/train/IDRiD_{b}") for a, b in GRADED_COPIES}
    among = {(a, b) for a, b in expected if {a, b} <= present}
    assert len(among) >= 10
    found = {tuple(sorted((row["first"], row["second"]))) for row in copy_rows(manifest)}
    # A larger copy of the data set may hold pairs that nobody here has looked at.
    looked_at = {row for row in found if all(_looked_at(name) for name in row)}
    assert looked_at == among


@pytest.fixture(scope="module")
def quadrants(manifest):
    """Haemorrhages by quadrant of every outlined photograph whose fovea is known, beside its grade."""
    grades = manifest.known_grades()
    rows = [row for row in manifest.photographs if row.outlined and manifest.landmark(row, "fovea_px")]
    counts = {row.id: (haemorrhages_by_quadrant(manifest, row, 1), grades.get(row.group)) for row in rows}
    return {name: found for name, found in counts.items() if found[0]}


def test_a_fovea_is_inside_the_field_and_near_its_middle(manifest):
    """The photographs are of the macula: no fovea is further than a quarter of the width from the middle."""
    marked = [row for row in manifest.photographs if row.fovea_px]
    assert len(marked) == sum(row.grade is not None for row in manifest.photographs)
    assert all(abs(row.fovea_px[0] / row.width_px - 0.5) < 0.25 for row in marked)


def test_rule_r3_never_fires_and_the_photographs_next_to_it_are_severe(quadrants):
    """The page of decision 0019 quotes these numbers, of the whole IDRiD; a part of it may hold fewer."""
    least = {name.removeprefix("idrid/"): (min(counts), grade) for name, (counts, grade) in quadrants.items()}
    assert max(fewest for fewest, _ in least.values()) <= 20
    next_to_it = {name: found for name, found in least.items() if found[0] > 8}
    assert next_to_it.items() <= {
        "segmentation/train/IDRiD_39": (19, 3), "segmentation/train/IDRiD_33": (16, 4),
        "segmentation/train/IDRiD_03": (10, 3), "segmentation/train/IDRiD_34": (9, 3),
    }.items()  # fmt: skip


def _looked_at(name):
    _, part, split, stem = name.split("/")
    outlined = part == "segmentation" and split == "train" and stem <= "IDRiD_16"
    return outlined or (part, split) == ("grading", "train") or name == "idrid/grading/test/IDRiD_091"


@pytest.fixture(scope="module")
def whole(manifest):
    found = len(list(Path(os.environ["IDRID_ROOT"]).rglob("*.jpg")))
    if found < 597:
        pytest.skip(f"IDRID_ROOT holds {found} of 597 photographs: the official counts need a whole copy")
    return manifest


def test_a_whole_copy_is_read_whole(whole):
    assert len(whole.photographs) == 597
    assert not [note for note in whole.notes if note.startswith("left out")]
    assert completeness(whole.photographs) == {"idrid": "complete"}


def test_the_official_test_is_measured_on_as_published(whole):
    assert len(evaluation(whole, None, "lesions")[1]) == 27
    name, rows = evaluation(whole, None, "grade")
    assert (name, len(rows)) == ("test", 103)
    grades = Counter(facts["grade"] for facts in measured_grades(whole, rows).values())
    assert [grades[grade] for grade in range(5)] == [34, 5, 32, 19, 13]


def test_with_copies_outlined_test_photographs_are_added(whole):
    name, rows = evaluation_with_copies(whole)
    official = evaluation(whole, None, "grade")[1]
    added = [row for row in rows if row not in official]
    assert (name, len(rows) - len(added)) == ("test and copies", 103)
    assert all(row.outlined and row.grade is None for row in added)
    assert len(added) == 14


def test_what_crosses_the_official_split_is_taken_out_of_training(manifest):
    left_out = {row.id: row.left_out for row in manifest.photographs if row.left_out}
    assert left_out["idrid/segmentation/train/IDRiD_09"] == "copy of the test photograph idrid/grading/test/IDRiD_091"


@pytest.mark.slow
def test_every_lesion_keeps_a_pixel(manifest):
    outlined = [row for row in manifest.photographs if row.outlined and row.split == "train"]
    chosen = items(manifest, outlined[:16])
    for image_size in (1024, 512):
        counted = [lost_components(item, image_size) for item in chosen]
        assert sum(lost for lost, _ in counted) == 0
        assert sum(total for _, total in counted) > 100 * len(chosen)
