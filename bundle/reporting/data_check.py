"""Check of a manifest before training: counts for the terminal and for a page."""

import math
import textwrap
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from bundle.datasets.notes import kind_of
from bundle.labels import GRADES, LESION_NAMES, LESIONS
from bundle.manifest import Manifest, Photograph
from bundle.reporting.copies import copy_rows, counted, grades_differ, printable, remarks
from bundle.reporting.tables import MISSING

SIZES_MAX, NOTES_MAX, PAIRS_MAX, VALUES_MAX = 20, 200, 200, 200
"""Maximum number of rows of a table on the page; the terminal shows at most ``LINES_MAX`` rows of a long table."""

LINES_MAX = 20
CAPTION_WIDTH = 110

PUBLISHED: Mapping[str, Mapping[str, int]] = {
    "idrid": {
        "outlined training photographs": 54, "outlined test photographs": 27, "graded training photographs": 413,
        "graded test photographs": 103, "masks of MA": 81, "masks of HE": 80, "masks of EX": 81, "masks of SE": 40,
    },
}  # fmt: skip
"""Counts of the complete published data sets, by their names in `scripts.prepare`.

IDRiD: Porwal et al., Data 3(3):25, 2018.
"""

COUNTED = ("photographs", "left out", *(f"grade {grade}" for grade in GRADES), "no grade", "outlined", *LESIONS)


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

    def rest(self, shown: int) -> str:
        """Write how many rows are not shown; empty if all are."""
        hidden = self.hidden + len(self.rows) - shown
        return f"and {counted(hidden, f'more {self.what}')}" if hidden else ""


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

    Time and memory grow with the number of photographs.
    """
    pairs = copy_rows(manifest)
    frame = _frame(manifest.photographs)
    tables = {
        "photographs": _photograph_table(frame, manifest.folds),
        "folds": _fold_table(frame, manifest.folds),
        **_column_tables(manifest.photographs, frame),
        "lesions": _lesion_table(manifest.photographs),
        "sizes": _size_table(frame),
        **_note_tables(manifest.notes),
        "copies": _copy_table(pairs),
    }
    title = printable(f"Data check: {manifest.name}")
    return Check(title=title, facts=_facts(manifest, frame, pairs), tables=tables, pairs=pairs)


def check_text(manifest: Manifest) -> str:
    """Write the tables for a terminal: plain text, with columns as narrow as their cells allow."""
    check = check_tables(manifest)
    facts = "\n".join(f"{name}: {value}" for name, value in check.facts.items())
    return "\n\n".join([check.title, facts, *(_table_text(table) for table in check.tables.values())])


def summary_text(manifest: Manifest) -> str:
    """Write only the counts and the notes."""
    photographs = _photograph_table(_frame(manifest.photographs), manifest.folds)
    tables = (photographs, *_note_tables(manifest.notes).values())
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


def completeness(photographs: Iterable[Photograph]) -> dict[str, str]:
    """Map each data set in ``PUBLISHED`` to ``complete``, or to the counts that differ from the published ones."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for row in photographs:
        part = "training" if row.split == "train" else "test"
        kinds = [*["outlined"] * row.outlined, *["graded"] * (row.grade is not None)]
        counts[row.dataset].update(f"{kind} {part} photographs" for kind in kinds)
        counts[row.dataset].update(f"masks of {lesion}" for lesion in row.masks)
    differences = {
        name: [f"{counts[name][what]} of {n} {what}" for what, n in PUBLISHED[name].items() if counts[name][what] != n]
        for name in sorted(counts.keys() & PUBLISHED.keys())
    }
    return {
        name: f"not as published: {', '.join(found)}" if found else "complete" for name, found in differences.items()
    }


def _frame(photographs: Sequence[Photograph]) -> pd.DataFrame:
    """Tabulate the part, place, fold and size of each photograph, and whether it counts in each of ``COUNTED``."""
    return pd.DataFrame(
        {
            "part": [_part(row) for row in photographs],
            "place": [place_of(row) for row in photographs],
            "fold": pd.array([row.fold for row in photographs], dtype="Int64"),
            "width_px": [row.width_px for row in photographs],
            "height_px": [row.height_px for row in photographs],
            "photographs": [True for _ in photographs],
            "left out": [bool(row.left_out) for row in photographs],
            **{f"grade {grade}": [row.grade == grade for row in photographs] for grade in GRADES},
            "no grade": [row.grade is None for row in photographs],
            "outlined": [row.outlined for row in photographs],
            **{lesion: _found(photographs, lesion) for lesion in LESIONS},
        }
    )


def _found(photographs: Sequence[Photograph], lesion: str) -> pd.api.extensions.ExtensionArray:
    """Return for each photograph whether the lesion was found; NA if nobody looked for it."""
    return pd.array([lesion in row.masks if lesion in row.annotated else pd.NA for row in photographs], dtype="boolean")


