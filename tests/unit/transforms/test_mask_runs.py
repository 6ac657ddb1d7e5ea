"""A mask as runs is the same mask, and one-bit files read as Pillow reads them."""

import numpy as np
import pytest
import tifffile
from bundle.transforms import load_mask, load_runs
from bundle.transforms.bilevel import read_bilevel
from bundle.transforms.runs import runs_of, runs_of_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

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


def write(path, mask, **options):
    tifffile.imwrite(path, mask, bitspersample=1, **{"photometric": "minisblack", **options})


@pytest.mark.parametrize(
    "options",
    [{}, {"compression": "zlib"}, {"rowsperstrip": 3, "compression": "zlib"}, {"rowsperstrip": 3}],
    ids=["stored", "deflated", "deflated strips", "strips"],
)
@pytest.mark.parametrize("width_px", [16, 13])
def test_one_bit_files_read_as_pillow_reads_them(tmp_path, options, width_px):
    mask = random_mask(0, 0.2, (11, width_px))
    write(tmp_path / "a.tif", mask, **options)
    assert read_bilevel(tmp_path / "a.tif") is not None
    assert (drawn(load_runs(tmp_path / "a.tif", width_px, 11), mask.shape) == mask).all()
    assert (load_mask(tmp_path / "a.tif") == mask).all()


@pytest.mark.parametrize("suffix", ["png", "tif", "bmp"])
@pytest.mark.parametrize("mode", ["L", "P", "1"])
def test_other_files_give_the_same_runs(tmp_path, suffix, mode):
    mask = random_mask(1, 0.1, (11, 16))
    image = Image.fromarray(mask.astype(np.uint8) * (255 if mode != "P" else 1)).convert(mode)
    image.save(tmp_path / f"a.{suffix}")
    assert (drawn(load_runs(tmp_path / f"a.{suffix}", 16, 11), mask.shape) == mask).all()


def test_white_is_zero_files_are_left_to_pillow(tmp_path):
    write(tmp_path / "a.tif", MASK, photometric="miniswhite")
    assert read_bilevel(tmp_path / "a.tif") is None


@pytest.mark.parametrize("kept", [0.3, 0.9])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_a_cut_off_file_is_refused_as_before(tmp_path, kept, compression):
    write(tmp_path / "a.tif", random_mask(2, 0.5, (400, 64)), compression=compression)
    whole = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(whole[: int(len(whole) * kept)])
    with pytest.raises(ValueError, match=r"expected a whole mask in .*a\.tif"):
        load_runs(tmp_path / "a.tif", 64, 400)


def test_a_file_that_unpacks_to_more_than_it_declares_is_not_believed(tmp_path):
    write(tmp_path / "a.tif", np.zeros((4000, 8000), bool), compression="zlib", rowsperstrip=4000)
    content = bytearray((tmp_path / "a.tif").read_bytes())
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        tag = file.pages.first.tags["ImageLength"]
        at = tag.valueoffset
    content[at : at + 2] = (40).to_bytes(2, "little")
    (tmp_path / "a.tif").write_bytes(content)
    assert read_bilevel(tmp_path / "a.tif") is None


@pytest.mark.parametrize("name", ["a.tif", "a.png"])
def test_refuses_a_mask_of_another_size(tmp_path, name):
    Image.fromarray(MASK).save(tmp_path / name)
    with pytest.raises(ValueError, match=r"expected a mask of 6x4 px, as its photograph, got 5x4 px in .*a\."):
        load_runs(tmp_path / name, 6, 4)
