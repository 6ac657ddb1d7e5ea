"""Check of a manifest before training: counts for the terminal and for a page."""

import heapq
import textwrap
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bundle.labels import GRADES, LESION_NAMES, LESIONS
from bundle.manifest import Manifest, Photograph
from bundle.reporting.copies import copy_rows, counted, grades_differ, printable, remarks
from bundle.reporting.published_counts import completeness
from bundle.reporting.tables import MISSING

SIZES_MAX, NOTES_MAX, PAIRS_MAX = 20, 200, 200
"""Maximum number of rows of a table on the page; the terminal shows at most ``LINES_MAX`` rows of a long table."""

LINES_MAX = 20
CAPTION_WIDTH = 110

COUNTED = ("photographs", "left out", *(f"grade {grade}" for grade in GRADES), "no grade", "outlined", *LESIONS)
LEFT_OUT_NOTE = "left out: "


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table of the check.

    Attributes:
        title: heading.
        caption: what was counted, and how.
        header: names of the columns; a line break marks where the terminal may break them.
        align: one letter per column: ``l`` left, ``r`` right, ``w`` left and wrapped if long.
        rows: cells of printable text.
        hidden: number of further rows.
        what: noun for a row, in the singular.
        empty: text shown if there are no rows.
        long: whether the terminal shows only the first rows.
    """

    title: str
    caption: str
    header: tuple[str, ...]
    align: str
    rows: tuple[tuple[str, ...], ...]
    hidden: int = 0
    what: str = "row"
    empty: str = ""
    long: bool = False

    def __post_init__(self) -> None:
        assert {len(self.header), len(self.align), *map(len, self.rows)} == {len(self.header)}, self.title


@dataclass(frozen=True, kw_only=True)
class Check:
    """Content of the check, for the text and the HTML renderer.

    Attributes:
        title: heading.
        facts: counts of the whole manifest by name.
        tables: in display order, by a short name that is also the page's anchor.
        pairs: from :func:`bundle.reporting.copies.copy_rows`, all of them.
    """

    title: str
    facts: Mapping[str, str]
    tables: Mapping[str, Table]
    pairs: Sequence[Mapping[str, Any]]


def check_tables(manifest: Manifest) -> Check:
    """Count the contents of a manifest without opening a photograph.

    Time grows with the number of photographs, memory with the number of copies.
    """
    pairs = copy_rows(manifest)
    tables = {
        "photographs": _photograph_table(manifest),
        "folds": _fold_table(manifest),
        "lesions": _lesion_table(manifest),
        "sizes": _size_table(manifest),
        "missing": _missing_table(manifest),
        "notes": _note_table(manifest),
        "copies": _copy_table(pairs),
    }
    return Check(
        title=printable(f"Data check: {manifest.name}"), facts=_facts(manifest, pairs), tables=tables, pairs=pairs
    )


def check_text(manifest: Manifest) -> str:
    """Write the tables for a terminal: plain text, with columns as narrow as their cells allow."""
    check = check_tables(manifest)
    facts = "\n".join(f"{name}: {value}" for name, value in check.facts.items())
    return "\n\n".join([check.title, facts, *(_table_text(table) for table in check.tables.values())])


def summary_text(manifest: Manifest) -> str:
    """Write only the counts and the notes."""
    tables = (_photograph_table(manifest), _missing_table(manifest), _note_table(manifest))
    return "\n\n".join(_table_text(table) for table in tables if table.rows)


def _part(row: Photograph) -> str:
    """Return the data set and part: an id without its split and file name.

    Example:
        >>> row = Photograph(id="d/p/train/a", image="d/a", split="train", sha256="0" * 64, perceptual_hash="0" * 64,
        ...                  width_px=3, height_px=2, group="g")
        >>> _part(row)
        'd/p'
    """
    folders = row.id.split("/")[:-1] or [row.id]
    return printable("/".join(folders[:-1] if len(folders) > 1 and folders[-1] == row.split else folders))


def place_of(row: Photograph) -> str:
    """Return the data set, part and split."""
    return f"{_part(row)}/{row.split}"


def _number(value: int) -> str:
    return f"{value:,}"


def _facts(manifest: Manifest, pairs: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    rows = manifest.photographs
    return {
        "data sets": printable(", ".join(sorted({row.dataset for row in rows})) or MISSING),
        "photographs": _number(len(rows)),
        "different photographs": _number(len({row.group for row in rows})),
        "graded": _number(sum(row.grade is not None for row in rows)),
        "outlined": _number(sum(row.outlined for row in rows)),
        "left out of training": _number(sum(bool(row.left_out) for row in rows)),
        "pairs that look alike": _number(len(pairs)),
        **{f"whole of {name}": found for name, found in completeness(rows).items()},
        "folds": f"{manifest.folds} (seed {manifest.seed})",
        "manifest": f"sha256 {manifest.sha256[:12]}" if manifest.sha256 else "not saved yet",
    }


def _counts(row: Photograph) -> list[str]:
    """List the columns of ``COUNTED`` that a photograph counts in."""
    grade = "no grade" if row.grade is None else f"grade {row.grade}"
    return ["photographs", grade, *["left out"] * bool(row.left_out), *["outlined"] * row.outlined, *row.masks]


def _breakable(column: str) -> str:
    return column.replace(" ", "\n")


def _photograph_table(manifest: Manifest) -> Table:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    folds: dict[str, Counter[int]] = defaultdict(Counter)
    for row in manifest.photographs:
        for place in (place_of(row), "all"):
            counts[place].update(_counts(row))
            if row.fold is not None:
                folds[place][row.fold] += 1
    places = [*sorted(counts.keys() - {"all"}), *["all"] * (len(counts) > 2)]
    return Table(
        title="Photographs",
        caption=f"Files by data set, part and split. {_abbreviations()} count the photographs on which the lesion is "
        "outlined. Left-out photographs are in every column, but in no fold.",
        header=("data set/part/split", *map(_breakable, COUNTED), "in a\nfold"),
        align="l" + "r" * (len(COUNTED) + 1),
        rows=tuple(
            (place, *(_number(counts[place][column]) for column in COUNTED), _range(folds[place], manifest.folds))
            for place in places
        ),
        empty="The manifest is empty.",
    )


def _abbreviations() -> str:
    return ", ".join(f"{lesion} ({name})" for lesion, name in LESION_NAMES.items())


def _range(counts: Counter[int], folds: int) -> str:
    """Write the number of photographs per fold, from the smallest to the largest fold.

    Example:
        >>> _range(Counter({0: 3, 1: 2}), 2), _range(Counter({0: 3, 1: 3}), 2), _range(Counter(), 2)
        ('2 to 3', '3', '–')
    """
    if not counts:
        return MISSING
    sizes = [counts[fold] for fold in {*range(folds), *counts}]
    return _number(min(sizes)) if min(sizes) == max(sizes) else f"{min(sizes):,} to {max(sizes):,}"


def _fold_table(manifest: Manifest) -> Table:
    columns = [column for column in COUNTED if column != "left out"]
    counts: dict[int, Counter[str]] = defaultdict(Counter)
    for row in manifest.photographs:
        if row.fold is not None:
            counts[row.fold].update(_counts(row))
    folds = sorted({*range(manifest.folds), *counts}) if counts else []
    return Table(
        title="Folds",
        caption="Training photographs by cross-validation fold, all data sets together. Copies share a fold.",
        header=("fold", *map(_breakable, columns)),
        align="l" + "r" * len(columns),
        rows=tuple((str(fold), *(_number(counts[fold][column]) for column in columns)) for fold in folds),
        empty="No photograph has a fold.",
    )


class _Shares:
    """Running totals for the share of pixels that one lesion covers in one part of a data set."""

    def __init__(self) -> None:
        self.photographs = self.found = self.lesion_px = self.all_px = 0
        self.smallest, self.largest = 1.0, 0.0

    def add(self, area_px: int | None, photograph_px: int) -> None:
        self.photographs += 1
        self.all_px += photograph_px
        if area_px is not None:
            self.found += 1
            self.lesion_px += area_px
            self.smallest = min(self.smallest, area_px / photograph_px)
            self.largest = max(self.largest, area_px / photograph_px)

    def cells(self) -> tuple[str, ...]:
        shares = (self.lesion_px / self.all_px, self.smallest, self.largest)
        written = map(_percent, shares) if self.found else [MISSING] * 3
        return (_number(self.photographs), _number(self.found), *written)


def _lesion_table(manifest: Manifest) -> Table:
    shares: dict[tuple[str, str], _Shares] = defaultdict(_Shares)
    for row in manifest.photographs:
        for lesion in row.annotated:
            shares[_part(row), lesion].add(row.areas_px.get(lesion), row.width_px * row.height_px)
    order = sorted(shares, key=lambda key: (key[0], LESIONS.index(key[1])))
    return Table(
        title="Lesion pixels",
        caption="Share of the pixels that a lesion covers, black border included. Pooled: its pixels in all "
        "photographs on which it was looked for, divided by all of their pixels. Smallest and largest: of one "
        "photograph that has it.",
        header=("data set/part", "lesion", "looked\nfor on", "found\non", "pooled\n%", "smallest\n%", "largest\n%"),
        align="llrrrrr",
        rows=tuple((part, LESION_NAMES[lesion], *shares[part, lesion].cells()) for part, lesion in order),
        empty="No photograph is outlined.",
    )


def _percent(share: float) -> str:
    """Write a share in percent; only an exact 0 becomes 0.000.

    Example:
        >>> _percent(0.0123), _percent(1e-7), _percent(0.0)
        ('1.230', '<0.001', '0.000')
    """
    return f"{100 * share:.3f}" if share >= 5e-6 or share == 0 else "<0.001"


def _size_table(manifest: Manifest) -> Table:
    counts = Counter((_part(row), row.width_px, row.height_px) for row in manifest.photographs)
    order = heapq.nsmallest(SIZES_MAX, counts, key=lambda size: (-counts[size], size))
    return Table(
        title="Image sizes",
        caption="Width and height in pixels, the most frequent first.",
        header=("data set/part", "size, px", "photographs"),
        align="lrr",
        rows=tuple((part, f"{w} x {h}", _number(counts[part, w, h])) for part, w, h in order),
        hidden=len(counts) - len(order),
        what="size",
        empty="The manifest is empty.",
    )


def _missing_table(manifest: Manifest) -> Table:
    notes = [note for note in manifest.notes if LEFT_OUT_NOTE in note]
    return _listed("Missing or broken", "What the data set lacks, or could not be used.", notes, "Nothing is missing.")


def _note_table(manifest: Manifest) -> Table:
    notes = [note for note in manifest.notes if LEFT_OUT_NOTE not in note]
    return _listed("Notes", "What was found when the manifest was made.", notes, "There is nothing to note.")


def _listed(title: str, caption: str, notes: Sequence[str], empty: str) -> Table:
    return Table(
        title=title, caption=caption, header=("note",), align="w",
        rows=tuple((printable(note),) for note in notes[:NOTES_MAX]),
        hidden=max(0, len(notes) - NOTES_MAX), what="note", empty=empty, long=True,
    )  # fmt: skip


def _copy_table(pairs: Sequence[Mapping[str, Any]]) -> Table:
    crossing, torn = sum(row["crosses_split"] for row in pairs), sum(map(grades_differ, pairs))
    return Table(
        title="Photographs that look alike",
        caption=f"{counted(len(pairs), 'pair')}: {_number(crossing)} across the official split, {_number(torn)} with "
        "different grades. The fewer of 256 bits differ, the surer is the copy.",
        header=("first", "second", "bits", "splits", "grades", "remarks"),
        align="llrllw",
        rows=tuple(_copy_cells(row) for row in pairs[:PAIRS_MAX]),
        hidden=max(0, len(pairs) - PAIRS_MAX),
        what="pair",
        empty="No two photographs look alike.",
        long=True,
    )


def _copy_cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    grades = (MISSING if row[key] is None else str(row[key]) for key in ("first_grade", "second_grade"))
    ends = [end for end in ("first", "second") if row[end] in row["left_out"].split("; ")]
    left_out = [f"left out of training: {' and '.join(ends)}"] * bool(ends)
    splits = f"{row['first_split']}, {row['second_split']}"
    remark = "; ".join([*remarks(row), *left_out])
    return (
        printable(row["first"]), printable(row["second"]), str(row["distance_bits"]), splits, ", ".join(grades),
        remark,
    )  # fmt: skip


def rest_of(table: Table, shown: int) -> str:
    """Write how many rows are not shown; empty if all are."""
    hidden = table.hidden + len(table.rows) - shown
    return f"and {counted(hidden, f'more {table.what}')}" if hidden else ""


def _table_text(table: Table) -> str:
    if not table.rows:
        return f"{table.title}\n{table.empty}"
    rows = table.rows[:LINES_MAX] if table.long else table.rows
    cells = [*_head_lines(table.header), *rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [_line(row, widths, table.align) for row in cells]
    rest = rest_of(table, len(rows))
    return "\n".join([table.title, textwrap.fill(table.caption, CAPTION_WIDTH), *lines, *[rest] * bool(rest)])


def _head_lines(header: Sequence[str]) -> list[list[str]]:
    r"""Break column names into lines aligned at the bottom; a single column gets no heading.

    Example:
        >>> _head_lines(["fold", "left\nout"])
        [['', 'left'], ['fold', 'out']]
    """
    words = [column.split("\n") for column in header]
    height = max(map(len, words)) if len(words) > 1 else 0
    padded = [[""] * (height - len(column)) + column for column in words]
    return [[column[line] for column in padded] for line in range(height)]


def _line(cells: Sequence[str], widths: Sequence[int], align: str) -> str:
    padded = (
        cell.rjust(width) if side == "r" else cell.ljust(width)
        for cell, width, side in zip(cells, widths, align, strict=True)
    )
    return "  ".join(padded).rstrip()
