"""Stage 1 hands over labels that belong to one manifest, and no label that contradicts itself."""

import json

import pytest
from bundle.manifest import Manifest, Photograph
from bundle.method.initial_labels import (
    InitialLabel,
    labels_to_start_from,
    load_pseudo_labels,
    save_pseudo_labels,
    with_known_errors,
)
from hypothesis import given
from hypothesis import strategies as st

R2 = (False, False, True, True, True)


def row(name="idrid/train/1", soft=(0.0, 0.0, 0.5, 0.3, 0.2), feasible=R2, weight=0.9):
    """Lay out what the hand-over reads of an audit row, and one column that it does not."""
    found = {"id": name, "weight": weight, "reason": "grade 0 was proposed"}
    found |= {f"soft_label_{grade}": share for grade, share in enumerate(soft)}
    return found | {f"feasible_{grade}": allowed for grade, allowed in enumerate(feasible)}


def manifest(tmp_path, sha256="a" * 64):
    return Manifest(name="idrid", roots={"idrid": tmp_path}, folds=5, seed=0, photographs=(), sha256=sha256)


@pytest.fixture
def saved(tmp_path):
    save_pseudo_labels(tmp_path / "labels.json", manifest(tmp_path), {"mode": "log_mean"}, [row()])
    return tmp_path / "labels.json"


def test_what_is_loaded_is_what_was_saved(saved, tmp_path):
    labels = load_pseudo_labels(saved, manifest(tmp_path))
    assert labels == {"idrid/train/1": InitialLabel(soft=(0.0, 0.0, 0.5, 0.3, 0.2), feasible=R2, weight=0.9)}


def test_the_file_tells_manifest_settings_and_every_column(saved):
    content = json.loads(saved.read_text())
    assert (content["schema"], content["manifest_sha256"]) == (1, "a" * 64)
    assert content["settings"] == {"mode": "log_mean"}
    assert content["rows"][0]["reason"] == "grade 0 was proposed"


@given(shares=st.lists(st.floats(0.01, 1), min_size=3, max_size=3), weight=st.floats(0, 1))
def test_every_share_of_the_feasible_grades_survives_the_file(shares, weight, tmp_path_factory):
    soft = (0.0, 0.0, *(share / sum(shares) for share in shares))
    path = tmp_path_factory.getbasetemp() / "any.json"
    save_pseudo_labels(path, manifest(path.parent), {}, [row(soft=soft, weight=weight)])
    label = load_pseudo_labels(path, manifest(path.parent))["idrid/train/1"]
    assert (label.soft, label.weight) == (soft, weight)


def test_labels_of_another_manifest_are_refused(saved, tmp_path):
    other = manifest(tmp_path, sha256="b" * 64)
    with pytest.raises(
        ValueError, match=r"another manifest \(sha256 a{12}, this one is b{12}\): run .*pseudo_label.yaml"
    ):
        load_pseudo_labels(saved, other)


def test_no_file_says_which_option_names_it(tmp_path):
    with pytest.raises(ValueError, match=r"expected --pseudo_labels FILE: .* configs/pseudo_label\.yaml writes"):
        load_pseudo_labels(None, manifest(tmp_path))


def test_without_a_grading_loss_no_file_is_needed_and_no_grade_is_taught(tmp_path):
    rows = tuple(
        Photograph(id=name, image=f"idrid/{name}.jpg", split="train", sha256="0" * 64, perceptual_hash="0" * 64,
                   width_px=6, height_px=4, group=name) for name in "ab"
    )  # fmt: skip
    known = Manifest(name="idrid", roots={"idrid": tmp_path}, folds=2, seed=0, photographs=rows)
    labels = labels_to_start_from(None, known, beta=0.0)
    assert {name: (label.soft, label.weight) for name, label in labels.items()} == dict.fromkeys("ab", ((0.2,) * 5, 0))


def test_with_a_grading_loss_a_file_is_needed(tmp_path):
    with pytest.raises(ValueError, match=r"expected --pseudo_labels FILE"):
        labels_to_start_from(None, manifest(tmp_path), beta=0.01)


def test_a_file_that_is_named_is_read_even_without_a_grading_loss(saved, tmp_path):
    assert labels_to_start_from(saved, manifest(tmp_path), beta=0.0) == load_pseudo_labels(saved, manifest(tmp_path))


