import json
import re

import numpy as np
import pytest
from bundle.labels import LESIONS, Feasible, feasible_grades
from bundle.method.pseudo_labels import (
    Evidence,
    Thresholds,
    audit_row,
    check_grid,
    combine,
    decide,
    evidence,
    haemorrhages_in_doubt,
    perfect_map,
    summarise,
)
from hypothesis import given
from hypothesis import strategies as st
from pytorch_grad_cam.utils.image import scale_cam_image
from scipy.stats import gmean
from skimage.morphology import isotropic_dilation

R1, R2 = feasible_grades({"MA"}), feasible_grades({"HE", "EX"})
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


def support(*grades, lift=3.14):
    return tuple(
        Evidence(
            grade=grade,
            energy=0.5,
            hit=0.5,
            optic_disc=None,
            coverage=0.5,
            lift=lift if grade in grades else 0.5,
            relative_lift=0.62 if grade in grades else -0.1,
            relative_coverage=0.5,
            supported=grade in grades,
        )
        for grade in range(5)
    )


def settle(probabilities, present=("HE", "EX"), supported=(), annotated=LESIONS, **thresholds):
    return decide(
        np.array(probabilities),
        feasible_grades(present, annotated),
        support(*supported),
        Thresholds(**thresholds),
        present=present,
    )


# --- the graders' opinion


def test_the_most_confident_grader_is_heard_alone():
    rows = np.array([[0.5, 0.5, 0, 0, 0], [0.1, 0, 0.3, 0.6, 0]])
    probabilities, winner = combine(rows, "max_confidence")
    assert probabilities.tolist() == [0.1, 0, 0.3, 0.6, 0]
    assert winner == 1


def test_the_first_of_equally_confident_graders_wins():
    assert combine(np.eye(5)[[2, 4]], "max_confidence")[1] == 0


def test_the_log_mean_is_the_normalised_geometric_mean():
    rows = np.array([[0.4, 0.1, 0.2, 0.2, 0.1], [0.1, 0.4, 0.2, 0.1, 0.2]])
    probabilities, winner = combine(rows, "log_mean")
    geometric = gmean(rows, axis=0)
    np.testing.assert_allclose(probabilities, geometric / geometric.sum())
    assert winner is None


def test_the_log_mean_of_graders_that_exclude_each_other_is_still_a_distribution():
    probabilities, _ = combine(np.eye(5)[[0, 3]], "log_mean")
    np.testing.assert_allclose(probabilities, [0.5, 0, 0, 0.5, 0], atol=1e-12)


@pytest.mark.parametrize("mode", ["max_confidence", "log_mean"])
def test_one_grader_is_its_own_opinion(mode):
    probabilities, _ = combine(np.array([[0.1, 0.2, 0.3, 0.4, 0]]), mode)
    np.testing.assert_allclose(probabilities, [0.1, 0.2, 0.3, 0.4, 0], atol=1e-12)


def test_combine_rejects_unknown_modes_and_what_are_no_probabilities():
    with pytest.raises(ValueError, match=r"mode in \['max_confidence', 'log_mean'\], got 'mean'"):
        combine(np.eye(5), "mean")
    with pytest.raises(ValueError, match=r"one row of 5 probabilities per grader, got shape \(5,\)"):
        combine(np.ones(5) / 5, "log_mean")
    with pytest.raises(ValueError, match="sum to 1"):
        combine(np.ones((2, 5)), "log_mean")


# --- the lesions that are there


def haemorrhages(*sides_px):
    """Squares of haemorrhages and one large exudate."""
    label_map = np.zeros((60, 200), dtype=np.uint8)
    label_map[40:50, 3:90] = 3
    for place, side in enumerate(sides_px):
        label_map[5 : 5 + side, 20 * place : 20 * place + side] = 2
    return label_map


