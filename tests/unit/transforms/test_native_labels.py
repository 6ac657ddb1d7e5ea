"""Labels at native size are those of the plain way, without its arrays."""

import numpy as np
import pytest
import torch
from bundle.transforms import native as module
from bundle.transforms import native_labels, to_native
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

ROUNDING = 1e-6


def smooth(seed, size=16, coarse=4):
    noise = torch.randn(1, 5, coarse, coarse, generator=torch.Generator().manual_seed(seed))
    return F.interpolate(noise * 3, (size, size), mode="bicubic").softmax(dim=1)[0]


def noisy(seed, size=16):
    return torch.rand(5, size, size, generator=torch.Generator().manual_seed(seed))


def unlike(scores, geometry):
    """Return the share of pixels whose class differs from the plain way's, and by how much that was ahead there."""
    native = to_native(scores, geometry)
    differs = torch.from_numpy(native_labels(scores, geometry)).long() != native.argmax(dim=0)
    first, second = native.topk(2, dim=0).values
    return differs.float().mean().item(), (first - second)[differs].max().item() if differs.any() else 0.0


@pytest.mark.parametrize("scores", [smooth(0), noisy(0)], ids=["smooth", "noisy"])
@pytest.mark.parametrize(
    "geometry",
    [(15, -7, 90, 120, 70), (0, 0, 16, 16, 16), (2, 3, 9, 20, 14), (-5, -5, 70, 60, 60)],
    ids=["enlarged", "as it is", "reduced", "reaching outside"],
)
def test_native_labels_are_those_of_the_interpolated_scores(scores, geometry):
    share, ahead = unlike(scores, geometry)
    assert share < 0.001
    assert ahead < ROUNDING


@given(st.integers(0, 999), st.integers(-20, 20), st.integers(-20, 20), st.integers(1, 80), st.booleans())
def test_that_holds_wherever_the_square_lies(seed, left, top, side, is_smooth):
    share, ahead = unlike((smooth if is_smooth else noisy)(seed, 8), (left, top, side, 50, 31))
    assert share < 0.01
    assert ahead < ROUNDING


def test_blocks_of_rows_meet_without_a_seam(monkeypatch):
    scores, geometry = smooth(3), (4, 4, 120, 140, 130)
    whole = native_labels(scores, geometry)
    monkeypatch.setattr(module, "BLOCK_PX", 500)
    assert np.array_equal(native_labels(scores, geometry), whole)


def test_no_array_of_native_scores_is_made(monkeypatch):
    """In 300 x 200 pixels one class differs in a corner: some 1 % of the pixels are interpolated."""
    seen = []
    plain = module._interpolated_pixels
    monkeypatch.setattr(module, "_interpolated_pixels", lambda s, y, x: seen.append(len(y.low)) or plain(s, y, x))
    scores = torch.zeros(5, 20, 20)
    scores[0] = 0.5
    scores[3, 4:6, 7:9] = 1
    native_labels(scores, (0, 0, 200, 300, 200))
    assert 0 < sum(seen) < 0.02 * 300 * 200


def test_the_callers_scores_stay_as_they_are():
    scores = smooth(1)
    before = scores.clone()
    native_labels(scores, (0, 0, 50, 60, 50))
    assert torch.equal(scores, before)


def test_a_square_outside_of_the_photograph_has_no_lesion():
    assert not native_labels(noisy(1), (500, 500, 40, 60, 50)).any()
