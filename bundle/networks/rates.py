"""Learning rates of a partly pretrained network."""

from collections.abc import Iterable
from typing import Any

from torch import nn


def parameter_groups(
    network: nn.Module, trained_before: Iterable[nn.Module], learning_rate: float, new_learning_rate: float
) -> list[dict[str, Any]]:
    """Return an optimiser's groups: the pretrained parts, and the rest at its own rate.

    Args:
        network: the network to train.
        trained_before: its pretrained parts, such as an encoder with ImageNet weights.
        learning_rate: of these parts.
        new_learning_rate: of all other parts, such as a decoder and heads.

    Raises:
        ValueError: if a rate is not above 0.

    Example:
        >>> network = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 4, bias=False))
        >>> [(len(group["params"]), group["lr"]) for group in parameter_groups(network, [network[0]], 1e-4, 1e-3)]
        [(2, 0.0001), (1, 0.001)]
    """
    if not (learning_rate > 0 and new_learning_rate > 0):
        raise ValueError(f"expected learning rates above 0, got {learning_rate} and {new_learning_rate}")
    before = {id(parameter) for module in trained_before for parameter in module.parameters()}
    old = [p for p in network.parameters() if id(p) in before]
    new = [p for p in network.parameters() if id(p) not in before]
    return [{"params": old, "lr": learning_rate}, {"params": new, "lr": new_learning_rate}]
