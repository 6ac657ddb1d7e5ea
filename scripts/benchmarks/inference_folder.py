"""Inference from a folder of native photographs to files, by configs/inference.yaml or plainly, in separate processes.

python -m scripts.benchmarks.inference_folder WAY PHOTOGRAPHS CHECKPOINT IMAGE_SIZE OPTIONS_AS_JSON
"""

import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import torch
from bundle import ROOT
from bundle.datasets.items import file_items
from bundle.deploy.packaging import copy_int8
from bundle.networks.weights import facts_of, network_of, save_weights
from bundle.optional import import_optional
from bundle.reporting.tables import markdown_table
from monai.bundle.scripts import run
from monai.transforms import Compose, LoadImaged, Resize, Resized, SaveImage
from scripts.benchmarks.rows import largest_mib
from torch import nn

LEAST, MEMORY_MOST_MIB = 10.0, 1536
"""How many times as fast as the plain way ours must be, and the most memory that it may take."""

WAYS = ("ours", "plain")


def folder_table(
    photographs: str, checkpoint: str, image_size: int, backend: str | None, precision: str | None, rounds: int
) -> str:
    """Run both ways, in turns, and compare the medians of images per second and memory."""
    network, facts = network_of(checkpoint), facts_of(checkpoint)
    options = {name: value for name, value in {"backend": backend, "precision": precision}.items() if value}
    with tempfile.TemporaryDirectory() as folder:
        # The weights do not depend on the size, so their file may record this one.
        save_weights(f"{folder}/model.pt", network, {**facts, "image_size": image_size})
        copy_int8(checkpoint, Path(folder) / "model.pt")
        turns = [_turn(photographs, f"{folder}/model.pt", image_size, options) for _ in range(rounds)]
    found = {way: {name: median(turn[way][name] for turn in turns) for name in turns[0][way]} for way in WAYS}
    rows = [
        [way, f"{one['images'] / one['duration_s']:.2f}", f"{one['memory_mib']:.0f} MiB"] for way, one in found.items()
    ]
    ratio = median(turn["plain"]["duration_s"] / turn["ours"]["duration_s"] for turn in turns)
    met, memory_mib = "yes" if ratio >= LEAST else "no", found["ours"]["memory_mib"]
    fits = "yes" if memory_mib <= MEMORY_MOST_MIB else "no"
    note = (
        f"Ours is {ratio:.1f} times as fast; at least {LEAST:g}: {met}. Memory at most {MEMORY_MOST_MIB} MiB: {fits}. "
        f"{found['ours']['images']:.0f} photographs, {image_size} px in the network, one at a time; medians of "
        f"{rounds} turns. Ours: configs/inference.yaml with what it writes, overlays, heat maps, table and report "
        "included. Plain: MONAI's `LoadImaged` and `Resized`, the U-Net on VGG16 of segmentation-models-pytorch in "
        "eager float32, `SaveImage` of the mask at native size, and nothing else. The time is that of the whole run "
        "without imports. Memory is the largest of the process; neither way has others."
    )
    return f"## Folder to files\n\n{markdown_table(['way', 'images/s', 'memory'], rows)}\n\n{note}"


def _turn(
    photographs: str, checkpoint: str, image_size: int, options: Mapping[str, str]
) -> dict[str, dict[str, float]]:
    return {way: _process(way, photographs, checkpoint, image_size, options) for way in WAYS}


def _process(
    way: str, photographs: str, checkpoint: str, image_size: int, options: Mapping[str, str]
) -> dict[str, float]:
    places = [str(Path(place).resolve()) for place in (photographs, checkpoint)]
    words = ["scripts.benchmarks.inference_folder", way, *places, str(image_size), json.dumps(options)]
    done = subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(
    way: str, photographs: str, checkpoint: str, image_size: int, options: Mapping[str, str]
) -> dict[str, float]:
    """Return images, seconds, and the peak memory of this process; neither way has others."""
    # Hides warnings about MONAI's own calls of deprecated functions.
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        if way == "ours":
            ours(photographs, checkpoint, folder, options)
        else:
            plain(photographs, folder, image_size)
        duration_s = time.perf_counter() - started
    return {"images": len(file_items(photographs)), "duration_s": duration_s, "memory_mib": largest_mib()}


def unet() -> nn.Module:
    """Return the U-Net of segmentation-models-pytorch with random weights: the peer."""
    smp = import_optional("segmentation_models_pytorch", "unet")
    return smp.Unet("vgg16", encoder_weights=None, classes=5).eval()


def ours(photographs: str, checkpoint: str, folder: str, options: Mapping[str, Any]) -> None:
    """Run the config."""
    run(
        config_file=str(ROOT / "configs" / "inference.yaml"), bundle_root=str(ROOT), input=photographs,
        output_dir=f"{folder}/made", checkpoint=checkpoint, batch_size=1, num_workers=0, track=False, **options,
    )  # fmt: skip


def plain(photographs: str, folder: str, image_size: int) -> None:
    """Run inference as a simple script with MONAI's own transforms."""
    network = unet()
    size = (image_size, image_size)
    load = Compose([LoadImaged("image", reader="PILReader", ensure_channel_first=True), Resized("image", size)])
    save = SaveImage(
        f"{folder}/made", output_postfix="mask", output_ext=".png", output_dtype="uint8", resample=False,
        separate_folder=False, print_log=False,
    )  # fmt: skip
    for item in file_items(photographs):
        image = load({"image": item["image"]})["image"]
        with torch.no_grad():
            mask = network(image[None] / 255)[0].argmax(dim=0, keepdim=True)
        native = tuple(image.meta["spatial_shape"])
        save(Resize(native, mode="nearest")(mask.float()), image.meta)


if __name__ == "__main__":
    _, asked, where, weights, size_px, chosen = sys.argv
    found = measure(asked, where, weights, int(size_px), json.loads(chosen))
    os.write(1, ("\n" + json.dumps(found) + "\n").encode())
