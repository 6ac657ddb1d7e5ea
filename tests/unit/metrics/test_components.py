import numpy as np
from bundle.metrics.shapes import touched_components
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.measure import label


def mask(*rows):
    return np.array(rows, dtype=bool)


OUTLINE = mask([1, 0, 0, 0, 1], [0, 1, 0, 0, 1], [0, 0, 0, 0, 0], [0, 0, 1, 0, 0])
"""Three components; the first is diagonal."""


def test_one_pixel_finds_a_component_and_what_it_covers_besides_does_not_count():
    assert touched_components(mask(*[[0, 0, 1, 1, 1]] * 4), OUTLINE) == (2, 3)
    assert touched_components(mask([1, 0, 0, 0, 0], *[[0] * 5] * 3), OUTLINE) == (1, 3)


def test_next_to_a_component_is_not_in_it():
    assert touched_components(mask([0, 1, 1, 1, 0], *[[0] * 5] * 3), OUTLINE) == (0, 3)


def test_empty_and_full_masks():
    nothing, everywhere = np.zeros_like(OUTLINE), np.ones_like(OUTLINE)
    assert touched_components(everywhere, OUTLINE) == (3, 3)
    assert touched_components(nothing, OUTLINE) == (0, 3)
    assert touched_components(everywhere, nothing) == (0, 0)
    assert touched_components(everywhere, everywhere) == (1, 1)


@given(st.integers(0, 2**32 - 1), st.floats(0, 1), st.floats(0, 1))
@settings(max_examples=50, deadline=None)
def test_counts_equal_those_of_scikit_image_one_component_at_a_time(seed, share, outlined):
    rng = np.random.default_rng(seed)
    predicted, outline = rng.random((13, 19)) < share, rng.random((13, 19)) < outlined
    numbers = label(outline, connectivity=2)
    hits = sum(bool(predicted[numbers == number].any()) for number in range(1, numbers.max() + 1))
    assert touched_components(predicted, outline) == (hits, numbers.max())
