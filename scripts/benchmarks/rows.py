"""A manifest of many rows: time to load, check, split and look for copies; run in its own process to measure memory.

python -m scripts.benchmarks.rows COUNT MANIFEST
"""

import gc
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from bundle.datasets.splits import graded_training, lesion_training
from bundle.labels import LESIONS
from bundle.manifest import Manifest, Photograph, load_manifest, save_manifest

COPIES = 0.05
"""Share of the rows that are copies of another, with up to 30 bits changed."""

CHANGED = 0.15
"""Probability that a bit of a hash differs from that of the photograph it is derived from."""


def made_hashes(count: int, like: Manifest, seed: int = 0) -> np.ndarray:
    """Draw hashes ``(count, 32)`` similar to those of real photographs, some of them copies."""
    rng = np.random.default_rng(seed)
    real = np.array([list(bytes.fromhex(row.perceptual_hash)) for row in like.photographs], np.uint8)
    # real is (photographs, 32), bits is (count, 256).
    bits = np.unpackbits(real[rng.integers(len(real), size=count)], axis=1) ^ (rng.random((count, 256)) < CHANGED)
    copies = int(COPIES * count)
    bits[-copies:] = bits[:copies]
    for number in range(count - copies, count):
        bits[number, rng.choice(256, rng.integers(0, 31), replace=False)] ^= 1
    return np.packbits(bits, axis=1)


def made_manifest(hashes: np.ndarray) -> Manifest:
    """Make a manifest of a tenth outlined and nine tenths graded photographs, a fifth of them in the test split."""
    rng = np.random.default_rng(0)
    photographs = tuple(_row(number, packed, rng) for number, packed in enumerate(hashes))
    return Manifest(name="made", roots={"made": Path("/made")}, folds=5, seed=0, photographs=photographs)


def _row(number: int, packed: np.ndarray, rng: np.random.Generator) -> Photograph:
    outlined = number % 10 == 0
    present = [lesion for lesion in LESIONS if outlined and rng.random() < 0.5]
    return Photograph(
        id=f"made/photographs/{number:06}", image=f"made/images/{number:06}.jpg",
        split="test" if number % 5 == 1 else "train", sha256=f"{number:064x}", perceptual_hash=packed.tobytes().hex(),
        width_px=4288, height_px=2848, grade=None if outlined else int(rng.integers(5)),
        annotated=LESIONS if outlined else (), masks={name: f"made/{name}/{number}.png" for name in present},
        areas_px=dict.fromkeys(present, 100), group=f"made/photographs/{number:06}",
    )  # fmt: skip


def measure(count: int, like: str) -> dict[str, float]:
    """Return seconds of each step, and the peak memory of this process before folds and copies."""
    hashes = made_hashes(count, load_manifest(like))
    with tempfile.TemporaryDirectory() as folder:
        save_manifest(made_manifest(hashes), Path(folder) / "made.json")
        gc.collect()
        started = time.perf_counter()
        manifest = load_manifest(Path(folder) / "made.json")
    loaded = time.perf_counter()
    lesion_training(manifest, 0)
    graded_training(manifest, 0)
    selected = time.perf_counter()
    return {
        "load_s": loaded - started,
        "memory_mib": largest_mib(),
        "split_s": selected - loaded + dealt(manifest),
        "audit_s": audited(hashes),
    }


def dealt(manifest: Manifest) -> float:
    """Return the seconds that dealing the folds takes."""
    # Imported late, so that its packages do not count as memory of the manifest.
    from bundle.datasets.folds import stratified_folds

    started = time.perf_counter()
    rows = [row for row in manifest.photographs if row.split == "train"]
    strata = [[*row.masks, f"grade {row.grade}"] for row in rows]
    stratified_folds([row.group for row in rows], strata, 5, 0)
    return time.perf_counter() - started


def audited(hashes: np.ndarray) -> float:
    """Return the seconds that the search for copies takes."""
    # Imported late, as above.
    from bundle.datasets.copies import group_copies, near_pairs

    started = time.perf_counter()
    groups = group_copies(len(hashes), near_pairs(hashes))
    duration_s = time.perf_counter() - started
    assert len(hashes) - len(set(groups.tolist())) >= int(COPIES * len(hashes))
    return duration_s


def largest_mib() -> float:
    """Return the peak memory of this process, without that of its parent (Linux)."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]), sys.argv[2])))
