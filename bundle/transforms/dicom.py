"""Photographs stored as DICOM: their pixels, and which eye of which patient they show."""

# flake8: noqa: N806

import io
import os
import struct
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
from bundle.files import DECODER_ERRORS
from bundle.manifest import PIXELS_MAX
from bundle.optional import INSTALL, import_optional
from bundle.transforms.pixels import on_black
from numpy.typing import NDArray
from PIL import Image

SUFFIXES = (".dcm", ".dicom")
"""Suffixes of DICOM files; a file without a suffix, or named after a UID, is known by its magic."""

MAGIC, MAGIC_AT = b"DICM", 128
DISC_INDEX = "DICOMDIR"
"""Name of the file that lists what is on a disc; it holds no picture."""

BROKEN = (*DECODER_ERRORS, SyntaxError, AssertionError, RuntimeError, Image.DecompressionBombError)
"""Errors that pydicom and its decoders raise on truncated or malformed files, besides pydicom's own."""

IDENTITY_TAGS = ("PatientID", "ImageLaterality", "Laterality")
NEEDED = (
    "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit",
    "PixelRepresentation",
)  # fmt: skip
PIXEL_TAGS = (
    *NEEDED, "SOPClassUID", "NumberOfFrames", "PlanarConfiguration", "PixelData", "ExtendedOffsetTable",
    "ExtendedOffsetTableLengths",
    *(f"{colour}PaletteColorLookupTableDescriptor" for colour in ("Red", "Green", "Blue")),
    *(f"{colour}PaletteColorLookupTableData" for colour in ("Red", "Green", "Blue")),
)  # fmt: skip
"""All that is read of a photograph: never a name, so that no message can repeat one."""

GREY, PALETTE = ("MONOCHROME1", "MONOCHROME2"), "PALETTE COLOR"
COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")
SAMPLES = dict.fromkeys((*GREY, PALETTE), 1) | dict.fromkeys(COLOURS, 3)
"""Number of channels by photometric interpretation, for those that are read."""

JPEG_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
"""Markers that begin a frame, of JPEG and of JPEG-LS; among them are those of tables, which do not."""

JPEG2000_START = b"\xff\x4f\xff\x51"
TILES_MAX = 1024

EYES = {"L": "left", "R": "right"}


class Identity(NamedTuple):
    """Patient and eye (``left`` or ``right``) as a file states them; None where it does not."""

    patient_id: str | None
    laterality: str | None


def is_dicom(path: str | os.PathLike) -> bool:
    """Return whether a file is DICOM by its suffix, or by its magic if the name has none or is a UID.

    The index of a disc, ``DICOMDIR``, does not count.

    Example:
        >>> is_dicom("eye.DCM"), is_dicom("eye.png"), is_dicom("1.2.840.10008.5")  # the last does not exist
        (True, False, False)
    """
    path = Path(path)
    if path.suffix.lower() in SUFFIXES:
        return True
    return not has_suffix(path) and path.name.upper() != DISC_INDEX and path.is_file() and _has_magic(path)


def has_suffix(path: str | os.PathLike) -> bool:
    """Return whether a name has a suffix; the last number of a UID is none.

    Example:
        >>> has_suffix("eye.png"), has_suffix("IM0001"), has_suffix("1.2.840.10008.5")
        (True, False, False)
    """
    suffix = Path(path).suffix
    return bool(suffix) and not suffix[1:].isdecimal()


def _has_magic(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(MAGIC_AT + len(MAGIC))[MAGIC_AT:] == MAGIC
    except OSError:
        return False


def read_dicom(path: str | os.PathLike) -> NDArray[np.uint8]:
    """Read a photograph of one frame, in colour, in grey or with a palette.

    Of more than 8 stored bits, the upper 8 are kept. ``MONOCHROME1`` is inverted, so that bright is always high.
    Display windows are not applied.

    Returns:
        ``(H, W, 3)`` RGB.

    Raises:
        ValueError: if pydicom or a decoder is not installed, or the file is missing, truncated, not DICOM, deflated,
            too large, or holds something else: no pixels, several frames, or signed values.

    Example:
        >>> import pydicom.data
        >>> read_dicom(pydicom.data.get_testdata_file("examples_palette.dcm")).shape
        (350, 800, 3)
    """
    dataset = _read(path, specific_tags=list(PIXEL_TAGS))
    try:
        _check(dataset)
        return _rgb(_levels(dataset), dataset)
    except BROKEN as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"expected a photograph in {path}, got a DICOM file that is none: {reason}") from None


