"""Decode image files that nobody vouches for: what is wrong with one is said in a sentence that names it."""

import os
import struct
from typing import NamedTuple

from PIL import Image

BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError)
"""What Pillow's readers raise on files that are missing, unreadable, cut off, malformed or absurdly large."""


class Decoded(NamedTuple):
    """A decoded image, and the size that its file declares: a JPEG may have been decoded smaller."""

    image: Image.Image
    native_px: tuple[int, int]  # width, height


def decode(path: str | os.PathLike, what: str = "image", draft: tuple[str, int] | None = None) -> Decoded:
    """Read every byte of an image file.

    Args:
        path: of the file.
        what: it is expected to hold, for the message.
        draft: mode and side; a JPEG is decoded in this mode at 1/2, 1/4 or 1/8 where both sides stay at least as long.

    Raises:
        ValueError: if the file is missing, cannot be read, is no whole image, or declares more than Pillow's limit
            of 178,956,970 pixels.
    """
    try:
        with Image.open(path) as image:
            native_px = image.size
            if draft:
                image.draft(draft[0], (draft[1], draft[1]))
            image.load()
    except BROKEN as error:
        raise ValueError(f"expected a whole {what} in {path}, got one that cannot be decoded: {error}") from None
    return Decoded(image, native_px)
