"""Speed of preparing photographs and feeding them to training, losses on the way, and growth of a manifest's cost."""

import json
import multiprocessing
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bundle.datasets.items import items
from bundle.datasets.prepared import PreparedDataset
from bundle.labels import LESIONS
from bundle.manifest import load_manifest
from bundle.reporting.tables import markdown_table
from bundle.transforms import Crop, PrepareFundusd, RandFundusAffined, load_masks
from monai.data import CacheDataset, DataLoader
from monai.transforms import (
    Compose,
    LoadImaged,
    RandFlipd,
    RandRotate90d,
    RandRotated,
    RandZoomd,
    Resized,
    SelectItemsd,
    Transform,
)
from PIL import Image
from scipy import ndimage
from scripts.benchmarks.page import publish
from scripts.benchmarks.rows import largest_mib
from scripts.benchmarks.timing import in_turn
from scripts.cli import main
from torch.nn import functional as F

Items = Sequence[dict[str, Any]]
PREPARED_PX, TRAINED_PX, BATCH, WORKERS, EPOCH = 1024, 512, 2, 2, 64
COUNTS = (10_000, 100_000)


def data(manifest: str, out: str | None = None, images: int = 16, rounds: int = 3) -> None:
    """Measure the data pipeline on the outlined photographs of a manifest, compared with stock MONAI.

    Args:
        manifest: manifest of photographs at native size, with outlines.
        out: also write the page to this file.
        images: largest number of photographs.
        rounds: how often each is prepared, and how many epochs of batches are timed.
    """
    # Hides warnings about MONAI's own calls of deprecated functions.
    warnings.simplefilter("ignore")
    loaded = load_manifest(manifest)
    chosen = items(loaded, [row for row in loaded.photographs if row.outlined][:images])
    if not chosen:
        raise ValueError(f"expected outlined photographs in {manifest}, found none")
    parts = [preparation, fidelity, survival, batches, memory]
    command = f"data --manifest {Path(manifest).name} --images {images} --rounds {rounds}"
    publish("The data's way, measured", command, [*(part(chosen, rounds) for part in parts), growth(manifest)], out)


def preparation(chosen: Items, rounds: int) -> str:
    """Prepare one photograph at a time on one core: ours with hashing and writing, the peer without."""
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        prepare = PrepareFundusd(PREPARED_PX)
        passes = [PreparedDataset(chosen, prepare, f"{folder}/{number}") for number in range(rounds + 1)]
        cases = [(one, item) for one in passes for item in chosen]
        pair = in_turn(cases, lambda case: case[0].prepared(case[1]), lambda case: _stock(case[1]), warm_up=len(chosen))
    torch.set_num_threads(WORKERS)
    header = [f"a photograph and its masks to {PREPARED_PX} px, one core", "ours", "MONAI", "times", "cases"]
    note = (
        'MONAI: `LoadImaged(reader="PILReader")` and `Resized`. Ours also checks the sha256, keeps every lesion and '
        "writes the cache."
    )
    return f"## Preparation\n\n{markdown_table(header, [pair.row('median')])}\n\n{note}"


def _stock(item: dict[str, Any]) -> Any:  # noqa: ANN401  (MONAI's dictionary)
    files = {"image": item["image"], **item["masks"], **({"OD": item["optic_disc"]} if item["optic_disc"] else {})}
    keys = list(files)
    modes = ["area" if key == "image" else "nearest" for key in keys]
    loaded = LoadImaged(keys, reader="PILReader", ensure_channel_first=True)(files)
    return Resized(keys, (PREPARED_PX, PREPARED_PX), mode=modes)(loaded)


def fidelity(chosen: Items, rounds: int) -> str:
    """Compare with full decoding and area interpolation, on the same square."""
    differences = [_difference(item) for item in chosen]
    return (
        f"## Fidelity\n\nMean difference to full decoding and resizing by area, over {len(chosen)} photographs: "
        f"{np.mean(differences):.2f} of 255 (largest of a photograph: {max(differences):.2f})."
    )


