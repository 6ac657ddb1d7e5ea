"""Photographs and masks as arrays: the one way from a file, of whatever format, to pixels."""

# flake8: noqa: N806

import os
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from bundle.files import DECODER_ERRORS
from bundle.transforms.dicom import SUFFIXES as DICOM_SUFFIXES
from bundle.transforms.dicom import is_dicom, read_dicom
from bundle.transforms.field import Crop
from bundle.transforms.nifti import SUFFIXES as NIFTI_SUFFIXES
from bundle.transforms.nifti import is_nifti, levels_to_rgb, read_levels
from bundle.transforms.pixels import on_black, scaled_from_bits, upper_bits
from numpy.typing import NDArray
from PIL import ExifTags, Image
from torch.nn import functional as F

BROKEN = (*DECODER_ERRORS, SyntaxError, AssertionError, RuntimeError, Image.DecompressionBombError)
"""Errors that Pillow raises on files that are missing, unreadable, truncated, malformed or absurdly large."""

FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP", "PPM")
"""No other decoder is tried, whatever the file name: Pillow has forty, and one of them runs Ghostscript."""

IMAGE_SUFFIXES = (
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".ppm", ".pgm", ".pbm",
)  # fmt: skip
"""Suffixes of photographs and masks that :func:`decode` opens, in lower case."""

PHOTOGRAPH_SUFFIXES = (*IMAGE_SUFFIXES, *NIFTI_SUFFIXES, *DICOM_SUFFIXES)
"""Suffixes of photographs that :func:`load_photograph` opens; a DICOM file may have none."""

TRANSPARENT_MODES = ("LA", "PA", "RGBA")
MASK_MODES = ("1", "L", "P", "I", "I;16", "I;16B", "RGB", *TRANSPARENT_MODES)
"""Pillow modes that are accepted for masks: 1 to 16 bits, one channel or three, with and without opacity."""

DEEP = ";16"
"""In Pillow's names for rows of 16 bits; of colours and of grey with opacity, Pillow keeps the upper 8 bits."""

PLANES = ("R", "G", "B", "A")
DARKEST_DEEP_MAX = 2**6
"""8-bit level that a picture of 16-bit channels reaches, unless it uses 14 bits or fewer."""

PACKED_ROWS = (("1", 0, 1), ("P;1", 0, 1))
"""Pillow's names for rows of one bit per pixel, grey or palette, the highest bit first, without gaps."""

ORIENTATION, BITS_PER_SAMPLE = ExifTags.Base.Orientation, ExifTags.Base.BitsPerSample
PHOTOMETRIC, WHITE_IS_ZERO = ExifTags.Base.PhotometricInterpretation, 0
TURN = Image.Transpose
TURNED_BACK = {
    2: TURN.FLIP_LEFT_RIGHT, 3: TURN.ROTATE_180, 4: TURN.FLIP_TOP_BOTTOM, 5: TURN.TRANSPOSE, 6: TURN.ROTATE_90,
    7: TURN.TRANSVERSE, 8: TURN.ROTATE_270,
}  # fmt: skip
"""By orientation tag: what turns the pixels of a TIFF back to where they are stored. Pillow turns them, and only those
of TIFFs, as it loads them."""


class Opened(NamedTuple):
    """A decoded image, and the size that its file declares, which is larger for a JPEG decoded at reduced size."""

    image: Image.Image
    native_px: tuple[int, int]  # width, height
    several: bool = False  # whether its file has further pictures: pages of a TIFF, frames of a GIF


