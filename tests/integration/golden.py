"""Fingerprints of what the shipped weights predict and what the smallest pipeline makes, to compare two commits.

python tests/integration/golden.py before.json          # at one commit
python tests/integration/golden.py after.json before.json  # at another: exit code 1 and the names of what differs

Both must run on the same machine with the same versions: the last bits of a float depend on the processor.
"""

import csv
import hashlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import torch
from bundle.phantom.tree import write_phantom

ROOT = Path(__file__).resolve().parents[2]
PHANTOM = {"num_lesion_train": 10, "num_lesion_test": 4, "num_graded_train": 12, "num_graded_test": 4}
KEPT = (
    "manifest.json", "pseudo_labels.*", "labels.csv", "masks/*.png", "heatmaps/*.png", "predictions.*", "metrics.json",
    "model.pt", "label_network.pt",
)  # fmt: skip
# They name this run: where it was, when, how long it took, from which commit; the hash is of a file that names it.
PASSING = {
    "weights", "mlflow", "seconds", "image", "path", "dataset_dir", "created", "command", "versions", "bundle",
    "pseudo_labels_sha256",
}  # fmt: skip


def run(*words: object) -> None:
    """Run a module of Python in the repository, and show what it printed only if it fails."""
    done = subprocess.run(
        [sys.executable, "-m", *map(str, words)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)


def bare(value: object) -> object:
    """Take out of JSON what names the run."""
    if isinstance(value, dict):
        return {key: bare(item) for key, item in value.items() if key not in PASSING}
    return [bare(item) for item in value] if isinstance(value, list) else value


def content(path: Path) -> bytes:
    """Return what must not change of a file: pixels and numbers, and not where or when it was written."""
    if path.suffix == ".pt":
        saved = torch.load(path, map_location="cpu")
        facts = json.dumps(bare(without_tensors(saved)), sort_keys=True).encode()
        return b"".join([*(bare_tensor(item) for item in sorted(tensors(saved))), facts])
    if path.suffix == ".json":
        return json.dumps(bare(json.loads(path.read_text(encoding="utf-8"))), sort_keys=True).encode()
    if path.suffix == ".jsonl":
        rows = [bare(json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
        return json.dumps(rows, sort_keys=True).encode()
    if path.suffix == ".csv":
        with path.open(newline="", encoding="utf-8-sig") as file:
            return json.dumps(bare(list(csv.DictReader(file))), sort_keys=True).encode()
    return path.read_bytes()


def tensors(saved: dict, prefix: str = "") -> list[tuple[str, torch.Tensor]]:
    """List the tensors of a saved mapping by name."""
    found = []
    for key, value in saved.items():
        if isinstance(value, dict):
            found += tensors(value, f"{prefix}{key}.")
        elif isinstance(value, torch.Tensor):
            found.append((f"{prefix}{key}", value))
    return found


def without_tensors(saved: dict) -> dict:
    """Return the other values of a saved mapping: a network's name, thresholds, temperature, taught grades."""
    return {
        key: without_tensors(value) if isinstance(value, dict) else value
        for key, value in saved.items()
        if not isinstance(value, torch.Tensor)
    }


def bare_tensor(item: tuple[str, torch.Tensor]) -> bytes:
    name, tensor = item
    return name.encode() + tensor.contiguous().view(-1).view(torch.uint8).numpy().tobytes()


def fingerprints(folder: Path) -> dict[str, str]:
    """Return the hash of every mask, table, list of labels and weights file below a folder, by its path."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(content(path)).hexdigest()
        for kind in KEPT
        for path in sorted(folder.rglob(kind))
        if "cache" not in path.parts
    }


def make(folder: Path) -> None:
    """Predict with the shipped weights on the examples, and run the smallest pipeline on a phantom."""
    run("scripts.predict", "docs/examples", "--output_dir", folder / "examples")
    write_phantom(folder / "tree", width_px=288, height_px=192, seed=3, **PHANTOM)
    run(
        "scripts.prepare", "--dataset", "idrid", "--root", folder / "tree", "--out", folder / "manifest.json", "--check"
    )
    run(
        "scripts.pipeline", "--manifest", folder / "manifest.json", "--output_dir", folder / "smoke", "--experiment",
        "smoke", "--architectures", "resnext50_32x4d", "--track", "false",
    )  # fmt: skip


def main(out: str, before: str | None = None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        make(Path(folder))
        found = fingerprints(Path(folder))
    Path(out).write_text(json.dumps(found, indent=1), encoding="utf-8")
    if before is not None:
        wanted = json.loads(Path(before).read_text(encoding="utf-8"))
        differ = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
        raise SystemExit("\n".join(["differ:", *differ]) if differ else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
