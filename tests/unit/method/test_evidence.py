import re

import numpy as np
import pytest
from bundle.grade_rules import feasible_grades
from bundle.method.evidence import Thresholds, check_grid, evidence, perfect_map
from bundle.method.pseudo_labels import decide
from hypothesis import given
from hypothesis import strategies as st
from pytorch_grad_cam.utils.image import scale_cam_image
from skimage.morphology import isotropic_dilation

R2 = feasible_grades({"HE", "EX"})
FIELD = np.ones((10, 20), dtype=bool)
GRIDS = [(10, 20)]
"""As fine as the image: the perfect map is the mask of the lesions."""


def region(rows, columns, shape=(10, 20)):
    mask = np.zeros(shape, dtype=bool)
    mask[rows, columns] = True
    return mask


def maps(**heat):
    """Heat maps of zeros but for those given as grade0, grade1, ..."""
    return np.stack([np.asarray(heat.get(f"grade{grade}", np.zeros((10, 20))), dtype=float) for grade in range(5)])


def test_evidence_by_hand():
    lesions, disc = region(slice(0, 2), slice(0, 10)), region(slice(5, 10), slice(10, 12))
    heat = 0.25 * region(slice(9, 10), slice(0, 20))  # energy 5, 0.5 of it on the disc, nothing hot
    heat[0, :10] = 1.0  # energy 10, hot, on lesions
    heat[9, 10:12] = 1.0  # energy 2, hot, on the disc
    found = evidence(maps(grade3=heat), lesions, disc, FIELD, Thresholds(), grids=GRIDS)[3]
    total = 10 + 2 + 18 * 0.25
    assert found.energy == pytest.approx(10 / total)
    assert found.hit == pytest.approx(10 / 12)
    assert found.optic_disc == pytest.approx(2 / 12)
    assert found.coverage == pytest.approx(10 / 20)
    assert found.lift == pytest.approx(10 / total / 0.1)
    assert found.relative_lift == pytest.approx((10 / total / 0.1 - 1) / (1 / 0.1 - 1))  # a perfect map has energy 1
    assert found.relative_coverage == pytest.approx(0.5)
    assert found.supported


def test_a_heat_map_without_preference_has_a_lift_of_one():
    found = evidence(maps(grade2=FIELD), region(3, slice(2, 9)), None, FIELD, Thresholds(), grids=GRIDS)[2]
    assert found.lift == pytest.approx(1.0)
    assert found.coverage == 1.0
    assert found.relative_lift == pytest.approx(0, abs=1e-9)
    assert not found.supported


def test_heat_on_the_optic_disc_supports_nothing():
    lesions, heat = region(slice(0, 3), 4), region(slice(0, 6), 4)
    disc = region(slice(3, 6), 4)
    assert not evidence(maps(grade2=heat), lesions, disc, FIELD, Thresholds(), grids=GRIDS)[2].supported
    untested = evidence(maps(grade2=heat), lesions, None, FIELD, Thresholds(), grids=GRIDS)[2]
    assert untested.supported
    assert untested.optic_disc is None


def test_heat_on_a_tiny_part_of_the_lesions_supports_nothing():
    lesions = region(slice(0, 2), slice(0, 11))
    found = evidence(maps(grade4=region(0, slice(0, 2))), lesions, None, FIELD, Thresholds(), grids=GRIDS)[4]
    assert found.lift == pytest.approx(1 / 0.11)
    assert found.coverage == pytest.approx(2 / 22)
    assert not found.supported


def test_a_map_of_zeros_supports_nothing():
    found = evidence(maps(), region(3, slice(2, 9)), FIELD, FIELD, Thresholds(), grids=GRIDS)
    assert {(e.energy, e.hit, e.optic_disc, e.coverage, e.lift, e.supported) for e in found} == {(0, 0, 0, 0, 0, False)}


@pytest.mark.filterwarnings("error")
def test_where_all_maps_are_zero_probabilities_and_feasible_grades_decide_alone_and_it_is_said():
    lesions = region(3, slice(2, 9))
    found = evidence(maps(), lesions, None, FIELD, Thresholds(), grids=GRIDS)
    assert all(one.empty for one in found)
    decision = decide(np.array([0.5, 0, 0.1, 0.3, 0.1]), R2, found, Thresholds(), present=("HE", "EX"))
    assert (decision.decided, decision.action) == (3, "move")
    np.testing.assert_allclose(decision.soft_label, [0, 0, 0.2, 0.6, 0.2])
    assert decision.reason.endswith("; all heat maps are empty, so the probabilities alone choose: decided 3")
    one_map = evidence(maps(grade1=FIELD), lesions, None, FIELD, Thresholds(), grids=GRIDS)
    assert [one.empty for one in one_map] == [True, False, True, True, True]