@pytest.mark.parametrize(
    ("sides_px", "few", "in_doubt"),
    [
        ((3, 2, 3), 3, ("HE",)),  # 9 px at most
        ((3, 2, 3), 2, ()),  # too many
        ((3, 4), 3, ()),  # 16 px
        ((), 3, ()),
        ((1,), 0, ()),  # switched off, as it is by default
    ],
)
def test_few_and_tiny_haemorrhages_are_in_doubt(sides_px, few, in_doubt):
    field = np.ones((60, 200), dtype=bool)  # 12000 px, of which 0.03^2 are 10.8
    thresholds = Thresholds(few_haemorrhages=few, tiny=0.03)
    assert haemorrhages_in_doubt(haemorrhages(*sides_px), field, thresholds) == in_doubt


def test_the_refined_rules_are_off_by_default():
    assert (Thresholds().few_haemorrhages, Thresholds().name_atypical) == (0, False)


# --- evidence


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


# --- the decision


def test_a_feasible_and_supported_proposal_is_kept():
    decision = settle([0.1, 0.1, 0.2, 0.5, 0.1], supported=(3, 4))
    assert (decision.proposed, decision.decided, decision.action, decision.rule) == (3, 3, "keep", "R2")
    assert decision.weight == pytest.approx(0.8)
    assert decision.confidence == pytest.approx(0.5 / 0.8)


def test_a_proposal_that_the_lesions_exclude_moves_to_the_likeliest_supported_grade():
    decision = settle([0.5, 0, 0.2, 0.1, 0.2], supported=(3,))
    assert (decision.proposed, decision.decided, decision.action) == (0, 3, "move")
    assert decision.reason == (
        "grade 0 was proposed, but haemorrhages and hard exudates are outlined: feasible are 2, 3, 4; "
        "the heat map of grade 3 lies on the lesions (lift 3.1, 62% of a perfect map's gain): "
        "decided 3"
    )


def test_a_feasible_proposal_without_support_moves_to_one_with_support():
    decision = settle([0, 0, 0.6, 0.4, 0], supported=(3,))
    assert (decision.decided, decision.action) == (3, "move")
    assert (
        "the heat map of grade 3 lies on the lesions (lift 3.1, 62% of a perfect map's gain), that of grade 2 does not"
        in decision.reason
    )


def test_without_support_a_feasible_proposal_is_kept_and_another_moves_to_the_likeliest_feasible():
    assert settle([0, 0.3, 0.2, 0.5, 0], supported=(0, 1)).action == "keep"
    decision = settle([0.5, 0, 0.2, 0.3, 0])
    assert (decision.decided, decision.action) == (3, "move")
    assert "no heat map of a feasible grade lies on the lesions: decided 3" in decision.reason


def test_the_soft_label_by_hand():
    decision = settle([0.4, 0, 0.3, 0.2, 0.1], supported=(3,), evidence_gain=np.log(3))
    np.testing.assert_allclose(decision.soft_label, [0, 0, 0.3, 0.6, 0.1])


def test_too_little_probability_on_feasible_grades_is_an_abstention():
    decision = settle([0.5, 0.35, 0.1, 0.05, 0], supported=(2,))
    assert (decision.action, decision.weight, decision.decided) == ("abstain", 0, 2)
    assert decision.reason.endswith("yet not taught, for the feasible grades had a probability of only 0.15")


def test_too_little_confidence_among_feasible_grades_is_an_abstention():
    decision = settle([0.1, 0, 0.33, 0.3, 0.27])
    assert (decision.action, decision.weight) == ("abstain", 0)
    assert decision.reason.endswith(
        "yet not taught, for the likeliest of the 3 feasible grades has a share of only 0.37"
    )


@pytest.mark.parametrize(
    ("present", "annotated", "share", "action"),
    [
        (("EX",), LESIONS, 0.41, "keep"),  # F of three: 1.2 / 3
        (("EX",), LESIONS, 0.39, "abstain"),
        ((), ("EX",), 0.25, "keep"),  # F of five: 1.2 / 5
        ((), ("EX",), 0.23, "abstain"),
    ],
)
def test_how_sure_is_sure_enough_depends_on_how_many_grades_are_feasible(present, annotated, share, action):
    grades = sorted(feasible_grades(present, annotated).grades)
    p = np.zeros(5)
    p[grades] = (1 - share) / (len(grades) - 1)
    p[grades[0]] = share
    assert settle(p, present, (grades[0],), annotated).action == action


