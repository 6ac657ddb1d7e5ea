"""Every near pair of hashes is found, wherever its bits differ, and no other."""

import numpy as np
import pytest
from bundle.datasets.copies import CHUNKS, DISTANCE_MAX, near_pairs
from hypothesis import given, settings
from hypothesis import strategies as st


def listed(bits, distance_max=DISTANCE_MAX):
    pairs = near_pairs(np.packbits(bits, axis=1), distance_max)
    return list(zip(*map(np.ndarray.tolist, pairs), strict=True))


def test_pairs_come_with_the_bits_that_differ():
    hashes = np.zeros((4, 256), bool)
    hashes[1, :5] = True
    hashes[2] = True
    hashes[3, :7] = True
    assert listed(hashes) == [(0, 1, 5), (0, 3, 7), (1, 3, 2)]


def test_of_equal_hashes_the_first_stands_for_all():
    hashes = np.zeros((5, 256), bool)
    hashes[4, :3] = True
    assert listed(hashes) == [(0, 1, 0), (0, 2, 0), (0, 3, 0), (0, 4, 3)]


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_hashes_have_no_pair(count):
    assert listed(np.ones((count, 256), bool)) == []


def test_the_worst_case_is_found():
    """Three bits of each chunk but one with four, and the mirror image: one more bit anywhere is too far."""
    chunk_of = np.arange(256) % CHUNKS
    hashes = np.zeros((2, 256), bool)
    for chunk in range(CHUNKS):
        hashes[1, np.flatnonzero(chunk_of == chunk)[: 4 if chunk else 3]] = True
    assert hashes[1].sum() == DISTANCE_MAX == 35
    assert listed(hashes) == [(0, 1, 35)]
    hashes[1, 255] = True
    assert listed(hashes) == []


@given(st.integers(0, 2**32 - 1), st.integers(2, 60), st.integers(0, DISTANCE_MAX), st.sampled_from([0.02, 0.06, 0.1]))
@settings(max_examples=40, deadline=None)
def test_pairs_are_those_of_comparing_all(seed, count, distance_max, flipped):
    rng = np.random.default_rng(seed)
    bases = rng.random((4, 256)) < 0.5
    hashes = bases[rng.integers(4, size=count)] ^ (rng.random((count, 256)) < flipped)
    distance = (hashes[:, None] != hashes[None]).sum(axis=2)
    expected = {
        (a, b, int(distance[a, b])) for a in range(count) for b in range(a + 1, count) if distance[a, b] <= distance_max
    }
    found = listed(hashes, distance_max)
    assert len(found) == len(set(found))
    # Of equal hashes only the first is compared with the others.
    first = [int((distance[a] == 0).argmax()) for a in range(count)]
    assert set(found) == {(a, b, d) for a, b, d in expected if first[a] == a and (d == 0 or first[b] == b)}


@pytest.mark.parametrize("distance_max", [-1, 36])
def test_refuses_a_distance_at_which_pairs_would_be_missed(distance_max):
    with pytest.raises(ValueError, match=f"expected distance_max in 0-35 bits, got {distance_max}"):
        listed(np.zeros((2, 256), bool), distance_max)
