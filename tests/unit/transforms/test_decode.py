"""Pictures of every mode become RGB of 8 bits, nothing clipped, nothing turned."""

import cv2
import nibabel
import numpy as np
import pytest
import tifffile
from bundle.transforms.decode import decode, load_photograph, to_rgb
from bundle.transforms.outlines import load_mask
from PIL import Image

DEEP = np.array([[0, 255, 256], [0x80FF, 0xFE00, 0xFFFF]], np.uint16)
"""Two rows of three pixels; the upper bytes are 0, 0, 1 and 128, 254, 255."""


def saved(tmp_path, picture, name="a.png", **options):
    picture.save(tmp_path / name, **options)
    return to_rgb(decode(tmp_path / name).image)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_of_16_bits_the_upper_8_are_kept_where_pillow_would_clip(tmp_path, name):
    pixels = saved(tmp_path, Image.fromarray(DEEP), name)
    assert pixels[..., 0].tolist() == [[0, 0, 1], [128, 254, 255]]
    assert (pixels == pixels[..., :1]).all()


def test_big_endian_16_bits_are_the_same(tmp_path):
    big = Image.frombytes("I;16B", (3, 2), DEEP.astype(">u2").tobytes())
    assert saved(tmp_path, big, "big.tif")[1].tolist() == [[128] * 3, [254] * 3, [255] * 3]
    assert (tmp_path / "big.tif").read_bytes()[:2] == b"MM"