def test_without_lesions_coverage_and_lift_are_undefined():
    nothing = np.zeros_like(FIELD)
    found = evidence(maps(grade1=FIELD), nothing, None, FIELD, Thresholds(), grids=GRIDS)[1]
    assert (found.coverage, found.lift, found.supported) == (None, None, False)
    assert found.relative_coverage is found.relative_lift is None


def test_lesions_are_widened_by_the_halo_within_the_field_of_view():
    field = FIELD.copy()
    field[:, 5] = False
    heat = region(5, slice(3, 6))
    lesions = region(5, 4)
    found = evidence(maps(grade2=heat), lesions, None, field, Thresholds(halo=0.05), grids=GRIDS)[2]
    assert found.hit == pytest.approx(2 / 3)
    assert found.coverage == pytest.approx(2 / 4)  # a cross of five pixels, one of them out of view


def test_evidence_changes_none_of_its_arguments():
    heat, lesions = maps(grade2=FIELD * 0.7), region(3, slice(2, 9))
    before = heat.copy(), lesions.copy()
    evidence(heat, lesions, None, FIELD, Thresholds(), grids=GRIDS)
    np.testing.assert_array_equal(heat, before[0])
    np.testing.assert_array_equal(lesions, before[1])


def test_evidence_rejects_what_does_not_fit():
    lesions = region(3, slice(2, 9))
    with pytest.raises(ValueError, match=r"got \(5, 10, 20\) and \[\(10, 20\), \(20, 10\)\]"):
        evidence(maps(), lesions, None, FIELD.T, Thresholds(), grids=GRIDS)
    with pytest.raises(ValueError, match=r"expected bool masks, got \['uint8', 'bool'\]"):
        evidence(maps(), lesions.astype(np.uint8), None, FIELD, Thresholds(), grids=GRIDS)
    with pytest.raises(ValueError, match=r"heat maps in \[0, 1\], got values from 0.0 to 2.0"):
        evidence(maps(grade2=FIELD * 2), lesions, None, FIELD, Thresholds(), grids=GRIDS)
    with pytest.raises(ValueError, match="field of view with at least one pixel"):
        evidence(maps(), lesions, None, np.zeros_like(FIELD), Thresholds(), grids=GRIDS)


# --- what a perfect map reaches


def test_a_perfect_map_by_hand():
    lesions = region(slice(0, 2), slice(2, 4), shape=(4, 8))  # one cell of a grid of 2 x 4
    rows, columns = [1, 0.75, 0.25, 0], [0, 1 / 3, 1, 1, 1 / 3, 0, 0, 0]  # bilinear, then scaled by its largest, 0.75
    np.testing.assert_allclose(perfect_map(lesions, (2, 4)), np.outer(rows, columns), atol=1e-6)


def test_a_perfect_map_is_scaled_as_pytorch_grad_cam_scales_real_ones():
    lesions = np.random.default_rng(0).random((64, 96)) > 0.9
    shares = lesions.reshape(8, 8, 12, 8).mean(axis=(1, 3), dtype=np.float32)
    real = scale_cam_image(scale_cam_image(shares[None], (96, 64)))[0]
    np.testing.assert_allclose(perfect_map(lesions, (8, 12)), real, atol=1e-6)


def test_on_a_coarse_grid_a_map_is_held_against_what_the_grid_allows_by_hand():
    lesions, field = region(slice(0, 2), slice(2, 4), shape=(4, 8)), np.ones((4, 8), dtype=bool)
    heat = np.zeros((5, 4, 8))
    heat[2] = perfect_map(lesions, (2, 4))
    heat[3, :, :] = 1
    found = evidence(heat, lesions, None, field, Thresholds(halo=0), grids=[(2, 4)])
    assert found[2].lift == pytest.approx(3.5 / (16 / 3) / (4 / 32))  # 5.25, of the 8 of a map as fine as the image
    assert (found[2].relative_lift, found[2].relative_coverage) == pytest.approx((1, 1))
    assert found[3].relative_lift == pytest.approx(0)
    assert [one.supported for one in found] == [False, False, True, False, False]


