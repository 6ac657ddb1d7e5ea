"""Copies of photographs: perceptual hashes, near-equal pairs and the groups that they form."""

import itertools
from collections.abc import Iterator
from typing import NamedTuple

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from scipy import sparse
from scipy.sparse.csgraph import connected_components

CHUNKS = 9
REACH = 3
"""Bits in which a chunk of two near hashes may differ: by the pigeonhole principle, ``CHUNKS * (REACH + 1) - 1`` = 35
differing bits leave one chunk with no more than 3."""

DISTANCE_MAX = CHUNKS * (REACH + 1) - 1
"""Bits. In IDRiD, re-encoded and reduced copies differ in at most 6 bits, the same view at another exposure in 30,
a second photograph of the same eye in 48, and other eyes in at least 54."""

BLOCK = 2048
"""Number of hashes that are looked up at once; their probes then fit into the processor's cache."""

Keys = NDArray[np.uint32]


class Pairs(NamedTuple):
    """Pairs of near-equal hashes: indices ``first < second`` and the number of bits that differ."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    distance_bits: NDArray[np.int64]


def near_pairs(hashes: NDArray[np.uint8], distance_max: int = DISTANCE_MAX) -> Pairs:
    """Find every pair of hashes that differ in at most ``distance_max`` bits, without exception.

    In two near hashes, some chunk of 28 or 29 bits differs in at most 3. So every hash is put into a table under the
    chunk's value and all values one bit away, and looked up under the chunk's value and all values two bits away;
    matches are compared in full. The first of equal hashes represents them: the others are paired with it alone.

    Args:
        hashes: ``(N, 32)`` bytes.
        distance_max: largest Hamming distance, at most ``DISTANCE_MAX``.

    Raises:
        ValueError: if the distance is larger.

    Example:
        >>> hashes = np.zeros((3, 32), np.uint8)
        >>> hashes[1, 0], hashes[2] = 0b111, 0b11110000
        >>> [part.tolist() for part in near_pairs(hashes)]  # the third differs from both in more than a hundred bits
        [[0], [1], [3]]

    Source:
        Norouzi et al., "Fast Search in Hamming Space with Multi-Index Hashing", CVPR 2012.
    """
    if not 0 <= distance_max <= DISTANCE_MAX:
        raise ValueError(f"expected distance_max in 0-{DISTANCE_MAX} bits, got {distance_max}")
    distinct, first_of, which = np.unique(hashes, axis=0, return_index=True, return_inverse=True)
    found = list(_near_distinct(distinct, distance_max))
    near = np.unique(np.concatenate(found), axis=0)
    ends = np.sort(first_of[near[:, :2]], axis=1)
    second = np.flatnonzero(first_of[which] != np.arange(len(hashes)))
    equal = np.stack([first_of[which][second], second, np.zeros_like(second)], axis=1)
    every = np.concatenate([np.column_stack([ends, near[:, 2]]), equal])  # (pairs, 3): first, second, distance
    return Pairs(*every[np.lexsort((every[:, 1], every[:, 0]))].T)


def _near_distinct(hashes: NDArray[np.uint8], distance_max: int) -> Iterator[NDArray[np.int64]]:
    """Yield rows of two indices and a distance; a pair may occur several times, but only in one order."""
    words = np.ascontiguousarray(hashes).view(np.uint64)  # (N, 4)
    bits = np.unpackbits(hashes, axis=1)  # (N, 256)
    yield np.zeros((0, 3), np.int64)
    for chunk in range(CHUNKS):
        # Every ninth bit: neighbouring bits of a perceptual hash are alike, and a chunk should distinguish hashes.
        part = bits[:, chunk::CHUNKS]  # (N, 28 or 29)
        single = np.uint32(1) << np.arange(part.shape[1], dtype=np.uint32)
        keys = (part * single).sum(axis=1, dtype=np.uint32)  # (N,)
        table = _Table(keys, single)
        double = np.array([0, *(a ^ b for a, b in itertools.combinations(single, 2))], np.uint32)
        for start in range(0, len(keys), BLOCK):
            at, owner = table.find((keys[start : start + BLOCK, None] ^ double).ravel())
            prober = start + at // len(double)
            once = owner < prober
            owner, prober = owner[once], prober[once]
            distance = np.bitwise_count(words[owner] ^ words[prober]).sum(axis=1, dtype=np.int64)
            near = distance <= distance_max
            yield np.stack([owner[near], prober[near], distance[near]], axis=1)


class _Table:
    """Table of hashes by their key, and by every key one bit away from it.

    Args:
        keys: ``(N,)`` key of each hash; the hash is the owner of its key.
        single: every value with a single bit set.
    """

    def __init__(self, keys: Keys, single: Keys) -> None:
        near = np.column_stack([keys, keys[:, None] ^ single])  # (N, 1 + bits)
        order = np.argsort(near, axis=None)
        self.keys, self.owners = near.ravel()[order], order // near.shape[1]
        # A bitmap with one bit per possible key: most probes are not in the table, and it rejects them in one step.
        byte, bit = self.keys >> np.uint32(3), np.uint32(1) << (self.keys & np.uint32(7))
        starts = np.flatnonzero(np.diff(byte, prepend=byte[:1] + np.uint32(1)))
        self.known = np.zeros(1 << (len(single) - 3), np.uint8)
        self.known[byte[starts]] = np.bitwise_or.reduceat(bit.astype(np.uint8), starts)

    def find(self, probes: Keys) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return, for each match, the index of the probe and the owner."""
        shifted = self.known[probes >> np.uint32(3)] >> (probes & np.uint32(7)).astype(np.uint8)
        hit = np.flatnonzero(shifted & np.uint8(1))
        first, after = (np.searchsorted(self.keys, probes[hit], side) for side in ("left", "right"))
        count = after - first
        place = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count - first, count)
        return np.repeat(hit, count), self.owners[place]


