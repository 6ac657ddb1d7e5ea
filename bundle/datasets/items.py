"""Manifest rows as items for MONAI data sets, and their grades and labels by id."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from bundle.labels import GRADES, LESIONS, lesions_ruled_out
from bundle.manifest import Manifest, Photograph
from bundle.method.initial_labels import InitialLabel

UNKNOWN_GRADE = -1
SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".nii", ".nii.gz")


def items(manifest: Manifest, rows: Sequence[Photograph]) -> list[dict[str, Any]]:
    """Return an item for each photograph: its files, and the id and hash that the cache is keyed by.

    Example:
        >>> row = Photograph(
        ...     id="clinic/train/7", image="clinic/7.jpg", split="train", sha256="0" * 64, perceptual_hash="0" * 64,
        ...     width_px=6, height_px=4, annotated=("MA",), masks={"MA": "clinic/7_MA.png"}, areas_px={"MA": 2},
        ...     group="7",
        ... )
        >>> roots = {"clinic": Path("/data")}
        >>> manifest = Manifest(name="clinic", roots=roots, folds=2, seed=0, photographs=(row,))
        >>> items(manifest, [row])[0]["files"]
        {'image': '/data/7.jpg', 'MA': '/data/7_MA.png'}
    """
    return [
        {
            "id": row.id,
            "image": str(manifest.path(row.image)),
            "masks": {lesion: str(manifest.path(mask)) for lesion, mask in row.masks.items()},
            "annotated": tuple(row.annotated),
            "optic_disc": str(manifest.path(row.optic_disc)) if row.optic_disc else "",
            "files": {role: str(path) for role, path in manifest.files(row).items()},
            "sha256": row.sha256,
        }
        for row in rows
    ]


def file_items(
    sources: str | Path | Sequence[str | Path] | None, output_dir: str | Path | None = None
) -> list[dict[str, Any]]:
    """Make items from a file, from all photographs in a folder, sorted by name, or from a list of these.

    Files in a folder are skipped if they are hidden (a name begins with a dot) or have another suffix.

    Args:
        sources: files and folders.
        output_dir: folder for results. It must not lie in a folder of photographs, or results would be read as such,
            and photographs must not lie in a folder below it, or they might be replaced.

    Raises:
        ValueError: if no source is given, a source does not exist or contains no photograph, two photographs would
            have the same name, or ``output_dir`` is not separate.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     for name in ("b.png", "a.JPG", ".hidden.png", "notes.txt"):
        ...         Path(folder, name).touch()
        ...     [item["id"] for item in file_items(folder)]
        ['a.JPG', 'b.png']
    """
    if not sources:
        raise ValueError("expected --input DIR_OR_FILE: the photographs to look at")
    listed = [sources] if isinstance(sources, (str, Path)) else sources
    for source in listed if output_dir is not None else ():
        _check_apart(Path(source), Path(output_dir or ""))
    return _distinct([item for source in listed for item in _file_items(Path(source))])


def _file_items(source: Path) -> list[dict[str, Any]]:
    if not source.exists():
        raise ValueError(f"expected a photograph or a folder of photographs, found nothing at {source}")
    paths = sorted(path for path in source.rglob("*") if _is_photograph(path, source)) if source.is_dir() else [source]
    if not paths:
        raise ValueError(f"expected photographs ({', '.join(SUFFIXES)}) in {source}, found none")
    base = source if source.is_dir() else source.parent
    return [{"id": path.relative_to(base).as_posix(), "image": str(path), "path": str(path)} for path in paths]


def _is_photograph(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
    return path.name.lower().endswith(SUFFIXES) and not hidden and path.is_file()


def _distinct(listed: list[dict[str, Any]]) -> list[dict[str, Any]]:
    seen: dict[str, str] = {}
    for item in listed:
        if item["id"] in seen:
            raise ValueError(
                f"expected photographs of different names, got {item['id']!r} twice: {seen[item['id']]} and "
                f"{item['image']}; give a folder that holds both"
            )
        seen[item["id"]] = item["image"]
    return listed


def _check_apart(source: Path, output_dir: Path) -> None:
    source, output_dir = source.resolve(), output_dir.resolve()
    folder = source if source.is_dir() else source.parent
    if (source.is_dir() and output_dir.is_relative_to(source)) or output_dir in folder.parents:
        raise ValueError(f"expected --output_dir apart from --input, got {output_dir} and {source}; name another")


def true_grades(manifest: Manifest, rows: Iterable[Photograph]) -> dict[str, dict[str, Any]]:
    """Map each id to its grade, even if only a copy is graded; -1 if the grade is unknown.

    Example:
        >>> known = {"split": "train", "sha256": "0" * 64, "perceptual_hash": "0" * 64, "width_px": 6, "height_px": 4}
        >>> rows = [
        ...     Photograph(id=name, image=f"clinic/{name}.jpg", group=group, grade=grade, **known)
        ...     for name, group, grade in [("1", "1", 3), ("2", "1", None), ("3", "3", None)]
        ... ]
        >>> roots = {"clinic": Path("/data")}
        >>> manifest = Manifest(name="clinic", roots=roots, folds=2, seed=0, photographs=tuple(rows))
        >>> true_grades(manifest, rows)  # 2 is a copy of 1
        {'1': {'grade': 3}, '2': {'grade': 3}, '3': {'grade': -1}}
    """
    known = manifest.known_grades()
    return {row.id: {"grade": known.get(row.group, UNKNOWN_GRADE)} for row in rows}


def measured_grades(manifest: Manifest, rows: Iterable[Photograph]) -> dict[str, dict[str, Any]]:
    """Map each id to the grade for scoring: the grade of its own file, or if that has none, of its copies.

    Example:
        >>> known = {"split": "test", "sha256": "0" * 64, "perceptual_hash": "0" * 64, "width_px": 6, "height_px": 4}
        >>> rows = [
        ...     Photograph(id=name, image=f"clinic/{name}.jpg", group="1", grade=grade, **known)
        ...     for name, grade in [("1", 3), ("2", 0), ("3", None)]
        ... ]
        >>> roots = {"clinic": Path("/data")}
        >>> manifest = Manifest(name="clinic", roots=roots, folds=2, seed=0, photographs=tuple(rows))
        >>> measured_grades(manifest, rows)  # copies of one photograph that are graded differently
        {'1': {'grade': 3}, '2': {'grade': 0}, '3': {'grade': -1}}
    """
    rows = list(rows)
    own = {row.id: {"grade": row.grade} for row in rows if row.grade is not None}
    return true_grades(manifest, rows) | own


def initial_labels(
    manifest: Manifest, rows: Iterable[Photograph], labels: Mapping[str, InitialLabel]
) -> dict[str, dict[str, Any]]:
    """Map each id to its initial label as tensors, and to its true grade, if known, for scoring only.

    Raises:
        ValueError: if a photograph has no initial label.
    """
    rows = list(rows)
    missing = [row.id for row in rows if row.id not in labels]
    if missing:
        raise ValueError(f"expected a pseudo-label for every lesion image, {len(missing)} have none: {missing[:3]}")
    return {name: {**facts, **_tensors(labels[name])} for name, facts in true_grades(manifest, rows).items()}


def taught_labels(
    manifest: Manifest,
    outlined: Sequence[Photograph],
    labels: Mapping[str, InitialLabel],
    graded: Sequence[Photograph],
    absent_by_grade: bool = True,
) -> dict[str, dict[str, Any]]:
    """Map each id to the grade label that stage 2 trains on, and to the lesions that were looked for on it.

    An outlined photograph has its initial label. A graded one has its true grade with probability 1, as the only
    feasible grade. Its lesions were not outlined, but the lesions that its grade rules out (:func:`lesions_ruled_out`)
    are known to be absent, and so count as looked for.

    Args:
        manifest: source of both kinds of photographs.
        outlined: photographs with an initial label each.
        labels: initial labels by id.
        graded: photographs of known grade.
        absent_by_grade: if False, no lesion counts as looked for on a graded photograph, whatever its grade.

    Raises:
        ValueError: if an outlined photograph has no initial label.

    Example:
        >>> known = {"split": "train", "sha256": "0" * 64, "perceptual_hash": "0" * 64, "width_px": 6, "height_px": 4}
        >>> outlined = Photograph(id="1", image="clinic/1.jpg", group="1", annotated=("MA",), **known)
        >>> graded = [
        ...     Photograph(id=name, image=f"clinic/{name}.jpg", group=name, grade=grade, **known)
        ...     for name, grade in [("2", 3), ("3", 1)]
        ... ]
        >>> roots, rows = {"clinic": Path("/data")}, (outlined, *graded)
        >>> manifest = Manifest(name="clinic", roots=roots, folds=2, seed=0, photographs=rows)
        >>> may = (False, False, True, True, True)
        >>> label = InitialLabel(soft=(0.0, 0.0, 0.75, 0.25, 0.0), feasible=may, weight=0.5)
        >>> taught = taught_labels(manifest, [outlined], {"1": label}, graded)
        >>> taught["1"]["initial"], taught["1"]["looked_for"]
        (tensor([0.0000, 0.0000, 0.7500, 0.2500, 0.0000]), tensor([ True, False, False, False]))
        >>> taught["2"]["initial"], taught["2"]["looked_for"].any()
        (tensor([0., 0., 0., 1., 0.]), tensor(False))
        >>> taught["3"]["looked_for"]  # mild: at most microaneurysms
        tensor([False,  True,  True,  True])
    """
    known = manifest.known_grades()
    grade_of = {row.id: known[row.group] for row in graded}
    certain = {name: _certain(grade) for name, grade in grade_of.items()}
    taught = initial_labels(manifest, [*outlined, *graded], {**labels, **certain})
    looked_for = {name: lesions_ruled_out(grade) if absent_by_grade else () for name, grade in grade_of.items()}
    looked_for |= {row.id: row.annotated for row in outlined}
    return {
        name: {**facts, "looked_for": torch.tensor([lesion in looked_for[name] for lesion in LESIONS])}
        for name, facts in taught.items()
    }


def taught_grades(table: Mapping[str, Mapping[str, Any]]) -> list[int]:
    """List the grades that are feasible for at least one photograph whose label has a positive weight.

    Example:
        >>> may = torch.tensor([False, False, True, True, True])
        >>> taught_grades({"7": {"feasible": may, "weight": torch.tensor(0.4)}})
        [2, 3, 4]
    """
    taught = [row["feasible"] for row in table.values() if row["weight"] > 0]
    return torch.stack(taught).any(dim=0).nonzero().flatten().tolist() if taught else []


def _certain(grade: int) -> InitialLabel:
    only = tuple(grade == one for one in GRADES)
    return InitialLabel(soft=tuple(map(float, only)), feasible=only, weight=1.0)


def _tensors(label: InitialLabel) -> dict[str, torch.Tensor]:
    return {
        "initial": torch.tensor(label.soft, dtype=torch.float32),
        "feasible": torch.tensor(label.feasible),
        "weight": torch.tensor(label.weight, dtype=torch.float32),
    }


def paths(listed: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Map the id of each item to its photograph."""
    return {item["id"]: item["image"] for item in listed}


def ids(rows: Iterable[Photograph]) -> list[str]:
    """List the ids of the photographs."""
    return [row.id for row in rows]


def grades(rows: Iterable[Photograph]) -> list[int]:
    """List the grades that the data set gives for these files."""
    return [row.grade for row in rows if row.grade is not None]


def union(*groups: Iterable[Photograph]) -> list[Photograph]:
    """Join groups of photographs; a photograph in several groups is listed once.

    Example:
        >>> known = {"split": "train", "sha256": "0" * 64, "perceptual_hash": "0" * 64, "width_px": 6, "height_px": 4}
        >>> first, second = (Photograph(id=name, image=f"clinic/{name}.jpg", group=name, **known) for name in "12")
        >>> ids(union([first, second], [second]))
        ['1', '2']
    """
    return list({row.id: row for group in groups for row in group}.values())