def _facts(manifest: Manifest, frame: pd.DataFrame, pairs: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    patients = {row.patient for row in manifest.photographs if row.patient is not None}
    numbers = {
        "photographs": len(frame),
        "different photographs": len({row.group for row in manifest.photographs}),
        **({"patients": len(patients)} if patients else {}),
        "graded": len(frame) - frame["no grade"].sum(),
        "outlined": frame["outlined"].sum(),
        "left out of training": frame["left out"].sum(),
        "pairs that look alike": len(pairs),
    }
    return {
        "data sets": printable(", ".join(sorted({row.dataset for row in manifest.photographs})) or MISSING),
        **{name: f"{number:,}" for name, number in numbers.items()},
        **{f"whole of {name}": words for name, words in completeness(manifest.photographs).items()},
        "folds": f"{manifest.folds} (seed {manifest.seed})",
        "manifest": f"sha256 {manifest.sha256[:12]}" if manifest.sha256 else "not saved yet",
    }


def _photograph_table(frame: pd.DataFrame, folds: int) -> Table:
    counts = frame.groupby("place")[list(COUNTED)].sum(min_count=1)
    in_folds = pd.crosstab(frame["place"], frame["fold"])
    every_fold = sorted({*range(folds), *in_folds.columns})
    in_folds = in_folds.reindex(index=counts.index, columns=every_fold, fill_value=0)
    if len(counts) > 1:
        counts.loc["all"], in_folds.loc["all"] = counts.sum(min_count=1), in_folds.sum()
    counts["in a fold"] = [_range(sizes) for sizes in in_folds.to_numpy().tolist()]
    lesions = ", ".join(f"{lesion} ({name})" for lesion, name in LESION_NAMES.items())
    return Table(
        title="Photographs",
        caption=f"Files by data set, part and split. {lesions} count the photographs on which the lesion is outlined; "
        "a dash means that nobody looked for it. "
        "Left-out photographs are in every column, but in no fold.",
        header=("data set/part/split", *map(_breakable, COUNTED), "in a\nfold"),
        align="l" + "r" * (len(COUNTED) + 1),
        rows=_cells(counts),
        empty="The manifest is empty.",
    )


def _range(sizes: Sequence[int]) -> str:
    """Write the number of photographs per fold, from the smallest to the largest fold.

    Example:
        >>> _range([3, 2]), _range([3, 3]), _range([0, 0])
        ('2 to 3', '3', '–')
    """
    smallest, largest = min(sizes), max(sizes)
    if largest == 0:
        return MISSING
    return f"{largest:,}" if smallest == largest else f"{smallest:,} to {largest:,}"


def _cells(frame: pd.DataFrame) -> tuple[tuple[str, ...], ...]:
    """Write the index and the columns of a table as text, whole numbers with thousands separators."""
    written = frame.reset_index().map(_cell)
    return tuple(written.itertuples(index=False, name=None))


def _cell(value: object) -> str:
    if value is pd.NA:
        return MISSING
    return value if isinstance(value, str) else f"{value:,}"


def _breakable(column: str) -> str:
    return column.replace(" ", "\n")


def _fold_table(frame: pd.DataFrame, folds: int) -> Table:
    columns = [column for column in COUNTED if column != "left out"]
    counts = frame.groupby("fold")[columns].sum(min_count=1)
    if len(counts):
        empty = sorted({*range(folds)} - {*counts.index})
        counts = counts.reindex(sorted({*empty, *counts.index}), fill_value=0)
        counts.loc[empty, list(LESIONS)] = pd.NA
    return Table(
        title="Folds",
        caption="Training photographs by cross-validation fold, all data sets together. Copies share a fold, and so do "
        "the photographs of a patient where that is known.",
        header=("fold", *map(_breakable, columns)),
        align="l" + "r" * len(columns),
        rows=_cells(counts),
        empty="No photograph has a fold.",
    )


def _column_tables(photographs: Sequence[Photograph], frame: pd.DataFrame) -> dict[str, Table]:
    """Return one table of the values of all further columns; none without such columns."""
    columns = sorted({column for row in photographs for column in row.columns})
    if not columns:
        return {}
    values = {column: pd.Series([row.columns.get(column, MISSING) for row in photographs]) for column in columns}
    by_column = {column: frame.groupby(of_rows)[list(COUNTED)].sum(min_count=1) for column, of_rows in values.items()}
    counts = pd.concat(by_column)
    table = Table(
        title="Further columns",
        caption="Photographs by the values of the columns that were kept of the data set's table; a dash in place of a "
        "value means that it is not known. An evaluation scores each value of a column with --score_by.",
        header=("column", "value", *map(_breakable, COUNTED)),
        align="ll" + "r" * len(COUNTED),
        rows=_cells(counts.head(VALUES_MAX)),
        hidden=max(0, len(counts) - VALUES_MAX),
        what="value",
        long=True,
    )
    return {"columns": table}


def _lesion_table(photographs: Sequence[Photograph]) -> Table:
    looked_for = pd.DataFrame(
        [
            (_part(row), LESIONS.index(lesion), row.areas_px.get(lesion, math.nan), row.width_px * row.height_px)
            for row in photographs
            for lesion in row.annotated
        ],
        columns=["part", "lesion", "lesion_px", "all_px"],
    )
    looked_for["share"] = looked_for["lesion_px"] / looked_for["all_px"]
    parts = looked_for.groupby(["part", "lesion"])
    shares = parts.agg(
        looked_for=("all_px", "size"), found=("share", "count"), smallest=("share", "min"), largest=("share", "max")
    )
    shares.insert(2, "pooled", parts["lesion_px"].sum(min_count=1) / parts["all_px"].sum())
    shares[["pooled", "smallest", "largest"]] = shares[["pooled", "smallest", "largest"]].map(_percent)
    shares = shares.rename(index=dict(enumerate(LESION_NAMES[lesion] for lesion in LESIONS)), level="lesion")
    return Table(
        title="Lesion pixels",
        caption="Share of the pixels that a lesion covers, black border included. Pooled: its pixels in all "
        "photographs on which it was looked for, divided by all of their pixels. Smallest and largest: of one "
        "photograph that has it.",
        header=("data set/part", "lesion", "looked\nfor on", "found\non", "pooled\n%", "smallest\n%", "largest\n%"),
        align="llrrrrr",
        rows=_cells(shares),
        empty="No photograph is outlined.",
    )


def _percent(share: float) -> str:
    """Write a share in percent; only an exact 0 becomes 0.000.

    Example:
        >>> _percent(0.0123), _percent(1e-7), _percent(0.0), _percent(math.nan)
        ('1.230', '<0.001', '0.000', '–')
    """
    if math.isnan(share):
        return MISSING
    return f"{100 * share:.3f}" if share >= 5e-6 or share == 0 else "<0.001"


def _size_table(frame: pd.DataFrame) -> Table:
    counts = frame.groupby(["part", "width_px", "height_px"]).size().sort_values(ascending=False, kind="stable")
    return Table(
        title="Image sizes",
        caption="Width and height in pixels, the most frequent first.",
        header=("data set/part", "size, px", "photographs"),
        align="lrr",
        rows=tuple(
            (part, f"{width} x {height}", f"{count:,}")
            for (part, width, height), count in counts.head(SIZES_MAX).items()
        ),
        hidden=max(0, len(counts) - SIZES_MAX),
        what="size",
        empty="The manifest is empty.",
    )


def _note_tables(notes: Sequence[str]) -> dict[str, Table]:
    missing = [note for note in notes if kind_of(note)]
    others = [note for note in notes if not kind_of(note)]
    caption = (
        "Left out: missing, or could not be used. Passed over: no photograph or mask by its name. Changed: read, but "
        "not as stored."
    )
    return {
        "missing": _listed("Left out, passed over or changed", caption, missing, "Nothing was."),
        "notes": _listed("Notes", "What was found when the manifest was made.", others, "There is nothing to note."),
    }


def _listed(title: str, caption: str, notes: Sequence[str], empty: str) -> Table:
    return Table(
        title=title, caption=caption, header=("note",), align="w",
        rows=tuple((printable(note),) for note in notes[:NOTES_MAX]),
        hidden=max(0, len(notes) - NOTES_MAX), what="note", empty=empty, long=True,
    )  # fmt: skip


def _copy_table(pairs: Sequence[Mapping[str, Any]]) -> Table:
    crossing, differing = sum(row["crosses_split"] for row in pairs), sum(map(grades_differ, pairs))
    return Table(
        title="Photographs that look alike",
        caption=f"{counted(len(pairs), 'pair')}: {crossing:,} across the official split, {differing:,} with "
        "different grades. The fewer of 256 bits differ, the surer is the copy.",
        header=("first", "second", "bits", "splits", "grades", "remarks"),
        align="llrllw",
        rows=tuple(map(_copy_cells, pairs[:PAIRS_MAX])),
        hidden=max(0, len(pairs) - PAIRS_MAX),
        what="pair",
        empty="No two photographs look alike.",
        long=True,
    )


def _copy_cells(pair: Mapping[str, Any]) -> tuple[str, ...]:
    grades = (MISSING if pair[key] is None else str(pair[key]) for key in ("first_grade", "second_grade"))
    ends = [end for end in ("first", "second") if pair[end] in pair["left_out"].split("; ")]
    left_out = [f"left out of training: {' and '.join(ends)}"] * bool(ends)
    return (
        printable(pair["first"]), printable(pair["second"]), str(pair["distance_bits"]),
        f"{pair['first_split']}, {pair['second_split']}", ", ".join(grades), "; ".join([*remarks(pair), *left_out]),
    )  # fmt: skip


def _table_text(table: Table) -> str:
    if not table.rows:
        return f"{table.title}\n{table.empty}"
    rows = table.rows[:LINES_MAX] if table.long else table.rows
    columns = zip(*_head_lines(table.header), *rows, strict=True)
    padded = [
        [cell.rjust(width) if side == "r" else cell.ljust(width) for cell in column]
        for side, column in zip(table.align, columns, strict=True)
        for width in [max(map(len, column))]
    ]
    lines = ["  ".join(cells).rstrip() for cells in zip(*padded, strict=True)]
    rest = table.rest(len(rows))
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
