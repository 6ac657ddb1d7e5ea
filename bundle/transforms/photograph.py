"""Reading of a photograph at no more than the size that is needed, and cropping to a square."""

# flake8: noqa: N806

import os
from typing import NamedTuple

import numpy as np
import torch
from bundle.images import decode, to_rgb
from bundle.transforms.geometry import Crop
from bundle.transforms.nifti import is_nifti, read_nifti
from numpy.typing import NDArray
from torch.nn import functional as F


class Decoded(NamedTuple):
    """A decoded photograph; one pixel covers ``reduction`` x ``reduction`` native pixels."""

    pixels: NDArray[np.uint8]  # (H, W, 3) RGB
    native_px: tuple[int, int]  # width, height
    reduction: int


def load_photograph(source: str | os.PathLike | NDArray[np.uint8], target_px: int | None = None) -> Decoded:
    """Decode a photograph to 8-bit RGB, from an image (:func:`bundle.images.to_rgb`) or NIfTI (:func:`read_nifti`).

    The camera's orientation tag is ignored, because outlines are drawn on the pixels as stored.

    Args:
        source: path of the file, or decoded pixels ``(H, W, 3)``, which are not changed.
        target_px: decode a JPEG at 1/2, 1/4 or 1/8 if both sides stay at least this long; None decodes it at full size.

    Raises:
        ValueError: if the file is missing, not an image, truncated, or has more than 16 bits per channel.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGB", (96, 64), "brown").save(f"{folder}/eye.jpg")
        ...     found = load_photograph(f"{folder}/eye.jpg", target_px=32)
        >>> found.pixels.shape, found.native_px, found.reduction
        ((32, 48, 3), (96, 64), 2)
    """
    if isinstance(source, np.ndarray) or is_nifti(source):
        pixels = source if isinstance(source, np.ndarray) else read_nifti(source)
        return Decoded(pixels, (pixels.shape[1], pixels.shape[0]), 1)
    image, native_px = decode(source, draft=("RGB", target_px) if target_px else None)
    try:
        return Decoded(to_rgb(image), native_px, round(native_px[0] / image.width))
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from None


def resize_crop(pixels: NDArray[np.uint8], crop: Crop, image_size: int, reduction: int = 1) -> NDArray[np.uint8]:
    """Cut a square out of decoded pixels and resize it with a triangle filter two of its pixels wide; black outside.

    Args:
        pixels: ``(H, W, 3)``.
        crop: the square, in native pixels, in multiples of ``reduction``, as :meth:`Crop.about` returns it.
        image_size: side of the result.
        reduction: native pixels per decoded pixel, along one side.

    Returns:
        ``(image_size, image_size, 3)``.

    Raises:
        ValueError: if the crop does not lie on whole decoded pixels.

    Example:
        >>> pixels = np.full((2, 4, 3), 200, np.uint8)
        >>> crop = Crop(left=0, top=-1, side=4, width=4, height=2)  # a row above the photograph, and one below
        >>> resize_crop(pixels, crop, image_size=4)[..., 0]
        array([[  0,   0,   0,   0],
               [200, 200, 200, 200],
               [200, 200, 200, 200],
               [  0,   0,   0,   0]], dtype=uint8)
    """
    if any(number % reduction for number in crop[:3]):
        raise ValueError(f"expected a crop on multiples of {reduction} px, as it was decoded, got {crop}")
    left, top, side = crop.left // reduction, crop.top // reduction, crop.side // reduction
    height, width = pixels.shape[:2]
    square = np.zeros((side, side, 3), np.uint8)
    square[max(-top, 0) : height - top, max(-left, 0) : width - left] = pixels[
        max(top, 0) : max(top + side, 0), max(left, 0) : max(left + side, 0)
    ]
    # Torch's interpolation keeps uint8 and is faster than Pillow's filters of the same shape.
    batch_1CHW = torch.from_numpy(square).permute(2, 0, 1)[None]
    resized = F.interpolate(batch_1CHW, (image_size, image_size), mode="bilinear", antialias=True, align_corners=False)
    return resized[0].permute(1, 2, 0).numpy()
