"""What the readers share: lists of files, masks by photograph, and tables of grades."""

import codecs
import csv
import io
import math
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

from bundle.datasets.notes import LEFT_OUT, PASSED_OVER
from bundle.manifest import check_columns
from bundle.transforms.decode import IMAGE_SUFFIXES
from bundle.transforms.dicom import SUFFIXES as DICOM_SUFFIXES

PICTURE_SUFFIXES = (*IMAGE_SUFFIXES, *DICOM_SUFFIXES)
"""Suffixes of the photographs of a data set; a DICOM file may have none."""

OF_THE_SYSTEM = ("thumbs.db", "desktop.ini")
"""Files that Windows leaves in folders of pictures; those of other systems begin with a dot."""


def files(folder: Path, *suffixes: str, also: Callable[[Path], bool] | None = None) -> dict[str, Path]:
    """Map stems to paths, sorted by name, without companion files (``._name``) that some systems leave in archives.

    Stems are in the composed form of Unicode (NFC), because macOS stores names in the other.

    Args:
        folder: folder of the files; its sub-folders are not searched.
        suffixes: suffixes of the files, in lower case.
        also: whether another file belongs to them; its whole name is its stem.

    Raises:
        ValueError: if a name is not UTF-8, which no manifest can store, or two files differ only in their suffix.
    """
    found: dict[str, Path] = {}
    for path in _listed(folder):
        listed = path.suffix.lower() in suffixes
        if listed or (also is not None and also(path)):
            _check_name(path)
            stem = _composed(path.stem if listed else path.name)
            if stem in found:
                raise ValueError(f"expected one file called {stem} in {folder}, got {path.name} too; rename it")
            found[stem] = path
    return found


def _listed(folder: Path) -> list[Path]:
    """List files and folders by name, without hidden ones and those of the system."""
    listed = sorted(folder.iterdir()) if folder.is_dir() else []
    return [path for path in listed if not path.name.startswith(".") and path.name.lower() not in OF_THE_SYSTEM]


def _composed(name: str) -> str:
    return unicodedata.normalize("NFC", name)


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

    It also records the files that are passed over because of their names; they are noted and never refused.

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
        self.dataset, self.root = dataset, root
        self.found, self.passed_over = list[str](), list[str]()

    def files(self, folder: Path, *suffixes: str, also: Callable[[Path], bool] | None = None) -> dict[str, Path]:
        """Map stems to paths as :func:`files`, and record everything else in the folder as passed over."""
        found = files(folder, *suffixes, also=also)
        taken = set(found.values())
        others = [path.name for path in _listed(folder) if path not in taken]
        if others:
            place = folder.relative_to(self.root) if folder.is_relative_to(self.root) else folder
            self.passed_over.append(f"{len(others)} files or folders in '{place.as_posix()}' ({names(others)})")
        return found

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
        return [
            *(f"{LEFT_OUT}: {gap}" for gap in self.found),
            *(f"{PASSED_OVER}: {others}" for others in self.passed_over),
        ]


def masks_of(
    folder: Path, code: str, images: Collection[str], gaps: Gaps, what: str, *, any_case: bool = False
) -> dict[str, Path]:
    """Map photographs to their masks in the folder of a lesion: ``<photograph>`` or ``<photograph>_<code>``.

    A photograph without a mask does not have the lesion. So a mask that belongs to none of the photographs is a gap,
    and if its photograph may be there after all, under another name, it is refused whatever is allowed to be missing.

    Args:
        folder: folder of the masks.
        code: code of the lesion.
        images: stems of the photographs.
        gaps: receives the masks without a photograph.
        what: the name of these masks in the plural, for the notes.
        any_case: whether the code may be in lower case.

    Raises:
        ValueError: if the folder holds files and none is the mask of a photograph, a photograph has two, or a mask is
            named after a photograph in another way.
    """
    found: dict[str, Path] = {}
    for stem, path in gaps.files(folder, *IMAGE_SUFFIXES).items():
        image = stem if stem in images else _without_code(stem, code, any_case)
        if image in found:
            raise ValueError(
                f"expected one {code} mask of {image}, got {found[image].name} and {path.name} in {folder}"
            )
        found[image] = path
    _check_masks(folder, code, found, images)
    gaps.add(f"{what} without an image", found.keys() - set(images))
    return {image: path for image, path in found.items() if image in images}