def test_a_decision_says_whether_the_heat_maps_changed_it():
    assert settle([0, 0, 0.6, 0.4, 0], supported=(3,)).changed_by_heat
    assert not settle([0, 0, 0.6, 0.4, 0], supported=(2, 3)).changed_by_heat
    assert not settle([0.9, 0, 0.06, 0.04, 0], supported=(0,)).changed_by_heat  # moved, by the outlines alone
    assert not settle([0, 0, 0.6, 0.4, 0]).changed_by_heat


def test_what_is_taught_is_the_likeliest_of_the_soft_label_which_need_not_be_the_decided_grade():
    decision = settle([0, 0, 0.7, 0.2, 0.1], supported=(3,))  # 0.7 against 0.2 e
    assert (decision.decided, decision.taught) == (3, 2)
    assert settle([0.5, 0.35, 0.1, 0.05, 0]).taught is None  # an abstention


def test_no_probability_on_feasible_grades_is_uniform_and_an_abstention():
    decision = settle([0.5, 0.5, 0, 0, 0], supported=(3,), feasible_mass_min=0.0, confidence_min=0.0)
    np.testing.assert_allclose(decision.soft_label, [0, 0, 1 / 3, 1 / 3, 1 / 3])
    assert (decision.action, decision.weight, decision.confidence) == ("abstain", 0, 0)


@pytest.mark.parametrize(("present", "grade"), [((), 0), (("MA",), 1)])
def test_where_one_grade_is_feasible_the_outlines_alone_decide_it(present, grade):
    decision = settle([0.001, 0.001, 0.001, 0.001, 0.996], present=present)
    assert (decision.decided, decision.action, decision.weight) == (grade, "move", 1.0)
    assert decision.soft_label[grade] == 1.0


def test_probabilities_near_the_smallest_float_do_not_underflow():
    decision = settle([1, 0, 1e-310, 3e-310, 0], supported=(2,), evidence_gain=700.0)
    assert sum(decision.soft_label) == pytest.approx(1)
    assert decision.soft_label[2] == pytest.approx(1)


@pytest.mark.parametrize(
    ("present", "annotated", "words"),
    [
        ((), LESIONS, "grade 0 was proposed, and no lesion is outlined: feasible is 0; decided 0"),
        (("MA",), LESIONS, "but only microaneurysms are outlined: feasible is 1; "),
        (("EX", "MA", "HE"), LESIONS, "but microaneurysms, haemorrhages and hard exudates are outlined: "),
        (("MA",), ("MA",), "and microaneurysms are outlined, though not every lesion was looked for: feasible are 0, "),
    ],
)
def test_the_reason_names_what_is_outlined(present, annotated, words):
    probabilities, thresholds = np.array([0.6, 0.1, 0.1, 0.1, 0.1]), Thresholds()
    found = evidence(maps(), region(3, slice(2, 9)) & bool(present), None, FIELD, thresholds, grids=GRIDS)
    decision = decide(probabilities, feasible_grades(present, annotated), found, thresholds, present=present)
    assert words in decision.reason


def test_a_weight_is_1_at_most_though_its_probabilities_sum_to_more():
    probabilities = np.array([0, 0, 1, 4, 1]) / 6
    assert (probabilities / probabilities.sum())[2:].sum() == 1.0000000000000002
    assert settle(probabilities, {"HE"}).weight == 1
    assert settle(probabilities, {"HE"}).confidence == pytest.approx(2 / 3)


distributions = st.lists(st.floats(0, 1), min_size=5, max_size=5).filter(any).map(lambda p: np.array(p) / sum(p))


@given(distributions, st.sets(st.sampled_from(LESIONS)), st.sets(st.integers(0, 4)), st.floats(0, 50))
def test_whatever_is_proposed_only_feasible_grades_are_taught(probabilities, present, supported, gain):
    decision = settle(probabilities, present, supported, evidence_gain=gain)
    grades = feasible_grades(present).grades
    assert decision.decided in grades
    assert sum(decision.soft_label) == pytest.approx(1)
    assert all(share == 0 for grade, share in enumerate(decision.soft_label) if grade not in grades)
    assert 0 <= decision.weight <= 1
    assert (decision.weight == 0) == (decision.action == "abstain")
    if decision.action != "abstain":
        assert (decision.action == "keep") == (decision.decided == decision.proposed)
    if supported & grades:
        assert decision.decided in supported


