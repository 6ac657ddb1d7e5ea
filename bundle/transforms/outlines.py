"""Outlines of lesions: masks and label maps from their files, and the four lesions joined to one."""

# flake8: noqa: N803, N806

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from bundle.labels import LESIONS
from bundle.transforms.decode import decode_mask, mask_levels, read_packed
from bundle.transforms.pixels import brightest
from bundle.transforms.runs import Runs, runs_of, runs_of_bits
from monai.transforms import Transform
from numpy.typing import NDArray
from skimage.morphology import closing, disk

LESION_PRIORITY = ("MA", "SE", "HE", "EX")
"""Where outlines overlap, the pixel gets the class that comes first in this order."""

Mask = NDArray[np.bool_]


def load_mask(path: str | os.PathLike) -> Mask:
    """Read a mask as its file stores it: every index, grey level or colour except 0 belongs to it.

    The palette of IDRiD's files maps index 1 to a dark red, so a mask read as grey with a threshold of 127 is empty.
    One of its masks has colours and a meaningless opacity (:func:`bundle.transforms.decode.mask_levels`).

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
    return brightest(mask_levels(decode_mask(path).image, path)) != 0


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
    """Read a mask as :func:`load_mask` does, but as runs: much faster if :func:`read_packed` can read the file.

    Raises:
        ValueError: as :func:`load_masks`.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.fromarray(np.array([[0, 1, 1]], np.uint8)).save(f"{folder}/7_MA.png")
        ...     [part.tolist() for part in load_runs(f"{folder}/7_MA.png", width_px=3, height_px=1)]
        [[0], [1], [3], [1]]
    """
    packed = read_packed(path)
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


FUSED_LESION = "lesion"
"""Name of the fused class."""


def class_names(fuse: bool) -> tuple[str, ...]:
    """Return the lesion classes of a network, in the order of its channels after the background.

    Example:
        >>> class_names(False), class_names(True)
        (('MA', 'HE', 'EX', 'SE'), ('lesion',))
    """
    return (FUSED_LESION,) if fuse else LESIONS


def fused_radius_px(fuse: bool, radius_px: int) -> int | None:
    """Return the radius to record with the weights; None without fusion.

    Example:
        >>> fused_radius_px(True, 2), fused_radius_px(False, 2)
        (2, None)
    """
    return radius_px if fuse else None


def fuse_lesions(label_map_HW: NDArray[np.integer], radius_px: int) -> NDArray[np.uint8]:
    """Join all classes of a label map into one mask, then close its gaps.

    ``(U + D) - D``: the union ``U`` is dilated and then eroded by a disc ``D`` of ``radius_px``. No lesion can be
    lost: the whole disc around a pixel of ``U`` lies inside the dilation, so the pixel survives the erosion. The area
    outside the map counts as background, so no lesion grows to the border. Opening or an area filter would delete
    microaneurysms, so neither is used.

    Args:
        label_map_HW: 0 is background; not modified.
        radius_px: radius of the disc; gaps of up to twice this are closed, and 0 gives the plain union.

    Returns:
        ``(H, W)`` in {0, 1}.

    Raises:
        ValueError: if the radius is negative or not a whole number.

    Source:
        Liu & Huang 2023: "MA, HE, EX, SE fused using morphological methods on a single image as a new mask". The
        paper gives neither the operation nor its size.

    Example:
        >>> fuse_lesions(np.array([[1, 1, 0, 3, 3]] * 3), 1)
        array([[1, 1, 0, 1, 1],
               [1, 1, 1, 1, 1],
               [1, 1, 0, 1, 1]], dtype=uint8)
    """
    _check_radius(radius_px)
    union = label_map_HW > 0
    if radius_px:
        # Pad with background: otherwise scikit-image would fill the gap between a lesion and the edge.
        inner = (slice(radius_px, -radius_px),) * 2
        union = closing(np.pad(union, radius_px), disk(radius_px), mode="ignore")[inner]
    return union.astype(np.uint8)


def _check_radius(radius_px: int) -> None:
    if isinstance(radius_px, bool) or not isinstance(radius_px, (int, np.integer)) or radius_px < 0:
        raise ValueError(f"expected a fuse_radius_px of 0, 1, 2, ... pixels, got {radius_px!r}")


class FuseLesionsd(Transform):
    """Fusion of an item's label map into one class: uint8 ``(1, S, S)`` of 0-4 becomes uint8 ``(1, S, S)`` of {0, 1}.

    If the item has ``looked_for`` ``(4,)``, it becomes ``(1,)``: whether all lesions were looked for. If one was not,
    areas without an outline may still be lesions.

    Args:
        radius_px: see :func:`fuse_lesions`; in pixels of the map.
        key: key of the label map.

    Raises:
        ValueError: if the radius is negative or not a whole number.

    Example:
        >>> FuseLesionsd(radius_px=0)({"lesions": torch.tensor([[[0, 1, 4]]], dtype=torch.uint8)})["lesions"]
        tensor([[[0, 1, 1]]], dtype=torch.uint8)
    """

    def __init__(self, radius_px: int, key: str = "lesions") -> None:
        _check_radius(radius_px)
        self.radius_px, self.key = radius_px, key

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        labels_HW = data[self.key].as_subclass(torch.Tensor).numpy()[0]
        looked_for = {"looked_for": data["looked_for"].all()[None]} if "looked_for" in data else {}
        return {**data, **looked_for, self.key: torch.from_numpy(fuse_lesions(labels_HW, self.radius_px))[None]}


def fuse_outlines(masks: Mapping[str, Mask]) -> dict[str, Mask]:
    """Join the outlines of a photograph as published, without morphology; empty if there are no outlines.

    Args:
        masks: lesion to ``(H, W)``.

    Returns:
        ``FUSED_LESION`` to ``(H, W)``, or an empty dict.

    Example:
        >>> fuse_outlines({"MA": np.array([[True, False, False]]), "EX": np.array([[False, True, False]])})
        {'lesion': array([[ True,  True, False]])}
    """
    return {FUSED_LESION: np.logical_or.reduce(list(masks.values()))} if masks else {}