def test_a_missing_file_says_what_writes_it(tmp_path):
    with pytest.raises(ValueError, match=r"nowhere\.json, found no such file; run configs/pseudo_label\.yaml first"):
        load_pseudo_labels(tmp_path / "nowhere.json", manifest(tmp_path))


@pytest.mark.parametrize("content", [b"{", b"\xff\xfe", b"[]", b"null", b'{"rows": []}', b'{"rows": [{}]}'])
def test_a_broken_file_is_named(tmp_path, content):
    (tmp_path / "broken.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"expected pseudo-labels \(JSON of stage 1\) in .*broken\.json"):
        load_pseudo_labels(tmp_path / "broken.json", manifest(tmp_path))


def test_a_weight_that_was_rounded_beyond_1_does_not_stop_stage_2(tmp_path):
    save_pseudo_labels(tmp_path / "labels.json", manifest(tmp_path), {}, [row(weight=1.0000000000000002)])
    (label,) = load_pseudo_labels(tmp_path / "labels.json", manifest(tmp_path)).values()
    assert label.weight == pytest.approx(1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"soft": (0.5, 0.5), "feasible": R2}, "expected 5 grades, got 2 and 5"),
        ({"soft": (0.0, 0.0, 0.5, 0.3, 0.3)}, "sums to 1"),
        ({"soft": (0.0, 0.0, 1.5, -0.5, 0.0)}, "sums to 1"),
        ({"soft": (0.0, 0.0, float("nan"), 0.5, 0.5)}, "sums to 1"),
        ({"soft": (0.1, 0.0, 0.4, 0.3, 0.2)}, "no share outside the feasible grades"),
        ({"weight": 1.5}, r"a weight in \[0, 1\], got 1\.5"),
        ({"weight": 1.001}, r"a weight in \[0, 1\], got 1\.001"),
        ({"weight": float("nan")}, r"a weight in \[0, 1\], got nan"),
    ],
)
def test_a_label_that_contradicts_itself_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        InitialLabel(**{"soft": (0.0, 0.0, 0.5, 0.3, 0.2), "feasible": R2, "weight": 1.0, **changes})


def graded(tmp_path, count):
    known = {"split": "train", "sha256": "0" * 64, "perceptual_hash": "0" * 64, "width_px": 6, "height_px": 4}
    rows = [
        Photograph(id=str(n), image=f"idrid/{n}.jpg", group=str(n), grade=2 + n % 3, annotated=("EX",), **known)
        for n in range(count)
    ]
    return Manifest(name="idrid", roots={"idrid": tmp_path}, folds=2, seed=0, photographs=tuple(rows))


def test_a_known_share_of_the_labels_is_wrong_and_the_others_are_right(tmp_path):
    soft = InitialLabel(soft=(0.0, 0.0, 0.5, 0.3, 0.2), feasible=R2, weight=0.4)
    certain = InitialLabel(soft=(0.0, 1.0, 0.0, 0.0, 0.0), feasible=(False, True, False, False, False), weight=0.7)
    labels = {**{str(n): soft for n in range(9)}, "9": certain, "elsewhere": soft}
    known = graded(tmp_path, 10)
    found = with_known_errors(labels, known, share=0.33, seed=3)
    assert (found["9"], found["elsewhere"]) == (certain, soft)  # it cannot move; its true grade is not known
    tops = [max(range(5), key=found[str(n)].soft.__getitem__) for n in range(9)]
    assert sum(top != 2 + n % 3 for n, top in enumerate(tops)) == 3
    assert all(sorted(found[str(n)].soft) == pytest.approx([0, 0, 0.2, 0.2, 0.6]) for n in range(9))
    assert {found[str(n)].weight for n in range(9)} == {1.0}
    assert found == with_known_errors(labels, known, share=0.33, seed=3)
    assert found != with_known_errors(labels, known, share=0.33, seed=4)
    assert labels["0"] == soft


@pytest.mark.parametrize(
    ("labels", "share", "message"),
    [
        ({}, 0.33, "expected labels with more than one feasible grade and a known true one, found none"),
        ({}, 1.5, r"expected a share of wrong labels in \[0, 1\], got 1.5"),
    ],
)
def test_known_errors_that_cannot_be_are_refused(tmp_path, labels, share, message):
    with pytest.raises(ValueError, match=message):
        with_known_errors(labels, graded(tmp_path, 3), share=share, seed=0)
