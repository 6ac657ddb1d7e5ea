"""Check of a manifest as one page: its tables, the copies side by side, and outlined photographs."""

import heapq
import html
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from bundle.files import write_text_whole
from bundle.labels import LESION_COLOURS, LESION_NAMES, LESION_PRIORITY, LESIONS
from bundle.manifest import Manifest, Photograph
from bundle.reporting.copies import contact_sheet, counted, printable, reason_without_folder
from bundle.reporting.data_check import Table, check_tables, place_of, rest_of
from bundle.reporting.overlay import LESION_HEX
from bundle.reporting.pages import data_uri
from bundle.reporting.tables import MISSING
from bundle.transforms import PrepareFundusd
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

OUTLINED_MAX = 24

TILE_PX = 640
"""Side of an outlined photograph; the page shows it at about half that width, so it stays sharp when enlarged."""

FILLING_OPACITY = 0.3

DISC, DISC_COLOUR = "OD", (255, 255, 255)

LAYERS = {**{lesion: LESION_NAMES[lesion] for lesion in LESIONS}, DISC: "optic disc"}

LAYER_COLOURS = {**LESION_COLOURS, DISC: DISC_COLOUR}

_PAGE = Path(__file__).with_name("data_check_template.html")


def write_check(manifest: Manifest, path: str | os.PathLike) -> None:
    """Write the tables, the pairs that look alike, and some outlined photographs into one page that needs no network.

    It runs no script and fetches nothing, and its content security policy enforces this. If a photograph can no longer
    be opened, the reason is shown in its place.

    Args:
        manifest: only the photographs shown are opened: at most 60 pairs and 24 outlined ones.
        path: page to write; the file appears once it is complete.
    """
    check = check_tables(manifest)
    sections = {name: _table_html(name, table) for name, table in check.tables.items()}
    sections["copies"] += _pairs_html(manifest, check.pairs)
    sections["outlines"] = _outlines_html(manifest)
    titles = {name: table.title for name, table in check.tables.items()} | {"outlines": "Outlined photographs"}
    page = Template(_PAGE.read_text(encoding="utf-8")).substitute(
        title=html.escape(check.title),
        layer_rules="".join(map(_layer_rule, LAYERS)),
        facts="".join(f"<div><dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd></div>" for k, v in check.facts.items()),
        links="".join(f'<a href="#{name}">{html.escape(title)}</a>' for name, title in titles.items()),
        sections="".join(_section_html(name, titles[name], content) for name, content in sections.items()),
    )
    write_text_whole(path, page)


def _section_html(name: str, title: str, content: str) -> str:
    return f'<section aria-labelledby="{name}"><h2 id="{name}">{html.escape(title)}</h2>\n{content}</section>\n'


def _table_html(name: str, table: Table) -> str:
    """Write a table that scrolls sideways on a phone, also by keyboard."""
    if not table.rows:
        return f"<p>{html.escape(table.empty)}</p>"
    head = "".join(
        f'<th scope="col" class="{side}">{html.escape(column)}</th>'
        for column, side in zip(table.header, table.align, strict=True)
    )
    rest = rest_of(table, len(table.rows))
    foot = f'<tr><td class="l" colspan="{len(table.header)}">{rest}</td></tr>' if rest else ""
    return (
        f'<div class="wide" role="region" tabindex="0" aria-labelledby="{name}-caption"><table>'
        f'<caption><span id="{name}-caption">{html.escape(table.caption)}</span></caption>'
        f"<thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(_row_html(row, table.align) for row in table.rows)}{foot}</tbody></table></div>\n"
    )


def _row_html(cells: Sequence[str], align: str) -> str:
    rest = "".join(_cell_html(cell, side) for cell, side in zip(cells[1:], align[1:], strict=True))
    return f'<tr><th scope="row" class="{align[0]}">{_breaking(cells[0])}</th>{rest}</tr>'


def _cell_html(cell: str, side: str) -> str:
    return f'<td class="{side}{" none" * (cell in ("0", MISSING))}">{_breaking(cell)}</td>'


def _breaking(text: str) -> str:
    """Escape a text and allow line breaks after the folders of an id; the page uses them on narrow screens."""
    return html.escape(text).replace("/", "/<wbr>")


def _pairs_html(manifest: Manifest, pairs: Sequence[Mapping[str, Any]]) -> str:
    if not pairs:
        return ""
    sheet = contact_sheet(manifest, pairs)
    return (
        '<div class="wide sheet" role="region" tabindex="0" aria-label="The pairs side by side">'
        f'<img src="{data_uri(sheet, "JPEG", quality=82)}" width="{sheet.width}" height="{sheet.height}" '
        'alt="the two photographs of each pair side by side, in the order of the table above"></div>\n'
    )


def _outlines_html(manifest: Manifest) -> str:
    shown = outlined_shown(manifest)
    if not shown:
        return "<p>No photograph has an outlined lesion.</p>"
    total = sum(bool(row.masks) for row in manifest.photographs)
    legend = "".join(_switch_html(name, title) for name, title in LAYERS.items())
    return (
        f"<p>{len(shown)} of {counted(total, 'photograph')} with outlined lesions, spread over parts and lesions. "
        "A coloured line runs around each lesion, so that the smallest stays visible. "
        "Clear a box to see what is beneath.</p>\n"
        f'<fieldset class="legend"><legend>Show</legend>{legend}</fieldset>\n'
        f'<div class="tiles">{"".join(_tile_html(manifest, row) for row in shown)}</div>\n'
    )


