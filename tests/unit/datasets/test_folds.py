"""Folds are balanced and never part copies, leaks are left out of training, and joining deals the folds again."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bundle.datasets.folds import deal, join, stratified_folds
from bundle.datasets.splits import graded_training
from bundle.manifest import Photograph, load_manifest, save_manifest
from hypothesis import given, settings
from hypothesis import strategies as st


def photograph(name, bits, **changes):
    fields = {
        "id": name, "image": f"{name.split('/')[0]}/{name}.jpg", "split": "train", "sha256": "0" * 64,
        "perceptual_hash": np.packbits(bits).tobytes().hex(), "width_px": 60, "height_px": 40, "group": name,
    }  # fmt: skip
    return Photograph(**(fields | changes))


def hashes(count, seed=0):
    return np.random.default_rng(seed).random((count, 256)) < 0.5


def flipped(bits, count):
    return np.concatenate([~bits[:count], bits[count:]])


def data_set(name, seed, **changes):
    rows = [photograph(f"{name}/{n}", bits, grade=n % 5) for n, bits in enumerate(hashes(10, seed))]
    return deal(name, {name: Path("/data") / name}, rows, folds=2, seed=0, **changes)


def by_id(manifest):
    return {row.id: row for row in manifest.photographs}


def test_ten_photographs_of_two_grades_fall_into_equal_folds():
    folds = stratified_folds(range(10), [["a"]] * 6 + [["b"]] * 4, folds=2, seed=0)
    assert Counter(zip(folds, "aaaaaabbbb", strict=True)) == {(0, "a"): 3, (1, "a"): 3, (0, "b"): 2, (1, "b"): 2}


def test_the_seed_decides_and_repeats():
    deals = [stratified_folds(range(20), [["a"]] * 20, folds=4, seed=seed) for seed in (0, 0, 1)]
    assert deals[0] == deals[1] != deals[2]


@given(st.lists(st.tuples(st.integers(0, 8), st.sets(st.sampled_from("abc"))), min_size=1), st.integers(2, 5))
@settings(max_examples=60, deadline=None)
def test_no_group_is_parted_and_no_fold_is_empty(photographs, folds):
    groups = [group for group, _ in photographs] + list(range(100, 100 + folds))
    strata = [found for _, found in photographs] + [set()] * folds
    dealt = stratified_folds(groups, strata, folds, seed=0)
    assert len(set(zip(groups, dealt, strict=True))) == len(set(groups))
    assert set(dealt) == set(range(folds))


@given(st.integers(2, 40), st.integers(2, 5), st.integers(0, 9))
@settings(max_examples=40, deadline=None)
def test_a_stratum_of_single_photographs_differs_by_one_at_most(count, folds, seed):
    if count < folds:
        return
    sizes = Counter(stratified_folds(range(count), [["grade 2"]] * count, folds, seed))
    assert max(sizes.values()) - min(sizes[fold] for fold in range(folds)) <= 1


@pytest.mark.parametrize("folds", [1, 4])
def test_refuses_folds_that_cannot_be_dealt(folds):
    with pytest.raises(ValueError, match=f"got {folds} folds and 2 photographs"):
        stratified_folds(["a", "b", "b"], [[]] * 3, folds, seed=0)


def test_copies_share_the_group_of_the_first():
    bits = hashes(4)
    rows = [photograph(f"a/{n}", one) for n, one in enumerate(bits)] + [photograph("a/9", flipped(bits[1], 35))]
    found = by_id(deal("a", {"a": Path("/data")}, rows, folds=2, seed=0))
    assert {name: row.group for name, row in found.items()} == {
        "a/0": "a/0", "a/1": "a/1", "a/2": "a/2", "a/3": "a/3", "a/9": "a/1",
    }  # fmt: skip
    assert found["a/9"].fold == found["a/1"].fold


def test_what_is_dealt_again_forgets_the_old_groups_folds_and_reasons():
    first = data_set("a", 0)
    spoilt = [replace(row, group="a/0", fold=None, left_out="old") for row in first.photographs]
    assert deal("a", first.roots, spoilt, folds=2, seed=0) == first


def test_a_copy_in_another_data_set_is_found_when_joined():
    first, second = data_set("a", 0), data_set("b", 1)
    copy = photograph("b/copy", flipped(hashes(10)[3], 20), grade=3)
    second = deal("b", second.roots, [*second.photographs, copy], folds=2, seed=0)
    both = join("both", [first, second], folds=5, seed=0)
    rows = by_id(both)
    assert rows["b/copy"].group == "a/3"
    assert rows["b/copy"].fold == rows["a/3"].fold
    assert both.folds == 5
    assert {row.fold for row in both.photographs} == {0, 1, 2, 3, 4}
    assert "2 files show only 1 different photographs" in both.notes[0]
    assert both.path(rows["b/copy"].image) == Path("/data/b/b/copy.jpg")


def test_a_training_photograph_that_another_data_set_tests_on_is_taken_out():
    second = data_set("b", 1)
    test = photograph("b/test", flipped(hashes(10)[3], 2), split="test", grade=3)
    second = deal("b", second.roots, [*second.photographs, test], folds=2, seed=0)
    both = join("both", [data_set("a", 0), second], folds=2, seed=0)
    rows = by_id(both)
    assert rows["a/3"].left_out == "copy of the test photograph b/test"
    assert rows["b/test"].left_out is None
    assert rows["a/3"] not in graded_training(both)
    assert both.notes[-1] == "taken out of training as copies of test photographs: 1 (a/3)"
    kept = by_id(join("both", [data_set("a", 0), second], folds=2, seed=0, keep_leaks=True))
    assert (kept["a/3"].left_out, kept["a/3"].fold in (0, 1)) == (None, True)


def test_what_was_left_out_before_is_still_said():
    kept = ("left out: 2 images without a row (x, y)", "outlines: where the mean confidence of four experts is 0.5")
    first = data_set("a", 0, notes=[*kept, "something else"])
    both = join("both", [first, data_set("b", 1)], folds=2, seed=0)
    assert both.notes == tuple(f"a: {note}" for note in kept)


def test_joined_manifests_survive_saving(tmp_path):
    both = join("both", [data_set("a", 0), data_set("b", 1)], folds=3, seed=4)
    save_manifest(both, tmp_path / "both.json")
    assert replace(load_manifest(tmp_path / "both.json"), sha256="") == both


def test_refuses_the_same_data_set_twice():
    with pytest.raises(
        ValueError, match=r"expected different data sets to join, got \['a'\] twice; give one another --name"
    ):
        join("both", [data_set("a", 0), data_set("a", 1)], folds=2, seed=0)


def test_refuses_to_join_one():
    with pytest.raises(ValueError, match="expected at least two manifests to join, got 1"):
        join("both", [data_set("a", 0)], folds=2, seed=0)
