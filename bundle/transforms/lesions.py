"""Reading of lesion outlines, and their combination in one label map."""

import os
from collections.abc import Mapping

import numpy as np
from bundle.images import brightest, decode, mask_levels
from bundle.labels import LESION_PRIORITY, LESIONS
from bundle.transforms.bilevel import read_bilevel
from bundle.transforms.runs import Runs, runs_of, runs_of_bits
from numpy.typing import NDArray

Mask = NDArray[np.bool_]


def load_mask(path: str | os.PathLike) -> Mask:
    """Read a mask as its file stores it: every index, grey level or colour except 0 belongs to it.

    The palette of IDRiD's files maps index 1 to a dark red, so a mask read as grey with a threshold of 127 is empty.
    One of its masks has colours and a meaningless opacity (:func:`bundle.images.mask_levels`).

    Returns:
        ``(H, W)``.

    Raises:
        ValueError: if the file is missing, truncated, not an image, or stores something else.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.fromarray(np.array([[0, 1, 76]], np.uint8)).save(f"{folder}/7_MA.png")
        ...     load_mask(f"{folder}/7_MA.png")
        array([[False,  True,  True]])
    """
    return brightest(mask_levels(decode(path, "mask").image, path)) != 0


def load_masks(paths: Mapping[str, str | os.PathLike], width_px: int, height_px: int) -> dict[str, Mask]:
    """Read the masks of one photograph at native size; a lesion without a path gets no mask.

    Raises:
        ValueError: as :func:`load_mask`, or if a mask does not have the photograph's size.
    """
    masks = {lesion: load_mask(path) for lesion, path in paths.items()}
    for lesion, mask in masks.items():
        _check_size(paths[lesion], mask.shape, width_px, height_px)
    return masks


def load_runs(path: str | os.PathLike, width_px: int, height_px: int) -> Runs:
    """Read a mask as :func:`load_mask` does, but as runs: much faster if the file has one bit per pixel.

    Raises:
        ValueError: as :func:`load_masks`.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.fromarray(np.array([[0, 1, 1]], np.uint8)).save(f"{folder}/7_MA.png")
        ...     [part.tolist() for part in load_runs(f"{folder}/7_MA.png", width_px=3, height_px=1)]
        [[0], [1], [3]]
    """
    packed = read_bilevel(path)
    if packed is None:
        mask = load_mask(path)
        _check_size(path, mask.shape, width_px, height_px)
        return runs_of(mask)
    _check_size(path, (packed.height_px, packed.width_px), width_px, height_px)
    return runs_of_bits(packed.rows, width_px)


def _check_size(path: str | os.PathLike, shape: tuple[int, ...], width_px: int, height_px: int) -> None:
    if shape != (height_px, width_px):
        raise ValueError(
            f"expected a mask of {width_px}x{height_px} px, as its photograph, got {shape[1]}x{shape[0]} px in {path}"
        )


def label_map(masks: Mapping[str, Mask], width_px: int, height_px: int) -> NDArray[np.uint8]:
    """Combine masks in one map: 0 background, else index in ``LESIONS`` + 1; ``LESION_PRIORITY`` where they overlap.

    Returns:
        ``(height_px, width_px)``.

    Example:
        >>> masks = {"MA": np.array([[True, False, False]]), "EX": np.array([[True, True, False]])}
        >>> label_map(masks, width_px=3, height_px=1)  # microaneurysms go before exudates
        array([[1, 3, 0]], dtype=uint8)
    """
    labels = np.zeros((height_px, width_px), np.uint8)
    for lesion in reversed(LESION_PRIORITY):
        if lesion in masks:
            labels[masks[lesion]] = LESIONS.index(lesion) + 1
    return labels