def read_identity(path: str | os.PathLike) -> Identity:
    """Read patient id and eye, and nothing else that a DICOM file says of a patient.

    The eye is ``ImageLaterality``, or else ``Laterality``; both eyes or an unpaired part count as not stated.

    Raises:
        ValueError: if pydicom is not installed, or the file is missing, truncated or not DICOM.

    Example:
        >>> import pydicom.data
        >>> read_identity(pydicom.data.get_testdata_file("examples_palette.dcm"))
        Identity(patient_id='11-05-25-142825', laterality=None)
    """
    dataset = _read(path, specific_tags=list(IDENTITY_TAGS), stop_before_pixels=True)
    patient_id = str(dataset.get("PatientID") or "").strip()
    laterality = str(dataset.get("ImageLaterality") or dataset.get("Laterality") or "").strip()
    return Identity(patient_id or None, EYES.get(laterality.upper()))


def read_header(path: str | os.PathLike) -> Any:  # noqa: ANN401  (pydicom is optional)
    """Read a DICOM file without its pixels, for what is made from it: patient and study are in it.

    Raises:
        ValueError: as in :func:`read_identity`.
    """
    return _read(path, stop_before_pixels=True)


def _pydicom() -> ModuleType:
    return import_optional("pydicom", "DICOM photographs")


def _read(path: str | os.PathLike, **options: Any) -> Any:  # noqa: ANN401  (of pydicom.dcmread)
    pydicom = _pydicom()
    try:
        with _BoundedFile(path) as file:
            reason = _why_unreadable(file, path, pydicom)
            dataset = None if reason else pydicom.dcmread(file, **options)
        list(dataset or [])  # pydicom converts an element when it is asked for: here, so that all its errors come now
    except (*BROKEN, pydicom.errors.InvalidDicomError, pydicom.errors.BytesLengthException) as error:
        # The words of other errors quote the header.
        broken = f"it is cut off, or its header is broken ({type(error).__name__})"
        reason = error.strerror if isinstance(error, OSError) else broken
    if reason:
        raise ValueError(f"expected a whole DICOM file in {path}, got one that cannot be read: {reason}")
    return dataset


def _why_unreadable(file: io.BufferedReader, path: str | os.PathLike, pydicom: ModuleType) -> str | None:
    """Return why a file is not opened, or None, at its begin."""
    if file.read(MAGIC_AT + len(MAGIC))[MAGIC_AT:] != MAGIC:
        return "DICM does not follow its first 128 bytes; save it as a DICOM file with its header"
    syntax = pydicom.filereader.read_file_meta_info(path).get("TransferSyntaxUID")
    if syntax == pydicom.uid.DeflatedExplicitVRLittleEndian:
        return "it is deflated, and may unpack to any size; save it in another transfer syntax"
    file.seek(0)
    return None


class _BoundedFile(io.BufferedReader):
    """File that allocates no more than it holds, whatever length its elements declare."""

    def __init__(self, path: str | os.PathLike) -> None:
        super().__init__(io.FileIO(path))
        self.size_bytes = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        left = max(self.size_bytes - self.tell(), 0)
        return super().read(left if size is None or size < 0 else min(size, left))


def _check(dataset: Any) -> None:  # noqa: ANN401
    """Refuse what is no single photograph, before anything is decoded."""
    if "PixelData" not in dataset:
        kind = dataset.get("SOPClassUID")  # of a file that is cut off in its pixels, pydicom returns nothing
        raise ValueError(f"no pixels ({kind.name})" if kind else "no pixels; it may be cut off")
    missing = [name for name in NEEDED if name not in dataset]
    if missing:
        raise ValueError(f"no {', '.join(missing)} in its header")
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames > 1:
        raise ValueError(f"{frames} frames; save the frame to look at as a file of its own, DICOM or PNG")
    if not 0 < dataset.Rows * dataset.Columns <= PIXELS_MAX:
        raise ValueError(f"{dataset.Columns} x {dataset.Rows} pixels; the limit is {PIXELS_MAX:,}")
    photometric = dataset.PhotometricInterpretation
    if SAMPLES.get(photometric) != dataset.SamplesPerPixel:
        raise ValueError(f"{dataset.SamplesPerPixel} channels of {photometric}; save it as RGB or MONOCHROME2")
    bits = dataset.BitsStored
    held = dataset.BitsAllocated in (8, 16) and 8 <= bits <= dataset.HighBit + 1 <= dataset.BitsAllocated
    if not held or dataset.PixelRepresentation:
        signed = "signed " * bool(dataset.PixelRepresentation)
        raise ValueError(f"{signed}values of {bits} bits; save it with unsigned values of 8 to 16 bits")


