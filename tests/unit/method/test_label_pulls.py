"""Meta gradients on a scale of one: what is the same in every pass stays, and noise dies away."""

import torch
from bundle.method.label_pulls import LabelPulls

KEPT = torch.tensor([[False, False, True, True, True]] * 2)


def steady(scale):
    return scale * torch.tensor([[5.0, 5.0, 1.0, 0.0, -1.0], [5.0, 5.0, -1.0, 0.0, 1.0]])


def test_a_pull_that_stays_the_same_is_the_same_at_every_scale():
    pulls = LabelPulls()
    first = pulls.update(["a", "b"], steady(1e-3), KEPT)
    for number in range(60):
        later = pulls.update(["a", "b"], steady(1e-3 * 0.97**number), KEPT)
    assert torch.allclose(first[0], torch.tensor([0.0, 0.0, 1.5**0.5, 0.0, -(1.5**0.5)]))
    assert torch.allclose(later, first, rtol=0.35)  # six times smaller now; the running scale lags a little behind


def test_noise_dies_away_and_what_lies_under_it_stays():
    generator, pulls = torch.Generator().manual_seed(0), LabelPulls()
    for _ in range(200):
        found = pulls.update(["a", "b"], steady(1.0) + 1.5 * torch.randn(2, 5, generator=generator), KEPT)
    assert found[:, :2].abs().max() == 0
    assert found[0, 2] > found[0, 4]
    assert found[1, 2] < found[1, 4]
    alone = LabelPulls().update(["a", "b"], steady(1.0), KEPT)
    assert 0.2 < (found.norm() / alone.norm()).item() < 0.9  # a pull under noise counts for less than a sure one


def test_a_photograph_without_a_gradient_has_no_pull_and_changes_no_scale():
    alone, together = LabelPulls(), LabelPulls()
    expected = alone.update(["a", "b"], steady(1.0), KEPT)
    third = torch.cat([steady(1.0), torch.zeros(1, 5)])
    found = together.update(["a", "b", "c"], third, KEPT[[0, 0, 0]])
    assert torch.equal(found[:2], expected)
    assert found[2].abs().max() == 0
    certain = torch.tensor([[False, True, False, False, False]])
    assert LabelPulls().update(["c"], steady(1.0)[:1], certain).abs().max() == 0


def test_what_pulls_all_photographs_alike_moves_none():
    own = torch.tensor([[0.0, 0, 1, 0, -1], [0, 0, -1, 1, 0], [0, 0, 0, 2, 1]])
    common = torch.tensor([0.0, 0, 3, -1, 5])
    found, alone = (LabelPulls().update(list("abc"), g, KEPT[[0, 0, 0]]) for g in (own + common, own))
    assert found.sum(dim=0).abs().max() < 1e-6
    assert torch.allclose(found / found.norm(), alone / alone.norm(), atol=1e-6)  # on another scale, the same
    assert LabelPulls().update(["a"], common[None], KEPT[:1]).abs().max() == 0  # of one photograph, all is common
    kept = LabelPulls(keep_common=True).update(["a"], common[None], KEPT[:1])
    assert torch.allclose(kept, torch.tensor([[0.0, 0.0, 2 / 3, -10 / 3, 8 / 3]]) / (56**0.5 / 3))  # centred, rms 1


def test_a_run_that_goes_on_knows_what_earlier_passes_found():
    first, second = LabelPulls(), LabelPulls()
    first.update(["a", "b"], steady(1.0), KEPT)
    second.load_state_dict(first.state_dict())
    later = [pulls.update(["b", "a"], steady(0.5), KEPT) for pulls in (first, second)]
    assert torch.equal(*later)
    assert not torch.equal(later[0], LabelPulls().update(["b", "a"], steady(0.5), KEPT))
