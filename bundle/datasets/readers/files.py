"""What the readers share: lists of files, and tables of grades."""

import csv
import math
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from bundle.labels import GRADES
from bundle.transforms.decode import IMAGE_SUFFIXES
from bundle.transforms.dicom import SUFFIXES as DICOM_SUFFIXES

PICTURE_SUFFIXES = (*IMAGE_SUFFIXES, *DICOM_SUFFIXES)
"""Suffixes of the photographs of a data set; a DICOM file may have none."""


def files(folder: Path, *suffixes: str, also: Callable[[Path], bool] | None = None) -> dict[str, Path]:
    """Map stems to paths, sorted by name, without companion files (``._name``) that some systems leave in archives.

    Args:
        folder: folder of the files; its sub-folders are not searched.
        suffixes: suffixes of the files, in lower case.
        also: whether another file belongs to them; its whole name is its stem.

    Raises:
        ValueError: if a name is not UTF-8, which no manifest can store, or two files differ only in their suffix.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        listed = path.suffix.lower() in suffixes
        if not path.name.startswith(".") and (listed or (also is not None and also(path))):
            _check_name(path)
            stem = path.stem if listed else path.name
            if stem in found:
                raise ValueError(f"expected one file called {stem} in {folder}, got {path.name} too; rename it")
            found[stem] = path
    return found


def _check_name(path: Path) -> None:
    try:
        path.name.encode()
    except UnicodeEncodeError:
        raise ValueError(
            f"expected file names in UTF-8 in {path.parent}, got {os.fsencode(path.name)!r}; rename the file"
        ) from None


def names(found: Iterable[str], count: int = 3) -> str:
    """List the first few names, or ``nothing``.

    Example:
        >>> names(["d", "a", "c", "b"]), names([])
        ('a, b, c, ...', 'nothing')
    """
    ordered = sorted(found)
    return ", ".join(ordered[:count]) + (", ..." if len(ordered) > count else "") if ordered else "nothing"


class Gaps:
    """Record of the gaps in a copy of a data set, which are either refused, or left out and noted.

    Args:
        dataset: name of the data set, for the message.
        root: folder of the data set.

    Example:
        >>> gaps = Gaps("IDRiD", Path("/data"))
        >>> gaps.add("images without a grade", ["b", "a"])
        >>> gaps.notes(allow_missing=True)
        ['left out: 2 images without a grade (a, b)']
        >>> gaps.notes(allow_missing=False)  # doctest: +NORMALIZE_WHITESPACE
        Traceback (most recent call last):
            ...
        ValueError: IDRiD in /data: 2 images without a grade (a, b); complete the copy, or leave these out:
            --allow_missing
    """

    def __init__(self, dataset: str, root: Path) -> None:
        self.dataset, self.root, self.found = dataset, root, list[str]()

    def add(self, what: str, missing: Iterable[str]) -> None:
        """Record the number of missing entries and their names, if there are any."""
        missing = sorted(missing)
        if missing:
            self.found.append(f"{len(missing)} {what} ({names(missing)})")

    def notes(self, allow_missing: bool) -> list[str]:
        """Return one sentence for each gap.

        Raises:
            ValueError: if there are gaps and they are not allowed; the message names all of them.
        """
        if self.found and not allow_missing:
            raise ValueError(
                f"{self.dataset} in {self.root}: {'; '.join(self.found)}; complete the copy, or leave these out: "
                f"--allow_missing"
            )
        return [f"left out: {gap}" for gap in self.found]


SPLITS = {"train": "train", "val": "train", "valid": "train", "validation": "train", "test": "test"}
"""Names of splits in a table, and the manifest's split for each; folds are dealt inside ``train``."""


def read_grades(table: Path, name_column: str, grade_column: str) -> dict[str, int]:
    """Map photographs to ICDRS grades. Spaces around cells, empty lines and other columns are ignored.

    Args:
        table: CSV with a header, in UTF-8.
        name_column: column of the photographs' names, with or without the suffix of an image file.
        grade_column: column of the grades.

    Raises:
        ValueError: if the file or a column is missing, a grade is not in 0-4, or a photograph is listed twice.
    """
    cells = _read_column(table, name_column, grade_column)
    for name, text in cells.items():
        if text not in map(str, GRADES):
            raise ValueError(f"{table}: expected a grade in 0-4 for {name}, got {text!r}")
    return {name: int(text) for name, text in cells.items()}


def read_splits(table: Path, name_column: str, split_column: str) -> dict[str, str]:
    """Map photographs to ``train`` or ``test``, in upper or lower case; ``valid`` and similar names count as ``train``.

    Args:
        table: as in :func:`read_grades`.
        name_column: as in :func:`read_grades`.
        split_column: column of the splits.

    Raises:
        ValueError: as in :func:`read_grades`, or if a cell is not a split.
    """
    cells = _read_column(table, name_column, split_column)
    for name, text in cells.items():
        if text.lower() not in SPLITS:
            raise ValueError(f"{table}: expected a split out of {', '.join(SPLITS)} for {name}, got {text!r}")
    return {name: SPLITS[text.lower()] for name, text in cells.items()}


def read_points(table: Path, name_column: str, x_column: str, y_column: str) -> dict[str, tuple[float, float]]:
    """Map each photograph to a position on it, as column and row.

    Args:
        table: as in :func:`read_grades`.
        name_column: as in :func:`read_grades`.
        x_column: column of the x coordinates, counted to the right.
        y_column: column of the y coordinates, counted downwards.

    Raises:
        ValueError: as in :func:`read_grades`, or if a cell is not a finite, non-negative number.
    """
    columns, rows = (_read_column(table, name_column, column) for column in (x_column, y_column))
    return {name: (_place(columns[name], name, table), _place(rows[name], name, table)) for name in columns}


def _place(text: str, name: str, table: Path) -> float:
    try:
        place = float(text)
    except ValueError:
        place = math.nan
    if not 0 <= place < math.inf:
        raise ValueError(f"{table}: expected a place in pixels for {name}, got {text!r}")
    return place


def _read_column(table: Path, name_column: str, column: str) -> dict[str, str]:
    """Map photographs to their cells in a column."""
    header, *lines = _read_lines(table) or [[]]
    absent = [name for name in (name_column, column) if name not in header]
    if absent:
        raise ValueError(f"{table}: expected a column {absent[0]!r}, got {[name for name in header if name]}")
    name_at, cell_at = header.index(name_column), header.index(column)
    found: dict[str, str] = {}
    for line in filter(any, lines):
        cells = [*line, *[""] * len(header)]
        name = _stem(cells[name_at])
        if not name or name in found:
            raise ValueError(f"{table}: expected one row for each photograph, got {name!r} twice or without a name")
        found[name] = cells[cell_at]
    return found


def _read_lines(table: Path) -> list[list[str]]:
    try:
        with open(table, newline="", encoding="utf-8-sig", errors="replace") as file:
            return [[cell.strip() for cell in line] for line in csv.reader(file)]
    except (OSError, csv.Error) as error:
        raise ValueError(f"expected a table of grades (CSV) at {table}, got: {error}") from None


def _stem(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return stem if dot + suffix.lower() in PICTURE_SUFFIXES else name