@pytest.mark.parametrize("cells", [2, 3, 8, 16])
def test_a_perfect_map_supports_its_grade_on_every_grid_and_absolute_numbers_would_not(cells):
    side = 96
    rng = np.random.default_rng(0)
    lesions = np.zeros((side, side + 32), dtype=bool)
    for y, x in rng.integers(8, 84, (12, 2)):  # lesions all over the field, as on a real photograph
        lesions[y : y + 4, x : x + 5] = True
    grid = (cells, cells + 1)
    heat = np.stack([perfect_map(isotropic_dilation(lesions, 0.01 * 128), grid)] * 5)
    (found, *_) = evidence(heat, lesions, None, np.ones_like(lesions), Thresholds(), grids=[grid])
    assert (found.relative_lift, found.relative_coverage) == pytest.approx((1, 1))
    assert found.supported
    if cells <= 3:
        assert found.lift < 2  # what was asked for before


def test_of_several_grids_the_perfect_map_is_the_mean():
    lesions, field = region(slice(0, 2), slice(2, 4), shape=(4, 8)), np.ones((4, 8), dtype=bool)
    grids = [(2, 4), (4, 8)]
    heat = np.stack([np.mean([perfect_map(lesions, grid) for grid in grids], axis=0)] * 5)
    (found, *_) = evidence(heat, lesions, None, field, Thresholds(halo=0), grids=grids)
    assert (found.relative_lift, found.relative_coverage) == pytest.approx((1, 1))


def test_where_a_perfect_map_gains_nothing_no_map_supports_a_grade():
    everywhere = evidence(maps(grade2=FIELD), FIELD, None, FIELD, Thresholds(), grids=GRIDS)[2]
    assert (everywhere.lift, everywhere.relative_lift, everywhere.supported) == (1, None, False)
    one_cell = evidence(maps(grade2=FIELD), region(3, slice(2, 9)), None, FIELD, Thresholds(), grids=[(1, 1)])[2]
    assert (one_cell.relative_lift, one_cell.supported) == (None, False)


@given(st.integers(0, 2**32 - 1), st.sampled_from([(5, 10), (3, 7), (10, 20)]))
def test_no_map_that_is_all_chance_or_worse_is_supported(seed, grid):
    rng = np.random.default_rng(seed)
    lesions = rng.random((10, 20)) > 0.9
    heat = np.stack([np.where(lesions, 0.2, rng.random((10, 20)) * 0.5 + 0.5)] * 5)
    found = evidence(heat, lesions, None, FIELD, Thresholds(halo=0), grids=[grid])
    assert not any(one.supported for one in found)


def test_heat_maps_on_a_coarse_grid_are_refused_and_the_way_out_is_named():
    check_grid((8, 9), 256, Thresholds())
    check_grid((2, 2), 64, Thresholds(grid_min=2))
    message = re.escape(
        "expected heat maps on a grid of 8x8 or more, got 3x3 at image_size 96: a lesion fills a part of one "
        "cell there; raise image_size to 256, take heat_map_stride 16 (from image_size 128 on), or lower "
        "thresholds::grid_min"
    )
    with pytest.raises(ValueError, match=message):
        check_grid((3, 3), 96, Thresholds())
    with pytest.raises(ValueError, match=r"got 6x6 at image_size 96: .*; raise image_size to 128, or lower"):
        check_grid((6, 6), 96, Thresholds())
    with pytest.raises(ValueError, match=r"got 16x4 "):
        check_grid((16, 4), 128, Thresholds())
    with pytest.raises(ValueError, match=r"expected the grid \(h, w\) of the activations .*, got none"):
        evidence(maps(), FIELD, None, FIELD, Thresholds(), grids=[])


def test_thresholds_reject_values_outside_their_range():
    with pytest.raises(ValueError, match=r"threshold coverage_min in \[0, 1.0\], got 1.2"):
        Thresholds(coverage_min=1.2)
    with pytest.raises(ValueError, match=r"threshold lift_min in \[0, 1.0\], got 2.0"):
        Thresholds(lift_min=2.0)
    with pytest.raises(ValueError, match=r"threshold confidence_min in \[0, 5\], got 5.5"):
        Thresholds(confidence_min=5.5)
    with pytest.raises(ValueError, match=r"threshold evidence_gain in \[0, inf\], got nan"):
        Thresholds(evidence_gain=float("nan"))
    with pytest.raises(ValueError, match="hot above 0"):
        Thresholds(hot=0)