HASH_SIZE = 16
"""The perceptual hash has ``HASH_SIZE ** 2`` bits."""


def perceptual_hash(field_of_view: Image.Image) -> str:
    """Hash the appearance of a photograph: the signs of its lowest cosine coefficients relative to their median.

    Grey levels are equalised first, so that exposure has no effect.

    Args:
        field_of_view: grey image, cropped to the round field; black borders differ between copies and would dominate.

    Returns:
        256 bits as 64 hexadecimal digits.

    Example:
        >>> grey = np.random.default_rng(0).integers(0, 100, (48, 64), np.uint8)
        >>> brighter, upside_down = Image.fromarray(2 * grey), Image.fromarray(grey[::-1])
        >>> perceptual_hash(Image.fromarray(grey)) == perceptual_hash(brighter)
        True
        >>> perceptual_hash(Image.fromarray(grey)) == perceptual_hash(upside_down)
        False

    Source:
        ``imagehash.phash``; Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010.
    """
    bits = imagehash.phash(ImageOps.equalize(field_of_view), hash_size=HASH_SIZE).hash
    return np.packbits(bits).tobytes().hex()


def unpack(hashes: list[str]) -> NDArray[np.uint8]:
    """Turn N hexadecimal hashes into ``(N, 32)`` bytes."""
    return np.frombuffer(bytes.fromhex("".join(hashes)), np.uint8).reshape(len(hashes), HASH_SIZE**2 // 8)


def group_copies(count: int, pairs: Pairs) -> NDArray[np.int64]:
    """Assign the same number to all photographs connected by a chain of pairs.

    Returns:
        ``(count,)`` index of the first photograph in each photograph's group.

    Example:
        >>> pairs = Pairs(first=np.array([0, 1]), second=np.array([1, 3]), distance_bits=np.array([4, 6]))
        >>> group_copies(4, pairs).tolist()  # 0 is like 1, and 1 is like 3
        [0, 0, 2, 0]
    """
    links = sparse.coo_array((np.ones(len(pairs.first), np.int8), (pairs.first, pairs.second)), (count, count))
    _, labels = connected_components(links, directed=False)
    _, first, number = np.unique(labels, return_index=True, return_inverse=True)
    return first[number]  # first: (groups,), number: (count,)
