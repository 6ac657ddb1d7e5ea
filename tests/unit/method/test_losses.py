"""Categorical focal loss."""

import math

import pytest
import torch
from bundle.method.losses import (
    CategoricalFocalLoss,
    DiceLesionLoss,
    GradeWeight,
    LesionLoss,
    class_weights,
    focal_terms,
)
from hypothesis import given
from hypothesis import strategies as st


def test_two_even_classes_cost_a_quarter_of_a_quarter_of_log_two_each():
    # alpha 0.25, (1 - 0.5)^2 = 0.25, -log 0.5 = log 2
    assert focal_terms(torch.zeros(1, 2)).tolist() == [[pytest.approx(0.0625 * math.log(2))] * 2]


def test_the_mean_counts_the_class_dimension():
    logits = torch.zeros(1, 2, 3, 5)
    loss = CategoricalFocalLoss()(logits, torch.ones(1, 1, 3, 5, dtype=torch.int64))
    assert loss.item() == pytest.approx(0.0625 * math.log(2) / 2)


def test_hard_labels_cost_what_their_one_hot_labels_cost():
    logits = torch.randn(2, 5, 4, 6, generator=torch.Generator().manual_seed(0))
    hard = torch.randint(0, 5, (2, 1, 4, 6), generator=torch.Generator().manual_seed(1))
    soft = torch.nn.functional.one_hot(hard[:, 0], 5).movedim(-1, 1).float()
    weight = torch.tensor([1.0, 0.25])
    loss = CategoricalFocalLoss()
    assert loss(logits, hard, weight).item() == pytest.approx(loss(logits, soft, weight).item(), rel=1e-5)


@given(st.floats(0, 1))
def test_the_loss_is_linear_in_the_soft_label(share):
    logits = torch.tensor([[0.3, -1.0, 2.0]])
    one, other = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.0, 0.2, 0.8]])
    loss = CategoricalFocalLoss()
    mixed = loss(logits, share * one + (1 - share) * other).item()
    assert mixed == pytest.approx(share * loss(logits, one).item() + (1 - share) * loss(logits, other).item(), abs=1e-6)


