"""A reader of 1-bit TIFF files that keeps the bits packed: IDRiD's masks have 12 megapixels and are nearly empty."""

import os
import zlib
from typing import NamedTuple

import numpy as np
import tifffile
from bundle.files import DECODER_ERRORS
from bundle.manifest import PIXELS_MAX
from numpy.typing import NDArray

STORED = {tifffile.COMPRESSION.NONE, tifffile.COMPRESSION.ADOBE_DEFLATE, tifffile.COMPRESSION.DEFLATE}
INDEXED = {tifffile.PHOTOMETRIC.PALETTE, tifffile.PHOTOMETRIC.MINISBLACK}
BROKEN = (*DECODER_ERRORS, AssertionError, RuntimeError, tifffile.TiffFileError)
"""Errors that tifffile raises on truncated or malformed files; it does not promise a single type."""


class Bilevel(NamedTuple):
    """Packed rows ``(height_px, ceil(width_px / 8))``, the first pixel in the highest bit."""

    rows: NDArray[np.uint8]
    width_px: int
    height_px: int


def read_bilevel(path: str | os.PathLike) -> Bilevel | None:
    """Read the packed bits of a TIFF file; None if it is of another kind or broken: the caller then tries Pillow.

    Example:
        >>> import tempfile
        >>> from PIL import Image
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     mask = np.array([[True] + 9 * [False], 10 * [True]])
        ...     Image.fromarray(mask).save(f"{folder}/mask.tif")
        ...     found = read_bilevel(f"{folder}/mask.tif")
        >>> found.rows.tolist(), found.width_px, found.height_px
        ([[128, 0], [255, 192]], 10, 2)
    """
    try:
        with tifffile.TiffFile(path) as file:
            page = file.pages.first
            height_px, width_px = page.shape[:2]
            if not _is_plain(page) or not 0 < height_px * width_px <= PIXELS_MAX:
                return None
            rows = _strips(file, page, height_px * (-(-width_px // 8)))
    except BROKEN:
        return None
    return None if rows is None else Bilevel(rows.reshape(height_px, -1), width_px, height_px)


def _is_plain(page: tifffile.TiffPage) -> bool:
    one_bit = (page.bitspersample, page.samplesperpixel, page.fillorder) == (1, 1, 1)
    return one_bit and page.compression in STORED and page.photometric in INDEXED and not page.is_tiled


def _strips(file: tifffile.TiffFile, page: tifffile.TiffPage, expected_bytes: int) -> NDArray[np.uint8] | None:
    """Join the strips; None unless they hold exactly the bytes that the header declares."""
    # A small file may list the same bytes thousands of times, each time as a strip that unpacks to gigabytes.
    if min(page.databytecounts) < 0 or sum(page.databytecounts) > file.filehandle.size:
        return None
    joined = bytearray()
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=True):
        file.filehandle.seek(offset)
        stored = file.filehandle.read(count)
        room_bytes = expected_bytes + 1 - len(joined)
        plain = page.compression == tifffile.COMPRESSION.NONE
        joined += stored[:room_bytes] if plain else zlib.decompressobj().decompress(stored, room_bytes)
        if len(joined) > expected_bytes:
            return None
    return np.frombuffer(joined, np.uint8) if len(joined) == expected_bytes else None
