"""Photographs that are not what a network was trained on: made from others, drawn, or of everyday things."""

# flake8: noqa: N803

from collections.abc import Callable, Iterator, Mapping

import cv2
import numpy as np
from bundle.labels import GRADES
from bundle.phantom.drawing import draw_photograph
from bundle.transforms import field_mask, field_of_view
from bundle.transforms.pixels import brightest
from numpy.typing import NDArray
from skimage import data

Pixels = NDArray[np.uint8]
"""RGB, ``(H, W, 3)``."""

DRAWN_PX = (1440, 1024)
EVERYDAY = (
    "astronaut", "brick", "camera", "cat", "cell", "clock", "coffee", "coins", "colorwheel", "grass", "gravel", "horse",
    "hubble_deep_field", "immunohistochemistry", "logo", "moon", "page", "rocket", "text",
)  # fmt: skip
"""Pictures that scikit-image brings along; its ``retina`` and ``microaneurysms`` are left out."""


def angiogram(pixels: Pixels) -> Pixels:
    """Return grey with bright vessels, as in fluorescein angiography: the green channel, inverted and stretched."""
    field = field_mask(brightest(pixels))
    green = pixels[..., 1].astype(np.float32)
    low, high = np.percentile(green[field], (1, 99))
    inverted = 20 + 210 * (high - green) / max(1.0, high - low)
    grey = np.where(field, inverted.clip(0, 255), 0).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def red_free(pixels: Pixels) -> Pixels:
    """Return the green channel as grey."""
    return np.repeat(pixels[..., 1:2], 3, axis=2)


def swapped(pixels: Pixels) -> Pixels:
    """Return blue, green, red.

    Example:
        >>> swapped(np.array([[[9, 5, 1]]], np.uint8)).tolist()
        [[[1, 5, 9]]]
    """
    return np.ascontiguousarray(pixels[..., ::-1])


def blurred(pixels: Pixels, percent: float) -> Pixels:
    """Return the photograph after a Gaussian filter, whose standard deviation is in percent of the field's width."""
    left, _, right, _ = field_of_view(pixels)
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), percent * (right - left) / 100), np.uint8)


def dimmed(pixels: Pixels, share: float) -> Pixels:
    """Return the photograph with a share of its light.

    Example:
        >>> dimmed(np.array([[[200, 100, 50]]], np.uint8), 0.2).tolist()
        [[[40, 20, 10]]]
    """
    return np.round(share * pixels).astype(np.uint8)


def brightened(pixels: Pixels, gamma: float) -> Pixels:
    """Return ``255 (v / 255)^gamma`` of every level."""
    return np.round(255 * (pixels / 255) ** gamma).astype(np.uint8)


def cut(pixels: Pixels, share: float) -> Pixels:
    """Return the photograph without a share of the width of its field, on the right.

    Example:
        >>> pixels = np.full((30, 40, 3), 90, np.uint8)
        >>> cut(pixels, 0.5).shape
        (30, 20, 3)
    """
    left, _, right, _ = field_of_view(pixels)
    return np.ascontiguousarray(pixels[:, : round(right - share * (right - left))])


def turned(pixels: Pixels) -> Pixels:
    """Return the photograph upside down."""
    return np.ascontiguousarray(pixels[::-1, ::-1])


STRONG: Mapping[str, Callable[[Pixels], Pixels]] = {
    "angiogram-like grey": angiogram,
    "red and blue swapped": swapped,
    "blurred by 1 % of the field": lambda pixels: blurred(pixels, 1),
    "a fifth of the light": lambda pixels: dimmed(pixels, 0.2),
    "field cut by half": lambda pixels: cut(pixels, 0.5),
}
"""What a check must find."""

MILD: Mapping[str, Callable[[Pixels], Pixels]] = {
    "green channel as grey": red_free,
    "blurred by 0.5 % of the field": lambda pixels: blurred(pixels, 0.5),
    "blurred by 0.25 % of the field": lambda pixels: blurred(pixels, 0.25),
    "half of the light": lambda pixels: dimmed(pixels, 0.5),
    "brightened, gamma 0.5": lambda pixels: brightened(pixels, 0.5),
    "field cut by a quarter": lambda pixels: cut(pixels, 0.25),
    "field cut by a tenth": lambda pixels: cut(pixels, 0.1),
    "upside down": turned,
}
"""What it may miss."""


def drawings(count: int) -> Iterator[Pixels]:
    """Draw synthetic photographs, of all grades in turn."""
    rng = np.random.default_rng(0)
    for number in range(count):
        yield draw_photograph(GRADES[number % len(GRADES)], rng, *DRAWN_PX).image


def everyday() -> Iterator[Pixels]:
    """Return the everyday pictures as 8-bit RGB."""
    for name in EVERYDAY:
        levels = getattr(data, name)()
        levels = 255 * levels.astype(np.uint8) if levels.dtype == bool else levels
        yield np.repeat(levels[..., None], 3, axis=2) if levels.ndim == 2 else np.ascontiguousarray(levels[..., :3])
