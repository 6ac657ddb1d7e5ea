import math

import numpy as np
import pytest
import torch
from bundle.labels import LESIONS
from bundle.metrics.lesions import LesionScores
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.data import MetaTensor
from sklearn.metrics import auc, average_precision_score, f1_score, jaccard_score


def certain(classes_HW):
    """Probabilities of a network that is sure of every pixel."""
    return torch.eye(5)[torch.tensor(classes_HW)].permute(2, 0, 1)


def mask(*rows):
    return np.array(rows, dtype=bool)


def scored(*photographs):
    scores = LesionScores()
    for photograph in photographs:
        scores.update(*photograph)
    return scores


def random_photograph(seed, height=11, width=17):
    rng = np.random.default_rng(seed)
    probabilities = torch.from_numpy(rng.dirichlet([4, 1, 1, 1, 1], size=(height, width))).permute(2, 0, 1).float()
    return probabilities, {lesion: rng.random((height, width)) < 0.1 + 0.05 * i for i, lesion in enumerate(LESIONS)}


@pytest.mark.parametrize("options", [{}, {"shapes": True, "thresholds": (0.3, 0.2, 0.4, 0.3)}])
def test_a_photograph_is_counted_once_for_any_number_of_accumulators(options):
    """Added to two, it leaves each as if it had been counted there."""
    made = [(*random_photograph(seed), LESIONS[: 2 + seed], f"p{seed}") for seed in range(3)]
    photographs = [(p, {name: masks[name] for name in sought}, sought, whose) for p, masks, sought, whose in made]
    whole, one, expected, alone = (LesionScores(**options) for _ in range(4))
    for number, photograph in enumerate(photographs):
        counts = whole.count(*photograph)
        whole.add(counts)
        expected.update(*photograph)
        if number == 1:
            one.add(counts)
            alone.update(*photograph)
    for found, wanted in ((whole, expected), (one, alone)):
        assert repr(found.compute()) == repr(wanted.compute())
        assert repr(found.intervals(resamples=9)) == repr(wanted.intervals(resamples=9))
    assert (whole.photographs, one.photographs) == (3, 1)


def test_counts_are_pooled_over_photographs_before_the_ratio():
    one = certain([[1, 1, 0]]), {"MA": mask([1, 0, 0])}  # TP 1, FP 1
    two = certain([[0, 0, 1]]), {"MA": mask([1, 1, 1])}  # TP 1, FN 2
    found = scored(one, two).compute()
    assert found["lesions/dice_MA"] == pytest.approx(4 / 7)
    assert found["lesions/iou_MA"] == pytest.approx(2 / 5)


def test_average_precision_by_hand():
    probabilities = torch.zeros(5, 1, 4)
    probabilities[3] = torch.tensor([[0.9, 0.8, 0.7, 0.1]])
    probabilities[0] = 1 - probabilities[3]
    found = scored((probabilities, {"EX": mask([1, 0, 1, 0])})).compute()
    assert found["lesions/average_precision_EX"] == pytest.approx((1 + 2 / 3) / 2)
    assert found["lesions/average_precision_EX_random"] == 0.5


def test_scores_equal_those_of_scikit_learn_on_scores_rounded_to_16_bits():
    photographs = [random_photograph(0), random_photograph(1, 7, 23)]
    found = scored(*photographs).compute()
    for index, lesion in enumerate(LESIONS, start=1):
        truth = np.concatenate([masks[lesion].ravel() for _, masks in photographs])
        score = np.concatenate([(p[index] * 65535).round().numpy().ravel() for p, _ in photographs])
        predicted = np.concatenate([(p.argmax(0) == index).numpy().ravel() for p, _ in photographs])
        average_precision = average_precision_score(truth, score)
        assert found[f"lesions/average_precision_{lesion}"] == pytest.approx(average_precision, abs=1e-12)
        assert found[f"lesions/dice_{lesion}"] == pytest.approx(f1_score(truth, predicted))
        assert found[f"lesions/iou_{lesion}"] == pytest.approx(jaccard_score(truth, predicted))


