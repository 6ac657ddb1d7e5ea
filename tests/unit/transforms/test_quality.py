"""Plain quality: four numbers that can be checked by hand, and the words for what is too little."""

import cv2
import numpy as np
import pytest
import torch
from bundle.phantom.drawing import draw_photograph
from bundle.transforms import MeasureQualityd, PrepareFundusd
from bundle.transforms.quality import LOWEST, WORDS, Quality, doubts_about, measure_quality

ORDINARY = Quality(field_inside=0.95, sharpness=40.0, brightness=60.0, contrast=8.0)


def disc(side=512, level=153, left=0.0, right=1.0):
    """A round field of one level, of which a part of the width is seen."""
    y, x = np.mgrid[:side, :side] + 0.5 - side / 2
    seen = (x**2 + y**2 < (0.48 * side) ** 2) & (x > (left - 0.5) * side) & (x < (right - 0.5) * side)
    return np.repeat((level * seen).astype(np.uint8)[None], 3, axis=0)


def eye():
    drawn = draw_photograph(2, np.random.default_rng(0), 700, 500).image
    return PrepareFundusd(512)({"image": drawn, "masks": {}})["image"].numpy()


def blurred(image_3SS, sigma_px):
    return cv2.GaussianBlur(image_3SS.transpose(1, 2, 0), (0, 0), sigma_px).transpose(2, 0, 1)


@pytest.mark.parametrize(("left", "right", "share"), [(0, 1, 1.0), (0, 0.5, 0.5), (0.25, 0.75, 0.632)])
def test_the_share_of_the_circle_that_is_inside(left, right, share):
    """Within u = 0.25 / 0.48 of the radius, a disc has (2 / pi) (u sqrt(1 - u^2) + asin u) of its area."""
    assert measure_quality(disc(left=left, right=right)).field_inside == pytest.approx(share, abs=0.02)


def test_a_picture_without_a_round_field_has_as_much_of_a_circle_as_a_square():
    assert measure_quality(np.full((3, 64, 64), 90, np.uint8)).field_inside == pytest.approx(2 / np.pi, abs=0.02)


def test_brightness_is_in_percent_of_white():
    assert measure_quality(disc(level=153)).brightness == pytest.approx(60)
    assert measure_quality(disc(level=51)).brightness == pytest.approx(20)


def test_a_field_of_one_level_has_no_contrast_and_nothing_sharp():
    found = measure_quality(disc())
    assert (found.contrast, found.sharpness) == pytest.approx((0, 0), abs=0.1)


def test_stripes_of_one_pixel_are_as_sharp_as_can_be():
    stripes = disc()
    stripes[:, :, ::2] //= 2
    found = measure_quality(stripes)
    assert found.sharpness > 90
    assert found.contrast == pytest.approx(100 * (153 - 76) / (153 + 76), rel=0.05)


def test_blur_takes_sharpness_and_darkness_takes_light_alone():
    image = eye()
    plain, soft, dark = measure_quality(image), measure_quality(blurred(image, 3)), measure_quality(image // 4)
    assert soft.sharpness < 0.5 * plain.sharpness
    assert soft.brightness == pytest.approx(plain.brightness, rel=0.02)
    assert dark.brightness == pytest.approx(plain.brightness / 4, rel=0.05)
    assert dark.contrast == pytest.approx(plain.contrast, rel=0.1)
    assert dark.field_inside == pytest.approx(plain.field_inside, abs=0.02)


def test_a_larger_image_of_the_same_eye_has_about_the_same_quality():
    image = eye()
    large = torch.nn.functional.interpolate(torch.from_numpy(image)[None].float(), 832, mode="bilinear")[0].byte()
    assert measure_quality(large.numpy()) == pytest.approx(measure_quality(image), rel=0.2)


def test_the_image_is_not_changed_and_the_order_of_numbers_is_that_of_the_names():
    image = eye()
    before = image.copy()
    found = MeasureQualityd()({"image": torch.from_numpy(image)})["quality"]
    assert np.array_equal(image, before)
    assert Quality(*found.tolist()) == pytest.approx(measure_quality(image), rel=1e-6)


def test_each_number_below_the_lowest_has_its_word():
    assert set(LOWEST) == set(WORDS) == set(Quality._fields)
    assert doubts_about(ORDINARY) == ()
    for name, word in WORDS.items():
        assert doubts_about(ORDINARY._replace(**{name: 0.99 * LOWEST[name]})) == (word,)
    assert doubts_about(ORDINARY._replace(sharpness=0.0, brightness=0.0)) == ("dark", "blurred")


def test_an_image_that_is_all_but_black_is_refused():
    with pytest.raises(ValueError, match="expected a bright round field on black"):
        measure_quality(np.zeros((3, 40, 40), np.uint8))
