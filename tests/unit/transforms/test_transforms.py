"""The eye is found, cut out and resized; no lesion is lost on the way, and scores find their way back."""

import pickle

import numpy as np
import pytest
import torch
from bundle.labels import LESIONS
from bundle.transforms import (
    Crop,
    NativeLabelsd,
    PrepareFundusd,
    field_of_view,
    label_map,
    load_mask,
    load_masks,
    load_photograph,
    load_runs,
    resize_crop,
    resize_lesions,
    resize_mask,
    runs_of,
    to_native,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from PIL import Image
from scipy import ndimage

WIDTH, HEIGHT = 600, 400
CENTRE, RADIUS = (280, 190), 180


def fundus(seed=0, width=WIDTH, height=HEIGHT):
    y, x = np.mgrid[:height, :width]
    field = (x - CENTRE[0]) ** 2 + (y - CENTRE[1]) ** 2 < RADIUS**2
    patches = np.random.default_rng(seed).integers(60, 240, (20, 30, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(patches).resize((width, height), Image.Resampling.BICUBIC))
    return np.where(field[..., None], smooth, 0).astype(np.uint8)


def box_mask(left, top, right, bottom, shape=(HEIGHT, WIDTH)):
    mask = np.zeros(shape, bool)
    mask[top:bottom, left:right] = True
    return mask


def all_runs(masks):
    return {lesion: runs_of(mask) for lesion, mask in masks.items()}


def save_mask(path, mask):
    image = Image.fromarray(mask.astype(np.uint8), mode="P")
    image.putpalette([0, 0, 0, 255, 0, 0])
    image.save(path)
    return str(path)


@pytest.fixture
def item(tmp_path):
    Image.fromarray(fundus()).save(tmp_path / "eye.jpg", quality=95)
    masks = {"MA": box_mask(200, 100, 203, 103), "HE": box_mask(300, 210, 350, 260), "EX": box_mask(340, 210, 380, 260)}
    return {
        "id": "eye",
        "image": str(tmp_path / "eye.jpg"),
        "masks": {lesion: save_mask(tmp_path / f"{lesion}.tif", mask) for lesion, mask in masks.items()},
        "annotated": LESIONS,
        "optic_disc": save_mask(tmp_path / "OD.tif", box_mask(150, 150, 190, 190)),
        "sha256": "0" * 64,
    }


# field of view and crop


def test_the_box_of_a_disc_is_its_extent():
    left, top, right, bottom = field_of_view(fundus())
    assert (left, top, right, bottom) == pytest.approx((101, 11, 460, 370), abs=2)


@given(st.integers(0, 99), st.integers(0, 12))
@settings(max_examples=15, deadline=None)
def test_noise_and_specks_on_the_border_do_not_move_the_box(seed, noise):
    rng = np.random.default_rng(seed)
    noisy = np.maximum(fundus(), rng.integers(0, noise + 1, (HEIGHT, WIDTH, 3), dtype=np.uint8))
    noisy[5:8, 590:593] = 255
    assert field_of_view(noisy) == pytest.approx(field_of_view(fundus()), abs=2)


def test_the_box_is_the_same_in_grey():
    grey = np.asarray(Image.fromarray(fundus()).convert("L"))
    assert field_of_view(grey) == pytest.approx(field_of_view(fundus()), abs=2)


@pytest.mark.parametrize("level", [0, 12])
def test_refuses_an_image_that_is_black_but_for_noise(level):
    noise = np.random.default_rng(0).integers(0, level + 1, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    with pytest.raises(ValueError, match="expected a bright round field on black"):
        field_of_view(noise)


def test_the_square_is_centred_on_the_box_and_may_reach_outside():
    assert Crop.about((10, 0, 50, 20), 60, 20) == Crop(left=10, top=-10, side=40, width=60, height=20)
    assert Crop.about((5, 0, 25, 10), 59, 20, reduction=2) == Crop(left=10, top=-10, side=40, width=59, height=20)


# photograph


def test_a_photograph_is_decoded_no_larger_than_needed(item):
    whole, half = load_photograph(item["image"], 400), load_photograph(item["image"], 200)
    assert (whole.pixels.shape, whole.native_px, whole.reduction) == ((400, 600, 3), (600, 400), 1)
    assert (half.pixels.shape, half.native_px, half.reduction) == ((200, 300, 3), (600, 400), 2)


def test_a_png_is_decoded_whole(tmp_path):
    Image.fromarray(fundus()).save(tmp_path / "eye.png")
    assert load_photograph(tmp_path / "eye.png", 64).reduction == 1


def test_reduced_decoding_looks_like_whole_decoding_resized_by_area(item):
    native = np.asarray(Image.open(item["image"]))
    crop = Crop(left=100, top=-10, side=362, width=WIDTH, height=HEIGHT)
    pixels, _, reduction, _ = load_photograph(item["image"], 128)
    assert reduction == 2
    reduced, whole = resize_crop(pixels, crop, 128, reduction), resize_crop(native, crop, 128)
    assert np.abs(reduced.astype(float) - whole).mean() <= 2


def test_a_resized_pixel_weighs_its_surroundings_by_a_triangle():
    """Halved, a pixel is 1/8, 3/8, 3/8, 1/8 of the four that are nearest along each axis."""
    ramp = np.arange(8, dtype=np.uint8)[None, :, None] * np.ones((8, 1, 3), np.uint8) * 20
    resized = resize_crop(ramp, Crop(left=0, top=0, side=8, width=8, height=8), 4)
    assert resized[2, 1].tolist() == pytest.approx([(1 * 1 + 3 * 2 + 3 * 3 + 1 * 4) / 8 * 20] * 3, abs=1)


def test_what_lies_outside_of_a_photograph_is_black():
    white = np.full((4, 6, 3), 255, np.uint8)
    resized = resize_crop(white, Crop(left=1, top=-4, side=8, width=6, height=4), 8)
    assert (resized[:4] == 0).all()
    assert (resized[4:, :5] == 255).all()
    assert (resized[4:, 5:] == 0).all()


@pytest.mark.parametrize("number", ["left", "top", "side"])
def test_refuses_a_crop_between_decoded_pixels(number):
    crop = Crop(left=2, top=2, side=4, width=12, height=8)._replace(**{number: 3})
    with pytest.raises(ValueError, match="expected a crop on multiples of 2 px, as it was decoded"):
        resize_crop(np.zeros((4, 6, 3), np.uint8), crop, 32, reduction=2)


def test_refuses_a_cut_off_photograph(item, tmp_path):
    cut = tmp_path / "cut.jpg"
    with open(item["image"], "rb") as whole:
        cut.write_bytes(whole.read()[:-2000])
    with pytest.raises(ValueError, match=r"expected a whole image in .*cut\.jpg, .* truncated"):
        load_photograph(cut, 64)


def test_refuses_a_photograph_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="No such file"):
        load_photograph(tmp_path / "none.jpg", 64)


# masks


def test_palette_indices_are_a_mask_where_grey_levels_are_not(tmp_path):
    mask = box_mask(2, 1, 5, 3, shape=(4, 6))
    path = save_mask(tmp_path / "MA.tif", mask)
    assert np.asarray(Image.open(path).convert("L")).max() == 76
    assert (load_mask(path) == mask).all()


@pytest.mark.parametrize("mode", ["L", "1"])
def test_eight_bit_and_one_bit_masks_are_read_alike(tmp_path, mode):
    mask = box_mask(2, 1, 5, 3, shape=(4, 6))
    Image.fromarray((mask * 255).astype(np.uint8)).convert(mode).save(tmp_path / "EX.tif")
    assert (load_mask(tmp_path / "EX.tif") == mask).all()


def test_overlaps_go_by_priority():
    masks = {lesion: np.ones((1, 4), bool) for lesion in LESIONS}
    masks["MA"][0, 1:] = masks["SE"][0, 2:] = masks["HE"][0, 3:] = False
    assert label_map(masks, 4, 1).tolist() == [[1, 4, 2, 3]]


def test_without_masks_all_is_background():
    assert label_map({}, 3, 2).tolist() == [[0, 0, 0], [0, 0, 0]]


def test_refuses_a_mask_of_another_size(tmp_path):
    path = save_mask(tmp_path / "MA.tif", box_mask(0, 0, 1, 1, shape=(6, 4)))
    with pytest.raises(ValueError, match=r"expected a mask of 6x4 px, .* got 4x6 px in .*MA\.tif"):
        load_masks({"MA": path}, 6, 4)


def test_an_opaque_colour_mask_is_read_by_its_colours(tmp_path):
    """As IDRiD_81_EX.tif is stored: red 0 or 255, opacity 255 everywhere, LZW."""
    mask = box_mask(2, 1, 5, 3, shape=(4, 6))
    rgba = np.zeros((4, 6, 4), np.uint8)
    rgba[..., 0], rgba[..., 3] = 255 * mask, 255
    Image.fromarray(rgba).save(tmp_path / "EX.tif", compression="tiff_lzw")
    assert (load_mask(tmp_path / "EX.tif") == mask).all()
    assert (load_masks({"EX": tmp_path / "EX.tif"}, 6, 4)["EX"] == mask).all()
    assert all(map(np.array_equal, load_runs(tmp_path / "EX.tif", 6, 4), runs_of(mask)))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_where_opacity_varies_the_transparent_is_background(tmp_path, mode):
    mask = box_mask(2, 1, 5, 3, shape=(4, 6))
    white = Image.new(mode[:-1], (6, 4), "white")
    white.putalpha(Image.fromarray((mask * 255).astype(np.uint8)))
    white.save(tmp_path / "MA.png")
    assert (load_mask(tmp_path / "MA.png") == mask).all()


@pytest.mark.parametrize("value", [1, 256, 65535])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bits_are_a_mask_too(tmp_path, value, suffix):
    mask = box_mask(2, 1, 5, 3, shape=(4, 6))
    Image.fromarray((mask * value).astype(np.uint16)).save(tmp_path / f"MA.{suffix}")
    assert (load_mask(tmp_path / f"MA.{suffix}") == mask).all()


def test_refuses_a_mask_drawn_by_its_opacity_alone(tmp_path):
    black = np.zeros((4, 6, 4), np.uint8)
    black[1:3, 2:5, 3] = 255
    Image.fromarray(black).save(tmp_path / "MA.png")
    with pytest.raises(ValueError, match=r"got a mask of which only the opacity varies in .*MA\.png; save it with one"):
        load_mask(tmp_path / "MA.png")


def test_refuses_a_mask_of_floats(tmp_path):
    Image.fromarray(np.eye(4, 6, dtype=np.float32)).save(tmp_path / "MA.tif")
    with pytest.raises(
        ValueError, match=r"grey levels, indices or colours, got Pillow's mode F in .*MA\.tif; save it as"
    ):
        load_mask(tmp_path / "MA.tif")


# lesion-preserving resize

WHOLE = Crop(left=0, top=0, side=8, width=8, height=8)


def small(*spots):
    mask = np.zeros((8, 8), bool)
    for y, x in spots:
        mask[y, x] = True
    return mask


def test_half_a_pixel_is_enough_and_less_is_not():
    mask = small((0, 0), (0, 1), (0, 2))
    assert np.argwhere(resize_mask(runs_of(mask), WHOLE, 4)).tolist() == [[0, 0]]


def test_padding_is_not_covered():
    crop = Crop(left=0, top=-8, side=16, width=16, height=0 + 8)
    assert np.argwhere(resize_mask(runs_of(np.ones((8, 16), bool)), crop, 4)).tolist() == [
        [r, c] for r in (2, 3) for c in range(4)
    ]


def test_one_native_pixel_keeps_a_pixel():
    assert resize_lesions(all_runs({"MA": small((5, 3))}), WHOLE, 2).tolist() == [[0, 0], [1, 0]]


def test_the_best_covered_pixel_is_taken():
    mask = small((0, 3), (0, 4), (0, 5))
    assert resize_lesions(all_runs({"EX": mask}), WHOLE, 2).tolist() == [[0, 3], [0, 0]]


def test_a_small_lesion_in_a_large_one_keeps_its_pixel():
    haemorrhage = np.zeros((8, 8), bool)
    haemorrhage[:, :6] = True
    expected = np.repeat([[2, 2, 2, 0]], 4, axis=0)
    expected[1, 1] = 1
    assert (resize_lesions(all_runs({"HE": haemorrhage, "MA": small((2, 2))}), WHOLE, 4) == expected).all()


def test_of_two_that_want_one_pixel_the_one_that_can_move_moves():
    # EX covers 3 of 16 native pixels of the upper left and 1 of the upper right; MA is in the upper left alone.
    masks = {"MA": small((2, 0)), "EX": small((0, 1), (0, 2), (0, 3), (0, 4))}
    assert resize_lesions(all_runs(masks), WHOLE, 2).tolist() == [[1, 3], [0, 0]]


def test_one_that_has_its_pixel_makes_way_for_one_that_has_no_other():
    # HE comes before EX in priority, prefers the upper left, and can live in the upper right; EX cannot.
    masks = {"HE": small((0, 1), (0, 2), (0, 3), (0, 4)), "EX": small((2, 0))}
    assert resize_lesions(all_runs(masks), WHOLE, 2).tolist() == [[3, 2], [0, 0]]


def test_where_only_one_can_stay_priority_decides():
    masks = {"EX": small((0, 0), (0, 1)), "MA": small((2, 3))}
    assert resize_lesions(all_runs(masks), WHOLE, 2).tolist() == [[1, 0], [0, 0]]


def test_without_lesions_all_is_background():
    assert resize_lesions(all_runs({"MA": small()}), WHOLE, 4).tolist() == np.zeros((4, 4), int).tolist()


@given(st.integers(0, 2**32 - 1), st.floats(0.005, 0.2), st.sampled_from([3, 5, 8, 16, 24]))
@settings(max_examples=60, deadline=None)
def test_every_component_of_one_class_keeps_a_pixel_it_covers(seed, density, image_size):
    mask = np.random.default_rng(seed).random((13, 21)) < density
    crop = Crop(left=-2, top=-6, side=25, width=21, height=13)
    resized = resize_lesions(all_runs({"SE": mask}), crop, image_size)
    components, count = ndimage.label(mask, np.ones((3, 3)))
    y, x = np.mgrid[:13, :21]
    step = 25 / image_size
    for number in range(1, count + 1):
        rows, columns = y[components == number], x[components == number]
        touched = {
            (r, c)
            for top, left in zip(rows + 6, columns + 2, strict=True)
            for r in range(int(top / step), min(int(np.ceil((top + 1) / step)), image_size))
            for c in range(int(left / step), min(int(np.ceil((left + 1) / step)), image_size))
        }
        assert any(resized[pixel] == 4 for pixel in touched)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_lesions_that_are_apart_all_keep_their_class(seed):
    rng = np.random.default_rng(seed)
    masks = {lesion: np.zeros((24, 36), bool) for lesion in LESIONS}
    for cell in rng.permutation(54)[:20]:
        masks[LESIONS[rng.integers(4)]][4 * (cell // 9) + rng.integers(3), 4 * (cell % 9) + rng.integers(3)] = True
    resized = resize_lesions(all_runs(masks), Crop(left=0, top=-6, side=36, width=36, height=24), 36 // 2)
    assert all((resized == LESIONS.index(lesion) + 1).sum() == mask.sum() for lesion, mask in masks.items())


# the item


def test_a_prepared_item_has_the_shapes_and_types_of_the_contract(item):
    prepared = PrepareFundusd(64)(item)
    shapes = {key: (tuple(prepared[key].shape), prepared[key].dtype) for key in ("image", "lesions", "optic_disc")}
    assert shapes == {
        "image": ((3, 64, 64), torch.uint8),
        "lesions": ((1, 64, 64), torch.uint8),
        "optic_disc": ((1, 64, 64), torch.uint8),
    }
    assert prepared["geometry"].dtype == torch.float32
    assert prepared["lesions"].unique().tolist() == [0, 1, 2, 3]
    assert prepared["optic_disc"].unique().tolist() == [0, 1]
    assert item["image"].endswith("eye.jpg")


def test_geometry_says_where_a_native_pixel_went(item):
    prepared = PrepareFundusd(128)(item)
    left, top, side, width, height = prepared["geometry"].tolist()
    assert (width, height) == (WIDTH, HEIGHT)
    rows, columns = torch.nonzero(prepared["optic_disc"][0], as_tuple=True)
    centre = ((170 - left) * 128 / side, (170 - top) * 128 / side)
    assert (columns.float().mean() + 0.5, rows.float().mean() + 0.5) == pytest.approx(centre, abs=0.75)


@pytest.mark.parametrize("named", [True, False])
def test_an_item_without_outlines_has_none(item, named):
    outlines = {"masks": {}, "optic_disc": ""} if named else {}
    prepared = PrepareFundusd(32)({"image": item["image"], **outlines})
    assert not prepared["lesions"].any()
    assert not prepared["optic_disc"].any()


def test_preparing_is_deterministic_and_picklable(item):
    prepare = pickle.loads(pickle.dumps(PrepareFundusd(64)))
    for key in ("image", "lesions", "optic_disc", "geometry"):
        assert torch.equal(prepare(item)[key], PrepareFundusd(64)(item)[key])


def test_settings_tell_sizes_apart():
    assert PrepareFundusd(64).settings != PrepareFundusd(128).settings


@pytest.mark.parametrize("image_size", [0, 40, -32])
def test_refuses_a_side_that_the_networks_cannot_take(image_size):
    with pytest.raises(ValueError, match=f"multiple of 32, got {image_size}"):
        PrepareFundusd(image_size)


def test_refuses_a_black_photograph_by_name(item, tmp_path):
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(tmp_path / "black.jpg")
    with pytest.raises(ValueError, match=r"black\.jpg: expected a bright round field"):
        PrepareFundusd(64)({**item, "image": str(tmp_path / "black.jpg")})


# the way back


def test_native_labels_of_an_item_lie_where_its_lesions_were(item):
    prepared = PrepareFundusd(128)(item)
    probabilities = torch.nn.functional.one_hot(prepared["lesions"][0].long(), 5).permute(2, 0, 1).float()
    given = {"pred": MetaTensor(probabilities), "geometry": prepared["geometry"], "other": "stays"}
    found = NativeLabelsd("pred")(given)
    assert (found["pred"].dtype, tuple(found["pred"].shape)) == (torch.uint8, (1, HEIGHT, WIDTH))
    assert found["pred"].unique().tolist() == [0, 1, 2, 3]
    alone = load_mask(item["masks"]["EX"]) & ~load_mask(item["masks"]["HE"])
    assert (found["pred"][0].numpy()[alone] == 3).mean() > 0.95
    assert found["other"] == "stays"
    assert tuple(given["pred"].shape) == (5, 128, 128)


def test_scores_return_to_where_they_came_from():
    scores = torch.zeros(2, 4, 4)
    scores[0], scores[1, 1, 2] = 0.25, 0.75
    native = to_native(scores, torch.tensor([10.0, -4.0, 40.0, 60.0, 30.0]))
    assert tuple(native.shape) == (2, 30, 60)
    y, x = divmod(int(native[1].argmax()), 60)
    assert (x, y) in {(10 + 24, 10), (10 + 25, 10), (10 + 24, 11), (10 + 25, 11)}
    assert native[:, 5, 5].tolist() == [1, 0]
    assert native[0, 5, 20].item() == pytest.approx(0.25)


def test_a_native_map_survives_the_way_there_and_back():
    mask = box_mask(200, 100, 290, 180)
    crop = Crop(left=101, top=-9, side=384, width=WIDTH, height=HEIGHT)
    there = resize_lesions(all_runs({"HE": mask}), crop, 128)
    scores = torch.nn.functional.one_hot(torch.from_numpy(there).long(), 5).permute(2, 0, 1).float()
    back = to_native(scores, crop).argmax(0).numpy() == 2
    assert (back & mask).sum() / (back | mask).sum() > 0.9


def test_the_callers_scores_stay_as_they_are():
    scores = torch.rand(5, 8, 8, generator=torch.Generator().manual_seed(0))
    before = scores.clone()
    to_native(scores, (0, 0, 12, 12, 9))
    assert torch.equal(scores, before)


def test_native_labels_of_an_item_are_decided_by_thresholds(item):
    prepared = PrepareFundusd(128)(item)
    sure = torch.nn.functional.one_hot(prepared["lesions"][0].long(), 5).permute(2, 0, 1).float()
    faint = 0.3 * sure
    faint[0] += 0.7
    given = {"pred": MetaTensor(faint), "geometry": prepared["geometry"]}
    assert NativeLabelsd("pred")(given)["pred"].sum() == 0
    found = NativeLabelsd("pred", thresholds=(0.15, 0.15, 0.15, 0.15))(given)["pred"]
    expected = NativeLabelsd("pred")({**given, "pred": MetaTensor(sure)})["pred"]
    assert (found != expected).float().mean() < 0.001  # where interpolated scores tie
    assert found.unique().tolist() == [0, 1, 2, 3]
