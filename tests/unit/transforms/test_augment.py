"""One step does what MONAI's five do one after the other, reads every pixel once, and leaves its input alone."""

import numpy as np
import pytest
import torch
from bundle.transforms import RandColourd, RandFundusAffined
from bundle.transforms.augment import QUARTER_TURNS, looked_up, rotation, warp
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.transforms import Compose, Flip, Rotate, Rotate90, Zoom

IMAGE = torch.arange(2 * 5 * 5, dtype=torch.uint8).reshape(2, 5, 5)


def smooth(seed, side=48):
    noise = torch.rand(1, 3, 6, 6, generator=torch.Generator().manual_seed(seed))
    image = torch.nn.functional.interpolate(noise, (side, side), mode="bicubic")[0].clamp(0, 1)
    return (image * 255).round().to(torch.uint8)


def transform(**options):
    return RandFundusAffined(["image", "lesions"], ["bilinear", "nearest"], **options)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
def test_flips_and_quarter_turns_move_pixels_and_mix_none(mode):
    assert torch.equal(warp(IMAGE, np.diag([-1.0, 1.0]), mode), IMAGE.flip(2))
    assert torch.equal(warp(IMAGE, np.diag([1.0, -1.0]), mode), IMAGE.flip(1))
    assert torch.equal(warp(IMAGE, QUARTER_TURNS[1], mode), IMAGE.rot90(-1, (1, 2)))
    assert torch.equal(warp(IMAGE, QUARTER_TURNS[2], mode), IMAGE.flip(1, 2))


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("quarters", range(4))
@pytest.mark.parametrize("flips", [(1, 1), (-1, 1), (1, -1), (-1, -1)])
def test_flips_and_then_turns_are_those_of_torch(quarters, flips, mode):
    flipped = IMAGE.flip([axis for axis, sign in zip((2, 1), flips, strict=True) if sign < 0])
    matrix = QUARTER_TURNS[quarters] @ np.diag(flips)
    assert torch.equal(warp(IMAGE, matrix.astype(float), mode), flipped.rot90(-quarters, (1, 2)))


def test_a_zoom_by_two_shows_the_middle():
    image = torch.zeros((1, 8, 8), dtype=torch.uint8)
    image[0, 3:5, 3:5] = 200
    assert (warp(image, 2 * np.eye(2), "nearest")[0, 2:6, 2:6] == 200).all()
    assert warp(image, 2 * np.eye(2), "nearest").sum() == 16 * 200


def test_what_comes_from_outside_is_black():
    turned = warp(torch.full((1, 21, 21), 255, dtype=torch.uint8), rotation(np.pi / 4), "bilinear")
    assert turned[0, 10, 10] == 255
    assert turned[0, [0, 0, 20, 20], [0, 20, 0, 20]].tolist() == [0, 0, 0, 0]


def test_it_is_what_monai_does_step_by_step():
    """Zoomed to 60 px, the middle lies on a pixel for MONAI too; two interpolations differ little from one."""
    image, angle, zoom = smooth(0), 0.2, 1.25
    steps = [
        Flip(0),
        Rotate90(1),
        Rotate(angle, padding_mode="zeros"),
        Zoom(zoom, mode="bilinear", padding_mode="constant"),
    ]
    expected = Compose(steps)(image.float()).round()
    flipped = np.diag([1.0, -1.0])
    found = warp(image, zoom * rotation(angle) @ QUARTER_TURNS[3] @ flipped, "bilinear").float()
    inner = slice(8, -8)
    assert (found - torch.as_tensor(expected))[:, inner, inner].abs().mean() < 2


@given(st.integers(0, 2**31), st.floats(0, 1))
@settings(max_examples=25, deadline=None)
def test_image_and_lesions_move_together(seed, prob):
    """A bright square stays under its label, whatever is drawn."""
    square = torch.zeros((1, 48, 48), dtype=torch.uint8)
    square[0, 14:24, 20:32] = 1
    both = transform(prob=prob).set_random_state(seed)({"image": square * 200, "lesions": square * 3})
    assert set(both["lesions"].unique().tolist()) == {0, 3}
    assert ((both["image"] > 100) ^ (both["lesions"] == 3)).sum() <= 12  # along the rim, at most
    assert both["lesions"].dtype == both["image"].dtype == torch.uint8


def test_never_is_the_identity():
    data = {"image": smooth(1), "lesions": smooth(2), "id": "a"}
    same = transform(prob=0.0)(data)
    assert torch.equal(same["image"], data["image"])
    assert torch.equal(same["lesions"], data["lesions"])
    assert same["id"] == "a"


