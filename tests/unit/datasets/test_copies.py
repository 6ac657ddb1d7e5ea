"""Copies are recognised by their appearance: every pair of near hashes is found, and no other."""

from itertools import combinations
from unittest import mock

import numpy as np
import pytest
from bundle.datasets import copies
from bundle.datasets.copies import DISTANCE_MAX, group_copies, near_pairs, perceptual_hash, unpack
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image


def picture(seed, size=(90, 60)):
    patches = np.random.default_rng(seed).integers(40, 220, (12, 12), dtype=np.uint8)
    return Image.fromarray(patches).resize(size, Image.Resampling.BICUBIC)


def distance(first, second):
    return int(np.bitwise_count(np.bitwise_xor(*unpack([perceptual_hash(first), perceptual_hash(second)]))).sum())


def listed(bits, distance_max=DISTANCE_MAX):
    pairs = near_pairs(np.packbits(bits, axis=1), distance_max)
    return list(zip(*map(np.ndarray.tolist, pairs), strict=True))


def groups(bits, distance_max=DISTANCE_MAX):
    packed = np.packbits(bits, axis=1)
    return group_copies(len(bits), near_pairs(packed, distance_max)).tolist()


def test_a_photograph_is_at_no_distance_from_itself():
    assert distance(picture(1), picture(1)) == 0


@pytest.mark.parametrize("change", [lambda p: p.resize((45, 30)), lambda p: p.point(lambda grey: grey * 0.6)])
def test_a_reduced_or_darker_copy_is_near(change):
    assert distance(picture(1), change(picture(1))) <= DISTANCE_MAX / 2


def test_other_photographs_are_far():
    assert min(distance(picture(seed), picture(seed + 1)) for seed in range(8)) > 2 * DISTANCE_MAX


def test_a_hash_survives_packing():
    text = perceptual_hash(picture(1))
    assert len(text) == 64
    assert unpack([text, text]).tobytes().hex() == 2 * text


def test_pairs_come_with_the_bits_that_differ():
    hashes = np.zeros((4, 256), bool)
    hashes[1, :5] = True
    hashes[2] = True
    hashes[3, :7] = True
    assert listed(hashes) == [(0, 1, 5), (0, 3, 7), (1, 3, 2)]
    assert listed(hashes, distance_max=256)[1] == (0, 2, 256)


def test_of_equal_hashes_the_first_stands_for_all():
    hashes = np.zeros((5, 256), bool)
    hashes[4, :3] = True
    assert listed(hashes) == [(0, 1, 0), (0, 2, 0), (0, 3, 0), (0, 4, 3)]


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_hashes_have_no_pair(count):
    assert listed(np.ones((count, 256), bool)) == []


@given(
    st.integers(0, 2**32 - 1),
    st.integers(2, 60),
    st.integers(0, 2 * DISTANCE_MAX),
    st.sampled_from([0.02, 0.06, 0.1]),
    st.sampled_from([1, 7, 16, 1024]),
)
@settings(max_examples=40, deadline=None)
def test_pairs_are_those_of_a_double_loop_whatever_the_size_of_a_block(seed, count, distance_max, flipped, block):
    rng = np.random.default_rng(seed)
    bases = rng.random((4, 256)) < 0.5
    hashes = bases[rng.integers(4, size=count)] ^ (rng.random((count, 256)) < flipped)
    first = [next(a for a in range(count) if (hashes[a] == hashes[b]).all()) for b in range(count)]
    expected = []
    for a, b in combinations(range(count), 2):
        bits = int((hashes[a] != hashes[b]).sum())
        # Of equal hashes only the first is compared with the others.
        if bits <= distance_max and first[a] == a and (bits == 0 or first[b] == b):
            expected.append((a, b, bits))
    with mock.patch.object(copies, "BLOCK", block):
        assert listed(hashes, distance_max) == expected


def test_a_chain_of_near_hashes_is_one_group():
    hashes = np.zeros((4, 256), bool)
    hashes[1, :35] = True
    hashes[2, :70] = True
    hashes[3, :200] = True
    assert groups(hashes) == [0, 0, 0, 3]


def test_the_threshold_itself_is_still_a_copy():
    hashes = np.zeros((2, 256), bool)
    hashes[1, :35] = True
    assert groups(hashes) == [0, 0]
    assert groups(hashes, distance_max=34) == [0, 1]
    hashes[1, 255] = True
    assert groups(hashes) == [0, 1]


def test_one_photograph_is_one_group():
    assert groups(np.ones((1, 256), bool)) == [0]


@given(st.integers(0, 2**32 - 1), st.integers(2, 12), st.integers(0, DISTANCE_MAX))
@settings(max_examples=25, deadline=None)
def test_groups_are_those_of_all_pairs(seed, count, distance_max):
    rng = np.random.default_rng(seed)
    hashes = (rng.random((3, 256)) < 0.5)[rng.integers(3, size=count)] ^ (rng.random((count, 256)) < 0.05)
    near = (hashes[:, None] != hashes[None]).sum(axis=2) <= distance_max
    reach = np.linalg.matrix_power(near.astype(float), count) > 0
    assert groups(hashes, distance_max) == [int(row.argmax()) for row in reach]
