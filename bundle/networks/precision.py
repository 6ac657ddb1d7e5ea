"""Which modules of a network run in float32 where the rest of it runs in bfloat16."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

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
    with ExitStack() as hooks:
        for module in modules:
            # PyTorch skips the second hook after a KeyboardInterrupt: the outer stack then closes this one at the end.
            plain = hooks.enter_context(ExitStack())
            hooks.enter_context(module.register_forward_pre_hook(partial(_enter, plain, device_type)))
            hooks.enter_context(module.register_forward_hook(partial(_leave, plain), always_call=True))
        yield


def _enter(plain: ExitStack, device_type: str, module: nn.Module, inputs: tuple[Tensor]) -> Tensor:
    x = inputs[0].float()
    plain.enter_context(torch.autocast(device_type, enabled=False))
    return x


def _leave(plain: ExitStack, module: nn.Module, inputs: tuple[Tensor], output: Tensor) -> None:
    plain.close()


def depthwise_convolutions(network: nn.Module) -> list[nn.Conv2d]:
    """Return the convolutions with one filter a channel, such as EfficientNet's.

    On a CPU their backward pass takes about five times as long in bfloat16 as in float32 (oneDNN of torch 2.12).

    Example:
        >>> network = nn.Sequential(nn.Conv2d(3, 6, 1), nn.Conv2d(6, 6, 3, groups=6), nn.Conv2d(6, 6, 3, groups=2))
        >>> depthwise_convolutions(network)
        [Conv2d(6, 6, kernel_size=(3, 3), stride=(1, 1), groups=6)]
    """
    layers = (layer for layer in network.modules() if isinstance(layer, nn.Conv2d))
    return [layer for layer in layers if layer.groups == layer.in_channels > 1]
