"""What was trained before learns at one rate, everything else at another, and nothing is forgotten."""

import pytest
from bundle.networks.graders import Grader
from bundle.networks.multitask_unet import MultiTaskUNet
from bundle.networks.rates import parameter_groups


@pytest.mark.parametrize(
    ("network", "parts", "new"),
    [
        (
            MultiTaskUNet(pretrained=False, width=1 / 16),
            "shared_modules",
            {"decoder", "segmentation_head", "grade_head"},
        ),
        (Grader("tf_efficientnet_lite0", pretrained=False), "trunk", {"classifier.classifier"}),
        (Grader("resnext50_32x4d", pretrained=False), "trunk", {"classifier.fc"}),
    ],
)
def test_every_parameter_is_in_one_of_two_groups(network, parts, new):
    groups = parameter_groups(network, getattr(network, parts)(), 1e-4, 1e-3)
    assert [group["lr"] for group in groups] == [1e-4, 1e-3]
    names = {id(p): name for name, p in network.named_parameters()}
    old, others = ([names[id(p)] for p in group["params"]] for group in groups)
    assert sorted(old + others) == sorted(names.values())
    assert {part for part in new for name in others if name.startswith(part)} == new
    assert not [name for name in old if name.startswith(tuple(new))]


def test_a_rate_of_zero_is_refused():
    network = MultiTaskUNet(pretrained=False, width=1 / 16)
    with pytest.raises(ValueError, match=r"expected learning rates above 0, got 0\.0 and 0\.001"):
        parameter_groups(network, network.shared_modules(), 0.0, 1e-3)
