import json

import numpy as np
import pytest
from bundle.grade_rules import feasible_grades
from bundle.labels import LESIONS
from bundle.method.evidence import Evidence, Thresholds, evidence
from bundle.method.pseudo_labels import audit_row, combine, decide, haemorrhages_in_doubt
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import gmean


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
    lesions, field = np.zeros((10, 20), dtype=bool), np.ones((10, 20), dtype=bool)
    lesions[3, 2:9] = bool(present)
    found = evidence(np.zeros((5, 10, 20)), lesions, None, field, thresholds, grids=[(10, 20)])
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


# --- the audit row


def test_an_audit_row_is_flat_json_with_every_number():
    opinion, feasible, heat = np.array([0.1, 0.1, 0.1, 0.6, 0.1]), feasible_grades({"HE", "EX"}), support(3)
    decision = decide(opinion, feasible, heat, Thresholds(), present=("HE", "EX"))
    found = audit_row(
        "idrid/train/7", decision, heat, feasible=feasible, present=("HE", "EX"), probabilities=opinion,
        graders_GC=opinion[None], winner=0, largest_px={"MA": 0, "HE": 40, "EX": 40},
    )  # fmt: skip
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert not any(isinstance(value, (list, tuple, dict)) for value in found.values())
    expected = {"id": "idrid/train/7", "decided": 3, "rule": "R2", "winner": 0, "present_HE": True, "feasible_1": False}
    expected |= {
        "largest_px_HE": 40,
        "largest_px_MA": 0,
        "present_MA": False,
        "largest_px_SE": None,  # nobody looked for it
        "present_SE": None,
        "lift_3": 3.14,
        "optic_disc_3": None,
        "supported_2": False,
        "grader0_probability_3": 0.6,
    }
    assert {key: found[key] for key in expected} == expected
    assert found["soft_label_3"] > found["probability_3"]
