"""The moving average of the weights that is kept in place of the last ones."""

import pytest
import torch
from bundle.handlers.average import AverageWeights, WeightAverage
from ignite.engine import Engine
from torch import nn


def network():
    return nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))


def trained(average, learner, values):
    """Set every weight and statistic to a value at each step, as training would."""

    def step(engine, value):
        for tensor in [*learner.parameters(), *learner.buffers()]:
            tensor.data.fill_(value)

    engine = Engine(step)
    AverageWeights(average).attach(engine)
    engine.run(values)


def test_weights_and_statistics_are_averaged_from_the_first_step_on():
    learner = network()
    average = WeightAverage(learner, decay=0.75)
    trained(average, learner, [4.0, 8.0, 0.0])
    mean = 0.75 * (0.75 * 4 + 0.25 * 8) + 0.25 * 0  # 3.75
    assert average.kept[0].weight.unique().tolist() == [mean]
    assert average.kept[1].running_var.unique().tolist() == [mean]
    assert learner[0].weight.unique().tolist() == [0]  # training goes on with its own


def test_without_a_decay_the_network_itself_is_kept():
    learner = network()
    average = WeightAverage(learner, decay=None)
    trained(average, learner, [4.0])
    assert average.kept is learner
    assert average.state_dict() == {}


def test_what_goes_on_from_a_state_ends_where_one_run_would():
    whole, cut, resumed = network(), network(), network()
    undisturbed = WeightAverage(whole, decay=0.9)
    trained(undisturbed, whole, [1.0, 2.0, 7.0])
    first, second = WeightAverage(cut, decay=0.9), WeightAverage(resumed, decay=0.9)
    trained(first, cut, [1.0, 2.0])
    second.load_state_dict(first.state_dict())
    trained(second, resumed, [7.0])
    expected = undisturbed.kept.state_dict()
    assert all(torch.equal(value, expected[name]) for name, value in second.kept.state_dict().items())


def test_the_average_needs_no_gradient():
    assert not any(parameter.requires_grad for parameter in WeightAverage(network(), decay=0.9).kept.parameters())


@pytest.mark.parametrize("decay", [0, 1, -0.5, 99])
def test_what_is_no_decay_is_refused(decay):
    with pytest.raises(ValueError, match=f"expected average_decay above 0 and below 1, or null .*, got {decay}"):
        WeightAverage(network(), decay=decay)
