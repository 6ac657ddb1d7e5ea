"""Decoding of untrusted image files: errors name the file and the fault in one sentence."""

import os
from functools import reduce
from typing import NamedTuple

import numpy as np
from bundle.files import DECODER_ERRORS
from numpy.typing import NDArray
from PIL import Image

BROKEN = (*DECODER_ERRORS, SyntaxError, AssertionError, RuntimeError, Image.DecompressionBombError)
"""Errors that Pillow raises on files that are missing, unreadable, truncated, malformed or absurdly large."""

FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "GIF")
"""No other decoder is tried, whatever the file name: Pillow has forty, and one of them runs Ghostscript."""

TRANSPARENT_MODES = ("LA", "PA", "RGBA")
MASK_MODES = ("1", "L", "P", "I", "I;16", "I;16B", "RGB", *TRANSPARENT_MODES)
"""Pillow modes that are accepted for masks: 1 to 16 bits, one channel or three, with and without opacity."""


class Decoded(NamedTuple):
    """A decoded image, and the size that its file declares, which is larger for a JPEG decoded at reduced size."""

    image: Image.Image
    native_px: tuple[int, int]  # width, height


def decode(path: str | os.PathLike, what: str = "image", draft: tuple[str, int] | None = None) -> Decoded:
    """Decode an image file completely.

    Args:
        path: path of the file.
        what: its expected content, for the error message.
        draft: mode and side; a JPEG is decoded in this mode at 1/2, 1/4 or 1/8 if both sides stay at least this long.

    Raises:
        ValueError: if the file is missing, unreadable, not a complete image, or declares more than Pillow's limit
            of 178,956,970 pixels.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.new("RGB", (96, 64)).save(f"{folder}/eye.jpg")
        ...     found = decode(f"{folder}/eye.jpg", draft=("RGB", 16))
        >>> found.native_px, found.image.size  # at 1/4: at 1/8 one side would be shorter than 16
        ((96, 64), (24, 16))
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            native_px = image.size
            if draft:
                image.draft(draft[0], (draft[1], draft[1]))
            image.load()
    except BROKEN as error:
        raise ValueError(f"expected a whole {what} in {path}, got one that cannot be decoded: {error}") from None
    return Decoded(image, native_px)


def to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Return the pixels of a decoded image as 8-bit RGB, ``(H, W, 3)``.

    16-bit values keep their upper 8 bits; Pillow's own conversion clips them. Grey, palette and CMYK become RGB.
    Transparent pixels become black, like the area around an eye. The camera's orientation tag is ignored: pixels stay
    where they are stored.

    Raises:
        ValueError: if a channel has more than 16 bits or contains floats.

    Example:
        >>> to_rgb(Image.fromarray(np.full((1, 1), 0x80FF, np.uint16))).tolist()
        [[[128, 128, 128]]]
    """
    if image.mode == "RGB":
        return np.asarray(image)
    if image.mode.startswith("I") or image.mode == "F":
        grey = upper_bits(np.asarray(image))
        return np.repeat(grey[..., None], 3, axis=2)
    if image.has_transparency_data:
        return on_black(np.asarray(image.convert("RGBA")))
    return np.asarray(image.convert("RGB"))


def mask_levels(image: Image.Image, path: str | os.PathLike) -> NDArray:
    """Return the values in a decoded mask: grey levels, palette indices or colours; one bit becomes 0 and 1.

    Opacity does not mark lesions. If it is the same everywhere, it is ignored; if it varies, wholly transparent pixels
    are background, 0 in every channel.

    Args:
        image: the mask.
        path: path of its file, for the error message.

    Returns:
        ``(H, W, C)``; C is 1 or 3.

    Raises:
        ValueError: if it stores something else, such as floats, or if only its opacity varies.

    Example:
        >>> rgba = np.array([[[0, 0, 0, 255], [255, 0, 0, 255]]], np.uint8)  # opaque everywhere
        >>> mask_levels(Image.fromarray(rgba), "81_EX.tif").tolist()
        [[[0, 0, 0], [255, 0, 0]]]
    """
    if image.mode not in MASK_MODES:
        raise ValueError(
            f"expected a mask of grey levels, indices or colours, got Pillow's mode {image.mode} in {path}; save it as "
            f"PNG with one channel"
        )
    stored = np.asarray(image, np.uint8 if image.mode == "1" else None)
    levels = stored.reshape(*stored.shape[:2], -1)
    if image.mode not in TRANSPARENT_MODES:
        return levels
    levels, opacity = levels[..., :-1], levels[..., -1:]
    if (opacity == opacity[:1, :1]).all():
        return levels
    if not levels.any():
        raise ValueError(
            f"expected lesions in another colour than black, got a mask of which only the opacity varies in {path}; "
            f"save it with one channel, the lesion white on black"
        )
    return np.where(opacity > 0, levels, 0)


def brightest(levels: NDArray) -> NDArray:
    """Reduce ``(H, W, C)`` to the largest of the channels, ``(H, W)``.

    Example:
        >>> brightest(np.array([[[0, 0, 0], [9, 200, 0]]], np.uint8)).tolist()
        [[0, 200]]
    """
    # Channel by channel: several times faster than a maximum along a short last axis.
    return reduce(np.maximum, np.moveaxis(levels, -1, 0))


def upper_bits(grey: NDArray) -> NDArray[np.uint8]:
    """Scale 16-bit whole numbers to 8 bits.

    Raises:
        ValueError: if they are not whole numbers from 0 to 65535.

    Example:
        >>> upper_bits(np.array([255, 256, 65535], np.uint16)).tolist()
        [0, 1, 255]
    """
    if grey.dtype.kind not in "ui" or (grey.size and not (grey.min() >= 0 and grey.max() <= np.iinfo(np.uint16).max)):
        raise ValueError(f"expected channels of 8 or 16 bits, got {grey.dtype} from {grey.min()} to {grey.max()}")
    return (grey >> 8).astype(np.uint8)


def on_black(rgba: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Composite RGBA ``(..., 4)`` on black and return RGB ``(..., 3)``.

    Example:
        >>> on_black(np.array([[200, 100, 0, 128]], np.uint8)).tolist()  # half transparent
        [[100, 50, 0]]
    """
    if (rgba[..., 3] == 255).all():
        return np.ascontiguousarray(rgba[..., :3])
    weighted = rgba[..., :3].astype(np.uint16) * rgba[..., 3:]
    return ((weighted + 127) // 255).astype(np.uint8)
