"""Areas that make a lesion present, fitted on an evaluation."""

import pytest
import torch
from bundle.handlers.fitting import FitPresence
from ignite.engine import Engine


def evaluate(fit, grades, sizes):
    """Show photographs of 12 by 8 pixels with a square of haemorrhage of so many pixels a side on each."""
    lesions = torch.zeros(len(sizes), 5, 12, 12)
    for one, side in zip(lesions, sizes, strict=True):
        one[2, :side, :side] = 0.6
    lesions[:, 0] = 1 - lesions[:, 2]
    count = len(sizes)
    batch = {
        "id": [str(number) for number in range(count)],
        "grade": torch.tensor(grades),
        "field_px": torch.full((count,), 96),
        "geometry": torch.tensor([[0.0, 0.0, 12.0, 12.0, 8.0]]).repeat(count, 1),
    }
    engine = Engine(lambda engine, batch: {"lesions": lesions})
    fit.attach(engine)
    return engine.run([batch]).metrics


def test_the_largest_component_of_healthy_eyes_is_what_does_not_count():
    fit = FitPresence(["0", "1", "2"], subset="fold 0")
    found = evaluate(fit, grades=[0, 0, 2, 0], sizes=[1, 2, 5, 7])  # the last is not among the ids
    assert found["presence/min_area_ppm_HE"] == pytest.approx(1e6 * 4 / 96)
    assert fit.facts()["min_area_ppm"]["HE"] > 1e6 * 4 / 96
    assert fit.facts()["min_area_ppm"]["EX"] == 3
    assert fit.facts()["min_area_fitted_on"] == "3 photographs of fold 0"


def test_thresholds_decide_first():
    fit = FitPresence(["0"], subset="train", thresholds=[0.5, 0.7, 0.5, 0.5])
    assert evaluate(fit, grades=[0], sizes=[5])["presence/min_area_ppm_HE"] == 3


def test_photographs_of_unknown_grade_are_passed_over_and_none_is_refused():
    fit = FitPresence(["0"], subset="fold 1")
    with pytest.raises(ValueError, match="expected graded photographs in fold 1 to fit areas on, found none"):
        evaluate(fit, grades=[-1], sizes=[5])


@pytest.mark.parametrize("subset", ["test", "all", "none"])
def test_nothing_is_fitted_on_a_test(subset):
    with pytest.raises(ValueError, match=f"expected a held-out fold or a training part .*, got {subset}"):
        FitPresence(["0"], subset=subset)
