"""Components of masks and label maps are those of scipy: their numbers, areas, centres and quadrants."""

import numpy as np
import pytest
from bundle.labels import LESIONS
from bundle.transforms import centre_of, components_by_quadrant, largest_component_px, lesion_areas_px, runs_of
from bundle.transforms.components import components_of, numbered_components
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

MASK = np.array([[1, 1, 0, 0, 1], [0, 0, 1, 0, 1], [0, 0, 0, 0, 0], [1, 1, 1, 1, 1]], bool)
EIGHT = np.ones((3, 3))


def random_labels(seed, share, shape, classes=4):
    rng = np.random.default_rng(seed)
    return (rng.integers(1, classes + 1, shape) * (rng.random(shape) < share)).astype(np.uint8)


def random_mask(seed, share, shape):
    return random_labels(seed, share, shape) > 0


drawings = st.integers(0, 2**32 - 1), st.floats(0, 1), st.sampled_from([(7, 9), (16, 5), (3, 64), (1, 1), (20, 20)])
masks, label_maps = st.builds(random_mask, *drawings), st.builds(random_labels, *drawings)


def test_components_by_hand_touch_at_corners_too():
    """The run of the first row touches the pixel of the second at a corner; the column of two is another."""
    labels, number = components_of(runs_of(MASK))
    assert (labels.tolist(), number) == ([0, 1, 0, 1, 2], 3)


def test_neighbours_of_two_classes_are_two_components():
    labels, number = components_of(runs_of(np.array([[1, 1, 2], [2, 1, 1]])))
    assert (labels.tolist(), number) == ([0, 1, 2, 0], 3)


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


def test_the_areas_of_every_class_by_hand():
    labels = np.zeros((6, 9), np.uint8)
    labels[0, :3] = labels[1, 3] = 1  # joined at a corner
    labels[3:5, 8] = 1
    labels[2, 0] = labels[3:6, 0] = 2
    labels[1, 8] = labels[2, 0] = 4  # row ends are no neighbours
    found = {lesion: areas_px.tolist() for lesion, areas_px in lesion_areas_px(labels).items()}
    assert found == {"MA": [4, 2], "HE": [3], "EX": [], "SE": [1, 1]}
    assert [len(areas_px) for areas_px in lesion_areas_px(np.zeros_like(labels)).values()] == [0, 0, 0, 0]


@given(label_maps)
@settings(max_examples=60, deadline=None)
def test_the_areas_of_every_class_are_those_of_scipy(labels):
    for value, lesion in enumerate(LESIONS, start=1):
        expected = np.bincount(ndimage.label(labels == value, EIGHT)[0].ravel())[1:]
        assert lesion_areas_px(labels)[lesion].tolist() == expected.tolist()


@given(masks)
@settings(max_examples=60, deadline=None)
def test_the_numbers_and_the_largest_component_are_those_of_scipy(mask):
    expected, count = ndimage.label(mask, EIGHT)
    found, numbers = numbered_components(mask)
    assert found == count
    assert np.array_equal(numbers, expected)
    assert largest_component_px(runs_of(mask)) == np.bincount(expected[mask], minlength=1).max()


@given(masks, st.floats(0, 60), st.floats(0, 16), st.integers(1, 6))
def test_components_by_quadrant_are_those_of_scipy(mask, x, y, least):
    numbered, count = ndimage.label(mask, EIGHT)
    expected = [0, 0, 0, 0]
    for one in range(1, count + 1):
        rows, columns = np.nonzero(numbered == one)
        expected[2 * bool(rows.mean() >= y) + bool(columns.mean() >= x)] += len(rows) >= least
    assert components_by_quadrant(runs_of(mask), (x, y), least) == expected


@pytest.mark.parametrize("part", [np.s_[:, 1::3], np.s_[1:, 2:]])
def test_a_part_of_a_mask_is_numbered_as_its_copy(part):
    """Its memory is not in one piece."""
    count, numbers = numbered_components(MASK[part])
    expected = numbered_components(MASK[part].copy())
    assert count == expected[0] > 0
    assert np.array_equal(numbers, expected[1])