def test_the_same_seed_draws_the_same_and_the_input_stays():
    data = {"image": smooth(1), "lesions": smooth(2)}
    before = {name: image.clone() for name, image in data.items()}
    first, second = (transform().set_random_state(7) for _ in range(2))
    for _ in range(4):
        assert torch.equal(first(data)["image"], second(data)["image"])
    assert all(torch.equal(data[name], image) for name, image in before.items())


def test_each_step_is_drawn_as_often_as_asked():
    step = transform(prob=0.5).set_random_state(3)
    matrices = []
    for _ in range(2000):
        step.randomize()
        matrices.append(step.matrix)
    zoomed = [np.sqrt(abs(np.linalg.det(matrix))) for matrix in matrices]
    mirrored = [np.linalg.det(matrix) < 0 for matrix in matrices]
    assert np.mean([zoom > 1 + 1e-9 for zoom in zoomed]) == pytest.approx(0.5, abs=0.04)
    assert max(zoomed) <= 1.2
    assert np.mean(mirrored) == pytest.approx(0.5, abs=0.04)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": ["bilinear"]}, r"expected one of \['bilinear', 'nearest'\] for each of the keys"),
        ({"mode": ["bilinear", "cubic"]}, "got .*'cubic'"),
        ({"prob": 1.5}, r"expected prob in \[0, 1\]"),
        ({"zoom_max": 0.5}, "zoom_max >= 1"),
        ({"rotation_max_rad": -0.1}, "rotation_max_rad >= 0"),
    ],
)
def test_refuses_settings_that_mean_nothing(options, message):
    with pytest.raises(ValueError, match=message):
        RandFundusAffined(**{"keys": ["image", "lesions"], "mode": ["bilinear", "nearest"], **options})


@pytest.mark.parametrize("image", [torch.zeros(1, 4, 6, dtype=torch.uint8), torch.zeros(1, 4, 4)])
def test_refuses_what_is_no_square_of_bytes(image):
    with pytest.raises(ValueError, match=r"expected uint8 \(C, S, S\), got"):
        warp(image, np.eye(2), "nearest")


EVERY_BYTE = torch.arange(256, dtype=torch.uint8).reshape(1, 8, 32).expand(3, -1, -1).contiguous()


def test_a_colour_change_is_a_gain_and_a_power_of_each_channel():
    transform = RandColourd(["image"], strength=0.4).set_random_state(3)
    changed = transform({"image": EVERY_BYTE})["image"].double() / 255
    draw = np.random.RandomState(3)
    gain, gamma, balance = draw.uniform(-0.4, 0.4), draw.uniform(-0.4, 0.4), draw.uniform(-0.2, 0.2, size=3)
    for channel in range(3):
        expected = np.exp(gain + balance[channel]) * (EVERY_BYTE[channel].double() / 255) ** np.exp(gamma)
        assert (changed[channel] - expected.clamp(max=1)).abs().max() <= 0.5 / 255 + 1e-12


@given(st.floats(0, 2), st.integers(0, 2**32 - 1))
def test_black_stays_black_brighter_stays_brighter_and_the_input_is_left_alone(strength, seed):
    before, data = EVERY_BYTE.clone(), {"image": EVERY_BYTE, "id": "7"}
    changed = RandColourd(["image"], strength=strength).set_random_state(seed)(data)
    assert torch.equal(EVERY_BYTE, before)
    assert changed["id"] == "7"
    assert changed["image"][:, 0, 0].tolist() == [0, 0, 0]
    assert (changed["image"].int().flatten(1).diff(dim=1) >= 0).all()


def test_without_strength_nothing_is_changed_and_nothing_drawn():
    transform = RandColourd(["image"], strength=0.0).set_random_state(5)
    assert torch.equal(transform({"image": EVERY_BYTE})["image"], EVERY_BYTE)
    assert transform.R.random() == np.random.RandomState(5).random()


def test_colours_of_what_is_not_of_bytes_or_a_negative_strength_are_refused():
    with pytest.raises(ValueError, match=r"strength of colour changes of 0 or more, got -0\.1"):
        RandColourd(["image"], strength=-0.1)
    with pytest.raises(ValueError, match=r"expected uint8 \(C, H, W\), got torch.float32 \(3, 8, 32\)"):
        looked_up(EVERY_BYTE.float(), np.zeros((3, 256), dtype=np.uint8))