def _difference(item: dict[str, Any]) -> float:
    found = PrepareFundusd(PREPARED_PX)({**item, "masks": {}})
    crop = Crop.of(found["geometry"])
    with Image.open(item["image"]) as image:
        native = image.convert("RGB").crop((crop.left, crop.top, crop.left + crop.side, crop.top + crop.side))
    area = F.interpolate(torch.from_numpy(np.array(native)).permute(2, 0, 1)[None].double(), PREPARED_PX, mode="area")
    return float((area[0] - found["image"]).abs().mean())


def survival(chosen: Items, rounds: int) -> str:
    """Count the components of the outlines that have no pixel of their class left."""
    sizes = (PREPARED_PX, TRAINED_PX)
    counted = np.array([[lost_components(item, size) for size in sizes] for item in chosen]).sum(axis=0)
    rows = [[f"{size} px", str(lost), str(total)] for size, (lost, total) in zip(sizes, counted, strict=True)]
    return f"## Lesions\n\n{markdown_table(['size', 'components lost', 'components'], rows)}"


def lost_components(item: dict[str, Any], image_size: int) -> tuple[int, int]:
    """Count the components of a photograph's outlines that have no pixel of their class left, and all components."""
    found = PrepareFundusd(image_size)(item)
    crop = Crop.of(found["geometry"])
    labels = found["lesions"][0].numpy()
    lost = total = 0
    for lesion, mask in load_masks(item["masks"], crop.width, crop.height).items():
        components, count = ndimage.label(mask, np.ones((3, 3)))
        y, x = np.nonzero(components)
        # For each outlined pixel, the classes at the corners of its area after resizing: four arrays (pixels,).
        touched = [labels[rows, columns] for rows in _reached(y, crop.top, crop.side, image_size)
                   for columns in _reached(x, crop.left, crop.side, image_size)]  # fmt: skip
        housed = np.any(np.array(touched) == LESIONS.index(lesion) + 1, axis=0)
        lost += count - len(np.unique(components[y, x][housed]))
        total += count
    return lost, total


