"""Plain quality of a photograph, without a network: how whole, sharp, bright and rich in contrast its field is."""

# flake8: noqa: N803, N806

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from bundle.transforms.field import field_mask
from monai.transforms import Transform
from numpy.typing import NDArray
from torch.nn import functional as F

MEASURED_SIDE_PX = 512
"""Side at which quality is measured, so that it does not depend on the size of the photograph."""

RIM = 0.04
"""Width of the edge of the field that is left out, as a share of the side: it is darker than the rest."""

FINE_PX, COARSE_PX = 1.5, 8.0
"""Standard deviations of two Gaussian filters at this side; detail is what they take away."""


class Quality(NamedTuple):
    """Four numbers of a photograph.

    Attributes:
        field_inside: area of the field over that of the smallest circle about it, in [0, 1]: 1 for a whole round field,
            0.5 for a half, 0.64 for a square.
        sharpness: standard deviation of fine detail over that of all detail, in percent of [0, 100]. With G the green
            channel and B the Gaussian filter: ``std(G - B_fine G) / std(G - B_coarse G)`` in the field.
        brightness: median of the brightest channel in the field, in percent of white, in [0, 100].
        contrast: standard deviation of all detail over the mean of the green channel, in percent, 0 or more:
            ``std(G - B_coarse G) / mean(G)``.
    """

    field_inside: float
    sharpness: float
    brightness: float
    contrast: float


def measure_quality(image_3SS: NDArray[np.uint8]) -> Quality:
    """Measure the quality of a photograph as :class:`bundle.transforms.PrepareFundusd` makes it.

    Args:
        image_3SS: RGB. If it is smaller than ``MEASURED_SIDE_PX``, it is measured as it is, and looks sharper.

    Raises:
        ValueError: if the image is nearly black.

    Example:
        >>> y, x = np.mgrid[-32:32, -32:32] + 0.5
        >>> disc = np.where(x**2 + y**2 < 31**2, 102, 0).astype(np.uint8)
        >>> whole = measure_quality(np.stack([disc, disc // 2, disc // 4]))
        >>> round(whole.field_inside, 1), round(whole.brightness)
        (1.0, 40)
        >>> half = measure_quality(np.stack([disc * (x > 0), disc // 2 * (x > 0), disc // 4 * (x > 0)]))
        >>> round(half.field_inside, 1)
        0.5
    """
    rgb = _at_measured_size(image_3SS)
    brightest, green = rgb.max(axis=0), rgb[1]  # (s, s)
    field = field_mask(brightest / 255)
    inside = _without_rim(field)
    fine = _deviation(green - cv2.GaussianBlur(green, (0, 0), FINE_PX), inside)
    coarse = _deviation(green - cv2.GaussianBlur(green, (0, 0), COARSE_PX), inside)
    return Quality(
        field_inside=_share_of_circle(field),
        sharpness=min(100.0, 100 * fine / coarse) if coarse > 0 else 0.0,
        brightness=100 * float(np.median(brightest[inside])) / 255,
        contrast=100 * coarse / max(1.0, float(green[inside].mean())),
    )


def _at_measured_size(image_3SS: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Shrink the image; its levels are not rounded again, because that would look like detail."""
    side = min(image_3SS.shape[-1], MEASURED_SIDE_PX)
    batch = torch.from_numpy(image_3SS.astype(np.float32))[None]
    small = F.interpolate(batch, (side, side), mode="bilinear", antialias=True, align_corners=False)
    return small[0].numpy()


def _without_rim(field: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return the field without its edge, or the whole field if nothing else is left."""
    width = 2 * round(RIM * field.shape[-1]) + 1
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    inside = cv2.erode(field.astype(np.uint8), disc, borderValue=0) > 0
    return inside if inside.any() else field


def _share_of_circle(field: NDArray[np.bool_]) -> float:
    """Return the area of the field over that of the smallest circle that contains it."""
    points = cv2.findNonZero(field.astype(np.uint8))
    _, radius = cv2.minEnclosingCircle(cv2.convexHull(points))
    return min(1.0, float(field.sum()) / (math.pi * (radius + 0.5) ** 2))  # points are centres of pixels


def _deviation(detail: NDArray[np.floating], inside: NDArray[np.bool_]) -> float:
    return float(detail[inside].std())


LOWEST = {"field_inside": 0.80, "brightness": 23.0, "sharpness": 24.0, "contrast": 2.5}
"""Smallest numbers of an ordinary photograph: at most one in 200 of IDRiD's 391 graded training photographs has less,
and at most one in 100 of DiaRetDB1's 89, but for the field (docs/inference.md)."""

WORDS = {"field_inside": "field cut", "brightness": "dark", "sharpness": "blurred", "contrast": "low in contrast"}
"""What a photograph is with less."""


def doubts_about(quality: Quality) -> tuple[str, ...]:
    """Return what is poor about a photograph, in words; nothing if all its numbers are ordinary.

    Example:
        >>> doubts_about(Quality(field_inside=0.5, sharpness=40.0, brightness=3.0, contrast=8.0))
        ('field cut', 'dark')
    """
    return tuple(word for name, word in WORDS.items() if getattr(quality, name) < LOWEST[name])


class MeasureQualityd(Transform):
    """Quality of the photograph: adds ``quality`` float32 ``(4,)`` to an item from :class:`PrepareFundusd`.

    Example:
        >>> image = torch.zeros(3, 32, 32, dtype=torch.uint8)
        >>> image[:, 4:28, 4:28] = 102
        >>> MeasureQualityd()({"image": image})["quality"][2]  # brightness: 102 of 255
        tensor(40.)
    """

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        return {**data, "quality": torch.tensor(measure_quality(data["image"].numpy()))}
