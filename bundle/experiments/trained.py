"""Trained networks of a sweep, built from their weights files."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle.experiments.runs import Repeat
from bundle.experiments.suites import Row
from bundle.experiments.sweep import task_name
from bundle.manifest import Manifest
from bundle.networks.graded_network import GradedNetwork
from bundle.networks.weights import check_facts, facts_of, network_of, refuse_fused

REPEAT_FOLDER = re.compile(r"fold(\d+)_seed(\d+)")


@dataclass(frozen=True, kw_only=True, eq=False)
class Trained:
    """One network of a sweep, in evaluation mode.

    Attributes:
        row: row of the table.
        weights: weights file.
        facts: facts in the weights file, such as ``image_size`` and ``epochs``.
        network: network with these weights loaded.
    """

    row: Row
    weights: Path
    facts: Mapping[str, Any]
    network: GradedNetwork

    @property
    def image_size(self) -> int:
        return int(self.facts["image_size"])


def repeat_folder(sweep: Path, name: str, repeat: Repeat) -> Path:
    """Return the folder of a row's files for one fold and seed in a sweep (see :mod:`bundle.experiments.sweep`)."""
    return sweep / task_name(name, repeat.fold, repeat.seed)


def load_trained(sweep: Path, row: Row, repeat: Repeat, manifest: Manifest) -> Trained:
    """Build the network of a finished training from its weights file.

    Raises:
        ValueError: if no such training has finished, it ran on another manifest, fold or seed, no network can be
            built from its weights, or they have one fused lesion class.
    """
    folder = repeat_folder(sweep, row.name, repeat)
    marker, weights = folder / "finished.train.json", folder / "model.pt"
    if not (marker.is_file() and weights.is_file()):
        raise ValueError(_nothing_finished(sweep, row, repeat))
    facts = facts_of(weights)
    _check_manifest(weights, facts, manifest)
    refuse_fused(weights)
    check_facts(weights, facts, {"fold": repeat.fold, "seed": repeat.seed})
    return Trained(row=row, weights=weights, facts=facts, network=network_of(weights))


def _nothing_finished(sweep: Path, row: Row, repeat: Repeat) -> str:
    """Write the error message: the missing training, and the finished ones found instead."""
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
