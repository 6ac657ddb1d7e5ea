"""The manifest: every photograph of a data set, its outlines, grade, group and fold, in one checked file."""

import csv
import dataclasses
import hashlib
import io
import json
import math
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bundle.labels import GRADES, LESIONS

SCHEMA = 1
SPLITS = ("train", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class Photograph:
    """One image file of a data set.

    Attributes:
        id: unique name, ``<data set>/<part>/<split>/<file stem>``.
        image: path below the manifest's root, with forward slashes.
        split: the official split, ``train`` or ``test``.
        sha256: of the image file and of its masks, in the order of their names: what a cache is keyed by.
        width_px: native width.
        height_px: native height.
        grade: ICDRS grade that the data set gives for this file, or None.
        annotated: lesions that the annotators looked for; empty where nothing was outlined.
        masks: lesion to mask path below the root; an annotated lesion without a path is absent.
        optic_disc: mask path of the optic disc, or None.
        group: photographs of one group are copies of one photograph.
        fold: cross-validation fold of a training photograph; None in the test split and where left out.
        left_out: why training must not see this photograph, or None.
    """

    id: str
    image: str
    split: str
    sha256: str
    width_px: int
    height_px: int
    grade: int | None = None
    annotated: tuple[str, ...] = ()
    masks: Mapping[str, str] = field(default_factory=dict)
    optic_disc: str | None = None
    group: str
    fold: int | None = None
    left_out: str | None = None

    def __post_init__(self) -> None:
        _check(self)

    @property
    def outlined(self) -> bool:
        """Whether lesions were annotated on this photograph (there may be none)."""
        return bool(self.annotated)


def _check(row: Photograph) -> None:
    """Raise ValueError, naming the row, for every value that no data set can have."""
    where = f"photograph {row.id!r}"
    if row.split not in SPLITS:
        raise ValueError(f"{where}: expected split in {list(SPLITS)}, got {row.split!r}")
    if row.grade is not None and (isinstance(row.grade, bool) or row.grade not in GRADES):
        raise ValueError(f"{where}: expected a grade in 0-4 or null, got {row.grade!r}")
    if not set(row.annotated) <= set(LESIONS) or not set(row.masks) <= set(row.annotated):
        raise ValueError(
            f"{where}: expected masks of annotated lesions out of {list(LESIONS)}, got {sorted(row.masks)}"
        )
    if row.width_px < 1 or row.height_px < 1:
        raise ValueError(f"{where}: expected a size of at least 1x1 px, got {row.width_px}x{row.height_px}")
    if not re.fullmatch(r"[0-9a-f]{64}", row.sha256):
        raise ValueError(f"{where}: expected sha256 as 64 hexadecimal digits, got {row.sha256!r}")
    for path in (row.image, *row.masks.values(), *([row.optic_disc] if row.optic_disc else [])):
        if path.startswith(("/", "\\")) or ":" in path.split("/")[0] or ".." in path.split("/"):
            raise ValueError(f"{where}: expected a path below the data set's root, got {path!r}")
    if row.fold is not None and (row.fold < 0 or row.split == "test" or row.left_out):
        raise ValueError(f"{where}: a fold belongs to training photographs, got fold {row.fold}")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A data set as the stages see it.

    Attributes:
        name: data set name.
        root: folder that every path is relative to.
        folds: number of cross-validation folds.
        seed: of the folds.
        photographs: the rows, in the order of their ids.
        notes: what was found when it was made, one sentence each.
        sha256: of the file it was loaded from; empty for one that was never saved.
    """

    name: str
    root: Path
    folds: int
    seed: int
    photographs: tuple[Photograph, ...]
    notes: tuple[str, ...] = ()
    sha256: str = ""

    def __post_init__(self) -> None:
        twice = [name for name, count in Counter(row.id for row in self.photographs).items() if count > 1]
        if twice:
            raise ValueError(f"manifest {self.name!r}: expected unique ids, got {len(twice)} twice: {twice[:3]}")
        folds_of_group = defaultdict(set)
        for row in self.photographs:
            if row.fold is not None:
                folds_of_group[row.group].add(row.fold)
        parted = [group for group, folds in folds_of_group.items() if len(folds) > 1]
        if parted:
            raise ValueError(f"manifest {self.name!r}: copies of one photograph lie in two folds: {parted[:3]}")

    def path(self, relative: str) -> Path:
        """Return the absolute path of a file that a row names."""
        return self.root / relative

    def known_grades(self) -> dict[str, int]:
        """Map each group to its grade, wherever the data set grades a copy and all copies agree."""
        grades = defaultdict(set)
        for row in self.photographs:
            if row.grade is not None:
                grades[row.group].add(row.grade)
        return {group: next(iter(found)) for group, found in grades.items() if len(found) == 1}


def load_manifest(path: str | os.PathLike | None) -> Manifest:
    """Read and check a manifest.

    Raises:
        ValueError: if the file is missing, is no manifest, or holds a value that no data set can have.
    """
    if path is None:
        raise ValueError("expected --manifest FILE: what `python -m scripts.prepare` writes")
    path = Path(path)
    if not path.is_file():
        raise ValueError(
            f"expected a manifest at {path}, found no such file; make one with `python -m scripts.prepare`"
        )
    text = path.read_bytes()
    try:
        content = json.loads(text)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"expected a manifest (JSON) in {path}, got a file that does not parse: {error}") from None
    return _from_content(content, path, hashlib.sha256(text).hexdigest())


def _from_content(content: object, path: Path, sha256: str) -> Manifest:
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        found = content.get("schema") if isinstance(content, dict) else type(content).__name__
        raise ValueError(
            f"expected a manifest of schema {SCHEMA} in {path}, got {found!r}; run `scripts.prepare` again"
        )
    try:
        rows = tuple(_row(entry) for entry in content["photographs"])
        root = (path.parent / content["root"]).resolve()
        return Manifest(
            name=content["name"],
            root=root,
            folds=content["folds"],
            seed=content["seed"],
            photographs=rows,
            notes=tuple(content["notes"]),
            sha256=sha256,
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"manifest {path}: a key is missing, unknown or of the wrong type: {error}") from None


def _row(entry: dict[str, Any]) -> Photograph:
    return Photograph(**{**entry, "annotated": tuple(entry.get("annotated", ()))})


def save_manifest(manifest: Manifest, path: str | os.PathLike) -> None:
    """Write a manifest; the final name appears only when the file is whole."""
    content = {
        "schema": SCHEMA, "name": manifest.name, "root": str(manifest.root), "folds": manifest.folds,
        "seed": manifest.seed, "notes": list(manifest.notes),
        "photographs": [_compact(row) for row in manifest.photographs],
    }  # fmt: skip
    write_text_whole(path, json.dumps(content, indent=1) + "\n")


def _compact(row: Photograph) -> dict[str, Any]:
    """Leave out what is at its default, so that 100,000 rows stay readable."""
    defaults = {f.name: f.default for f in dataclasses.fields(row)}
    found = {name: getattr(row, name) for name in defaults}
    return {name: value for name, value in found.items() if value not in (defaults[name], (), {})}


def write_text_whole(path: str | os.PathLike, text: str) -> None:
    """Write beside, then rename: no reader ever sees half a file under its final name."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)


def write_json_whole(path: str | os.PathLike, content: object) -> None:
    """Write JSON as :func:`write_text_whole` does; what is not a number becomes null, for NaN is not JSON."""
    write_text_whole(path, json.dumps(_without_nan(content), indent=1, allow_nan=False) + "\n")


def write_csv_whole(path: str | os.PathLike, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as :func:`write_text_whole` does, with every column that one of them has."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(dict.fromkeys(key for row in rows for key in row)))
    writer.writeheader()
    writer.writerows(rows)
    write_text_whole(path, text.getvalue())


def _without_nan(value: object) -> object:
    if isinstance(value, Mapping):
        return {key: _without_nan(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def load_json(path: str | os.PathLike) -> Any:  # noqa: ANN401  (whatever stands in the file)
    """Read JSON that :func:`write_json_whole` wrote."""
    return json.loads(Path(path).read_text(encoding="utf-8"))


def file_sha256(paths: Iterable[str | os.PathLike]) -> str:
    """Hash the content of one or more files, in the order given."""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(hashlib.sha256(Path(path).read_bytes()).digest())
    return digest.hexdigest()
