"""Pairs of photographs that look alike: a table, and a contact sheet to judge them by eye."""

import os
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
from bundle.datasets.copies import HASH_SIZE, near_pairs, unpack
from bundle.files import write_csv_whole, written_at_once
from bundle.labels import GRADE_NAMES
from bundle.manifest import Manifest, Photograph
from bundle.reporting.style import INK, QUIET
from bundle.transforms import field_of_view, load_photograph
from PIL import Image, ImageDraw, ImageFont

PHOTOGRAPH_PX = (276, 220)
"""Width and height of the box for one photograph on the sheet."""

PAIRS_A_ROW = 3
LINE_PX, MARGIN_PX, BETWEEN_PX = 19, 24, 4
CAPTION_LINES = 5
FONT_PX = 14

SHEET, BOX, WARNING = "#ffffff", "#000000", "#8a3b00"


def copy_rows(manifest: Manifest) -> list[dict[str, Any]]:
    """Describe every pair that looks alike, within the manifest's groups, by which folds were assigned.

    Photographs with equal hashes are each paired only with the first of them
    (:func:`bundle.datasets.copies.near_pairs`). The bytes of the files are not compared.

    Returns:
        One row for each pair: ids ``first`` and ``second``, ``distance_bits`` of 256, their splits and grades,
        ``crosses_split``, and ``left_out``: the ids excluded from training, or an empty text. Pairs that cross the
        official split come first; within both kinds, the most distant and so most doubtful pairs come first.
    """
    sizes = Counter(row.group for row in manifest.photographs)
    photographs = [row for row in manifest.photographs if sizes[row.group] > 1]
    if not photographs:
        return []
    pairs = near_pairs(unpack([row.perceptual_hash for row in photographs]))
    numbers = zip(*(column.tolist() for column in pairs), strict=True)
    rows = [_row(photographs[first], photographs[second], bits) for first, second, bits in numbers]
    return sorted(rows, key=lambda row: (not row["crosses_split"], -row["distance_bits"], row["first"], row["second"]))


def _row(first: Photograph, second: Photograph, distance_bits: int) -> dict[str, Any]:
    return {
        "first": first.id,
        "second": second.id,
        "distance_bits": distance_bits,
        "first_split": first.split,
        "second_split": second.split,
        "first_grade": first.grade,
        "second_grade": second.grade,
        "crosses_split": first.split != second.split,
        "left_out": "; ".join(one.id for one in (first, second) if one.left_out),
    }


def grades_differ(row: Mapping[str, Any]) -> bool:
    """Return whether the data set gives the two photographs of a pair different grades.

    Example:
        >>> grades_differ({"first_grade": 2, "second_grade": 3})
        True
        >>> grades_differ({"first_grade": 2, "second_grade": None})
        False
    """
    grades = {row["first_grade"], row["second_grade"]} - {None}
    return len(grades) > 1


def write_copies(manifest: Manifest, stem: str | os.PathLike) -> tuple[Path, ...]:
    """Write ``<stem>.copies.csv`` and ``<stem>.copies.jpg``; without pairs, remove those of an earlier run.

    Returns:
        The paths of the written files: both, or none.
    """
    table, sheet = (Path(f"{os.fspath(stem)}.copies.{suffix}") for suffix in ("csv", "jpg"))
    rows = copy_rows(manifest)
    if not rows:
        for stale in (table, sheet):
            stale.unlink(missing_ok=True)
        return ()
    write_csv_whole(table, rows)
    with written_at_once(sheet) as buffer:
        contact_sheet(manifest, rows).save(buffer, "JPEG", quality=88)
    return table, sheet


