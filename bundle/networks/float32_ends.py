"""bfloat16 in the middle of a network, float32 at its ends."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def kept_in_float32(modules: Iterable[nn.Module], device_type: str) -> Iterator[None]:
    """Let these modules compute in float32 although autocast is on around them; afterwards they are as they were.

    bfloat16 keeps eight bits of every number. That matters where a photograph of eight bits comes in, and where logits
    come out whose order decides; between these, the errors of many channels average out. Few multiplications are spent
    at the ends: 5 % of those of a :class:`bundle.networks.multitask_unet.MultiTaskUNet`.

    Args:
        modules: each takes and returns one tensor.
        device_type: whose autocast it is.

    Example:
        >>> layer = nn.Linear(1, 1, bias=False)
        >>> layer.weight.data = torch.tensor([[1 + 2**-10]])  # bfloat16 has nothing between 1 and 1 + 2**-7
        >>> with torch.autocast("cpu", dtype=torch.bfloat16):
        ...     rounded = layer(torch.ones(1, 1)).item()
        ...     with kept_in_float32([layer], "cpu"):
        ...         kept = layer(torch.ones(1, 1)).item()
        >>> rounded, kept
        (1.0, 1.0009765625)
    """
    kept = list(modules)
    for module in kept:
        module.forward = _in_float32(module.forward, device_type)
    try:
        yield
    finally:
        for module in kept:
            del module.forward  # the instance's; that of the class shows again


def _in_float32(forward: Callable[[Tensor], Tensor], device_type: str) -> Callable[[Tensor], Tensor]:
    def run(x: Tensor) -> Tensor:
        with torch.autocast(device_type, enabled=False):
            return forward(x.float())

    return run