def _reached(native: np.ndarray, start: int, side: int, image_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the resized pixels where native pixels begin and end; if native pixels are smaller, none lies between."""
    first = (native - start) * image_size // side
    last = ((native + 1 - start) * image_size - 1) // side
    return first.clip(0, image_size - 1), last.clip(0, image_size - 1)


class _Float(Transform):
    """Types that a stock pipeline keeps: float32 in [0, 1], and a label map of the same type."""

    def __call__(self, data: dict[str, Any]) -> dict[str, Any]:
        return {"image": data["image"].float() / 255, "lesions": data["lesions"].float()}


def _stock_set(data_set: PreparedDataset) -> CacheDataset:
    keys, mode = ["image", "lesions"], ["bilinear", "nearest"]
    random = [
        *(RandFlipd(keys, prob=0.5, spatial_axis=axis) for axis in (0, 1)),
        RandRotate90d(keys, prob=0.5),
        RandRotated(keys, prob=0.5, range_x=0.26, mode=mode, padding_mode="zeros"),
        RandZoomd(keys, prob=0.5, min_zoom=1.0, max_zoom=1.2, mode=mode),
    ]
    steps = Compose([_Loaded(data_set), _Float(), *random])
    return CacheDataset([{"index": index} for index in range(len(data_set))], steps, progress=False)


class _Loaded(Transform):
    """Loader of the same prepared photographs for the peer's cache."""

    def __init__(self, data_set: PreparedDataset) -> None:
        self.data_set = data_set

    def __call__(self, data: dict[str, int]) -> dict[str, Any]:
        return self.data_set.prepared(self.data_set.data[data["index"]])


def _our_set(chosen: Items, folder: str) -> PreparedDataset:
    keys = ["image", "lesions"]
    steps = Compose([SelectItemsd(keys), RandFundusAffined(keys, ["bilinear", "nearest"])])
    return PreparedDataset(chosen, PrepareFundusd(TRAINED_PX), folder, steps)


def batches(chosen: Items, rounds: int) -> str:
    """Read epochs of augmented batches in turn, with two workers each."""
    # The main process only collects the workers' batches; more threads would compete with the workers.
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        ours = _our_set([chosen[number % len(chosen)] for number in range(EPOCH)], folder)
        ours.fill(WORKERS)
        loaders = [
            DataLoader(one, batch_size=BATCH, shuffle=True, num_workers=WORKERS, persistent_workers=True)
            for one in (ours, _stock_set(ours))
        ]
        pair = in_turn(range(rounds + 1), lambda _: _read(loaders[0]), lambda _: _read(loaders[1]), warm_up=1)
    torch.set_num_threads(WORKERS)
    speeds = [f"{EPOCH / np.median(times):.0f} images/s" for times in pair]
    header = [f"batches of {BATCH} at {TRAINED_PX} px, {WORKERS} workers", "ours", "MONAI", "times", "epochs"]
    row = [f"{EPOCH} images, all augmentations", *speeds, f"{pair.ratio:.1f}", str(rounds)]
    note = (
        "MONAI: `CacheDataset` of float32 tensors, the same five augmentations as dictionary transforms. Ours includes "
        "making float32 of the bytes; moving channels last, which both need, is left out."
    )
    return f"## Batches\n\n{markdown_table(header, [row])}\n\n{note}"


def _read(loader: DataLoader) -> None:
    """Convert every batch to the peer's format: float32 in [0, 1]."""
    for batch in loader:
        if batch["image"].dtype == torch.uint8:
            batch["image"].float().div_(255)


def memory(chosen: Items, rounds: int) -> str:
    """Read an epoch of few and of many photographs, each in a separate process."""
    counts = (16, 256)
    with tempfile.TemporaryDirectory() as folder:
        _our_set(chosen, folder).fill(WORKERS)
        used = {ours: [_in_a_process(chosen, folder, count, ours) for count in counts] for ours in (True, False)}
    rows = [
        ["ours" if ours else "MONAI", *(f"{mib:.0f} MiB" for mib in found), f"{found[1] - found[0]:+.0f} MiB"]
        for ours, found in used.items()
    ]
    header = ["largest memory of a process", *(f"{n} images" for n in counts), "growth"]
    return f"## Memory\n\n{markdown_table(header, rows)}"


def _in_a_process(chosen: Items, folder: str, count: int, ours: bool) -> float:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_memory_mib, (chosen, folder, count, ours))


def _memory_mib(chosen: Items, folder: str, count: int, ours: bool) -> float:
    warnings.simplefilter("ignore")
    mine = _our_set([chosen[number % len(chosen)] for number in range(count)], folder)
    _read(DataLoader(mine if ours else _stock_set(mine), batch_size=BATCH, shuffle=True))
    return largest_mib()


def growth(manifest: str) -> str:
    """Load, check and split manifests of ten thousand and a hundred thousand rows, and look for copies in them."""
    found = [_rows(count, manifest) for count in COUNTS]
    rows = [
        [
            f"{count:,}",
            *(f"{one[key]:.2f} s" for key in ("load_s", "split_s", "audit_s")),
            f"{one['memory_mib']:.0f} MiB",
        ]
        for count, one in zip(COUNTS, found, strict=True)
    ]
    times = [f"{found[1][key] / found[0][key]:.0f}" for key in ("load_s", "split_s", "audit_s")]
    rows.append(["times", *times, f"{found[1]['memory_mib'] / found[0]['memory_mib']:.1f}"])
    header = ["rows", "load and check", "fold and select", "look for copies", "memory without the search"]
    return f"## Growth\n\n{markdown_table(header, rows)}"


def _rows(count: int, manifest: str) -> dict[str, float]:
    command = [sys.executable, "-m", "scripts.benchmarks.rows", str(count), manifest]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


if __name__ == "__main__":
    main(data)
