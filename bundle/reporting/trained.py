"""The networks that a sweep has trained, rebuilt from what their runs recorded and filled with their weights."""

import ast
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle.files import load_json
from bundle.manifest import Manifest
from bundle.networks.graded_network import GradedNetwork
from bundle.networks.weights import load_weights, provenance, refuse_fused
from bundle.pipeline import CONFIGS
from bundle.reporting.runs import Repeat
from bundle.suites import Row
from bundle.sweep import task_name
from monai.bundle.config_parser import ConfigParser

REPEAT_FOLDER = re.compile(r"fold(\d+)_seed(\d+)")


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """One network of a sweep, in evaluation mode.

    Attributes:
        row: of the table.
        weights: their file.
        facts: that stand in it, such as ``image_size`` and ``epochs``.
        network: filled.
    """

    row: Row
    weights: Path
    facts: Mapping[str, Any]
    network: GradedNetwork

    @property
    def image_size(self) -> int:
        return int(self.facts["image_size"])


def repeat_folder(sweep: Path, name: str, repeat: Repeat) -> Path:
    """Return where a sweep keeps a row's files of one fold and seed (see :mod:`bundle.sweep`)."""
    return sweep / task_name(name, repeat.fold, repeat.seed)


def load_trained(sweep: Path, row: Row, repeat: Repeat, manifest: Manifest) -> Trained:
    """Build the network of a finished training from its recorded command, and fill it.

    Raises:
        ValueError: if no such training has finished, it ran on another manifest, its command cannot be read, or its
            weights tell no lesions apart.
    """
    folder = repeat_folder(sweep, row.name, repeat)
    marker, weights = folder / "finished.train.json", folder / "model.pt"
    if not (marker.is_file() and weights.is_file()):
        raise ValueError(_nothing_finished(sweep, row, repeat))
    _check_manifest(weights, provenance(weights), manifest)
    refuse_fused(weights)
    network = network_of(marker)
    facts = load_weights(network, weights, expected={"fold": repeat.fold, "seed": repeat.seed})
    return Trained(row=row, weights=weights, facts=facts, network=network.eval())


def _nothing_finished(sweep: Path, row: Row, repeat: Repeat) -> str:
    """Say what is missing, and what is there instead."""
    found = (REPEAT_FOLDER.fullmatch(path.parent.name) for path in (sweep / row.name).glob("*/finished.train.json"))
    there = sorted(Repeat(*map(int, match.groups())) for match in found if match)
    return (
        f"expected a finished training of row {row.name!r} ({repeat}) in {sweep}, found "
        f"{'those of ' + '; '.join(map(str, there)) if there else 'none of this row'}; choose --sweep, --fold and "
        f"--seed, or train it with python -m scripts.sweep --rows {row.name}"
    )


def _check_manifest(weights: Path, facts: Mapping[str, Any], manifest: Manifest) -> None:
    made_from = str(facts.get("manifest_sha256"))
    if made_from != manifest.sha256:
        raise ValueError(
            f"expected weights that were trained on this manifest (sha256 {manifest.sha256[:12]}), {weights} was "
            f"trained on another ({made_from[:12]}): give the --manifest of the sweep"
        )


def network_of(marker: Path) -> GradedNetwork:
    """Build the network that a finished stage's marker records: its configs, and the options of its command.

    The configs are this bundle's own of the same names, so that a sweep may move to another machine.

    Raises:
        ValueError: if the command cannot be read, or names a config that this bundle does not have.
    """
    options = _options(marker)
    config = ConfigParser.load_config_files([str(path) for path in _configs(options.pop("config_file", None), marker)])
    parser = ConfigParser({**config, **options, "pretrained": False})  # the weights file has all weights
    return parser.get_parsed_content("network_def")


def _options(marker: Path) -> dict[str, Any]:
    """Read the options back from the words of the command."""
    words = load_json(marker)["command"]
    first = next((place for place, word in enumerate(words) if word.startswith("--")), len(words))
    names, values = words[first::2], words[first + 1 :: 2]
    if not names or len(names) != len(values) or not all(name.startswith("--") for name in names):
        raise ValueError(f"expected the command of a stage in {marker}, got {words}")
    return {name.removeprefix("--"): _value(text) for name, text in zip(names, values, strict=True)}


def _value(text: str) -> Any:  # noqa: ANN401  (what the command line takes)
    """Read a value as the command line does.

    Example:
        >>> _value("0.25"), _value("False"), _value("['a', 'b']"), _value("sqlite:///mlflow.db")
        (0.25, False, ['a', 'b'], 'sqlite:///mlflow.db')
    """
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _configs(named: object, marker: Path) -> list[Path]:
    listed = named if isinstance(named, list) else [named]
    paths = [CONFIGS / str(name).replace("\\", "/").rpartition("/configs/")[2] for name in listed]
    missing = [path for path in paths if not path.is_file()]
    if missing:
        raise ValueError(f"expected the configs that {marker} names in this bundle, it has no {missing[0]}")
    return paths
