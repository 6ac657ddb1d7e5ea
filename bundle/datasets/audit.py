"""Detection of copies of a photograph, including re-encoded, reduced, brightened ones and crops to the eye."""

import imagehash
import numpy as np
from bundle.datasets.near_hashes import Pairs
from numpy.typing import NDArray
from PIL import Image, ImageOps
from scipy import sparse
from scipy.sparse.csgraph import connected_components

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