def _levels(dataset: Any) -> NDArray[Any]:  # noqa: ANN401
    """Decode the frame to the stored levels, ``(H, W)``, or to RGB, ``(H, W, 3)``."""
    pydicom = _pydicom()
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax.is_encapsulated:
        frame = pydicom.encaps.get_frame(dataset.PixelData, 0, number_of_frames=1)
        if syntax == pydicom.uid.JPEGBaseline8Bit:
            return _jpeg_levels(frame, dataset)
        _check_size(frame, dataset)
    decoder = pydicom.pixels.get_decoder(syntax)
    if not decoder.is_available:
        raise ValueError(f"no decoder of {syntax.name} is installed; say {INSTALL['pydicom']}")
    return decoder.as_array(dataset, index=0, correct_unused_bits=False)[0]


def _jpeg_levels(frame: bytes, dataset: Any) -> NDArray[np.uint8]:  # noqa: ANN401
    """Decode a common JPEG as if it were a file of its own: its markers, not the header, say how colours are stored."""
    with Image.open(io.BytesIO(frame), formats=["JPEG"]) as image:
        _check_same(image.size, len(image.getbands()), dataset)
        unmarked = not {"jfif", "adobe_transform"} & image.info.keys()
        if unmarked and dataset.PhotometricInterpretation == "RGB":
            image.draft("YCbCr", image.size)  # libjpeg takes unmarked colours for YCbCr; this leaves them as stored
            return np.asarray(image)
        return np.asarray(image if image.mode == "L" else image.convert("RGB"))


def _check_size(frame: bytes, dataset: Any) -> None:  # noqa: ANN401
    """Refuse a frame of another size before it is decoded: a hundred bytes may declare gigabytes."""
    uid = _pydicom().uid
    syntax = dataset.file_meta.TransferSyntaxUID
    if syntax in uid.JPEG2000TransferSyntaxes:
        _check_same(*_jpeg2000_size(frame), dataset)
    elif syntax in (*uid.JPEGTransferSyntaxes, *uid.JPEGLSTransferSyntaxes):
        _check_same(*_jpeg_size(frame), dataset)


def _jpeg_size(frame: bytes) -> tuple[tuple[int, int], int]:
    """Return width and height, and the number of channels, of any JPEG or JPEG-LS."""
    at = 2
    while frame[at + 1] not in JPEG_FRAMES:
        at += 2 + int.from_bytes(frame[at + 2 : at + 4], "big")
    height_px, width_px, channels = struct.unpack_from(">HHB", frame, at + 5)
    return (width_px, height_px), channels


def _jpeg2000_size(frame: bytes) -> tuple[tuple[int, int], int]:
    """Return the same of a JPEG 2000; refuse more tiles than a camera makes, because each takes memory."""
    start = frame.index(JPEG2000_START)
    right, lower, left, upper, tile_width, tile_height, _, _, channels = struct.unpack_from(">8IH", frame, start + 8)
    width_px, height_px = right - left, lower - upper
    if width_px * height_px > TILES_MAX * tile_width * tile_height:
        raise ValueError(f"tiles of {tile_width} x {tile_height} pixels in a JPEG 2000; save it with larger ones")
    return (width_px, height_px), channels


def _check_same(size_px: tuple[int, int], samples: int, dataset: Any) -> None:  # noqa: ANN401
    found, expected = (*size_px, samples), (dataset.Columns, dataset.Rows, dataset.SamplesPerPixel)
    if found != expected:
        raise ValueError(f"a frame of {' x '.join(map(str, found))} where {' x '.join(map(str, expected))} is declared")


def _rgb(levels: NDArray[Any], dataset: Any) -> NDArray[np.uint8]:  # noqa: ANN401
    if dataset.PhotometricInterpretation == PALETTE:
        return _through_palette(levels, dataset)
    values = _upper_eight(levels, highest_bit=dataset.HighBit)
    if values.ndim == 3:
        return np.ascontiguousarray(values)
    if dataset.PhotometricInterpretation == "MONOCHROME1":  # whose 0 is white
        values = ~values
    return np.repeat(values[..., None], 3, axis=2)


def _through_palette(levels: NDArray[Any], dataset: Any) -> NDArray[np.uint8]:  # noqa: ANN401
    _, _, bits = dataset.RedPaletteColorLookupTableDescriptor
    colours = _pydicom().pixels.apply_color_lut(levels, dataset)
    eight = _upper_eight(colours, highest_bit=bits - 1)
    return on_black(eight) if eight.shape[2] == 4 else eight


def _upper_eight(levels: NDArray[Any], highest_bit: int) -> NDArray[np.uint8]:
    """Keep the eight bits from the highest stored one down; what lies above it is no part of the picture."""
    return (levels >> (highest_bit - 7)).astype(np.uint8)
