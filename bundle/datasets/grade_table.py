"""Readers of grades, and of splits and positions if present, from CSV files as written by spreadsheets."""

import csv
import math
from pathlib import Path

from bundle.labels import GRADES

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

    Example:
        >>> import tempfile
        >>> from bundle.files import write_csv_whole
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     table = Path(folder, "grades.csv")
        ...     write_csv_whole(table, [{"photo": "a.jpg", "eye": "left", "level": 2}, {"photo": "b", "level": " 0 "}])
        ...     read_grades(table, name_column="photo", grade_column="level")
        {'a': 2, 'b': 0}
    """
    cells = _read_column(table, name_column, grade_column)
    return {name: _grade(text, name, table) for name, text in cells.items()}


def read_splits(table: Path, name_column: str, split_column: str) -> dict[str, str]:
    """Map photographs to ``train`` or ``test``, in upper or lower case; ``valid`` and similar names count as ``train``.

    Args:
        table: as in :func:`read_grades`.
        name_column: as in :func:`read_grades`.
        split_column: column of the splits.

    Raises:
        ValueError: as in :func:`read_grades`, or if a cell is not a split.

    Example:
        >>> import tempfile
        >>> from bundle.files import write_csv_whole
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     table = Path(folder, "splits.csv")
        ...     write_csv_whole(table, [{"photo": "a", "part": "Valid"}, {"photo": "b", "part": "test"}])
        ...     read_splits(table, name_column="photo", split_column="part")
        {'a': 'train', 'b': 'test'}
    """
    cells = _read_column(table, name_column, split_column)
    return {name: _split(text, name, table) for name, text in cells.items()}


def read_points(table: Path, name_column: str, x_column: str, y_column: str) -> dict[str, tuple[float, float]]:
    """Map each photograph to a position on it, as column and row.

    Args:
        table: as in :func:`read_grades`.
        name_column: as in :func:`read_grades`.
        x_column: column of the x coordinates, counted to the right.
        y_column: column of the y coordinates, counted downwards.

    Raises:
        ValueError: as in :func:`read_grades`, or if a cell is not a finite, non-negative number.

    Example:
        >>> import tempfile
        >>> from bundle.files import write_csv_whole
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     table = Path(folder, "fovea.csv")
        ...     write_csv_whole(table, [{"photo": "a", "x": 1494, "y": " 1970 "}])
        ...     read_points(table, name_column="photo", x_column="x", y_column="y")
        {'a': (1494.0, 1970.0)}
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
    return stem if dot and suffix.lower() in ("jpg", "jpeg", "png", "tif", "tiff") else name


def _grade(text: str, name: str, table: Path) -> int:
    if text not in map(str, GRADES):
        raise ValueError(f"{table}: expected a grade in 0-4 for {name}, got {text!r}")
    return int(text)


def _split(text: str, name: str, table: Path) -> str:
    if text.lower() not in SPLITS:
        raise ValueError(f"{table}: expected a split out of {', '.join(SPLITS)} for {name}, got {text!r}")
    return SPLITS[text.lower()]
