"""Find copies of one photograph, also where they were re-encoded, reduced or brightened."""

import math

import imagehash
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from scipy.sparse.csgraph import connected_components
from sklearn.neighbors import radius_neighbors_graph

HASH_SIZE = 16
"""The perceptual hash has ``HASH_SIZE ** 2`` bits."""

COPY_DISTANCE_MAX = 36
"""Bits. In IDRiD, re-encoded and reduced copies differ in at most 6 bits, the same view at another exposure in 30,
a second photograph of the same eye in 48, and other eyes in at least 54."""


def perceptual_hash(field_of_view: Image.Image) -> NDArray[np.bool_]:
    """Hash what a photograph looks like: the signs of its lowest cosine frequencies about their median.

    Grey levels are equalised first, so that the exposure does not count.

    Args:
        field_of_view: grey image, cut to the round field; black borders differ between copies and would dominate.

    Returns:
        ``(256,)`` bits.

    Source:
        ``imagehash.phash``; Zauner, "Implementation and Benchmarking of Perceptual Image Hash Functions", 2010.
    """
    return imagehash.phash(ImageOps.equalize(field_of_view), hash_size=HASH_SIZE).hash.ravel()


def group_copies(hashes: NDArray[np.bool_], distance_max: int = COPY_DISTANCE_MAX) -> NDArray[np.int64]:
    """Give the same number to photographs that a chain of near-equal hashes connects.

    On bits the squared Euclidean distance is the Hamming distance, so scikit-learn's blockwise neighbour search
    applies: its memory grows with the photographs and with the pairs found, its time with all pairs.

    Args:
        hashes: ``(N, bits)``.
        distance_max: largest Hamming distance of copies.

    Returns:
        ``(N,)`` index of the first photograph of the group.
    """
    # Half a bit of slack keeps rounding in the root from parting a pair at the threshold.
    radius = math.sqrt(distance_max + 0.5)
    pairs = radius_neighbors_graph(hashes.astype(np.float32), radius, include_self=True)
    _, labels = connected_components(pairs, directed=False)
    _, first, number = np.unique(labels, return_index=True, return_inverse=True)
    return first[number]
