"""Read the outlines of lesions, and lay them into one label map."""

import os
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bundle.labels import LESION_PRIORITY, LESIONS

Mask = NDArray[np.bool_]


def load_mask(path: str | os.PathLike) -> Mask:
    """Read a mask as its file stores it: every index or grey level but 0 belongs to it.

    The palette of IDRiD's files maps index 1 to a dark red, so a mask that is read as grey and cut at 127 is empty.

    Returns:
        ``(H, W)``.

    Raises:
        ValueError: if the file is missing, cut off, no image, or has more than one channel.
    """
    try:
        with Image.open(path) as image:
            stored = np.asarray(image)
    except OSError as error:
        raise ValueError(f"expected a whole mask in {path}, got one that cannot be decoded: {error}") from None
    if stored.ndim != 2:
        raise ValueError(f"expected a mask of one channel in {path}, got shape {stored.shape}")
    return stored > 0


def load_masks(paths: Mapping[str, str | os.PathLike], width_px: int, height_px: int) -> dict[str, Mask]:
    """Read the masks of one photograph at native size; a lesion without a path stays without a mask.

    Raises:
        ValueError: as :func:`load_mask`, or if a mask is not of the photograph's size.
    """
    masks = {lesion: load_mask(path) for lesion, path in paths.items()}
    for lesion, mask in masks.items():
        if mask.shape != (height_px, width_px):
            raise ValueError(
                f"expected a mask of {width_px}x{height_px} px, as its photograph, got {mask.shape[1]}x"
                f"{mask.shape[0]} px in {paths[lesion]}"
            )
    return masks


def label_map(masks: Mapping[str, Mask], width_px: int, height_px: int) -> NDArray[np.uint8]:
    """Lay masks into one map: 0 background, else the index in ``LESIONS`` + 1; ``LESION_PRIORITY`` where they overlap.

    Returns:
        ``(height_px, width_px)``.
    """
    labels = np.zeros((height_px, width_px), np.uint8)
    for lesion in reversed(LESION_PRIORITY):
        if lesion in masks:
            labels[masks[lesion]] = LESIONS.index(lesion) + 1
    return labels
