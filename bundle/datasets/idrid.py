"""Read the Indian Diabetic Retinopathy Image Dataset (IDRiD) in its official layout, whole or in part."""

import csv
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from bundle.datasets.raw import RawPhotograph, Reading
from bundle.labels import GRADES, LESIONS

SEGMENTATION, GRADING = "A. Segmentation", "B. Disease Grading"
IMAGES, OUTLINES, GRADES_FOLDER = "1. Original Images", "2. All Segmentation Groundtruths", "2. Groundtruths"
SPLIT_FOLDERS = {"train": "a. Training Set", "test": "b. Testing Set"}
OUTLINE_FOLDERS = {
    "MA": "1. Microaneurysms", "HE": "2. Haemorrhages", "EX": "3. Hard Exudates", "SE": "4. Soft Exudates",
    "OD": "5. Optic Disc",
}  # fmt: skip
GRADE_TABLES = {
    "train": "a. IDRiD_Disease Grading_Training Labels.csv",
    "test": "b. IDRiD_Disease Grading_Testing Labels.csv",
}
NAME_COLUMN, GRADE_COLUMN = "Image name", "Retinopathy grade"


def read_idrid(root: str | os.PathLike, *, allow_missing: bool = False) -> Reading:
    """Read the segmentation and grading parts, of which one may be absent.

    Where the folder of a lesion exists, a photograph without a file in it does not have that lesion; where the folder
    is absent, nobody looked. Images are not opened here.

    Args:
        root: folder that holds ``A. Segmentation`` and/or ``B. Disease Grading``.
        allow_missing: leave out images without a grade or outline, and the reverse, and say so in the notes.

    Raises:
        ValueError: if this is no IDRiD tree, a table is not as published, or something is missing.

    Source:
        Porwal et al., Data 3(3):25, 2018.
    """
    root = Path(root).resolve()
    if not root.is_dir():
        raise ValueError(f"expected the folder of IDRiD, found none at {root}")
    photographs: list[RawPhotograph] = []
    gaps: list[str] = []
    for part, read in ((SEGMENTATION, _read_segmentation), (GRADING, _read_grading)):
        if folder := _find(root, part):
            for split in SPLIT_FOLDERS:
                photographs += read(root, folder, split, gaps)
    if gaps and not allow_missing:
        raise ValueError(f"IDRiD in {root}: {'; '.join(gaps)}; complete the copy, or leave these out: --allow_missing")
    if not photographs:
        raise ValueError(
            f"expected an IDRiD tree in {root}, with photographs in '{SEGMENTATION}/{IMAGES}' or "
            f"'{GRADING}/{IMAGES}', found {_first(path.name for path in root.iterdir())}"
        )
    return Reading(photographs, [f"left out: {gap}" for gap in gaps])


def _find(root: Path, part: str) -> Path | None:
    """Find a part of the data set; some unzips double the top folder, be it the data set's or the part's."""
    for folder in (base / inner for base in (root, root / root.name) for inner in (f"{part}/{part}", part)):
        if any((folder / name).is_dir() for name in (IMAGES, OUTLINES, GRADES_FOLDER)):
            return folder
    return None


def _read_segmentation(root: Path, folder: Path, split: str, gaps: list[str]) -> Iterator[RawPhotograph]:
    images = _files(folder / IMAGES / SPLIT_FOLDERS[split], ".jpg")
    outlines = {
        code: {stem.removesuffix(f"_{code}"): path for stem, path in _files(outlined, ".tif").items()}
        for code, name in OUTLINE_FOLDERS.items()
        if (outlined := folder / OUTLINES / SPLIT_FOLDERS[split] / name).is_dir()
    }
    annotated = tuple(lesion for lesion in LESIONS if lesion in outlines)
    if not annotated:
        _gap(gaps, f"segmentation {split} images in a copy without any folder of lesion outlines", images)
        return
    for code, paths in outlines.items():
        _gap(gaps, f"{code} outlines of segmentation {split} without an image", paths.keys() - images.keys())
    for stem, image in images.items():
        masks = {code: _below(root, paths[stem]) for code, paths in outlines.items() if stem in paths}
        yield RawPhotograph(
            id=f"segmentation/{split}/{stem}",
            image=_below(root, image),
            split=split,
            annotated=annotated,
            optic_disc=masks.pop("OD", None),
            masks=masks,
        )


def _read_grading(root: Path, folder: Path, split: str, gaps: list[str]) -> Iterator[RawPhotograph]:
    images = _files(folder / IMAGES / SPLIT_FOLDERS[split], ".jpg")
    table = folder / GRADES_FOLDER / GRADE_TABLES[split]
    grades = _read_grades(table) if table.is_file() else {}
    _gap(gaps, f"rows of '{table.name}' without an image", grades.keys() - images.keys())
    _gap(gaps, f"grading {split} images without a row in '{table.name}'", images.keys() - grades.keys())
    for stem in sorted(images.keys() & grades.keys()):
        yield RawPhotograph(
            id=f"grading/{split}/{stem}", image=_below(root, images[stem]), split=split, grade=grades[stem]
        )


def _read_grades(table: Path) -> dict[str, int]:
    with open(table, newline="", encoding="utf-8-sig", errors="replace") as file:
        lines = [[cell.strip() for cell in line] for line in csv.reader(file)]
    header = lines[0] if lines else []
    absent = [column for column in (NAME_COLUMN, GRADE_COLUMN) if column not in header]
    if absent:
        raise ValueError(f"{table}: expected a column {absent[0]!r}, got {[name for name in header if name]}")
    name_at, grade_at = header.index(NAME_COLUMN), header.index(GRADE_COLUMN)
    grades: dict[str, int] = {}
    for line in filter(any, lines[1:]):
        cells = [*line, *[""] * len(header)]
        name = cells[name_at].removesuffix(".jpg")
        if not name or name in grades:
            raise ValueError(f"{table}: expected one row for each photograph, got {name!r} twice or without a name")
        grades[name] = _grade(cells[grade_at], name, table)
    return grades


def _grade(text: str, name: str, table: Path) -> int:
    if text not in map(str, GRADES):
        raise ValueError(f"{table}: expected a grade in 0-4 for {name}, got {text!r}")
    return int(text)


def _files(folder: Path, suffix: str) -> dict[str, Path]:
    """Map stem to path, without the companion files (``._name``) that some systems leave in archives."""
    found = folder.iterdir() if folder.is_dir() else ()
    return {p.stem: p for p in sorted(found) if p.suffix.lower() == suffix and not p.name.startswith(".")}


def _below(root: Path, path: Path) -> str:
    return path.relative_to(root).as_posix()


def _gap(gaps: list[str], what: str, names: Iterable[str]) -> None:
    names = sorted(names)
    if names:
        gaps.append(f"{len(names)} {what} ({_first(names)})")


def _first(names: Iterable[str], count: int = 3) -> str:
    names = sorted(names)
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "") if names else "nothing"
