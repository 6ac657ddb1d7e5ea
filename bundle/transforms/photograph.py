"""Read a photograph at no more than the size that is needed, and cut a square out of it."""

import math
import os
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bundle.transforms.geometry import Crop


class Decoded(NamedTuple):
    """A photograph as decoded: one of its pixels covers ``reduction`` x ``reduction`` native ones."""

    pixels: NDArray[np.uint8]  # (H, W, 3) RGB
    native_px: tuple[int, int]  # width, height
    reduction: int


def load_photograph(path: str | os.PathLike, target_px: int) -> Decoded:
    """Decode a photograph; a JPEG at 1/2, 1/4 or 1/8 where both sides stay at least ``target_px``.

    The orientation that a camera may have noted is ignored, because outlines are drawn on the pixels as stored.

    Raises:
        ValueError: if the file is missing, no image, or cut off.
    """
    try:
        with Image.open(path) as image:
            native_px = image.size
            drafted = image.draft("RGB", (target_px, target_px))
            image.load()
    except OSError as error:
        raise ValueError(f"expected a whole image in {path}, got one that cannot be decoded: {error}") from None
    reduction = round(native_px[0] / drafted[1][2]) if drafted else 1
    return Decoded(np.array(image.convert("RGB")), native_px, reduction)


def resize_crop(pixels: NDArray[np.uint8], crop: Crop, image_size: int, reduction: int = 1) -> NDArray[np.uint8]:
    """Cut a square out of decoded pixels and resize it by area, or bilinearly where it grows; black outside.

    Args:
        pixels: ``(H, W, 3)``.
        crop: the square, in native pixels.
        image_size: side of the result.
        reduction: native pixels per decoded pixel, along one side.

    Returns:
        ``(image_size, image_size, 3)``.
    """
    left, top, side = crop.left / reduction, crop.top / reduction, crop.side / reduction
    x, y = math.floor(left), math.floor(top)
    padded = Image.fromarray(pixels).crop((x, y, math.ceil(left + side), math.ceil(top + side)))
    resample = Image.Resampling.BOX if side >= image_size else Image.Resampling.BILINEAR
    box = (left - x, top - y, left - x + side, top - y + side)
    return np.array(padded.resize((image_size, image_size), resample, box=box))
