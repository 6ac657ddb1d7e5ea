"""ImageNet weights: from torchvision, from a file, or none."""

import pickle
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.error import URLError

import torch
from torch import Tensor
from torchvision.models import get_model_weights

# torch's restricted unpickler promises no one error: a CSV gives IndexError, a cut or altered file any of these.
UNREADABLE = (
    pickle.UnpicklingError, struct.error, RuntimeError, ValueError, LookupError, TypeError, AttributeError,
    AssertionError, EOFError, OSError,
)  # fmt: skip


def imagenet_weights(architecture: str, pretrained: bool | str) -> Mapping[str, Tensor] | None:
    """Return the state dict of an ImageNet network.

    Args:
        architecture: torchvision's name, such as ``vgg16``.
        pretrained: True downloads (or takes from torch's cache), a path reads that file, False gives None.

    Raises:
        ValueError: if the weights cannot be downloaded or the file is missing or no state dict.
    """
    if pretrained is False:
        return None
    if pretrained is True:
        return _download(architecture)
    return read_weights(pretrained)


def _download(architecture: str) -> Mapping[str, Tensor]:
    weights = get_model_weights(architecture).DEFAULT
    try:
        return weights.get_state_dict(progress=True, check_hash=True)
    except (URLError, OSError) as error:
        raise ValueError(
            f"expected to download ImageNet weights of {architecture} from {weights.url}, got: {error}. Go on without "
            f"them by `--pretrained False`, or bring the file and say `--pretrained PATH`"
        ) from error


def read_weights(path: str | Path) -> dict[str, Any]:
    """Read a file of tensors; nothing else in it is ever executed.

    Raises:
        ValueError: if the file is missing or holds anything but tensors and plain values.
    """
    if not Path(path).is_file():
        raise ValueError(f"expected weights at {path}, found no such file")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise ValueError(f"expected weights (a torch state dict) in {path}, got: {type(error).__name__}") from error
    if not isinstance(content, dict):
        raise ValueError(f"expected weights (a torch state dict) in {path}, got: {type(content).__name__}")
    return content