def test_16_bits_of_every_colour_are_scaled_alike(tmp_path):
    colour = np.stack([DEEP, DEEP // 2, DEEP // 4], axis=-1)
    assert cv2.imwrite(str(tmp_path / "colour.png"), colour[..., ::-1])
    assert np.array_equal(to_rgb(decode(tmp_path / "colour.png").image), colour >> 8)


def test_grey_is_the_same_in_every_channel(tmp_path):
    assert saved(tmp_path, Image.new("L", (3, 2), 77)).tolist() == [[[77] * 3] * 3] * 2


def test_cmyk_is_converted(tmp_path):
    pixels = saved(tmp_path, Image.new("CMYK", (24, 16), (0, 255, 255, 0)), "a.jpg", quality=95)
    assert pixels.shape == (16, 24, 3)
    assert pixels.mean(axis=(0, 1)) == pytest.approx([255, 0, 0], abs=4)


def test_a_palette_gives_its_colours(tmp_path):
    picture = Image.fromarray(np.array([[0, 1, 1]], np.uint8), mode="P")
    picture.putpalette([1, 2, 3, 200, 100, 50])
    assert saved(tmp_path, picture).tolist() == [[[1, 2, 3], [200, 100, 50], [200, 100, 50]]]


def test_what_is_transparent_is_black_and_what_is_not_stays(tmp_path):
    rgba = np.array([[[200, 100, 50, 255], [255, 255, 255, 0], [200, 100, 50, 51]]], np.uint8)
    assert saved(tmp_path, Image.fromarray(rgba)).tolist() == [[[200, 100, 50], [0, 0, 0], [40, 20, 10]]]


def test_pixels_stay_where_they_are_stored_whatever_the_camera_noted(tmp_path):
    rotated = Image.Exif()
    rotated[0x0112] = 6  # turn by 90 degrees to show
    half = np.zeros((16, 24, 3), np.uint8)
    half[:, :12] = 200
    pixels = saved(tmp_path, Image.fromarray(half), "a.jpg", exif=rotated, quality=95)
    assert pixels.shape == (16, 24, 3)
    assert pixels[:, :10].min() > 150
    assert pixels[:, 14:].max() < 50


@pytest.mark.parametrize("shape", [(4, 16, 3), (4, 16), (16, 16)], ids=["photograph", "mask", "square mask"])
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
@pytest.mark.parametrize("tag", [1, 2, 3, 4, 5, 6, 7, 8])
def test_pixels_of_a_tiff_stay_where_they_are_stored_though_pillow_turns_them(tmp_path, tag, compression, shape):
    stored = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    path = tmp_path / "a.tif"
    Image.fromarray(stored).save(path, tiffinfo={0x0112: tag}, compression=compression)
    image, native_px, _ = decode(path)
    assert image.size == native_px == (16, len(stored))
    assert np.array_equal(np.asarray(image), stored)


def test_a_tiff_that_pillow_turns_for_its_xmp_stays_too(tmp_path):
    """Pillow reads an orientation in XMP if there is no tag."""
    stored = np.arange(6, dtype=np.uint8).reshape(2, 3)
    xmp = b'<rdf:Description tiff:Orientation="6"/>'
    Image.fromarray(stored).save(tmp_path / "a.tif", tiffinfo={700: xmp})
    image, native_px, _ = decode(tmp_path / "a.tif")
    assert native_px == (3, 2)
    assert np.asarray(image).tolist() == stored.tolist()


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm", "a.nii"])
def test_grey_is_scaled_from_the_bits_in_use_and_says_so(tmp_path, name, bits):
    levels = np.array([[0, 1 << (bits - 1), (1 << bits) - 1]], np.uint16)
    if name.endswith("nii"):
        nibabel.save(nibabel.Nifti1Image(levels.T, np.eye(4)), tmp_path / name)
    else:
        Image.fromarray(levels).save(tmp_path / name)
    found = load_photograph(tmp_path / name)
    assert found.pixels[..., 0].tolist() == [[0, 128, 255]]
    assert found.changes == ((f"scaled from the {bits} bits that they use",) if bits < 16 else ())


def test_8_bits_are_not_scaled_however_dark(tmp_path):
    Image.fromarray(np.full((2, 3), 9, np.uint8)).save(tmp_path / "a.png")
    found = load_photograph(tmp_path / "a.png")
    assert (found.pixels.max(), found.changes) == (9, ())


def pages(path, *greys):
    """Write a picture of 2x3 pixels for each grey, all in one file."""
    first, *others = (Image.fromarray(np.full((2, 3), grey, np.uint8)) for grey in greys)
    first.save(path, save_all=True, append_images=others)
    return path


@pytest.mark.parametrize("name", ["a.tif", "a.gif", "a.png"])
def test_of_several_pictures_the_first_is_read_and_that_is_said(tmp_path, name):
    found = load_photograph(pages(tmp_path / name, 9, 200, 30))
    assert (found.pixels.max(), found.changes) == (9, ("read by the first of several pictures",))
    assert load_photograph(pages(tmp_path / name, 9)).changes == ()


@pytest.mark.parametrize("mode", ["L", "1"])
def test_a_mask_of_several_pictures_is_refused_because_another_may_hold_the_outline(tmp_path, mode):
    outline = Image.fromarray(np.array([[0, 255, 0], [0, 0, 255]], np.uint8)).convert(mode)
    Image.new(mode, (3, 2)).save(tmp_path / "a.tif", save_all=True, append_images=[outline])
    with pytest.raises(ValueError, match=r"expected a mask of one picture in .*a\.tif, got several; save the one"):
        load_mask(tmp_path / "a.tif")
    outline.save(tmp_path / "a.tif")
    assert load_mask(tmp_path / "a.tif").sum() == 2


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("planarconfig", ["contig", "separate"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_tiff_of_planes_is_the_same_picture(tmp_path, dtype, planarconfig, compression, byteorder):
    """Pillow 13 takes uncompressed planes of 16 bits for planes of 8."""
    colour = np.random.default_rng(0).integers(0, 65536, (40, 60, 3), dtype=np.uint16)
    stored = colour if dtype == np.uint16 else colour >> 8
    planes = np.moveaxis(stored, -1, 0) if planarconfig == "separate" else stored
    options = {"photometric": "rgb", "planarconfig": planarconfig, "compression": compression, "byteorder": byteorder}
    tifffile.imwrite(tmp_path / "a.tif", planes.astype(dtype), **options)
    assert np.array_equal(to_rgb(decode(tmp_path / "a.tif").image), colour >> 8)


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_colours_of_16_bits_that_use_14_or_fewer_are_refused_with_the_way_out(tmp_path, name):
    colour = np.full((40, 60, 3), 16383, np.uint16)
    cv2.imwrite(str(tmp_path / name), colour)
    with pytest.raises(
        ValueError, match=r"expected colours that use their 16 bits in .*; scale them to the whole range"
    ):
        decode(tmp_path / name)
    cv2.imwrite(str(tmp_path / name), colour + 1)
    assert to_rgb(decode(tmp_path / name).image).max() == 64


def test_a_negative_of_16_bits_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", DEEP, photometric="miniswhite")
    with pytest.raises(ValueError, match=r"expected black stored as 0 in .*a\.tif, got 16 bits with white as 0"):
        decode(tmp_path / "a.tif")


@pytest.mark.parametrize("kind", ["BMP", "WEBP", "PPM", "GIF"])
def test_further_formats_are_decoded(tmp_path, kind):
    picture = Image.fromarray(np.repeat(np.array([[[10], [200]], [[90], [60]], [[0], [255]]], np.uint8), 3, axis=2))
    assert np.array_equal(saved(tmp_path, picture, f"a.{kind.lower()}", lossless=True), np.asarray(picture))


@pytest.mark.parametrize("pixels", [np.full((2, 3), 0.5, np.float32), np.full((2, 3), 70_000, np.int32)])
def test_more_than_16_bits_are_refused(tmp_path, pixels):
    with pytest.raises(ValueError, match="expected channels of 8 or 16 bits, got"):
        saved(tmp_path, Image.fromarray(pixels), "a.tif")