def test_tied_scores_equal_those_of_scikit_learn():
    probabilities, masks = random_photograph(3)
    coarse = (probabilities * 4).round() / 4
    found = scored((coarse, masks)).compute()
    expected = average_precision_score(masks["HE"].ravel(), coarse[2].numpy().ravel())
    assert found["lesions/average_precision_HE"] == pytest.approx(expected, abs=1e-12)


def test_each_lesion_is_scored_on_its_own_outline_where_outlines_overlap():
    found = scored((certain([[1, 2, 0]]), {"MA": mask([1, 1, 0]), "HE": mask([0, 1, 0])})).compute()
    assert found["lesions/dice_MA"] == pytest.approx(2 / 3)
    assert found["lesions/dice_HE"] == 1.0


def test_the_papers_dice_is_the_pixel_accuracy_with_microaneurysms_on_top():
    photograph = certain([[1, 1, 0, 0, 3]]), {"MA": mask([1, 1, 0, 0, 0]), "HE": mask([1, 1, 0, 0, 0])}
    found = scored(photograph).compute()
    assert found["lesions/paper_dice"] == pytest.approx(4 / 5)
    assert found["lesions/paper_dice_predicting_nothing"] == pytest.approx(3 / 5)


def test_the_papers_scores_predicting_nothing_are_those_of_such_a_network():
    _, masks = random_photograph(4)
    found = scored((certain(np.zeros((11, 17), dtype=int)), masks)).compute()
    for name in ("lesions/paper_dice", "lesions/paper_iou"):
        assert found[name] == found[f"{name}_predicting_nothing"] < 1
    assert found["lesions/dice_mean"] == found["lesions/dice_mean_predicting_nothing"] == 0


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_the_papers_iou_is_what_its_tables_obey(seed):
    found = scored(random_photograph(seed, 3, 5)).compute()
    dice = found["lesions/paper_dice"]
    assert found["lesions/paper_iou"] == pytest.approx(dice / (2 - dice))


@pytest.mark.parametrize(("index", "lesion"), list(enumerate(LESIONS, start=1)))
def test_baselines_are_those_of_a_network_that_predicts_one_lesion_everywhere(index, lesion):
    masks = random_photograph(5)[1]
    found = scored((certain(np.full((11, 17), index)), masks)).compute()
    for score, baseline in (
        ("dice_{}", "dice_{}_predicting_everywhere"),
        ("iou_{}", "iou_{}_predicting_everywhere"),
        ("average_precision_{}", "average_precision_{}_random"),
    ):
        expected = found[f"lesions/{baseline.format(lesion)}"]
        assert found[f"lesions/{score.format(lesion)}"] == pytest.approx(expected)


def test_a_lesion_that_is_nowhere_is_nan_and_not_in_the_mean():
    found = scored((certain([[1, 1, 4]]), {"MA": mask([1, 0, 0]), "HE": mask([0, 1, 0])})).compute()
    assert math.isnan(found["lesions/dice_SE"])
    assert math.isnan(found["lesions/average_precision_SE_random"])
    assert found["lesions/images_SE"] == 0
    assert found["lesions/images_MA"] == 1
    assert found["lesions/dice_mean"] == pytest.approx((2 / 3 + 0) / 2)


def test_a_photograph_counts_only_for_its_annotated_lesions():
    full = certain([[1, 3, 0]]), {"MA": mask([1, 0, 0]), "EX": mask([0, 1, 1])}
    partial = certain([[1, 3, 3]]), {"EX": mask([0, 1, 1])}, ("EX",)
    found, alone = scored(full, partial).compute(), scored(full).compute()
    assert found["lesions/dice_MA"] == 1.0
    assert found["lesions/dice_EX"] == pytest.approx(6 / 7)
    assert found["lesions/average_precision_MA_random"] == pytest.approx(1 / 3)
    assert found["lesions/paper_dice"] == alone["lesions/paper_dice"]


def test_without_a_fully_annotated_photograph_the_papers_scores_are_nan():
    found = scored((certain([[3, 0]]), {"EX": mask([1, 1])}, ("EX",))).compute()
    assert math.isnan(found["lesions/paper_dice"])
    assert math.isnan(found["lesions/paper_dice_predicting_nothing"])