def test_gradient_is_right_in_double_precision():
    logits = torch.randn(2, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(focal_terms, logits)


def test_rejects_labels_of_another_shape():
    with pytest.raises(ValueError, match=r"expected class indices of shape \(1, 1, 2, 3\), got \(1, 2, 3\)"):
        CategoricalFocalLoss()(torch.zeros(1, 5, 2, 3), torch.zeros(1, 2, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"expected soft labels of shape \(1, 5\), got \(1, 4\)"):
        CategoricalFocalLoss()(torch.zeros(1, 5), torch.zeros(1, 4))


def test_rejects_a_negative_gamma():
    with pytest.raises(ValueError, match=r"gamma >= 0, got alpha 0\.25 and gamma -1"):
        CategoricalFocalLoss(gamma=-1)


def test_class_weights_average_to_one_over_the_examples():
    classes = [0, 0, 0, 1, 3]
    weights = class_weights(classes, 5)
    assert weights[classes].mean().item() == pytest.approx(1.0)
    assert weights[2] == 0
    assert weights[1] / weights[0] == pytest.approx(math.sqrt(3))


def test_class_weights_reject_no_example():
    with pytest.raises(ValueError, match="at least one class label"):
        class_weights([], 5)


def test_a_gamma_between_0_and_1_has_finite_gradients_where_a_class_is_certain():
    logits = torch.tensor([[100.0, 0.0, 0.0]], requires_grad=True)  # p = 1 in float32
    CategoricalFocalLoss(gamma=0.5)(logits, torch.tensor([[0.5, 0.5, 0.0]])).backward()
    assert logits.grad.isfinite().all()


def lesion_logits(seed=0):
    return torch.randn(2, 5, 4, 6, generator=torch.Generator().manual_seed(seed))


def outlines(*classes):
    """A label map of these classes and the background, which stands everywhere but in some pixels."""
    labels = torch.zeros(2, 1, 4, 6, dtype=torch.int64)
    for column, one in enumerate(classes):
        labels[:, 0, 1, column] = one
    return labels


def test_where_every_lesion_was_looked_for_the_lesion_loss_is_the_plain_one():
    logits, labels = lesion_logits(), outlines(1, 2, 3, 4)
    expected = CategoricalFocalLoss()(logits, labels)
    assert torch.equal(LesionLoss()(logits, labels, torch.ones(2, 4, dtype=torch.bool)), expected)


def test_lesions_that_nobody_looked_for_get_no_gradient_and_their_mass_is_no_error():
    logits = lesion_logits().requires_grad_()
    exudates_only = torch.tensor([[False, False, True, False]] * 2)
    LesionLoss()(logits, outlines(3), exudates_only).backward()
    assert logits.grad[:, [1, 2, 4]].abs().max() == 0
    assert logits.grad[:, [0, 3]].abs().min() > 0
    sure_of_haemorrhage = torch.zeros(2, 5, 4, 6)
    sure_of_haemorrhage[:, 2] = 50.0
    loss = LesionLoss()(sure_of_haemorrhage, torch.zeros_like(outlines()), exudates_only)
    assert loss.item() == pytest.approx(0, abs=1e-12)


def test_the_loss_of_a_partial_label_is_that_of_the_merged_classes():
    logits, exudates_only = lesion_logits(), torch.tensor([[False, False, True, False]] * 2)
    p = logits.softmax(dim=1)
    merged = torch.stack([p[:, 0] + p[:, 1] + p[:, 2] + p[:, 4], p[:, 3]], dim=1).log()
    two = CategoricalFocalLoss()(merged, (outlines(3) == 3).long())
    assert LesionLoss()(logits, outlines(3), exudates_only).item() == pytest.approx(two.item() * 2 / 5)


def test_a_photograph_without_outlines_neither_teaches_lesions_nor_thins_out_the_others():
    logits, labels = lesion_logits(), outlines(1, 3)
    first_only = torch.tensor([[True] * 4, [False] * 4])
    found = LesionLoss()(logits, labels * torch.tensor([1, 0]).view(2, 1, 1, 1), first_only)
    assert found.item() == pytest.approx(CategoricalFocalLoss()(logits[:1], labels[:1]).item())
    assert LesionLoss()(logits, 0 * labels, torch.zeros(2, 4, dtype=torch.bool)).item() == 0


def test_looked_for_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"expected looked_for of shape \(2, 4\), got \(2, 5\)"):
        LesionLoss()(lesion_logits(), outlines(), torch.ones(2, 5, dtype=torch.bool))


def test_a_fixed_weight_stays_and_one_by_norm_makes_both_tasks_pull_alike():
    fixed, by_norm = GradeWeight(0.8), GradeWeight(0.8, "norm")
    for weight in (fixed, by_norm):
        weight.see(16.0)
        weight.see(1.0)
        weight.see(0.0)  # no gradient yet: says nothing
    assert float(fixed) == 0.8
    assert float(by_norm) == pytest.approx(0.8 / 4)  # the geometric mean of 16 and 1
    resumed = GradeWeight(0.8, "norm")
    resumed.load_state_dict(by_norm.state_dict())
    assert float(resumed) == float(by_norm)


def test_a_weight_that_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"expected beta >= 0, got -0\.1"):
        GradeWeight(-0.1)
    with pytest.raises(ValueError, match=r"expected balance in \['fixed', 'norm'\], got 'equal'"):
        GradeWeight(0.8, "equal")


def coloured(count, seed):
    """Photographs of background, red haemorrhages and yellow exudates, and their whole label maps."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.zeros(count, 1, 12, 18, dtype=torch.int64)
    for one in labels:
        row, column = torch.randint(0, 8, (2,), generator=generator).tolist()
        one[0, row : row + 4, column : column + 3] = 2
        one[0, row : row + 3, column + 5 : column + 9] = 3
    colours = torch.zeros(5, 3)
    colours[[0, 2, 3]] = torch.tensor([[0.4, 0.2, 0.1], [0.8, 0.1, 0.1], [0.9, 0.8, 0.2]])
    images = colours[labels[:, 0]].movedim(-1, 1) + 0.03 * torch.randn(count, 3, 12, 18, generator=generator)
    return images, labels


def recalls(honest):
    """Train on photographs with one lesion outlined of the two that are on each; return both lesions' recalls."""
    torch.manual_seed(0)
    network = torch.nn.Conv2d(3, 5, 1)
    images, labels = coloured(16, seed=0)
    seen = torch.tensor([2, 3]).repeat(8)  # the first folder looked for haemorrhages alone, the second for exudates
    outlined = torch.where(labels == seen.view(-1, 1, 1, 1), labels, 0)
    looked_for = torch.nn.functional.one_hot(seen - 1, 4).bool() if honest else torch.ones(16, 4, dtype=torch.bool)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        LesionLoss()(network(images), outlined, looked_for).backward()
        optimizer.step()
    images, labels = coloured(8, seed=1)
    found = network(images).argmax(dim=1, keepdim=True)
    return [(found == lesion)[labels == lesion].float().mean().item() for lesion in (2, 3)]


