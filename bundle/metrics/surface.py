"""Distance between the borders of a predicted mask and of the outline."""

# flake8: noqa: N803

import cv2
import numpy as np
from monai.metrics.utils import get_surface_distance

DENSE = 100_000
"""Number of border pixels at which a distance transform becomes faster than a search tree; both are exact."""

CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))


def hd95_px(predicted_HW: np.ndarray, outline_HW: np.ndarray) -> float:
    """Compute the 95 % Hausdorff distance of two masks in pixels; NaN if one of them is empty.

    ``max(q95 {d(a, B) : a in A}, q95 {d(b, A) : b in B})`` of their borders A and B. The border of a mask is
    its pixels with one of the 4 neighbours outside the mask or outside the image. Same result as
    ``monai.metrics.compute_hausdorff_distance``, but five times faster at native size: OpenCV finds the borders within
    the common bounding box of both masks.

    Args:
        predicted_HW: bool.
        outline_HW: bool.

    Example:
        >>> hd95_px(np.array([[1, 0, 0, 0]], dtype=bool), np.array([[0, 0, 0, 1]], dtype=bool))
        3.0
    """
    if not (predicted_HW.any() and outline_HW.any()):
        return float("nan")
    box = _box(predicted_HW | outline_HW)
    one, other = _border(predicted_HW[box]), _border(outline_HW[box])
    return float(max(np.percentile(_distances_px(*pair), 95) for pair in ((one, other), (other, one))))


def _distances_px(border_HW: np.ndarray, other_HW: np.ndarray) -> np.ndarray:
    """Compute the distance of each pixel of a border to the other border."""
    if np.count_nonzero(border_HW) < DENSE:
        return np.asarray(get_surface_distance(border_HW, other_HW))
    return cv2.distanceTransform((~other_HW).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)[border_HW]


def _box(mask_HW: np.ndarray) -> tuple[slice, slice]:
    rows, columns = np.flatnonzero(mask_HW.any(axis=1)), np.flatnonzero(mask_HW.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _border(mask_HW: np.ndarray) -> np.ndarray:
    mask = np.ascontiguousarray(mask_HW).view(np.uint8)
    return mask > cv2.erode(mask, CROSS, borderType=cv2.BORDER_CONSTANT, borderValue=(0,))
