"""Bare state dicts, the only weights format that MONAI's tools read, each with a description file next to it."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bundle.files import file_sha256, load_json, write_text_whole
from bundle.networks.torch_file import save_whole
from torch import Tensor


def write_bare(path: str | os.PathLike, state: Mapping[str, Tensor], network: str, facts: Mapping[str, Any]) -> None:
    """Write a state dict, and ``{"network", "facts", "sha256"}`` to a ``.json`` file of the same name.

    The same tensors give the same bytes. Paths among the facts are shortened to the file name, because packages are
    passed on to others.

    Example:
        >>> import tempfile
        >>> import torch
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = f"{folder}/model.pt"
        ...     write_bare(path, {"weight": torch.ones(2)}, "MultiTaskUNet", facts={"teacher": "/home/me/old.pt"})
        ...     read_description(path)
        {'network': 'MultiTaskUNet', 'facts': {'teacher': 'old.pt'}}
    """
    save_whole(path, state)
    said = {"network": network, "facts": without_folders(facts)}
    text = json.dumps({**said, "sha256": file_sha256(path)}, indent=4) + "\n"
    write_text_whole(_description(path), text)


def read_description(path: str | os.PathLike) -> dict[str, Any]:
    """Return ``{"network", "facts"}`` of a bare state dict.

    Raises:
        ValueError: if its description file is missing, is malformed, or was written for other weights.
    """
    beside = _description(path)
    if not beside.is_file():
        raise ValueError(
            f"expected weights that this bundle wrote in {path}, got a file without 'model' and 'network', and no "
            f"{beside.name} beside it that says what they are"
        )
    said = load_json(beside)
    if not isinstance(said, dict) or not {"network", "facts", "sha256"} <= set(said):
        raise ValueError(f"expected 'network', 'facts' and 'sha256' in {beside}, got other things")
    if said["sha256"] != file_sha256(path):
        raise ValueError(f"expected the weights that {beside} was written for in {path}, got others")
    return {"network": said["network"], "facts": said["facts"]}


def _description(path: str | os.PathLike) -> Path:
    return Path(path).with_suffix(".json")


def without_folders(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Shorten each path among the facts to the file name, to keep local folders private.

    Example:
        >>> without_folders({"teacher": "/home/me/old.pt", "seed": 3})
        {'teacher': 'old.pt', 'seed': 3}
    """
    return {name: Path(fact).name if isinstance(fact, str) and os.sep in fact else fact for name, fact in facts.items()}