def test_two_folders_that_looked_for_one_lesion_each_teach_both():
    assert min(recalls(honest=True)) > 0.95
    assert max(recalls(honest=False)) < 0.6  # where the other folder's lesion is taught as background


def test_dice_is_over_the_pixels_of_the_batch_with_squared_denominators():
    logits = torch.zeros(2, 3, 2, 3)  # 1/3 for each of three classes at 12 pixels
    label_map = torch.zeros(2, 1, 2, 3, dtype=torch.int64)
    label_map[0, 0, 0, 0], label_map[1, 0, 1, :2] = 1, 2
    looked_for = torch.ones(2, 2, dtype=torch.bool)
    # lesion 1 has one pixel, lesion 2 two: (2/3 + 1) / (12/9 + 1 + 1) and (4/3 + 1) / (12/9 + 2 + 1)
    dice = [(2 / 3 + 1) / (12 / 9 + 2), (4 / 3 + 1) / (12 / 9 + 3)]
    expected = math.log(3) + 0.5 * (1 - sum(dice) / 2)
    assert DiceLesionLoss(dice_weight=0.5)(logits, label_map, looked_for).item() == pytest.approx(expected)


def test_a_lesion_that_is_nowhere_in_the_batch_may_be_left_out_of_the_mean():
    logits = torch.zeros(1, 3, 2, 3, requires_grad=True)  # 1/3 for each of three classes at 6 pixels
    label_map = torch.zeros(1, 1, 2, 3, dtype=torch.int64)
    label_map[0, 0, 0, 0] = 1
    looked_for = torch.ones(1, 2, dtype=torch.bool)
    present, absent = 1 - (2 / 3 + 1) / (6 / 9 + 1 + 1), 1 - 1 / (6 / 9 + 1)
    assert DiceLesionLoss()(logits, label_map, looked_for).item() == pytest.approx(math.log(3) + (present + absent) / 2)
    loss = DiceLesionLoss(where_absent=False)
    assert loss(logits, label_map, looked_for).item() == pytest.approx(math.log(3) + present)
    assert loss(logits, torch.zeros_like(label_map), looked_for).item() == pytest.approx(math.log(3))


def test_the_dice_loss_is_deaf_to_lesions_that_nobody_looked_for():
    logits = torch.randn(2, 5, 4, 6, generator=torch.Generator().manual_seed(0), requires_grad=True)
    label_map = torch.randint(0, 2, (2, 1, 4, 6), generator=torch.Generator().manual_seed(1))
    looked_for = torch.tensor([[True, False, False, False], [False] * 4])
    loss = DiceLesionLoss()(logits, label_map, looked_for)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient[0, 2:].abs().max() == 0
    assert gradient[1].abs().max() == 0
    assert gradient[0, :2].abs().min() > 0
    two = torch.cat([logits[:1, [0, 2, 3, 4]].logsumexp(dim=1, keepdim=True), logits[:1, 1:2]], dim=1)
    alone = DiceLesionLoss()(two, label_map[:1], torch.tensor([[True]]))
    assert loss.item() == pytest.approx(alone.item(), rel=1e-6)


def test_a_batch_without_outlines_costs_nothing_and_teaches_nothing():
    logits = torch.randn(2, 5, 4, 6, requires_grad=True)
    loss = DiceLesionLoss()(logits, torch.ones(2, 1, 4, 6, dtype=torch.int64), torch.zeros(2, 4, dtype=torch.bool))
    assert loss.item() == 0
    assert torch.autograd.grad(loss, logits)[0].abs().max() == 0


def test_a_negative_weight_of_dice_is_refused():
    with pytest.raises(ValueError, match=r"expected dice_weight >= 0, got -1"):
        DiceLesionLoss(dice_weight=-1)