def _without_code(stem: str, code: str, any_case: bool) -> str:
    ending = f"_{code}"
    is_coded = stem.lower().endswith(ending.lower()) if any_case else stem.endswith(ending)
    return stem[: -len(ending)] if is_coded else stem


def _check_masks(folder: Path, code: str, found: Mapping[str, Path], images: Collection[str]) -> None:
    """Refuse masks without a photograph that make it likely that photographs with the lesion count as free of it."""
    strangers = {stem: path for stem, path in found.items() if stem not in images}
    advice = f"a mask is called <photograph> or <photograph>_{code}, with {', '.join(IMAGE_SUFFIXES)}; rename the masks"
    if images and _listed(folder) and len(strangers) == len(found):
        raise ValueError(
            f"expected masks of {code} in {folder}, found {names(path.name for path in _listed(folder))}, none of "
            f"which belongs to a photograph ({names(images)}): all would count as free of the lesion; {advice}, or "
            f"take the folder away if they belong to other photographs"
        )
    known = {image.lower() for image in images}
    misnamed = [path.name for stem, path in strangers.items() if _beginnings(stem.lower()) & known]
    if misnamed:
        raise ValueError(
            f"expected masks of {code} in {folder} named after their photographs, got {len(misnamed)} that only begin "
            f"like one ({names(misnamed)}), which would count as free of the lesion; {advice}"
        )


def _beginnings(stem: str) -> set[str]:
    """List a name and its beginnings up to each separator.

    Example:
        >>> sorted(_beginnings("p1_ma.v2"))
        ['p1', 'p1_ma', 'p1_ma.v2']
    """
    return {stem, *(stem[: found.start()] for found in re.finditer(r"[\W_]", stem))}


SPLITS = {
    "train": "train", "training": "train", "val": "train", "valid": "train", "validation": "train",
    "test": "test", "testing": "test",
}  # fmt: skip
"""Names of splits in a table, and the manifest's split for each; folds are dealt inside ``train``."""

GRADE = re.compile(r"([0-4])(?:[.,]0*)?", re.ASCII)
"""A grade as people and pandas write it: 2, 2.0, or 2,0 where the comma is decimal."""

DELIMITERS = (",", ";", "\t")
"""The first that parts the header into the columns is taken; spreadsheets choose it by the language of the system."""

WORKBOOKS = (b"PK\x03\x04", b"\xd0\xcf\x11\xe0")
"""First bytes of the files of spreadsheet programs, new and old."""


def read_grades(
    table: Path, name_column: str, grade_column: str, gaps: Gaps, may_be_empty: Collection[str] = ()
) -> dict[str, int | None]:
    """Map photographs to ICDRS grades. Spaces around cells, empty lines and other columns are ignored.

    Args:
        table: CSV with a header, in UTF-8, UTF-16 or Windows-1252, its cells parted by comma, semicolon or tab.
        name_column: column of the photographs' names, with or without folders and the suffix of an image file. Upper
            and lower case are alike in the header.
        grade_column: column of the grades; 2.0 is 2.
        gaps: receives the rows whose cell is not a grade in 0-4, by what it holds.
        may_be_empty: photographs that need no grade: an empty cell is no gap.

    Returns:
        The grade of each listed photograph; None if its cell is not a grade.

    Raises:
        ValueError: if the file or a column is missing, or a photograph is listed twice.
    """
    cells = _read_column(table, name_column, grade_column)
    grades = {name: GRADE.fullmatch(text) for name, (_, text) in cells.items()}
    others = defaultdict(list)
    for name, (number, text) in cells.items():
        if grades[name] is None and (text or name not in may_be_empty):
            others[text].append(f"{name} in line {number}")
    for text, found in sorted(others.items()):
        held = f"{text!r} as the grade, which is not in 0-4" if text else "an empty grade"
        gaps.add(f"rows of '{table.name}' with {held}", found)
    return {name: int(found[1]) if found else None for name, found in grades.items()}


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
    for name, (number, text) in cells.items():
        if text.lower() not in SPLITS:
            raise ValueError(
                f"{table}: expected a split out of {', '.join(SPLITS)} for {name}, got {text!r} in line {number}"
            )
    return {name: SPLITS[text.lower()] for name, (_, text) in cells.items()}


def read_patients(table: Path, name_column: str, patient_column: str) -> dict[str, str]:
    """Map photographs to the id of their patient; a photograph with an empty cell is not in the result.

    Args:
        table: as in :func:`read_grades`.
        name_column: as in :func:`read_grades`.
        patient_column: column of the patients.

    Raises:
        ValueError: as in :func:`read_grades`.
    """
    cells = _read_column(table, name_column, patient_column)
    return {name: text for name, (_, text) in cells.items() if text}


