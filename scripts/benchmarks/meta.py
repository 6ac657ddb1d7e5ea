"""Cost of an epoch of training and label update, compared with double backward, and how it grows."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence

import numpy as np
import torch
from bundle import ROOT
from bundle.reporting.tables import markdown_table
from scripts.benchmarks.page import publish
from scripts.benchmarks.precision import precision_table
from scripts.cli import main

BARS = (("time", "s_an_image", 0.7), ("peak memory", "memory_mib", 0.4))
"""Largest shares of the time and memory of double backward that ours may take."""

DIFFERENCE_MOST = 1e-5
"""Largest difference allowed between the gradients, relative to their norm."""

Found = dict[tuple[str, str], list[dict[str, float]]]

NAMES = {
    "fused": "fused: the training gradient is the virtual step's",
    "turns": "in turns, without double backward",
    "create_graph": "in turns, double backward (the MAXL way)",
}
COUNTS = (20, 200, 2000)
ALLOCATORS: dict[str, dict[str, str]] = {
    "glibc's allocator as it is": {},
    "freed blocks of 1 MiB and more returned at once": {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)},
}
"""With the first, the peak memory includes freed blocks that the allocator keeps for later."""


def meta(image_size: int = 512, images: int = 2, rounds: int = 3, width: float = 1.0, out: str | None = None) -> None:
    """Measure one epoch each way, in consecutive processes, one round at a time; batches of one photograph.

    Args:
        image_size: side of the images, which are random; weights are random too.
        images: number of images in the timed epoch, after one to warm up.
        rounds: number of processes of each way.
        width: factor on every channel count.
        out: also write the page to this file.
    """
    found: Found = {(a, way): [] for a in ALLOCATORS for way in NAMES}
    for _ in range(rounds):
        for allocator, way in found:
            one = _process(way, image_size, images, width, ALLOCATORS[allocator])
            found[allocator, way].append(one)
    difference = _process("difference", image_size, 1, width)["difference"]
    growth = [_process("fused", 64, count, 1 / 8) for count in COUNTS]
    command = f"meta --image_size {image_size} --images {images} --rounds {rounds} --width {width:g}"
    parts = [
        _ways(found), _bars(found, difference), _growth(growth), precision_table(width, rounds),
        _notes(image_size, images),
    ]  # fmt: skip
    publish("Training with label update, measured", command, parts, out)


def _process(
    way: str, image_size: int, images: int, width: float, environment: dict[str, str] | None = None
) -> dict[str, float]:
    words = ["scripts.benchmarks.meta_epoch", way, image_size, images, width]
    done = subprocess.run(
        [sys.executable, "-m", *map(str, words)], cwd=ROOT, capture_output=True, text=True, check=True,
        env={**os.environ, **(environment or {})},
    )  # fmt: skip
    return json.loads(done.stdout)


def _median(found: Sequence[dict[str, float]], key: str) -> float:
    return float(np.median([one[key] for one in found]))


def _ways(found: Found) -> str:
    rows = [
        [f"{NAMES[way]}; {allocator}", f"{_median(each, 's_an_image'):.2f} s", f"{_median(each, 'memory_mib'):.0f} MiB",
         str(len(each))]
        for (allocator, way), each in found.items()
    ]  # fmt: skip
    return markdown_table(
        ["epoch of training and label update", "a photograph", "memory above the idle process", "runs"], rows
    )


def _bars(found: Found, difference: float) -> str:
    rows = [_bar(found, allocator, *bar) for allocator in ALLOCATORS for bar in BARS]
    most = f"at most {DIFFERENCE_MOST:g}"
    rows.append(["difference of the gradients", f"{difference:.1e}", most, _met(difference <= DIFFERENCE_MOST)])
    return markdown_table(["fused over double backward", "median (range)", "bar", "met"], rows)


def _bar(found: Found, allocator: str, what: str, key: str, most: float) -> list[str]:
    pairs = zip(found[allocator, "fused"], found[allocator, "create_graph"], strict=True)
    ratios = [ours[key] / theirs[key] for ours, theirs in pairs]
    middle = float(np.median(ratios))
    spread = f"{middle:.2f} ({min(ratios):.2f}-{max(ratios):.2f})"
    return [f"{what}; {allocator}", spread, f"at most {most}", _met(middle <= most)]


def _growth(growth: Sequence[dict[str, float]]) -> str:
    rows = [
        [str(count), f"{1e3 * one['s_an_image']:.1f} ms", f"{one['memory_mib']:.0f} MiB"]
        for count, one in zip(COUNTS, growth, strict=True)
    ]
    return markdown_table(["photographs in the epoch, fused, 64 px, width 1/8", "a photograph", "memory"], rows)


def _met(met: bool) -> str:
    return "yes" if met else "no"


def _notes(image_size: int, images: int) -> str:
    return (
        f"Random photographs of {image_size} x {image_size} px one by one, random weights, channels last, "
        f"{torch.get_num_threads()} threads; Adam for both networks, objective segmentation. Each run is a process of "
        f"its own: one epoch of one photograph to warm up, then {images} timed; ways take turns. The first two tables "
        "are in float32. Memory is the largest resident size of the process less that before its first step, with both "
        "networks and both optimisers' states in place. Double backward differentiates by the label update network "
        "alone (MAXL's code also by the other, and is slower); the ways see the same batches."
    )


if __name__ == "__main__":
    main(meta)