def decode(path: str | os.PathLike, what: str = "image", draft: tuple[str, int] | None = None) -> Opened:
    """Decode an image file completely; the camera's orientation tag is ignored: pixels stay where they are stored.

    Args:
        path: path of the file.
        what: its expected content, for the error message.
        draft: mode and side; a JPEG is decoded in this mode at 1/2, 1/4 or 1/8 if both sides stay at least this long.

    Raises:
        ValueError: if the file is missing, unreadable, not a complete image, or declares more than Pillow's limit
            of 178,956,970 pixels; if it has colours of 16 bits each, but uses 14 of them or fewer: Pillow keeps the
            upper 8, so the picture would be dark, and a mask empty.

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
            native_px, several = image.size, _holds_several(image)
            if draft:
                image.draft(draft[0], (draft[1], draft[1]))
            turned_back = TURNED_BACK.get(image.getexif().get(ORIENTATION, 1)) if image.format == "TIFF" else None
            if turned_back is not None:
                image.filename = ""  # else Pillow maps a grey file into memory with rows of the turned picture's width
            _mend_planes(image)
            is_deep = any(DEEP in str(tile) for tile in cast(Any, image).tile)
            image.load()
    except BROKEN as error:
        raise ValueError(f"expected a whole {what} in {path}, got one that cannot be decoded: {error}") from None
    if is_deep:
        _check_depth(image, path)
    if turned_back is None:
        return Opened(image, native_px, several)
    stored = image.transpose(turned_back)
    return Opened(stored, stored.size, several)


def decode_mask(path: str | os.PathLike) -> Opened:
    """Decode a mask of a data set, as :func:`decode` does an image.

    Raises:
        ValueError: as in :func:`decode`; if the file has several pictures, because another may hold the outline.
    """
    opened = decode(path, "mask")
    if opened.several:
        raise ValueError(f"expected a mask of one picture in {path}, got several; save the one with the outline alone")
    return opened


def _holds_several(image: Image.Image) -> bool:
    """Return whether an opened file has further pictures: pages of a TIFF, frames of a GIF."""
    return bool(getattr(image, "is_animated", False))


def _mend_planes(image: Any) -> None:  # noqa: ANN401  (Pillow's types lack tile)
    """Say that the planes of an uncompressed TIFF have 16 bits, where they do: Pillow 13 takes them for 8 bits."""
    if image.format != "TIFF" or image.tag_v2.get(BITS_PER_SAMPLE, (8,))[0] != 16:
        return
    if all(tile.codec_name == "raw" and tile.args[0] in PLANES for tile in image.tile):
        rows = DEEP + ("L" if image.tag_v2.prefix == b"II" else "B")
        image.tile = [tile._replace(args=(tile.args[0] + rows, *tile.args[1:])) for tile in image.tile]


def _check_depth(image: Image.Image, path: str | os.PathLike) -> None:
    """Refuse 16-bit colours of which Pillow has kept too little, and grey that is stored as a negative."""
    if len(image.getbands()) == 1:
        if getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == WHITE_IS_ZERO:
            raise ValueError(f"expected black stored as 0 in {path}, got 16 bits with white as 0; save it as PNG")
        return
    extrema = cast(tuple[tuple[int, int], ...], image.getextrema())
    colours = extrema[:-1] if image.mode in TRANSPARENT_MODES else extrema
    if max(highest for _, highest in colours) < DARKEST_DEEP_MAX:
        raise ValueError(
            f"expected colours that use their 16 bits in {path}, got colours that use 14 or fewer, as of a camera of "
            f"12 bits; scale them to the whole range, or save them with 8 bits each"
        )


def decode_photograph(path: str | os.PathLike, draft: tuple[str, int] | None = None) -> Opened:
    """Decode a photograph of a data set, as :func:`decode` does an image; DICOM becomes RGB at full size.

    Raises:
        ValueError: as in :func:`decode` and :func:`bundle.transforms.dicom.read_dicom`.
    """
    if not is_dicom(path):
        return decode(path, draft=draft)
    image = Image.fromarray(read_dicom(path))
    return Opened(image, image.size)


def is_photograph(path: str | os.PathLike) -> bool:
    """Return whether :func:`load_photograph` reads a file, by its suffix, or by its content if it has none.

    Example:
        >>> is_photograph("eye.JPG"), is_photograph("eye.nii.gz"), is_photograph("eye.txt")
        (True, True, False)
    """
    return str(path).lower().endswith(PHOTOGRAPH_SUFFIXES) or is_dicom(path)


def to_rgb(image: Image.Image) -> NDArray[np.uint8]:
    """Return the pixels of a decoded image as 8-bit RGB, ``(H, W, 3)``.

    16-bit grey keeps the upper 8 of the bits in use (:func:`bundle.transforms.pixels.upper_bits`); Pillow's own
    conversion clips it. Grey, palette and CMYK become RGB.
    Transparent pixels become black, like the area around an eye.

    Raises:
        ValueError: if a channel has more than 16 bits or contains floats.

    Example:
        >>> to_rgb(Image.fromarray(np.full((1, 1), 0x80FF, np.uint16))).tolist()
        [[[128, 128, 128]]]
    """
    if image.mode == "RGB":
        return np.asarray(image)
    if _is_deep_grey(image):
        grey = upper_bits(np.asarray(image))
        return np.repeat(grey[..., None], 3, axis=2)
    if image.has_transparency_data:
        return on_black(np.asarray(image.convert("RGBA")))
    return np.asarray(image.convert("RGB"))


def changes(opened: Opened) -> tuple[str, ...]:
    """Say in words what :func:`to_rgb` gives otherwise than a file has it; nothing, if it is as stored.

    Example:
        >>> changes(Opened(Image.fromarray(np.full((2, 3), 4095, np.uint16)), (3, 2), several=True))
        ('scaled from the 12 bits that they use', 'read by the first of several pictures')
    """
    scaled = _scaled(np.asarray(opened.image)) if _is_deep_grey(opened.image) else ()
    return (*scaled, "read by the first of several pictures") if opened.several else scaled


def _scaled(levels: NDArray) -> tuple[str, ...]:
    bits = scaled_from_bits(levels)
    return (f"scaled from the {bits} bits that they use",) if bits else ()


def _is_deep_grey(image: Image.Image) -> bool:
    return image.mode.startswith("I") or image.mode == "F"


class PackedMask(NamedTuple):
    """Rows of bits ``(height_px, ceil(width_px / 8))``, the first pixel in the highest bit."""

    rows: NDArray[np.uint8]
    width_px: int
    height_px: int


def read_packed(path: str | os.PathLike) -> PackedMask | None:
    """Read the bits of an uncompressed TIFF with one bit per pixel; None for any other file, also for a broken one.

    IDRiD's masks are such files. They have 12 megapixels and are nearly empty. Pillow makes a byte of every pixel, so
    it is used only to find the bits: this makes the preparation of a photograph nearly twice as fast (decision 0023).
    As in :func:`decode`, the orientation tag is ignored; None if it turns a file that is not square on its side.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     Image.fromarray(np.array([[True] + 9 * [False], 10 * [True]])).save(f"{folder}/mask.tif")
        ...     read_packed(f"{folder}/mask.tif").rows.tolist()
        [[128, 0], [255, 192]]
    """
    try:
        with Image.open(path, formats=["TIFF"]) as image:
            if _holds_several(image):  # pages: decode_mask says why it refuses them
                return None
            (width_px, height_px), tiles = image.size, cast(list[Any], image.tile)
        row_bytes = -(-width_px // 8)
        plain = all(
            codec == "raw" and (left, right) == (0, width_px) and layout in PACKED_ROWS
            for codec, (left, _, right, _), _, layout in tiles
        )
        # A small file may list the same bytes thousands of times, as strips that overlap: then the heights add up to
        # more than the height.
        if not plain or sum(bottom - top for _, (_, top, _, bottom), _, _ in tiles) != height_px:
            return None
        strips = [
            np.fromfile(path, np.uint8, (bottom - top) * row_bytes, offset=offset)
            for _, (_, top, _, bottom), offset, _ in tiles
        ]
        return PackedMask(np.concatenate(strips).reshape(height_px, row_bytes), width_px, height_px)
    except BROKEN:
        return None


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


class Decoded(NamedTuple):
    """A decoded photograph; one pixel covers ``reduction`` x ``reduction`` native pixels."""

    pixels: NDArray[np.uint8]  # (H, W, 3) RGB
    native_px: tuple[int, int]  # width, height
    reduction: int
    changes: tuple[str, ...] = ()  # what differs from the file, in words


def load_photograph(source: str | os.PathLike | NDArray[np.uint8], target_px: int | None = None) -> Decoded:
    """Decode a photograph to 8-bit RGB, from an image (:func:`to_rgb`), NIfTI or DICOM.

    NIfTI and DICOM are read as in :func:`bundle.transforms.nifti.read_nifti` and
    :func:`bundle.transforms.dicom.read_dicom`.

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
    if isinstance(source, np.ndarray):
        return Decoded(source, (source.shape[1], source.shape[0]), 1)
    if is_nifti(source):
        levels = read_levels(source)  # (W, H, C)
        return Decoded(levels_to_rgb(levels), (levels.shape[0], levels.shape[1]), 1, _scaled(levels))
    opened = decode_photograph(source, draft=("RGB", target_px) if target_px else None)
    image, native_px, _ = opened
    try:
        return Decoded(to_rgb(image), native_px, round(native_px[0] / image.width), changes(opened))
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
