"""Check of a manifest as one page: its tables, the copies side by side, and outlined photographs."""

import heapq
import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from bundle.labels import LESION_NAMES, LESIONS
from bundle.manifest import Manifest, Photograph
from bundle.reporting.copies import contact_sheet, counted, printable, reason_without_folder
from bundle.reporting.data_check import check_tables, place_of
from bundle.reporting.overlay import LESION_HEX
from bundle.reporting.pages import data_uri, write_page
from bundle.reporting.tables import MISSING
from bundle.transforms import PrepareFundusd
from bundle.transforms.outlines import LESION_PRIORITY
from numpy.typing import NDArray
from PIL import Image, ImageColor
from scipy import ndimage

OUTLINED_MAX = 24

TILE_PX = 640
"""Side of an outlined photograph; the page shows it at about half that width, so it stays sharp when enlarged."""

FILLING_OPACITY = 0.3

DISC = "OD"

LAYERS = {
    **{lesion: {"title": LESION_NAMES[lesion], "colour": LESION_HEX[lesion]} for lesion in LESIONS},
    DISC: {"title": "optic disc", "colour": "#ffffff"},
}
"""Title and colour of each layer over a photograph."""


def write_check(manifest: Manifest, path: str | os.PathLike) -> None:
    """Write the tables, the pairs that look alike, and some outlined photographs into one page that needs no network.

    It runs no script and fetches nothing, and its content security policy enforces this. If a photograph can no longer
    be opened, the reason is shown in its place.

    Args:
        manifest: only the photographs shown are opened: at most 60 pairs and 24 outlined ones.
        path: page to write; the file appears once it is complete.
    """
    check = check_tables(manifest)
    shown = outlined_shown(manifest)
    write_page(
        path,
        "data_check.html",
        title=check.title,
        facts=check.facts,
        tables=check.tables,
        missing=MISSING,
        sheet=_sheet(manifest, check.pairs),
        shown=len(shown),
        outlined=counted(sum(bool(row.masks) for row in manifest.photographs), "photograph"),
        layers=LAYERS,
        tiles=(_tile(manifest, row) for row in shown),
        tile_px=TILE_PX,
    )


def _sheet(manifest: Manifest, pairs: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    if not pairs:
        return None
    sheet = contact_sheet(manifest, pairs)
    return {"uri": data_uri(sheet, "JPEG", quality=82), "width": sheet.width, "height": sheet.height}


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


def _tile(manifest: Manifest, row: Photograph) -> dict[str, Any]:
    """Return a photograph and its layers as pictures for the page, or the reason why it cannot be shown."""
    lesions = ", ".join(LESION_NAMES[lesion] for lesion in LESIONS if lesion in row.masks)
    try:
        pictures = _pictures(manifest, row)
    except ValueError as error:
        pictures = {"refusal": reason_without_folder(error, manifest)}
    return {"id": printable(row.id), "lesions": lesions, "refusal": "", **pictures}


def _pictures(manifest: Manifest, row: Photograph) -> dict[str, Any]:
    """Draw the photograph, and one transparent picture per outlined structure to lay over it.

    Raises:
        ValueError: if the photograph or a mask cannot be opened, or their sizes differ.
    """
    masks = {lesion: str(manifest.path(path)) for lesion, path in row.masks.items()}
    disc = str(manifest.path(row.optic_disc)) if row.optic_disc else ""
    item = {"image": str(manifest.path(row.image)), "masks": masks, "optic_disc": disc}
    prepared = PrepareFundusd(TILE_PX)(item)
    photograph = Image.fromarray(prepared["image"].permute(1, 2, 0).numpy())
    lesions = prepared["lesions"][0].numpy()  # (TILE_PX, TILE_PX)
    found = {DISC: prepared["optic_disc"][0].numpy() > 0}
    found |= {lesion: lesions == LESIONS.index(lesion) + 1 for lesion in reversed(LESION_PRIORITY)}
    return {
        "photograph": data_uri(photograph, "JPEG", quality=80),
        "layers": {name: _layer(name, mask) for name, mask in found.items() if mask.any()},
    }


def _layer(name: str, mask: NDArray[np.bool_]) -> str:
    """Draw an opaque line around the components of a mask, just outside of them, and fill lesions with a light tint."""
    line = ndimage.binary_dilation(mask, np.ones((3, 3))) & ~mask
    picture = Image.fromarray((mask + 2 * line).astype(np.uint8))  # 0 background, 1 filling, 2 line
    picture.putpalette((0, 0, 0) + 2 * ImageColor.getrgb(LAYERS[name]["colour"]))
    filling = 0 if name == DISC else round(255 * FILLING_OPACITY)
    return data_uri(picture, "PNG", transparency=bytes([0, filling, 255]), bits=2, optimize=True)