def read_columns(table: Path, name_column: str, columns: Iterable[str]) -> dict[str, dict[str, str]]:
    """Map photographs to their values in further columns; empty cells are not in the result.

    Args:
        table: as in :func:`read_grades`.
        name_column: as in :func:`read_grades`.
        columns: names of the columns.

    Raises:
        ValueError: as in :func:`read_grades`, or if a cell is too long or cannot be shown
            (:func:`bundle.manifest.check_columns`).
    """
    values: dict[str, dict[str, str]] = defaultdict(dict)
    for column in columns:
        for name, (number, text) in _read_column(table, name_column, column).items():
            if text:
                check_columns({column: text}, f"{table}, line {number}")
                values[name][column] = text
    return dict(values)


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
    return {name: (_place(columns[name][1], name, table), _place(rows[name][1], name, table)) for name in columns}


def _place(text: str, name: str, table: Path) -> float:
    try:
        place = float(text.replace(",", "."))
    except ValueError:
        place = math.nan
    if not 0 <= place < math.inf:
        raise ValueError(f"{table}: expected a place in pixels for {name}, got {text!r}")
    return place


def _read_column(table: Path, name_column: str, column: str) -> dict[str, tuple[int, str]]:
    """Map photographs to the number of their line and their cell in a column."""
    lines = _read_lines(table, (name_column, column))
    header = lines.pop(0)[1] if lines else []
    name_at, cell_at = (_position(header, name, table) for name in (name_column, column))
    found: dict[str, tuple[int, str]] = {}
    for number, line in lines:
        cells = [*line, *[""] * len(header)]
        name = _stem(cells[name_at])
        if not name or name in found:
            raise ValueError(
                f"{table}: expected one row for each photograph, got {name!r} twice or without a name, in line {number}"
            )
        found[name] = number, cells[cell_at]
    return found


def _position(header: list[str], column: str, table: Path) -> int:
    """Find a column by its name, exactly or else in upper or lower case."""
    if column in header:
        return header.index(column)
    alike = [at for at, name in enumerate(header) if name.lower() == column.lower()]
    if len(alike) != 1:
        raise ValueError(f"{table}: expected a column {column!r}, got {[name for name in header if name]}")
    return alike[0]


def _read_lines(table: Path, columns: Collection[str]) -> list[tuple[int, list[str]]]:
    """Read the lines that are not empty, each with its number; the delimiter is the one that gives the columns."""
    text = _read_text(table)
    wanted = {column.lower() for column in columns}
    readings = [_parsed(text, delimiter, table) for delimiter in DELIMITERS]
    has_columns = [bool(lines) and wanted <= {name.lower() for name in lines[0][1]} for lines in readings]
    if any(has_columns):
        return readings[has_columns.index(True)]
    return max(readings, key=lambda lines: len(lines[0][1]) if lines else 0)


def _parsed(text: str, delimiter: str, table: Path) -> list[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    try:
        lines = [(reader.line_num, [cell.strip() for cell in line]) for line in reader]
    except csv.Error as error:
        raise ValueError(f"expected a table of grades (CSV) at {table}, got: {error}") from None
    is_hint = bool(lines and lines[0][1]) and lines[0][1][0].lower().startswith("sep=")  # sep=; as Excel writes it
    return [(number, line) for number, line in lines[is_hint:] if any(line)]


def _read_text(table: Path) -> str:
    """Read a text in the encoding that its first bytes say, else in UTF-8, else in that of Windows in the West."""
    try:
        content = table.read_bytes()
    except OSError as error:
        raise ValueError(f"expected a table of grades (CSV) at {table}, got: {error}") from None
    if content.startswith(WORKBOOKS):
        raise ValueError(f"expected a table of grades (CSV) at {table}, got a workbook; save its sheet as CSV UTF-8")
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return content.decode("utf-16", errors="replace")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError:
        return content.decode("cp1252", errors="replace")


def _stem(name: str) -> str:
    """Return a name without its folders and the suffix of a photograph."""
    file = _composed(re.split(r"[/\\]", name)[-1])
    stem, dot, suffix = file.rpartition(".")
    return stem if dot + suffix.lower() in PICTURE_SUFFIXES else file
