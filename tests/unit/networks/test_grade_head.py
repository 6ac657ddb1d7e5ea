"""A grade head is fitted to features: what it gives, what it gives no probability, and how strongly it is held."""

import numpy as np
import pytest
import torch
from bundle.networks import grade_head
from bundle.networks.grade_head import STRENGTHS, fit_grade_head
from sklearn.linear_model import LogisticRegression

RNG = np.random.default_rng(3)
GRADES = np.array([0, 2, 2, 3, 4] * 16)
FOLDS = (np.arange(80) // 5 % 4).tolist()
FEATURES = np.eye(5)[GRADES] @ RNG.normal(size=(5, 7)) + RNG.normal(size=(80, 7))
FEATURES[:, 3] = 100 + 0.01 * FEATURES[:, 3]  # of another scale, far from zero


def probabilities(head, features_ND):
    return torch.softmax(torch.from_numpy(features_ND @ head.weight.T + head.bias), dim=1).numpy()


def test_the_layer_gives_what_the_regression_gives_on_standardised_features():
    head = fit_grade_head(FEATURES, GRADES.tolist(), FOLDS)
    z = (FEATURES - FEATURES.mean(axis=0)) / FEATURES.std(axis=0)
    peer = LogisticRegression(C=head.strength, max_iter=5000).fit(z, GRADES)
    np.testing.assert_allclose(probabilities(head, FEATURES)[:, [0, 2, 3, 4]], peer.predict_proba(z), atol=1e-9)


def test_a_grade_that_no_photograph_has_gets_no_probability():
    head = fit_grade_head(FEATURES, GRADES.tolist(), FOLDS)
    assert probabilities(head, FEATURES)[:, 1].max() < 1e-8
    two = np.where(GRADES == 0, 1, 3)
    only = probabilities(fit_grade_head(FEATURES, two.tolist(), FOLDS), FEATURES)
    assert only[:, [0, 2, 4]].max() < 1e-8
    assert only[two == 3, 3].mean() > 0.8


def test_noise_is_held_tighter_than_what_can_be_learned():
    noise = RNG.normal(size=(80, 7))
    assert (
        fit_grade_head(noise, GRADES.tolist(), FOLDS).strength
        < fit_grade_head(FEATURES, GRADES.tolist(), FOLDS).strength
    )


def test_the_strength_is_that_of_the_least_left_out_loss(monkeypatch):
    taken = fit_grade_head(FEATURES, GRADES.tolist(), FOLDS)
    losses = []
    for strength in STRENGTHS:
        monkeypatch.setattr(grade_head, "STRENGTHS", (strength,))
        losses.append(fit_grade_head(FEATURES, GRADES.tolist(), FOLDS).log_loss)
    assert taken.log_loss == min(losses)
    assert taken.strength == STRENGTHS[int(np.argmin(losses))]


def test_a_feature_that_never_changes_gets_no_weight():
    constant = np.column_stack([FEATURES, np.full(80, 5.0)])
    assert not fit_grade_head(constant, GRADES.tolist(), FOLDS).weight[:, 7].any()


@pytest.mark.parametrize(
    ("grades", "folds", "message"),
    [
        ([2] * 80, FOLDS, r"two grades and two folds or more .*, got grades \[2\]"),
        (GRADES.tolist(), [1] * 80, r"two grades and two folds or more .* and folds \[1\]"),
        (GRADES.tolist(), FOLDS[:70], r"a grade and a fold for each photograph, got 80, 80 and 70"),
    ],
)
def test_what_cannot_be_fitted_is_refused(grades, folds, message):
    with pytest.raises(ValueError, match=message):
        fit_grade_head(FEATURES, grades, folds)
