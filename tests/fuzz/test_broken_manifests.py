"""A broken manifest or hand-over is refused in one sentence; what is read holds, and names no file outside its root."""

import json
from pathlib import Path

import pytest
from bundle.datasets.items import initial_labels, items
from bundle.datasets.splits import evaluation, lesion_training
from bundle.manifest import Manifest, Photograph, load_manifest
from bundle.method.initial_labels import load_pseudo_labels
from hypothesis import strategies as st

from tests.fuzz.broken import PATHS, broken_json, given_files, judged, written

ROW = {
    "id": "made/a", "image": "made/a.jpg", "split": "train", "sha256": "0" * 64, "perceptual_hash": "f" * 64,
    "width_px": 60, "height_px": 40, "group": "made/a",
}  # fmt: skip
OUTLINED = ROW | {
    "id": "made/b", "group": "made/b", "annotated": ["MA", "EX"], "masks": {"EX": "made/b_ex.tif"},
    "areas_px": {"EX": 9}, "optic_disc": "made/b_od.tif", "drawn_from": ["made/b.xml"], "disputed": ["MA"], "fold": 1,
    "fovea_px": [1.5, 2], "disc_px": [0, 0.25], "grade": 2,
}  # fmt: skip
CONTENT = {
    "schema": 4, "name": "made", "roots": {"made": "images"}, "folds": 2, "seed": 1, "notes": ["found"],
    "photographs": [ROW, OUTLINED],
}  # fmt: skip
LABEL = {
    "id": "made/b", "weight": 0.5, **{f"soft_label_{grade}": share for grade, share in enumerate((0, 0, 0.5, 0.5, 0))},
    **{f"feasible_{grade}": grade > 1 for grade in range(5)},
}  # fmt: skip
LABELS = {"schema": 1, "manifest_sha256": "a" * 64, "settings": {"mode": "log_mean"}, "rows": [LABEL]}
AS_TUPLES = {
    "annotated": ("MA", "EX"), "drawn_from": ("made/b.xml",), "disputed": ("MA",), "fovea_px": (1.5, 2),
    "disc_px": (0, 0.25),
}  # fmt: skip
MANIFEST = Manifest(
    name="made", roots={"made": Path("/made")}, folds=2, seed=1, sha256="a" * 64,
    photographs=(Photograph(**{**OUTLINED, **AS_TUPLES}),),
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("broken")


def used(manifest):
    """Do what the stages do with a manifest before they open a file."""
    rows = manifest.photographs
    return items(manifest, rows), lesion_training(manifest, 0), evaluation(manifest, 1, "grade")


def assert_inside(manifest, listed):
    roots = [Path(root) for root in manifest.roots.values()]
    for item in listed:
        for path in item["files"].values():
            assert any(Path(path).is_relative_to(root) for root in roots), path
            assert ".." not in Path(path).parts


@given_files(content=broken_json(CONTENT))
def test_a_broken_manifest_is_refused_by_name_or_holds(folder, content):
    path = written(folder / "manifest.json", content)
    manifest = judged("manifest", lambda: load_manifest(path), "manifest", "photograph")
    if manifest is None:
        return
    assert_inside(manifest, items(manifest, manifest.photographs))
    judged("manifest, selections", lambda: used(manifest))


@given_files(path=st.sampled_from(PATHS) | st.text("./\\:\0aC", max_size=8).map("made/{}".format))
def test_no_row_leads_out_of_its_root(folder, path):
    row = OUTLINED | {"image": path, "masks": {"EX": path}, "optic_disc": path, "drawn_from": [path]}
    file = written(folder / "paths.json", json.dumps(CONTENT | {"photographs": [row]}).encode())
    manifest = judged("manifest, paths", lambda: load_manifest(file))
    if manifest is not None:
        assert_inside(manifest, items(manifest, manifest.photographs))


@given_files(content=broken_json(LABELS))
def test_broken_pseudo_labels_are_refused_by_name_or_hold(folder, content):
    path = written(folder / "labels.json", content)
    labels = judged("pseudo-labels", lambda: load_pseudo_labels(path, MANIFEST), "labels.json")
    if labels is not None:
        judged("pseudo-labels, tensors", lambda: initial_labels(MANIFEST, MANIFEST.photographs, labels))


def test_the_files_are_whole_before_they_are_broken(folder):
    manifest = load_manifest(written(folder / "whole.json", json.dumps(CONTENT).encode()))
    assert [row.id for row in manifest.photographs] == ["made/a", "made/b"]
    assert manifest.photographs[1] == MANIFEST.photographs[0]
    labels = load_pseudo_labels(written(folder / "whole.json", json.dumps(LABELS).encode()), MANIFEST)
    assert labels["made/b"].soft == (0, 0, 0.5, 0.5, 0)