def outlined_shown(manifest: Manifest, count: int = OUTLINED_MAX) -> list[Photograph]:
    """Choose outlined photographs to show, always the same for a manifest, sorted by id.

    Parts and splits take turns, the one with the fewest chosen photographs first. From it, the photograph with the
    highest score is chosen: each of its lesions counts ``1 / (1 + n)``, where ``n`` is how often that lesion was chosen
    before, so a photograph with all lesions comes before the others. Ties are broken by sha256, in effect at random.
    """
    waiting = _candidates(manifest, count)
    seen: Counter[str] = Counter()
    turns: Counter[str] = Counter()
    shown: list[Photograph] = []
    while waiting and len(shown) < count:
        place = min(waiting, key=lambda one: (turns[one], one))
        best = max(waiting[place], key=lambda row: sum(1 / (1 + seen[lesion]) for lesion in row.masks))
        shown.append(best)
        seen.update(list(best.masks))  # a mapping would add its values
        turns[place] += 1
        waiting[place].remove(best)
        waiting = {name: rows for name, rows in waiting.items() if rows}
    return sorted(shown, key=lambda row: row.id)


def _candidates(manifest: Manifest, count: int) -> dict[str, list[Photograph]]:
    """Keep up to ``count`` photographs for each part, split and set of lesions."""
    kinds: dict[tuple[str, tuple[str, ...]], list[Photograph]] = defaultdict(list)
    for row in manifest.photographs:
        if row.masks:
            kinds[place_of(row), tuple(sorted(row.masks))].append(row)
    waiting: dict[str, list[Photograph]] = defaultdict(list)
    for (place, _), rows in sorted(kinds.items()):
        waiting[place] += heapq.nsmallest(count, rows, key=lambda row: (row.sha256, row.id))
    return dict(waiting)


def _layer_rule(name: str) -> str:
    return f"body:has(#show-{name}:not(:checked)) .layer.{name} {{ display: none; }}\n"


def _switch_html(name: str, title: str) -> str:
    colour = LESION_HEX.get(name, "#ffffff")
    return (
        f'<label><input type="checkbox" id="show-{name}" checked autocomplete="off">'
        f'<i class="swatch" style="--colour:{colour}"></i>{title}</label>'
    )


def _tile_html(manifest: Manifest, row: Photograph) -> str:
    lesions = ", ".join(LESION_NAMES[lesion] for lesion in LESIONS if lesion in row.masks)
    caption = f"{html.escape(printable(row.id))}<small>{lesions}</small>"
    try:
        stack = f'<div class="stack">{_stack_html(manifest, row)}</div>'
    except ValueError as error:
        reason = html.escape(reason_without_folder(error, manifest))
        stack = f'<p class="stack refusal">cannot be shown: {reason}</p>'
    return f"<figure>{stack}<figcaption>{caption}</figcaption></figure>\n"


def _stack_html(manifest: Manifest, row: Photograph) -> str:
    """Overlay the photograph with one transparent picture per outlined structure.

    Raises:
        ValueError: if the photograph or a mask cannot be opened, or their sizes differ.
    """
    masks = {lesion: str(manifest.path(path)) for lesion, path in row.masks.items()}
    disc = str(manifest.path(row.optic_disc)) if row.optic_disc else ""
    item = {"image": str(manifest.path(row.image)), "masks": masks, "optic_disc": disc}
    prepared = PrepareFundusd(TILE_PX)(item)
    photograph = Image.fromarray(prepared["image"].permute(1, 2, 0).numpy())
    lesions = prepared["lesions"][0].numpy()
    found = {DISC: prepared["optic_disc"][0].numpy() > 0}
    found |= {lesion: lesions == LESIONS.index(lesion) + 1 for lesion in reversed(LESION_PRIORITY)}
    layers = "".join(_layer_html(name, mask) for name, mask in found.items() if mask.any())
    alt = html.escape(f"fundus photograph {printable(row.id)}")
    return (
        f'<img src="{data_uri(photograph, "JPEG", quality=80)}" width="{TILE_PX}" height="{TILE_PX}" '
        f'alt="{alt}">{layers}'
    )


def _layer_html(name: str, mask: NDArray[np.bool_]) -> str:
    """Draw an opaque line around the components of a mask, just outside of them, and fill lesions with a light tint."""
    line = ndimage.binary_dilation(mask, np.ones((3, 3))) & ~mask
    picture = Image.fromarray((mask + 2 * line).astype(np.uint8))  # 0 background, 1 filling, 2 line
    picture.putpalette((0, 0, 0) + 2 * LAYER_COLOURS[name])
    filling = 0 if name == DISC else round(255 * FILLING_OPACITY)
    uri = data_uri(picture, "PNG", transparency=bytes([0, filling, 255]), bits=2, optimize=True)
    return f'<img class="layer {name}" alt="" src="{uri}">'
