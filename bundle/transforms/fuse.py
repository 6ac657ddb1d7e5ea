"""Fusion of the lesions of a photograph into one class, as in the paper's segmentation task."""

# flake8: noqa: N803, N806

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from bundle.labels import LESIONS
from bundle.transforms.lesions import Mask
from monai.transforms import Transform
from numpy.typing import NDArray
from skimage.morphology import closing, disk

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
