"""Make the manifest of a data set.

python -m scripts.prepare --dataset idrid --root DIR --out idrid.json
python -m scripts.prepare --dataset phantom --root data/phantom --out phantom.json
"""

from collections import Counter
from pathlib import Path

from bundle.datasets.build import build_manifest
from bundle.datasets.idrid import read_idrid
from bundle.datasets.phantom import write_phantom
from bundle.labels import GRADES, LESIONS
from bundle.manifest import Manifest, save_manifest
from bundle.transforms import field_of_view
from scripts.cli import main

DATASETS = ("idrid", "phantom")


def prepare(dataset: str, root: str, out: str, folds: int = 5, seed: int = 0, allow_missing: bool = False) -> None:
    """Read and audit a data set, deal its folds, and write its manifest.

    Args:
        dataset: idrid, or phantom: a synthetic set in the same layout, written to `root` unless it is there.
        root: folder of the data set.
        out: the manifest to write.
        folds: number of cross-validation folds.
        seed: of the folds, and of a phantom.
        allow_missing: leave out images without a grade or outline, and the reverse, instead of refusing.
    """
    if dataset not in DATASETS:
        raise ValueError(f"expected --dataset out of {', '.join(DATASETS)}, got {dataset!r}")
    if Path(out).is_dir():
        raise ValueError(f"expected --out to name a file, got the folder {out}")
    if dataset == "phantom" and not (Path(root).is_dir() and any(Path(root).iterdir())):
        write_phantom(root, seed=seed)
    photographs, notes = read_idrid(root, allow_missing=allow_missing)
    manifest = build_manifest(dataset, photographs, root, field_of_view, folds=folds, seed=seed, notes=notes)
    save_manifest(manifest, out)
    print(summary(manifest))
    print(f"wrote {out}")


def summary(manifest: Manifest) -> str:
    """Count, by part and split, the photographs, the left-out ones, and each grade and lesion; then the notes."""
    counts: dict[str, Counter] = {}
    for row in manifest.photographs:
        part = "/".join(row.id.split("/")[1:-1])
        found = ["photographs", *(["left out"] if row.left_out else []), *row.masks]
        counts.setdefault(part, Counter()).update([*found, f"grade {row.grade}"])
    columns = ["photographs", "left out", *(f"grade {grade}" for grade in GRADES), *LESIONS]
    lines = [f"{'':20}" + "".join(f"{column:>{max(len(column), 3) + 2}}" for column in columns)]
    for part, count in counts.items():
        lines.append(f"{part:20}" + "".join(f"{count[column]:>{max(len(column), 3) + 2}}" for column in columns))
    return "\n".join([*lines, *(f"- {note}" for note in manifest.notes)])


if __name__ == "__main__":
    main(prepare)