def test_tensors_and_arrays_give_the_same_scores_and_are_not_changed():
    probabilities, masks = random_photograph(6)
    before = probabilities.clone()
    tensors = {lesion: MetaTensor(torch.from_numpy(outline)) for lesion, outline in masks.items()}
    found, expected = scored((MetaTensor(probabilities), tensors)).compute(), scored((probabilities, masks)).compute()
    assert found == pytest.approx(expected, rel=0, abs=0, nan_ok=True)
    assert torch.equal(probabilities, before)


def test_intervals_hold_the_scores_and_are_repeatable():
    scores = scored(*[random_photograph(seed) for seed in range(12)])
    found, intervals = scores.compute(), scores.intervals(seed=1, resamples=200)
    np.testing.assert_equal(intervals, scores.intervals(seed=1, resamples=200))
    assert {"lesions/dice_EX", "lesions/iou_mean", "lesions/paper_dice"} <= set(intervals) <= set(found)
    for key, (low, high) in intervals.items():
        if "false_alarm" not in key and "detected" not in key:  # all have every lesion, and a prediction
            assert low < found[key] < high


def test_one_photograph_has_an_interval_of_one_point():
    scores = scored(random_photograph(7))
    low, high = scores.intervals(resamples=10)["lesions/dice_EX"]
    assert low == high == pytest.approx(scores.compute()["lesions/dice_EX"])


def test_the_interval_of_a_lesion_that_is_nowhere_is_nan():
    scores = scored((certain([[1, 0]]), {"MA": mask([1, 0])}))
    assert all(math.isnan(end) for end in scores.intervals(resamples=10)["lesions/dice_SE"])


def test_each_photograph_with_the_lesion_weighs_the_same_in_the_mean_over_photographs():
    large = certain([[1, 1, 1, 0]]), {"MA": mask([1, 1, 1, 1])}  # Dice 6/7, IoU 3/4
    small = certain([[0, 0, 0, 0]]), {"MA": mask([1, 0, 0, 0])}  # 0
    found = scored(large, small).compute()
    assert found["lesions/image_dice_MA"] == pytest.approx(3 / 7)
    assert found["lesions/image_iou_MA"] == pytest.approx(3 / 8)
    assert found["lesions/image_dice_MA_predicting_everywhere"] == pytest.approx((1 + 2 * 0.25 / 1.25) / 2)
    assert found["lesions/image_dice_MA_predicting_nothing"] == 0


def test_a_photograph_without_the_lesion_is_not_in_the_mean_but_may_be_a_false_alarm():
    with_it = certain([[3, 0, 0]]), {"EX": mask([1, 0, 0])}
    quiet, alarmed = (certain([[0, 0, 0]]), {}), (certain([[0, 0, 3]]), {})
    not_looked_for = certain([[3, 3, 3]]), {}, ("MA", "HE", "SE")
    found = scored(with_it, quiet, quiet, alarmed, not_looked_for).compute()
    assert found["lesions/image_dice_EX"] == 1
    assert found["lesions/false_alarm_EX"] == pytest.approx(1 / 3)
    assert found["lesions/false_alarm_EX_predicting_nothing"] == 0
    assert found["lesions/false_alarm_EX_predicting_everywhere"] == 1
    assert (found["lesions/images_EX"], found["lesions/images_without_EX"]) == (1, 3)
    assert found["lesions/images_without_MA"] == 5


def test_presence_asks_for_the_predicted_area_of_a_photograph_and_not_for_its_place():
    """Areas of those with the lesion: 2/3 in the wrong place, and 0; of those without: 1/3 and 0."""
    misplaced, missed = (certain([[0, 3, 3]]), {"EX": mask([1, 0, 0])}), (certain([[0, 0, 0]]), {"EX": mask([1, 0, 0])})
    quiet, alarmed = (certain([[0, 0, 0]]), {}), (certain([[0, 0, 3]]), {})
    not_looked_for = certain([[3, 3, 3]]), {}, ("MA", "HE", "SE")
    found = scored(misplaced, missed, quiet, alarmed, not_looked_for).compute()
    assert found["lesions/detected_EX"] == 1 / 2
    assert found["lesions/presence_auroc_EX"] == (1 + 1 + 0 + 1 / 2) / 4
    assert found["lesions/presence_auroc_EX_random"] == 0.5
    assert math.isnan(found["lesions/presence_auroc_MA"])  # no photograph has it
    assert math.isnan(scored(misplaced, missed).compute()["lesions/presence_auroc_EX"])  # all have it