@pytest.mark.parametrize("bad", [[0.5, 0.6, 0, 0, 0], [np.nan, 1, 0, 0, 0], [-0.5, 1.5, 0, 0, 0]])
def test_decide_rejects_what_are_no_probabilities(bad):
    with pytest.raises(ValueError, match="finite, not negative and sum to 1"):
        settle(bad)
    with pytest.raises(ValueError, match=r"expected 5 probabilities, got shape \(4,\)"):
        settle([0.25] * 4)


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


# --- audit and summary


def row(name, probabilities=(0.1, 0.1, 0.1, 0.6, 0.1), feasible=R2, present=("HE", "EX"), supported=(3,)):
    graders = np.array([probabilities])
    p, winner = combine(graders, "max_confidence")
    found = support(*supported)
    decision = decide(p, feasible, found, Thresholds(), present=present)
    return audit_row(
        name, decision, found, feasible=feasible, present=present, probabilities=p, graders_GC=graders, winner=winner,
        largest_px=dict.fromkeys(present, 40),
    )  # fmt: skip


def test_an_audit_row_is_flat_json_with_every_number():
    found = row("idrid/train/7")
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert not any(isinstance(value, (list, tuple, dict)) for value in found.values())
    expected = {"id": "idrid/train/7", "decided": 3, "rule": "R2", "winner": 0, "present_HE": True, "feasible_1": False}
    expected |= {
        "largest_px_HE": 40,
        "largest_px_MA": 0,
        "lift_3": 3.14,
        "optic_disc_3": None,
        "supported_2": False,
        "grader0_probability_3": 0.6,
    }
    assert {key: found[key] for key in expected} == expected
    assert found["soft_label_3"] > found["probability_3"]


def test_the_summary_scores_proposals_and_decisions_by_hand():
    rows = [
        row("a"),  # 3 kept, truth 3
        row("b", (0.5, 0.1, 0.1, 0.2, 0.1)),  # 0 moved to 3, truth 3
        row("c", (0.9, 0.02, 0.02, 0.06, 0)),  # 0, abstained on 3, truth 1: not feasible
        row("d", (0.1, 0.9, 0, 0, 0), R1, ("MA",), ()),  # 1 kept, truth 1
        row("e"),  # truth unknown
    ]
    found = summarise(rows, {"a": 3, "b": 3, "c": 1, "d": 1, "elsewhere": 0}, resamples=50)
    assert (found["n"], found["n_known"], found["n_taught"]) == (5, 4, 3)
    assert (found["n_keep"], found["n_move"], found["n_abstain"]) == (3, 1, 1)
    assert found["proposed/accuracy"] == 0.5
    assert found["decided/accuracy"] == 0.75
    assert found["taught/accuracy"] == found["taught/quadratic_kappa"] == 1.0
    assert found["majority/accuracy"] == 0.5
    assert found["truth_feasible"] == 0.75
    assert (found["R2/n"], found["R2/n_known"], found["R2/truth_feasible"]) == (4, 3, pytest.approx(2 / 3))
    assert found["decided/quadratic_kappa"] == pytest.approx(0.5)  # 1 - (1/4) / (1/2), in units of two grades
    json.dumps(found, allow_nan=False)


def test_taught_scores_the_soft_label_and_not_the_decided_grade():
    moved = row("a", (0, 0, 0.7, 0.2, 0.1))  # decided 3, for its heat map lies on the lesions; taught 2
    assert (moved["decided"], moved["taught"], moved["changed_by_heat"]) == (3, 2, True)
    q = {grade: moved[f"soft_label_{grade}"] for grade in range(5)}
    abstained = row("b", (0.9, 0.02, 0.02, 0.06, 0))
    ruled_out = row("c")
    found = summarise([moved, abstained, ruled_out], {"a": 2, "b": 1, "c": 0}, resamples=50)
    assert abstained["taught"] is None
    assert (found["n_taught"], found["taught/accuracy"], found["decided/accuracy"]) == (2, 0.5, 0.0)
    assert found["taught/log_probability"] == pytest.approx((np.log(q[2]) + np.log(1e-6)) / 2)
    assert found["taught/log_probability_low"] <= found["taught/log_probability"] <= -0.3
    assert (found["n_supported"], found["n_changed_by_heat"]) == (3, 1)


