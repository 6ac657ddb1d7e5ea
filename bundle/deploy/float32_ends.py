"""Mixed precision with bfloat16 in the middle of a network and float32 at its ends."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


@contextmanager
def kept_in_float32(modules: Iterable[nn.Module], device_type: str) -> Iterator[None]:
    """Run these modules in float32 inside an autocast region, and restore them afterwards.

    bfloat16 has eight significant bits. That matters at the input, which is an eight-bit photograph, and at the output,
    where the order of the logits decides; between them, the errors of many channels average out. The ends are cheap:
    5 % of the multiplications of a :class:`bundle.networks.multitask_unet.MultiTaskUNet`.

    Args:
        modules: each takes and returns one tensor.
        device_type: device type of the autocast region.

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
            del module.forward  # removes the instance attribute, so the method of the class applies again


def _in_float32(forward: Callable[[Tensor], Tensor], device_type: str) -> Callable[[Tensor], Tensor]:
    def run(x: Tensor) -> Tensor:
        with torch.autocast(device_type, enabled=False):
            return forward(x.float())

    return run