def test_where_every_photograph_has_the_lesion_there_is_no_false_alarm_to_speak_of():
    scores = scored((certain([[1, 0]]), {"MA": mask([1, 0])}))
    assert math.isnan(scores.compute()["lesions/false_alarm_MA"])
    assert all(math.isnan(end) for end in scores.intervals(resamples=10)["lesions/false_alarm_MA"])


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_means_over_photographs_equal_those_of_scikit_learn(seed):
    """With masks that are empty, full, and anything between."""
    photographs = [with_extremes(seed + i) for i in range(5)]
    found = scored(*photographs).compute()
    for index, lesion in enumerate(LESIONS, start=1):
        pairs = [((p.argmax(0) == index).numpy().ravel(), masks[lesion].ravel()) for p, masks in photographs]
        there, alarms = [(p, t) for p, t in pairs if t.any()], [p.any() for p, t in pairs if not t.any()]
        expected = {
            "image_dice": np.mean([f1_score(t, p) for p, t in there]) if there else np.nan,
            "image_iou": np.mean([jaccard_score(t, p) for p, t in there]) if there else np.nan,
            "false_alarm": np.mean(alarms) if alarms else np.nan,
        }
        got = {name: found[f"lesions/{name}_{lesion}"] for name in expected}
        assert got == pytest.approx(expected, abs=1e-9, nan_ok=True)


def with_extremes(seed):
    """A photograph on which each outline may be empty or full, and each class predicted nowhere or everywhere."""
    rng = np.random.default_rng(seed)
    probabilities, masks = random_photograph(seed, 5, 7)
    shares = {lesion: rng.choice([0, 0.3, 1]) for lesion in LESIONS}
    masks = {lesion: rng.random((5, 7)) < share for lesion, share in shares.items()}
    if rng.random() < 0.4:
        probabilities = certain(np.full((5, 7), rng.integers(5)))
    return probabilities, masks


def area_of_11(truth, score):
    """The published procedure, step by step: strict thresholds, precision 1 of nothing, trapezoids."""
    recalls, precisions = [], []
    for threshold in np.linspace(0, 1, 11):
        found = score > threshold
        precisions.append((found & truth).sum() / found.sum() if found.any() else 1.0)
        recalls.append((found & truth).sum() / truth.sum())
    return auc(recalls, precisions)


def test_average_precision_at_11_thresholds_by_hand():
    probabilities = torch.zeros(5, 1, 4)
    probabilities[3] = torch.tensor([[0.95, 0.85, 0.25, 0.0]])
    probabilities[0] = 1 - probabilities[3]
    found = scored((probabilities, {"EX": mask([1, 0, 1, 0])})).compute()
    # (recall, precision): (1, 2/3) to 0.2, (1/2, 1/2) to 0.8, (1/2, 1) at 0.9, (0, 1) at 1
    assert found["lesions/average_precision_11_EX"] == pytest.approx((2 / 3 + 1 / 2) / 4 + 1 / 2)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_average_precision_at_11_thresholds_equals_the_published_procedure(seed):
    photographs = [with_extremes(seed), random_photograph(seed), (random_photograph(seed + 1)[0], {})]
    # A tenth of 65535 is no whole number: the same rounding for both, and 0 stays 0.
    rounded = [((p.double() * 65535).round() / 65535, masks) for p, masks in photographs]
    found = scored(*rounded).compute()
    for index, lesion in enumerate(LESIONS, start=1):
        truth = np.concatenate([m.get(lesion, np.zeros(p.shape[1:], bool)).ravel() for p, m in rounded])
        score = np.concatenate([p[index].numpy().ravel() for p, _ in rounded])
        expected = area_of_11(truth, score)
        assert found[f"lesions/average_precision_11_{lesion}"] == pytest.approx(expected, abs=1e-6)


