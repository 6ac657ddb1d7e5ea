"""Which photographs are marked as doubtful: ordinary ones, and such that are poor or no fundus photographs."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from bundle import ROOT
from bundle.datasets.items import file_items, items, union
from bundle.datasets.splits import scored
from bundle.deploy.runtimes import fastest_way, load
from bundle.handlers.predictions import UNLIKE
from bundle.labels import LESION_COUNT
from bundle.manifest import load_manifest
from bundle.metrics.grading import auroc
from bundle.metrics.likeness import likeness_of
from bundle.networks.trained_on import held_out
from bundle.networks.weights import fact, image_size, network_of
from bundle.reporting.tables import markdown_table, number
from bundle.transforms import PrepareFundusd, load_photograph
from bundle.transforms.quality import doubts_about, measure_quality
from scripts.benchmarks.oddities import EVERYDAY, MILD, STRONG, Pixels, drawings, everyday
from scripts.benchmarks.page import publish
from scripts.cli import main

CPU = torch.device("cpu")
AUROC_LEAST, MARKED_MOST = 0.95, 0.05
"""Bars: AUROC of the distance for every kind of oddity, and share of ordinary photographs that are marked."""

DRAWN, STEP = 20, 8
"""Number of drawings, and every how many photographs the mild changes are made of."""

REFUSED = "refused, not read"


class Seen(NamedTuple):
    """What is said of one photograph."""

    unlikeness: float
    doubts: tuple[str, ...]


class Gauge:
    """The preparation, the encoder and the measures of inference, without the decoder, which they do not need.

    Args:
        checkpoint: weights with a likeness.
    """

    def __init__(self, checkpoint: str) -> None:
        found = likeness_of(fact(checkpoint, "likeness"), checkpoint)
        if found is None:
            raise ValueError(f"expected a likeness in {checkpoint}, found none; fit it by configs/calibrate.yaml")
        self.likeness, self.image_size = found, image_size(checkpoint)
        network = network_of(checkpoint)
        no_lesions = torch.zeros(1, 1 + LESION_COUNT, 1, 1)
        network._decode = lambda features: no_lesions  # type: ignore[method-assign]
        self.network = load("torch", network, CPU, fastest_way("torch").precision)
        self.prepare = PrepareFundusd(self.image_size)

    def __call__(self, source: str | Pixels) -> Seen:
        """Measure a file or pixels; what cannot be read is infinitely unlike."""
        try:
            image = self.prepare({"image": source, "masks": {}, "optic_disc": ""})["image"]
            poor = doubts_about(measure_quality(image.numpy()))
        except ValueError:
            return Seen(np.inf, (REFUSED,))
        features = self.network(image[None].float().div_(255))["features"]
        unlikeness = float(self.likeness.unlikeness(features.numpy())[0])
        return Seen(unlikeness, (UNLIKE,) * (unlikeness > 1) + poor)

    def changed(self, paths: Iterable[str], change: Callable[[Pixels], Pixels]) -> list[Seen]:
        """Measure changed photographs, decoded as inference decodes them."""
        return [self(change(load_photograph(path, self.image_size).pixels)) for path in paths]


def unlike(
    manifest: str, checkpoint: str | None = None, split: str = "test", others: str | None = None, out: str | None = None
) -> None:
    """Measure how many photographs are marked, and how well the distance tells oddities from ordinary ones.

    Args:
        manifest: manifest of the data set that the weights were trained on.
        checkpoint: weights with a likeness; without it, models/model.pt of the bundle.
        split: test, or fold to choose settings on.
        others: folder of photographs of another camera.
        out: also write the page to this file.
    """
    weights = checkpoint or str(ROOT / "models" / "model.pt")
    paths = _paths(manifest, weights, split)
    gauge = Gauge(weights)
    ordinary = [gauge(path) for path in paths]
    strong = {name: gauge.changed(paths, change) for name, change in STRONG.items()}
    strong |= {"drawn (phantom)": [gauge(one) for one in drawings(DRAWN)]}
    strong |= {"everyday pictures": [gauge(one) for one in everyday()]}
    mild = {name: gauge.changed(paths[::STEP], change) for name, change in MILD.items()}
    parts = [_ordinary(ordinary), _oddities(strong, ordinary), _mild(mild, ordinary)]
    if others is not None:
        parts.append(_others([gauge(item["image"]) for item in file_items(others)]))
    command = f"unlike --manifest {Path(manifest).name} --checkpoint {Path(weights).name} --split {split}"
    command += f" --others {Path(others).name}" if others else ""
    publish("Photographs unlike the training, and poor ones", command, [*parts, _notes(weights)], out)


def _paths(manifest: str, checkpoint: str, split: str) -> list[str]:
    loaded = load_manifest(manifest)
    found = scored(loaded, held_out(checkpoint, loaded.sha256), split)
    return [item["image"] for item in items(loaded, union(found["lesions"][1], found["grade"][1]))]


def _row(name: str, seen: Sequence[Seen]) -> list[str]:
    unlike = sum(one.unlikeness > 1 for one in seen)
    marked = sum(bool(one.doubts) for one in seen)
    return [name, str(len(seen)), f"{100 * unlike / len(seen):.1f} %", f"{100 * marked / len(seen):.1f} %"]


HEADER = ["photographs", "number", "unlike", "doubtful"]


def _ordinary(seen: Sequence[Seen]) -> str:
    share = float(np.mean([bool(one.doubts) for one in seen]))
    met = "yes" if share <= MARKED_MOST else "no"
    table = markdown_table([*HEADER, f"at most {100 * MARKED_MOST:g} %"], [[*_row("as they are", seen), met]])
    return f"## Ordinary photographs\n\n{table}\n\n{_reasons(seen)}"


def _reasons(seen: Sequence[Seen]) -> str:
    doubts = [doubt for one in seen for doubt in one.doubts]
    counts = [f"{doubt} {doubts.count(doubt)}" for doubt in dict.fromkeys(doubts)]
    return f"Reasons: {', '.join(counts) or 'none'}."


def _oddities(strong: dict[str, list[Seen]], ordinary: Sequence[Seen]) -> str:
    rows = []
    for name, seen in {**strong, "all of these": [one for found in strong.values() for one in found]}.items():
        value = _auroc(seen, ordinary)
        rows.append([*_row(name, seen), number(value), "yes" if value >= AUROC_LEAST else "no"])
    table = markdown_table([*HEADER, "AUROC of the distance", f"at least {AUROC_LEAST:g}"], rows)
    return f"## What should be found\n\n{table}"


def _mild(mild: dict[str, list[Seen]], ordinary: Sequence[Seen]) -> str:
    rows = [[*_row(name, seen), number(_auroc(seen, ordinary))] for name, seen in mild.items()]
    table = markdown_table([*HEADER, "AUROC of the distance"], rows)
    return f"## What is found in part\n\n{table}\n\nMade of every {STEP}th photograph."


def _others(seen: Sequence[Seen]) -> str:
    table = markdown_table(HEADER, [_row("as they are", seen)])
    return f"## Another camera\n\n{table}\n\n{_reasons(seen)}"


def _auroc(seen: Sequence[Seen], ordinary: Sequence[Seen]) -> float:
    of_odd, of_ordinary = (np.array([one.unlikeness for one in found]) for found in (seen, ordinary))
    return auroc(of_odd, np.sort(of_ordinary))


def _notes(checkpoint: str) -> str:
    return (
        f"Likeness: {fact(checkpoint, 'likeness_fitted_on')}. Unlike: a distance above the limit. Doubtful: unlike, or "
        "dark, blurred, low in contrast or cut by plain measures. The AUROC is that of the distance alone, against the "
        "ordinary photographs. Changes are made to the decoded photographs, with the settings above and no others. "
        f"Everyday: {', '.join(EVERYDAY)} of scikit-image; what cannot be read as an eye is refused with a reason, and "
        "counts as found."
    )


if __name__ == "__main__":
    main(unlike)