def contact_sheet(manifest: Manifest, rows: Sequence[Mapping[str, Any]], *, pairs_max: int = 60) -> Image.Image:
    """Draw the two photographs of each pair side by side, cropped to their field of view, at equal height.

    If a photograph can no longer be opened, the reason is shown in its place.

    Args:
        manifest: manifest in which the pairs were found.
        rows: from :func:`copy_rows`, drawn in this order.
        pairs_max: maximum number of pairs to draw; the last line counts the others.

    Returns:
        RGB image, 1764 pixels wide.

    Raises:
        ValueError: if there is no pair, ``pairs_max`` is below 1, or the manifest lacks a photograph of a pair.
    """
    if not rows or pairs_max < 1:
        raise ValueError(f"expected at least one pair to draw, got {len(rows)} and a limit of {pairs_max}")
    shown = rows[:pairs_max]
    cells = [_pair_picture(manifest, row, *pair) for row, pair in zip(shown, _pairs(manifest, shown), strict=True)]
    heading = (
        f"{manifest.name}: {counted(len(rows), 'pair')} of photographs that look alike. Those that cross the official "
        "split come first, then the doubtful ones: the more bits differ, the earlier."
    )
    hidden = len(rows) - len(shown)
    ending = f"{counted(hidden, 'more pair')} not shown" if hidden else ""
    return _arranged(cells, heading, ending)


def counted(number: int, what: str) -> str:
    """Write a number with thousands separators and its noun.

    Example:
        >>> counted(1, "pair"), counted(2000, "pair")
        ('1 pair', '2,000 pairs')
    """
    return f"{number:,} {what}" + "s" * (number != 1)


def printable(text: str) -> str:
    """Return a text on one line, with control and text-direction characters replaced.

    Example:
        >>> printable("a  b" + chr(27) + "[2J")
        'a b\N{REPLACEMENT CHARACTER}[2J'
    """
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in " ".join(text.split()))


def reason_without_folder(error: ValueError, manifest: Manifest) -> str:
    """Return an error message without the folder of the data set, which is long and the same for all files.

    Example:
        >>> manifest = Manifest(name="clinic", roots={"clinic": Path("/data/clinic")}, folds=2, seed=0, photographs=())
        >>> reason_without_folder(ValueError("expected a whole image in /data/clinic/images/7.jpg"), manifest)
        'expected a whole image in clinic/images/7.jpg'
    """
    reason = str(error)
    for name, root in manifest.roots.items():
        reason = reason.replace(str(root), name)
    return printable(reason)


def _pairs(manifest: Manifest, rows: Sequence[Mapping[str, Any]]) -> list[tuple[Photograph, Photograph]]:
    wanted = {row[end] for row in rows for end in ("first", "second")}
    found = {one.id: one for one in manifest.photographs if one.id in wanted}
    if lost := sorted(wanted - found.keys()):
        raise ValueError(f"expected pairs of manifest {manifest.name!r}, which has no photograph {lost[:3]}")
    return [(found[row["first"]], found[row["second"]]) for row in rows]


def _pair_picture(manifest: Manifest, row: Mapping[str, Any], first: Photograph, second: Photograph) -> Image.Image:
    width_px, height_px = PHOTOGRAPH_PX
    cell = Image.new("RGB", (2 * width_px + BETWEEN_PX, height_px + CAPTION_LINES * LINE_PX), SHEET)
    for left_px, photograph in ((0, first), (width_px + BETWEEN_PX, second)):
        cell.paste(_place(manifest, photograph), (left_px, 0))
        grade = "no grade" if photograph.grade is None else f"grade {photograph.grade} {GRADE_NAMES[photograph.grade]}"
        size = f"{photograph.width_px} x {photograph.height_px} px"
        for number, line in enumerate((photograph.id, f"{photograph.split}, {grade}", size)):
            ink = QUIET if number else INK
            _write(cell, (left_px, height_px + number * LINE_PX), line, ink, width_px)
    for number, (line, ink, bold) in enumerate(_verdict(row), start=3):
        _write(cell, (0, height_px + number * LINE_PX), line, ink, cell.width, bold)
    return cell


