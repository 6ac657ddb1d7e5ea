"""Copies of photographs: perceptual hashes, near-equal pairs and the groups that they form."""

from collections.abc import Iterator
from typing import NamedTuple

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from scipy import sparse
from scipy.sparse.csgraph import connected_components

HASH_SIZE = 16
"""The perceptual hash has ``HASH_SIZE ** 2`` bits."""

DISTANCE_MAX = 35
"""Bits. In IDRiD, re-encoded and reduced copies differ in at most 6 bits, the same view at another exposure in 30,
a second photograph of the same eye in 48, and other eyes in at least 54."""

BLOCK = 1024
"""Number of hashes that are compared with as many others at once; their distances take 4 MiB."""


class Pairs(NamedTuple):
    """Pairs of near-equal hashes: indices ``first < second`` and the number of bits that differ."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    distance_bits: NDArray[np.int64]


def near_pairs(hashes: NDArray[np.uint8], distance_max: int = DISTANCE_MAX) -> Pairs:
    """Find every pair of hashes that differ in at most ``distance_max`` bits.

    If the ``n`` bits of a hash are written as -1 and 1, two hashes ``a`` and ``b`` differ in ``(n - a . b) / 2`` bits.
    So one matrix product compares a block of hashes with another block. float32 holds these whole numbers exactly.
    The first of equal hashes represents them: the others are paired with it alone.

    Args:
        hashes: ``(N, n / 8)`` bytes.
        distance_max: largest Hamming distance.

    Returns:
        The pairs, ordered by ``first`` and then by ``second``.

    Example:
        >>> hashes = np.zeros((3, 32), np.uint8)
        >>> hashes[1, 0], hashes[2] = 0b111, 0b11110000
        >>> [part.tolist() for part in near_pairs(hashes)]  # the third differs from both in more than a hundred bits
        [[0], [1], [3]]
    """
    _, first_of, kind = np.unique(hashes, axis=0, return_index=True, return_inverse=True)  # (D,) and (N,)
    distinct, equal = np.sort(first_of), first_of[kind]  # (D,) and (N,)
    repeats = np.flatnonzero(equal != np.arange(len(hashes)))  # (N - D,)
    pairs = [np.stack([equal[repeats], repeats, np.zeros_like(repeats)])]  # (3, N - D)
    for row, column, distance_bits in _compare_blocks(hashes[distinct], distance_max):  # (pairs,) each
        pairs.append(np.stack([distinct[row], distinct[column], distance_bits]))  # (3, pairs)
    first, second, distance_bits = np.concatenate(pairs, axis=1)  # (all pairs,) each
    order = np.lexsort((second, first))
    return Pairs(first[order], second[order], distance_bits[order])


def _compare_blocks(hashes: NDArray[np.uint8], distance_max: int) -> Iterator[Pairs]:
    """Compare each block of hashes with itself and with all blocks behind it; yield the near pairs."""
    signs = 1 - 2 * np.unpackbits(hashes, axis=1).astype(np.float32)  # (D, n)
    for top in range(0, len(signs), BLOCK):
        for left in range(top, len(signs), BLOCK):
            product = signs[top : top + BLOCK] @ signs[left : left + BLOCK].T  # (BLOCK, BLOCK)
            distance = (signs.shape[1] - product) / 2  # (BLOCK, BLOCK)
            row, column = np.nonzero(distance <= distance_max)  # (pairs,) each
            # A block on the diagonal has every pair twice, and every hash with itself.
            once = top + row < left + column
            row, column = row[once], column[once]
            yield Pairs(top + row, left + column, distance[row, column].astype(np.int64))


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