def test_scores_next_to_0_are_above_the_threshold_0():
    probabilities = torch.full((5, 1, 4), 1e-9)
    probabilities[0] = 1
    probabilities[3, 0, 3] = 0
    found = scored((probabilities, {"EX": mask([1, 0, 0, 0])})).compute()
    assert found["lesions/average_precision_11_EX"] == pytest.approx((1 / 3 + 1) / 2)


def test_the_trivial_areas_at_11_thresholds_are_reached():
    masks = random_photograph(5)[1]
    found = scored((certain(np.full((11, 17), 2)), masks)).compute()
    everywhere = found["lesions/average_precision_11_HE_predicting_everywhere"]
    assert found["lesions/average_precision_11_HE"] == pytest.approx(everywhere)
    assert everywhere > 0.5
    uniform = torch.rand(5, 400, 500, generator=torch.Generator().manual_seed(0))
    outline = np.zeros((400, 500), dtype=bool)
    outline[::7] = True
    found = scored((uniform, {"EX": outline})).compute()
    chance = found["lesions/average_precision_11_EX_random"]
    assert found["lesions/average_precision_11_EX"] == pytest.approx(chance, abs=0.005)


def test_shapes_are_scored_only_when_asked_for_and_change_nothing_else():
    photographs = [random_photograph(seed) for seed in range(3)]
    plain, shaped = scored(*photographs), LesionScores(shapes=True)
    for photograph in photographs:
        shaped.update(*photograph)
    found, more = plain.compute(), shaped.compute()
    assert {key: more[key] for key in found} == pytest.approx(found, rel=0, abs=0, nan_ok=True)
    assert {"lesions/component_recall_SE", "lesions/hd95_px_EX", "lesions/froc_MA"} <= set(more) - set(found)
    extra = set(shaped.intervals(resamples=5)) - set(plain.intervals(resamples=5))
    assert {key.split("/")[1].rpartition("_")[0] for key in extra} == {"component_recall", "hd95_px"}


def one_class(classes_HW, outline):
    """A photograph of a network that has one lesion class and is sure of every pixel."""
    return torch.eye(2)[torch.tensor(classes_HW)].permute(2, 0, 1), {"lesion": outline}


def scored_as_one_class(*photographs):
    scores = LesionScores(["lesion"])
    for photograph in photographs:
        scores.update(*photograph)
    return scores


def test_one_fused_class_is_scored_under_its_name_and_the_papers_dice_over_two_classes():
    found = scored_as_one_class(one_class([[1, 1, 0, 0, 0]], mask([1, 0, 1, 0, 0]))).compute()  # TP 1, FP 1, FN 1
    assert found["lesions/dice_lesion"] == pytest.approx(1 / 2)
    assert found["lesions/iou_lesion"] == pytest.approx(1 / 3)
    assert found["lesions/average_precision_lesion_random"] == pytest.approx(2 / 5)
    assert found["lesions/paper_dice"] == found["lesions/paper_dice_predicting_nothing"] == pytest.approx(3 / 5)
    assert found["lesions/paper_iou"] == pytest.approx(3 / 7)
    assert found["lesions/images_lesion"] == 1


def test_one_class_needs_no_mean_and_has_no_score_of_the_four():
    scores = scored_as_one_class(one_class([[1, 0]], mask([1, 1])))
    keys = {*scores.compute(), *scores.intervals(resamples=10)}
    assert "lesions/dice_lesion" in keys
    assert not [key for key in keys if key.endswith("_mean") or "_mean_" in key or "_EX" in key]


def test_one_class_scores_as_that_lesion_alone_does_among_four():
    probabilities, masks = random_photograph(8)
    alone = torch.stack([1 - probabilities[3], probabilities[3]])
    fused = scored_as_one_class((alone, {"lesion": masks["EX"]})).compute()
    among_four = scored((probabilities, masks)).compute()
    assert fused["lesions/average_precision_lesion"] == among_four["lesions/average_precision_EX"]
    assert fused["lesions/dice_lesion_predicting_everywhere"] == among_four["lesions/dice_EX_predicting_everywhere"]


