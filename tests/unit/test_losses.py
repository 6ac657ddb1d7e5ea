"""Categorical focal loss."""

import math

import pytest
import torch
from bundle.losses import CategoricalFocalLoss, class_weights, focal_terms
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
