"""Photographs stored as NIfTI: their pixels and their position in space."""

# flake8: noqa: N803, N806

import gzip
import io
import math
import os
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from bundle.files import DECODER_ERRORS, written_whole
from bundle.manifest import PIXELS_MAX
from bundle.transforms.pixels import on_black, upper_bits
from nibabel.filebasedimages import ImageFileError
from nibabel.openers import ImageOpener
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError
from numpy.typing import NDArray

SUFFIXES = (".nii", ".nii.gz")

BROKEN = (*DECODER_ERRORS, ImageFileError, HeaderDataError, WrapStructError)
"""Errors that nibabel raises on missing, truncated or malformed files."""

START_MAX_BYTES, NIFTI2_BYTES = 2**20, 540
"""Largest size of header and extensions, and size of the longer of the two headers."""

PICTURE_AFFINE = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Affine of a picture that is not NIfTI: x to the left and y to the back in RAS, as ITK places a PNG."""


def is_nifti(path: str | os.PathLike) -> bool:
    """Return whether a file name has a NIfTI suffix.

    Example:
        >>> is_nifti("eye.NII.gz"), is_nifti("eye.png")
        (True, False)
    """
    return str(path).lower().endswith(SUFFIXES)


def read_nifti(path: str | os.PathLike) -> NDArray[np.uint8]:
    """Read a photograph whose first axis runs to the right and whose second axis runs down.

    It may have an RGB data type, ``(W, H)`` or ``(W, H, 1)``, or channels last, ``(W, H, 3)`` or ``(W, H, 1, 3)``, or
    be grey. 16-bit values keep the upper 8 of the bits in use (:func:`bundle.transforms.pixels.upper_bits`); other
    types must hold whole numbers from 0 to 255.

    Returns:
        ``(H, W, 3)`` RGB.

    Raises:
        ValueError: if the file is missing, truncated, not NIfTI, a volume, too large, or holds other values.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_label_nifti(f"{folder}/eye.nii.gz", np.array([[1, 2, 3], [4, 5, 6]], np.uint8), PICTURE_AFFINE)
        ...     read_nifti(f"{folder}/eye.nii.gz")[..., 0].tolist()
        [[1, 2, 3], [4, 5, 6]]
    """
    return levels_to_rgb(read_levels(path))


def read_levels(path: str | os.PathLike) -> NDArray[np.uint8 | np.uint16]:
    """Read the values of a photograph as :func:`read_nifti` does, ``(W, H, C)`` with 1, 3 or 4 channels, unscaled.

    Raises:
        ValueError: as :func:`read_nifti`.
    """
    image = _open(path)
    try:
        return _channels(_flat_shape(image.shape), image)
    except BROKEN as error:
        raise ValueError(f"expected a photograph in {path}, got a NIfTI that is none: {error}") from None


def levels_to_rgb(levels_WHC: NDArray[np.uint8 | np.uint16]) -> NDArray[np.uint8]:
    """Turn the values of :func:`read_levels` into RGB ``(H, W, 3)``.

    Example:
        >>> levels_to_rgb(np.array([[[7]], [[9]]], np.uint8)).tolist()
        [[[7, 7, 7], [9, 9, 9]]]
    """
    bytes_WHC = upper_bits(levels_WHC) if levels_WHC.dtype == np.uint16 else levels_WHC.astype(np.uint8, copy=False)
    rgb = on_black(bytes_WHC) if bytes_WHC.shape[-1] == 4 else bytes_WHC
    return np.ascontiguousarray(np.broadcast_to(rgb, (*rgb.shape[:2], 3)).swapaxes(0, 1))


def affine_of(path: str | os.PathLike) -> NDArray[np.float64]:
    """Return the affine of a NIfTI, or ``PICTURE_AFFINE`` for another picture.

    Example:
        >>> affine_of("eye.png").diagonal().tolist()
        [-1.0, -1.0, 1.0, 1.0]
    """
    return _open(path).affine if is_nifti(path) else PICTURE_AFFINE


def write_label_nifti(path: str | os.PathLike, labels: NDArray[np.uint8], affine: NDArray[np.float64]) -> None:
    """Write a label map ``(H, W)`` as ``(W, H, 1)``, uint8, gzipped.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     write_label_nifti(f"{folder}/lesions.nii.gz", np.ones((2, 3), np.uint8), PICTURE_AFFINE)
        ...     nibabel.load(f"{folder}/lesions.nii.gz").shape
        (3, 2, 1)
    """
    image = nibabel.Nifti1Image(np.ascontiguousarray(labels.T[..., None]), affine)
    with written_whole(path) as beside:
        beside.write_bytes(gzip.compress(image.to_bytes(), compresslevel=1, mtime=0))


def _open(path: str | os.PathLike) -> Any:  # noqa: ANN401  (nibabel has no types)
    try:
        _check_remarks(path)
        return nibabel.load(Path(path))
    except BROKEN as error:
        raise ValueError(f"expected a whole NIfTI in {path}, got one that cannot be read: {error}") from None


def _check_remarks(path: str | os.PathLike) -> None:
    """Raise HeaderDataError if the part before the pixels is too long: nibabel would read even packed gigabytes."""
    with ImageOpener(str(path)) as file:
        start = file.read(START_MAX_BYTES)
    kind = (
        nibabel.Nifti2Header if nibabel.Nifti2Header.may_contain_header(start[:NIFTI2_BYTES]) else nibabel.Nifti1Header
    )
    kind.from_fileobj(io.BytesIO(start))


def _flat_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return width, height and, if there is such an axis, channels."""
    flat = (*shape[:2], *(length for length in shape[2:] if length != 1))
    if len(shape) < 2 or len(flat) > 3 or (len(flat) == 3 and flat[2] not in (3, 4)):
        raise ValueError(f"a volume of {' x '.join(map(str, shape))}; give one photograph of (W, H) or (W, H, 3)")
    if math.prod(flat[:2]) > PIXELS_MAX:
        raise ValueError(f"{flat[0]} x {flat[1]} pixels, above the limit of {PIXELS_MAX:,}")
    return flat


def _channels(shape: tuple[int, ...], image: Any) -> NDArray[np.uint8 | np.uint16]:  # noqa: ANN401
    """Return the pixels ``(W, H, C)`` with 1, 3 or 4 channels."""
    values = np.asanyarray(image.dataobj).reshape(shape)
    if values.dtype.names:
        values = np.stack([values[name] for name in values.dtype.names], axis=-1)
    return _checked(values if values.ndim == 3 else values[..., None])


def _checked(values: NDArray) -> NDArray[np.uint8 | np.uint16]:
    if values.dtype == np.uint16:
        return values.astype(np.uint16)  # in the byte order of this machine
    if values.dtype.kind not in "uif" or not (values.min() >= 0 and values.max() <= 255 and (values % 1 == 0).all()):
        raise ValueError(f"{values.dtype} from {values.min()} to {values.max()}, not whole numbers from 0 to 255")
    return values.astype(np.uint8)
