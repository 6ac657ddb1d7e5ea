"""A mask as runs is the same mask, and its components are those of scipy; one-bit files read as Pillow reads them."""

import numpy as np
import pytest
import tifffile
from bundle.transforms import centre_of, components_by_quadrant, largest_component_px, load_mask, load_runs
from bundle.transforms.bilevel import read_bilevel
from bundle.transforms.runs import components_of, runs_of, runs_of_bits
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy import ndimage

MASK = np.array([[1, 1, 0, 0, 1], [0, 0, 1, 0, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]], bool)


def drawn(runs, shape, values=None):
    mask = np.zeros(shape, np.int64)
    for number, (row, start, stop) in enumerate(zip(*runs, strict=True)):
        mask[row, start:stop] = 1 if values is None else values[number] + 1
    return mask


def random_mask(seed, share, shape):
    return np.random.default_rng(seed).random(shape) < share


masks = st.builds(random_mask, st.integers(0, 2**32 - 1), st.floats(0, 1), st.sampled_from([(7, 9), (16, 5), (3, 64)]))


def test_runs_by_hand():
    row, start, stop = (array.tolist() for array in runs_of(MASK))
    assert list(zip(row, start, stop, strict=True)) == [(0, 0, 2), (0, 4, 5), (1, 2, 3), (1, 4, 5), (3, 0, 5)]


def test_components_by_hand_touch_at_corners_too():
    """The run of the first row touches the pixel of the second at a corner; the column of two is another."""
    assert [array.tolist() if isinstance(array, np.ndarray) else array for array in components_of(runs_of(MASK))] == [
        [0, 1, 0, 1, 2],
        3,
    ]


def test_an_empty_mask_has_no_runs():
    assert [len(array) for array in runs_of(np.zeros((4, 6), bool))] == [0, 0, 0]
    assert components_of(runs_of(np.zeros((4, 6), bool)))[1] == 0


def test_the_largest_component_by_hand_and_of_nothing():
    assert largest_component_px(runs_of(MASK)) == 5
    assert largest_component_px(runs_of(MASK[:2])) == 3  # the diagonal one
    assert largest_component_px(runs_of(np.zeros((4, 5), bool))) == 0


def test_the_centre_by_hand_and_of_nothing():
    """The pixels of the first three rows are in columns 0, 1, 4, 2, 4, and three of five in row 0."""
    assert centre_of(runs_of(MASK[:3])) == pytest.approx((11 / 5, 2 / 5))
    with pytest.raises(ValueError, match="expected a mask with a pixel, got an empty one: it has no centre"):
        centre_of(runs_of(np.zeros((4, 6), bool)))


def test_components_by_quadrant_by_hand():
    """The diagonal component has its middle at (1, 1/3), the column at (4, 1/2), the last row at (2, 3)."""
    assert components_by_quadrant(runs_of(MASK), about_px=(3, 2)) == [1, 1, 1, 0]
    assert components_by_quadrant(runs_of(MASK), about_px=(2, 2)) == [1, 1, 0, 1]  # on the line is right of it
    assert components_by_quadrant(runs_of(MASK), about_px=(3, 0.4)) == [1, 0, 1, 1]
    assert components_by_quadrant(runs_of(MASK), about_px=(3, 2), min_area_px=3) == [1, 0, 1, 0]
    assert components_by_quadrant(runs_of(np.zeros((4, 6), bool)), about_px=(3, 2)) == [0, 0, 0, 0]


@given(masks, st.floats(0, 60), st.floats(0, 16), st.integers(1, 6))
def test_components_by_quadrant_are_those_of_scipy(mask, x, y, least):
    numbered, count = ndimage.label(mask, np.ones((3, 3)))
    expected = [0, 0, 0, 0]
    for one in range(1, count + 1):
        rows, columns = np.nonzero(numbered == one)
        expected[2 * bool(rows.mean() >= y) + bool(columns.mean() >= x)] += len(rows) >= least
    assert components_by_quadrant(runs_of(mask), (x, y), least) == expected


@given(masks)
def test_the_largest_component_is_that_of_scipy(mask):
    numbered, _ = ndimage.label(mask, np.ones((3, 3)))
    assert largest_component_px(runs_of(mask)) == np.bincount(numbered[mask], minlength=1).max()


@given(masks)
@settings(max_examples=60, deadline=None)
def test_runs_draw_the_mask_again(mask):
    assert (drawn(runs_of(mask), mask.shape) == mask).all()
    assert (drawn(runs_of_bits(np.packbits(mask, axis=1), mask.shape[1]), mask.shape) == mask).all()


@given(masks)
@settings(max_examples=60, deadline=None)
def test_components_are_those_of_scipy(mask):
    runs = runs_of(mask)
    labels, count = components_of(runs)
    expected, expected_count = ndimage.label(mask, np.ones((3, 3)))
    assert count == expected_count
    assert (drawn(runs, mask.shape, labels) == expected).all()


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
