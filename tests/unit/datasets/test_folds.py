"""Folds are balanced and never part copies, leaks are left out of training, and joining deals the folds again."""

from collections import Counter, defaultdict
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


def test_columns_go_through_joining_whatever_the_other_data_set_has():
    first = data_set("a", 0)
    first = replace(first, photographs=tuple(replace(row, columns={"camera": row.id}) for row in first.photographs))
    both = by_id(join("both", [first, data_set("b", 1)], folds=2, seed=0))
    assert (both["a/3"].columns, both["b/3"].columns) == ({"camera": "a/3"}, {})


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


def folds_of(manifest):
    found = defaultdict(set)
    for row in manifest.photographs:
        found[row.patient].add(row.fold)
    return dict(found)


def test_six_photographs_of_three_patients_fill_three_folds_with_a_patient_each():
    rows = [photograph(f"a/{n}", bits, grade=n % 5, patient=f"a/p{n // 2}") for n, bits in enumerate(hashes(6))]
    found = folds_of(deal("a", {"a": Path("/data")}, rows, folds=3, seed=0))
    assert sorted(found.values(), key=str) == [{0}, {1}, {2}]
    with pytest.raises(ValueError, match="or patients where they are known, got 4 folds and 3 photographs"):
        deal("a", {"a": Path("/data")}, rows, folds=4, seed=0)


@given(
    st.lists(st.tuples(st.sampled_from(["p", "q", "r", "s", None]), st.integers(0, 9), st.booleans()), max_size=30),
    st.integers(2, 4),
    st.integers(0, 9),
)
@settings(max_examples=60)
def test_no_patient_is_parted_whoever_is_whose_and_whatever_is_a_copy(drawn, folds, seed):
    """A tenth of the photographs or so are copies of others, and half of them are in the test."""
    bits = hashes(10 + folds)
    drawn = [*drawn, *((None, 10 + fold, False) for fold in range(folds))]  # enough to fill the folds
    rows = [
        photograph(f"a/{n}", bits[eye], patient=patient, split="test" if is_test else "train")
        for n, (patient, eye, is_test) in enumerate(drawn)
    ]
    dealt = deal("a", {"a": Path("/data")}, rows, folds, seed)
    for key in ("patient", "group"):
        places = defaultdict(set)
        for row in dealt.photographs:
            if not row.left_out and getattr(row, key) is not None:
                places[getattr(row, key)].add((row.split, row.fold))
        assert all(len(place) == 1 for place in places.values())
    assert sum(row.split == "test" for row in dealt.photographs) == sum(is_test for *_, is_test in drawn)


def test_patients_of_one_photograph_are_dealt_as_before():
    known = replace_all(data_set("a", 0).photographs, patient=lambda row: f"a/p{row.id}")
    assert [row.fold for row in deal("a", {"a": Path("/data")}, known, folds=2, seed=0).photographs] == [
        row.fold for row in data_set("a", 0).photographs
    ]


def test_a_chain_of_copies_and_patients_is_not_broken():
    """Photograph 9 copies 1; so p, who has 0 and 1, and q, who has 9 and 2, are one part of the data."""
    bits = hashes(6)
    patients = {0: "a/p", 1: "a/p", 9: "a/q", 2: "a/q"}
    named = {**dict(enumerate(bits)), 9: flipped(bits[1], 5)}
    rows = [photograph(f"a/{n}", one, patient=patients.get(n)) for n, one in named.items()]
    found = by_id(deal("a", {"a": Path("/data")}, rows, folds=3, seed=0))
    assert len({found[f"a/{n}"].fold for n in patients}) == 1
    assert len({found[f"a/{n}"].group for n in patients}) == 3


def test_the_other_eye_of_a_test_patient_is_taken_out_of_training():
    rows = [photograph(f"a/{n}", bits, patient=f"a/p{n // 2}", grade=2) for n, bits in enumerate(hashes(8))]
    rows[1] = replace(rows[1], split="test")
    dealt = deal("a", {"a": Path("/data")}, rows, folds=2, seed=0)
    left_out = {row.id: row.left_out for row in dealt.photographs if row.left_out}
    assert left_out == {"a/0": "same patient as the test photograph a/1"}
    assert dealt.notes == ("taken out of training as photographs of patients in the test: 1 (a/0)",)
    kept = deal("a", {"a": Path("/data")}, rows, folds=2, seed=0, keep_leaks=True)
    assert by_id(kept)["a/0"].fold is not None
    assert kept.notes == ("kept in training though photographs of patients in the test: 1 (a/0)",)


def replace_all(rows, patient):
    return [replace(row, patient=patient(row)) for row in rows]


def with_patients(name, seed):
    rows = replace_all(data_set(name, seed).photographs, lambda row: f"{name}/{int(row.id[-1]) // 2}")
    return deal(name, {name: Path("/data") / name}, rows, folds=2, seed=0)


def test_patient_1_of_two_data_sets_is_two_patients_unless_they_share_patients():
    joined = [with_patients("a", 0), with_patients("b", 1)]
    apart = join("both", joined, folds=5, seed=0)
    assert len(folds_of(apart)) == 10
    assert apart.notes == (
        "5 ids of patients occur in more than one data set and count as different patients; if they are the same, join "
        "with --same_patients",
    )
    same = join("both", joined, folds=5, seed=0, same_patients=True)
    assert set(folds_of(same)) == {f"both/{n}" for n in range(5)}
    assert all(len(folds) == 1 for folds in folds_of(same).values())
    assert same.notes == ()


def test_names_of_both_eyes_are_noted_with_the_option_that_keeps_them_together():
    named = [f"a/{n}_{side}" for n in range(3) for side in ("left", "right")]
    rows = [photograph(name, bits) for name, bits in zip(named, hashes(6), strict=True)]
    (note,) = deal("a", {"a": Path("/data")}, rows, folds=2, seed=0).notes
    assert "a: 3 pairs of names differ in the side of the eye alone (0_left and 0_right)" in note
    assert '--patient_pattern "(.+)_(left|right)", or with --patient_column' in note
    known = replace_all(rows, lambda row: row.id.split("_")[0])
    assert deal("a", {"a": Path("/data")}, known, folds=2, seed=0).notes == ()