def test_rejects_what_does_not_fit_its_classes():
    with pytest.raises(ValueError, match=r"one or more distinct names of lesion classes, got \[\]"):
        LesionScores([])
    with pytest.raises(ValueError, match=r"distinct names of lesion classes, got \['MA', 'MA'\]"):
        LesionScores(["MA", "MA"])
    with pytest.raises(ValueError, match=r"expected probabilities of shape \(2, H, W\), got \(5, 1, 3\)"):
        LesionScores(["lesion"]).update(certain([[0, 1, 0]]), {})
    with pytest.raises(ValueError, match=r"annotated lesions out of \['lesion'\], got masks \['MA'\]"):
        LesionScores(["lesion"]).update(torch.ones(2, 1, 3) / 2, {"MA": mask([1, 0, 0])})


def test_rejects_what_are_no_probabilities():
    with pytest.raises(ValueError, match=r"expected probabilities of shape \(5, H, W\), got \(4, 2, 3\)"):
        LesionScores().update(torch.rand(4, 2, 3), {})
    with pytest.raises(ValueError, match=r"in \[0, 1\], got values from -2 to 3; apply softmax"):
        LesionScores().update(torch.tensor([-2.0, 3, 0, 0, 0]).reshape(5, 1, 1), {})
    with pytest.raises(ValueError, match="got values from nan to nan"):
        LesionScores().update(torch.full((5, 2, 3), torch.nan), {})


def test_rejects_masks_that_do_not_fit():
    probabilities = certain([[0, 1, 0]])
    with pytest.raises(ValueError, match=r"mask of HE as bool \(1, 3\), got torch.uint8 \(1, 3\)"):
        LesionScores().update(probabilities, {"HE": np.ones((1, 3), dtype=np.uint8)})
    with pytest.raises(ValueError, match=r"mask of HE as bool \(1, 3\), got torch.bool \(3, 1\)"):
        LesionScores().update(probabilities, {"HE": np.ones((3, 1), dtype=bool)})
    with pytest.raises(ValueError, match=r"got masks \['MA'\] and annotated \['EX'\]"):
        LesionScores().update(probabilities, {"MA": mask([1, 0, 0])}, ("EX",))


def test_rejects_scoring_before_any_photograph():
    with pytest.raises(ValueError, match="expected at least one photograph before scoring"):
        LesionScores().compute()
    with pytest.raises(ValueError, match="expected at least one photograph before scoring"):
        LesionScores().intervals()


def test_thresholds_decide_and_the_most_probable_class_stands_beside():
    probabilities = torch.zeros(5, 1, 4)
    probabilities[1] = torch.tensor([[0.6, 0.3, 0.25, 0.1]])
    probabilities[0] = 1 - probabilities[1]
    scores = LesionScores(thresholds=(0.2, 0.5, 0.5, 0.5))
    scores.update(probabilities, {"MA": mask([1, 1, 0, 0])})
    found, plain = scores.compute(), scored((probabilities, {"MA": mask([1, 1, 0, 0])})).compute()
    assert (found["lesions/dice_MA"], found["lesions/iou_MA"]) == (pytest.approx(4 / 5), pytest.approx(2 / 3))
    assert found["lesions/image_dice_MA"] == pytest.approx(4 / 5)
    assert found["lesions/paper_dice"] == 3 / 4
    assert found["lesions/argmax_dice_MA"] == plain["lesions/dice_MA"] == pytest.approx(2 / 3)
    assert found["lesions/argmax_iou_mean"] == plain["lesions/iou_mean"] == pytest.approx(1 / 2)
    for key in ("average_precision_MA", "average_precision_11_MA", "dice_MA_predicting_everywhere", "images_MA"):
        assert found[f"lesions/{key}"] == plain[f"lesions/{key}"]
    assert not any("argmax" in key for key in plain)


def test_a_false_alarm_is_of_the_decision_in_force():
    faint = torch.tensor([0.7, 0, 0, 0.3, 0]).reshape(5, 1, 1).expand(5, 2, 3), {}
    low, high = (LesionScores(thresholds=(0.5, 0.5, one, 0.5)) for one in (0.2, 0.4))
    for scores in (low, high):
        scores.update(*faint)
    assert low.compute()["lesions/false_alarm_EX"] == 1
    assert high.compute()["lesions/false_alarm_EX"] == 0


