"""A broken photograph or mask is refused in one sentence that names it, by every way that leads to a decoder."""

import io

import numpy as np
import pytest
import tifffile
from bundle.transforms import PrepareFundusd, load_mask, load_runs, runs_of
from bundle.transforms.decode import decode, read_packed
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin

from tests.conftest import HEIGHT_PX, WIDTH_PX, disc, eye, spot
from tests.fuzz.broken import broken_bytes, given_files, judged, written

PREPARE = PrepareFundusd(32)


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def one_bit_tiff(**options):
    return saved(MASK, "TIFF", tiffinfo={TiffImagePlugin.ROWSPERSTRIP: 8}, **options)


def planes_of_16_bits():
    buffer = io.BytesIO()
    planes = np.moveaxis(eye(3).astype(np.uint16) * 257, -1, 0)
    tifffile.imwrite(buffer, planes, photometric="rgb", planarconfig="separate")
    return buffer.getvalue()


COLOUR, GREY = Image.fromarray(eye(3)), Image.fromarray(eye(3)[..., 0])
MASK = Image.fromarray(spot(20, 15, 9))
INDEXED = MASK.convert("P")
PHOTOGRAPHS = [
    saved(COLOUR, "JPEG", quality=90, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\0"),
    saved(COLOUR, "JPEG", progressive=True),
    saved(COLOUR.convert("CMYK"), "JPEG"),
    saved(COLOUR, "PNG"),
    saved(COLOUR.quantize(16), "PNG", transparency=3),
    saved(COLOUR, "TIFF", compression="tiff_lzw"),
    saved(COLOUR, "TIFF", compression="jpeg"),
    saved(COLOUR, "WEBP", lossless=True),
    saved(COLOUR, "WEBP", quality=80),
    saved(COLOUR, "PPM"),
    saved(COLOUR, "BMP"),
    planes_of_16_bits(),
    saved(Image.fromarray(np.asarray(GREY).astype(np.uint16) * 257), "PNG"),
    saved(Image.frombytes("I;16B", GREY.size, (np.asarray(GREY).astype(">u2") * 257).tobytes()), "TIFF"),  # big-endian
]
MASKS = [
    saved(MASK, "PNG"),
    saved(INDEXED, "PNG"),
    saved(INDEXED, "GIF"),
    saved(MASK, "BMP"),
    saved(INDEXED, "TIFF"),
    saved(MASK, "TIFF", compression="group4"),
    saved(MASK, "TIFF", compression="tiff_adobe_deflate"),
    one_bit_tiff(),
]
ONE_BIT = [one_bit_tiff(), one_bit_tiff(big_tiff=True), saved(MASK, "TIFF")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pictures")


@given_files(content=st.sampled_from(PHOTOGRAPHS).flatmap(broken_bytes))
def test_a_broken_photograph_is_refused_by_name_or_decoded(folder, content):
    path = written(folder / "eye.jpg", content)
    judged("photograph", lambda: decode(path), "eye.jpg")


@given_files(content=st.sampled_from(PHOTOGRAPHS).flatmap(broken_bytes))
def test_a_broken_photograph_is_refused_by_name_or_prepared(folder, content):
    path = written(folder / "prepared.jpg", content)
    item = {"image": str(path), "masks": {}, "optic_disc": ""}
    made = judged("photograph, prepared", lambda: PREPARE(item), "prepared.jpg")
    assert made is None or made["image"].shape == (3, 32, 32)


@given_files(content=st.sampled_from(MASKS).flatmap(broken_bytes))
def test_a_broken_mask_is_refused_by_name_or_read_alike_both_ways(folder, content):
    path = written(folder / "mask.tif", content)
    whole = judged("mask", lambda: load_mask(path), "mask.tif")
    runs = judged("mask, runs", lambda: load_runs(path, WIDTH_PX, HEIGHT_PX), "mask.tif")
    if runs is not None and whole is not None:
        assert all(map(np.array_equal, runs, runs_of(whole)))


@given_files(content=st.sampled_from(ONE_BIT).flatmap(broken_bytes))
def test_a_broken_one_bit_file_is_left_to_pillow_or_holds_what_it_declares(folder, content):
    path = written(folder / "bits.tif", content)
    packed = judged("one-bit TIFF", lambda: read_packed(path))
    assert packed is None or packed.rows.shape == (packed.height_px, -(-packed.width_px // 8))


@pytest.mark.parametrize("content", [*PHOTOGRAPHS, *MASKS, *ONE_BIT])
def test_the_files_are_whole_before_they_are_broken(folder, content):
    image = decode(written(folder / "whole.tif", content)).image
    assert image.size == (WIDTH_PX, HEIGHT_PX)
    assert disc(*image.size).any()
