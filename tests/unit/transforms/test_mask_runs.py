"""A mask as runs is the same mask, and one-bit files read as Pillow reads them."""

import numpy as np
import pytest
from bundle.transforms import load_mask, load_runs
from bundle.transforms.decode import read_packed
from bundle.transforms.runs import runs_of, runs_of_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, TiffImagePlugin

MASK = np.array([[1, 1, 0, 0, 1], [0, 0, 1, 0, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]], bool)


def drawn(runs, shape, values=None):
    mask = np.zeros(shape, np.int64)
    for number, (row, start, stop, _) in enumerate(zip(*runs, strict=True)):
        mask[row, start:stop] = 1 if values is None else values[number] + 1
    return mask


def random_mask(seed, share, shape):
    return np.random.default_rng(seed).random(shape) < share


masks = st.builds(random_mask, st.integers(0, 2**32 - 1), st.floats(0, 1), st.sampled_from([(7, 9), (16, 5), (3, 64)]))


def test_runs_by_hand():
    listed = list(zip(*(array.tolist() for array in runs_of(MASK)), strict=True))
    assert listed == [(0, 0, 2, 1), (0, 4, 5, 1), (1, 2, 3, 1), (1, 4, 5, 1), (3, 0, 5, 1)]


def test_an_empty_mask_has_no_runs():
    assert [len(array) for array in runs_of(np.zeros((4, 6), bool))] == [0, 0, 0, 0]


@given(masks)
@settings(max_examples=60, deadline=None)
def test_runs_draw_the_mask_again(mask):
    assert (drawn(runs_of(mask), mask.shape) == mask).all()
    assert (drawn(runs_of_bits(np.packbits(mask, axis=1), mask.shape[1]), mask.shape) == mask).all()


def palette(mask):
    image = Image.fromarray(mask.astype(np.uint8), mode="P")
    image.putpalette([0, 0, 0, 255, 0, 0])
    return image


STRIPS = {"tiffinfo": {TiffImagePlugin.ROWSPERSTRIP: 3}}
WHITE_IS_ZERO = {"tiffinfo": {TiffImagePlugin.PHOTOMETRIC_INTERPRETATION: 0}}
RED_ON_BLACK = {
    "tiffinfo": {TiffImagePlugin.PHOTOMETRIC_INTERPRETATION: 3, TiffImagePlugin.COLORMAP: (0, 65535, 0, 0, 0, 0)}
}
DEFLATED = {"compression": "tiff_adobe_deflate"}


@pytest.mark.parametrize(
    "options", [{}, STRIPS, RED_ON_BLACK, {"big_tiff": True}], ids=["one piece", "strips", "as IDRiD", "BigTIFF"]
)
@pytest.mark.parametrize("width_px", [16, 13])
def test_one_bit_files_read_as_pillow_reads_them(tmp_path, options, width_px):
    mask = random_mask(0, 0.2, (11, width_px))
    Image.fromarray(mask).save(tmp_path / "a.tif", **options)
    assert (read_packed(tmp_path / "a.tif").rows == np.packbits(mask, axis=1)).all()
    assert (drawn(load_runs(tmp_path / "a.tif", width_px, 11), mask.shape) == mask).all()
    assert (load_mask(tmp_path / "a.tif") == mask).all()


@pytest.mark.parametrize("shape", [(11, 16), (16, 16)])
@pytest.mark.parametrize("tag", [1, 2, 3, 4, 5, 6, 7, 8])
def test_both_ways_read_one_bit_as_stored_whatever_the_orientation_tag(tmp_path, tag, shape):
    mask = random_mask(0, 0.2, shape)
    Image.fromarray(mask).save(tmp_path / "a.tif", tiffinfo={0x0112: tag})
    assert (drawn(load_runs(tmp_path / "a.tif", 16, len(mask)), mask.shape) == mask).all()
    assert np.array_equal(load_mask(tmp_path / "a.tif"), mask)


@pytest.mark.parametrize(
    ("image", "options"),
    [(Image.fromarray(MASK), WHITE_IS_ZERO), (Image.fromarray(MASK), DEFLATED), (palette(MASK), {})],
    ids=["white is zero", "deflated", "eight bits"],
)
def test_other_tiffs_are_left_to_pillow(tmp_path, image, options):
    image.save(tmp_path / "a.tif", **options)
    assert read_packed(tmp_path / "a.tif") is None
    assert (drawn(load_runs(tmp_path / "a.tif", 5, 4), MASK.shape) == MASK).all()


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
@pytest.mark.parametrize("mode", ["L", "P", "1"])
def test_other_files_give_the_same_runs(tmp_path, suffix, mode):
    mask = random_mask(1, 0.1, (11, 16))
    image = Image.fromarray(mask.astype(np.uint8) * (255 if mode != "P" else 1)).convert(mode)
    image.save(tmp_path / f"a.{suffix}")
    assert (drawn(load_runs(tmp_path / f"a.{suffix}", 16, 11), mask.shape) == mask).all()


@pytest.mark.parametrize("kept", [0.3, 0.9])
@pytest.mark.parametrize("options", [{}, STRIPS, DEFLATED], ids=["one piece", "strips", "deflated"])
def test_a_cut_off_file_is_refused(tmp_path, kept, options):
    Image.fromarray(random_mask(2, 0.5, (400, 64))).save(tmp_path / "a.tif", **options)
    whole = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(ValueError, match=r"expected a whole mask in .*a\.tif"):
        load_runs(tmp_path / "a.tif", 64, 400)


@pytest.mark.parametrize("name", ["a.tif", "a.png"])
def test_refuses_a_mask_of_another_size(tmp_path, name):
    Image.fromarray(MASK).save(tmp_path / name)
    with pytest.raises(ValueError, match=r"expected a mask of 6x4 px, as its photograph, got 5x4 px in .*a\."):
        load_runs(tmp_path / name, 6, 4)