def test_both_decisions_have_intervals_from_the_same_resamples():
    scores = LesionScores(thresholds=(0.1, 0.1, 0.1, 0.1))
    for seed in range(4):
        scores.update(*random_photograph(seed))
    found, plain = scores.intervals(resamples=50), scored(*map(random_photograph, range(4))).intervals(resamples=50)
    assert found["lesions/argmax_dice_mean"] == plain["lesions/dice_mean"] != found["lesions/dice_mean"]


def test_the_best_threshold_lies_in_the_middle_of_what_parts_lesion_from_background():
    probabilities = torch.zeros(5, 1, 5)
    probabilities[1] = torch.tensor([[0.3, 0.3, 0.1, 0.1, 0.0]])
    probabilities[0] = 1 - probabilities[1]
    photograph = probabilities, {"MA": mask([1, 1, 0, 0, 0])}
    assert scored(photograph).best_thresholds() == {"MA": pytest.approx(0.2, abs=1e-4)}
    # An outlined pixel at 0.1 is worth two false ones: Dice 6/7 above 0.05, 4/5 above 0.2
    photograph = probabilities, {"MA": mask([1, 1, 1, 0, 0])}
    assert scored(photograph).best_thresholds() == {"MA": pytest.approx(0.05, abs=1e-4)}


def test_a_lesion_that_was_outlined_and_never_seen_has_the_middle_of_all_thresholds():
    assert scored((certain([[0, 0, 0]]), {"SE": mask([0, 1, 0])})).best_thresholds() == {"SE": 0.5}


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_no_other_threshold_has_a_better_pooled_dice(seed):
    photographs = [random_photograph(seed), random_photograph(seed + 1, 5, 9)]
    best = scored(*photographs).best_thresholds()
    for index, lesion in enumerate(LESIONS, start=1):
        truth = np.concatenate([masks[lesion].ravel() for _, masks in photographs])
        bins = np.concatenate([(p[index] * 65535).round().numpy().ravel() for p, _ in photographs])
        claimed = bins >= np.unique(bins)[:, None]  # by every threshold, (thresholds, pixels)
        dice = 2 * (claimed & truth).sum(axis=1) / (claimed.sum(axis=1) + truth.sum())
        assert f1_score(truth, bins / 65535 > best[lesion]) == pytest.approx(dice.max(), abs=1e-12)
        assert 0 < best[lesion] < 1


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=20, deadline=None)
def test_fitted_thresholds_reach_the_best_dice_where_there_is_one_lesion(seed):
    probabilities, masks = random_photograph(seed)
    two = torch.stack([1 - probabilities[1], probabilities[1]])
    plain = LesionScores(["lesion"])
    plain.update(two, {"lesion": masks["MA"]})
    (best,) = plain.best_thresholds().values()
    fitted = LesionScores(["lesion"], thresholds=[best])
    fitted.update(two, {"lesion": masks["MA"]})
    assert fitted.compute()["lesions/dice_lesion"] >= plain.compute()["lesions/dice_lesion"]
    assert fitted.compute()["lesions/argmax_dice_lesion"] == plain.compute()["lesions/dice_lesion"]


def test_thresholds_of_other_classes_are_refused_before_a_photograph_is_scored():
    with pytest.raises(ValueError, match=r"expected lesion thresholds in \(0, 1\], one for each of 1 classes, got \["):
        LesionScores(["lesion"], thresholds=(0.2, 0.5, 0.5, 0.5))
    with pytest.raises(ValueError, match="expected at least one photograph"):
        LesionScores().best_thresholds()


def test_a_second_photograph_just_like_the_first_tells_nothing_new_of_a_patient():
    photographs = [random_photograph(seed) for seed in range(8)]
    once, twice = scored(*photographs), LesionScores()
    for number, (probabilities, masks) in enumerate(photographs):
        for _ in range(2):
            twice.update(probabilities, masks, patient=f"p{number}")
    expected, found = once.intervals(resamples=100), twice.intervals(resamples=100)
    for key in ("lesions/dice_EX", "lesions/iou_mean", "lesions/image_dice_MA", "lesions/paper_dice"):
        assert found[key] == pytest.approx(expected[key])
        assert np.diff(scored(*photographs, *photographs).intervals(resamples=100)[key]) < np.diff(expected[key])