def _verdict(row: Mapping[str, Any]) -> list[tuple[str, str, bool]]:
    """Return the two lines under a pair, each with its colour and whether it is bold."""
    warnings = remarks(row)
    distance = f"{row['distance_bits']} of {HASH_SIZE**2} bits differ"
    line = (", ".join([distance, *warnings]), WARNING if warnings else INK, True)
    return [line, (f"left out of training: {row['left_out']}", QUIET, False)] if row["left_out"] else [line]


def remarks(row: Mapping[str, Any]) -> list[str]:
    """List the warnings about a pair."""
    crosses = ["crosses the official split"] * row["crosses_split"]
    return crosses + [f"grades differ ({row['first_grade']} and {row['second_grade']})"] * grades_differ(row)


def _place(manifest: Manifest, photograph: Photograph) -> Image.Image:
    """Draw a photograph in the middle of its box, or the reason why it cannot be drawn."""
    try:
        picture = _field(manifest.path(photograph.image))
    except ValueError as error:
        return _refusal(reason_without_folder(error, manifest))
    place = Image.new("RGB", PHOTOGRAPH_PX, BOX)
    place.paste(picture, ((place.width - picture.width) // 2, (place.height - picture.height) // 2))
    return place


def _field(path: Path) -> Image.Image:
    """Crop a photograph to its field of view and scale it to the height of its box, or to the width if that is less."""
    pixels = load_photograph(path, max(PHOTOGRAPH_PX)).pixels
    left, top, right, bottom = field_of_view(pixels)
    scale = min(PHOTOGRAPH_PX[0] / (right - left), PHOTOGRAPH_PX[1] / (bottom - top))
    size = (max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale)))
    return Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS, box=(left, top, right, bottom))


def _refusal(reason: str) -> Image.Image:
    place = Image.new("RGB", PHOTOGRAPH_PX, "#eceae6")
    for number, line in enumerate(["cannot be shown:", *textwrap.wrap(reason, 32)][:10]):
        _write(place, (10, 10 + number * LINE_PX), line, WARNING, PHOTOGRAPH_PX[0] - 20)
    return place


def _arranged(cells: Sequence[Image.Image], heading: str, ending: str) -> Image.Image:
    """Lay out cells of equal size in rows, between a heading and an ending."""
    across, down = cells[0].width + MARGIN_PX, cells[0].height + MARGIN_PX
    rows = -(-len(cells) // PAIRS_A_ROW)
    top_px = MARGIN_PX + 2 * LINE_PX
    size = (MARGIN_PX + PAIRS_A_ROW * across, top_px + rows * down + (LINE_PX + MARGIN_PX) * bool(ending))
    sheet = Image.new("RGB", size, SHEET)
    _write(sheet, (MARGIN_PX, MARGIN_PX), heading, INK, sheet.width - 2 * MARGIN_PX)
    for number, cell in enumerate(cells):
        row, column = divmod(number, PAIRS_A_ROW)
        sheet.paste(cell, (MARGIN_PX + column * across, top_px + row * down))
    _write(sheet, (MARGIN_PX, top_px + rows * down), ending, INK, sheet.width - 2 * MARGIN_PX, bold=True)
    return sheet


def _write(image: Image.Image, corner: tuple[int, int], text: str, ink: str, width_px: int, bold: bool = False) -> None:
    font = _font(bold)
    ImageDraw.Draw(image).text((corner[0], corner[1] + 3), _fitted(printable(text), font, width_px), ink, font)


def _fitted(text: str, font: ImageFont.FreeTypeFont, width_px: int) -> str:
    """Shorten a text at its front, because an id ends with the file name."""
    if font.getlength(text) <= width_px:
        return text
    text = text[-width_px:]
    while text and font.getlength("\N{HORIZONTAL ELLIPSIS}" + text) > width_px:
        text = text[1:]
    return "\N{HORIZONTAL ELLIPSIS}" + text


@cache
def _font(bold: bool) -> ImageFont.FreeTypeFont:
    """Load the font that comes with matplotlib; it has more characters than Pillow's own."""
    name = "DejaVuSans-Bold.ttf" if bold else "DejaVuSans.ttf"
    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", name)), FONT_PX)