def test_support_of_a_grade_that_is_not_feasible_is_not_counted():
    found = summarise([row("a", supported=(0, 1)), row("b", supported=())], {}, resamples=50)
    assert (found["n_supported"], found["n_changed_by_heat"], found["taught/log_probability"]) == (0, 0, None)


def test_the_gain_is_decided_minus_proposed_on_the_same_resamples():
    helped = [row(f"helped{index}", (0.5, 0.1, 0.1, 0.2, 0.1)) for index in range(4)]  # 0 moved to 3
    same = [row(f"same{index}") for index in range(4)]  # 3 kept
    rows = [*helped, *same, row("missed", (0.1, 0.1, 0.2, 0.5, 0.1))]
    truth = {one["id"]: 3 for one in [*helped, *same]} | {"missed": 2}
    found = summarise(rows, truth, seed=3, resamples=400)
    assert found["gain/accuracy"] == pytest.approx(4 / 9)
    assert found["gain/accuracy"] == pytest.approx(found["decided/accuracy"] - found["proposed/accuracy"])
    draws = np.random.default_rng(3).integers(9, size=(400, 9))
    gains = (draws < 4).mean(axis=1)  # the first four were helped
    low, high = np.percentile(gains, [2.5, 97.5])
    assert (found["gain/accuracy_low"], found["gain/accuracy_high"]) == pytest.approx((low, high))
    kappa = found["decided/quadratic_kappa"] - found["proposed/quadratic_kappa"]
    assert found["gain/quadratic_kappa"] == pytest.approx(kappa)
    assert found["gain/quadratic_kappa_low"] <= kappa <= found["gain/quadratic_kappa_high"]


def test_where_no_decision_differs_the_gain_is_exactly_nothing():
    rows = [row(str(index), np.roll((0.1, 0.1, 0.1, 0.6, 0.1), index % 2), supported=()) for index in range(8)]
    found = summarise(rows, {str(index): 3 + index % 2 for index in range(8)}, resamples=50)
    assert [found[f"gain/accuracy{end}"] for end in ("", "_low", "_high")] == [0, 0, 0]
    assert [found[f"gain/quadratic_kappa{end}"] for end in ("", "_low", "_high")] == [0, 0, 0]


def test_intervals_of_the_summary_are_wilsons_and_repeatable():
    rows = [row(str(index)) for index in range(10)]
    truth = {str(index): 3 if index < 8 else 2 for index in range(10)}
    found = summarise(rows, truth, seed=5, resamples=50)
    assert (found["decided/accuracy_low"], found["decided/accuracy_high"]) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert found == summarise(rows, truth, seed=5, resamples=50)


def test_the_interval_of_kappa_holds_it():
    names = [str(index) for index in range(30)]
    rows = [
        row(name, np.roll((0.6, 0.1, 0.1, 0.1, 0.1), i % 5), Feasible(frozenset(range(5)), "R4"), (), ())
        for i, name in enumerate(names)
    ]
    truth = {name: (i + (i % 3 == 0)) % 5 for i, name in enumerate(names)}
    found = summarise(rows, truth, resamples=100)
    assert (
        found["decided/quadratic_kappa_low"] < found["decided/quadratic_kappa"] < found["decided/quadratic_kappa_high"]
    )


def test_a_summary_without_known_grades_is_undefined_but_counts():
    found = summarise([row("a")], {})
    assert (found["n"], found["n_known"], found["R2/n"]) == (1, 0, 1)
    assert found["decided/accuracy"] is None
    assert found["decided/quadratic_kappa_low"] is None
    assert found["truth_feasible"] is None
    assert found["gain/accuracy"] is found["gain/quadratic_kappa_high"] is None
