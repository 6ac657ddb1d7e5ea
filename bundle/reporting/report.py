"""Self-contained page to browse photographs, their lesions and their grades: no network, no server."""

import base64
import hashlib
import html
import os
import re
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from pathlib import Path
from string import Template

import numpy as np
from bundle.files import written_whole
from bundle.labels import (
    GRADE_NAMES,
    GRADES,
    LESION_COLOURS,
    LESION_NAMES,
    LESIONS,
    PROBABILITY_TOLERANCE,
    consistent_grade,
    rules_grade,
)
from bundle.reporting.overlay import HEAT_RGBA, LESION_HEX, heat_picture, shrink_mask
from bundle.reporting.pages import data_uri
from numpy.typing import NDArray
from PIL import Image
from skimage.segmentation import find_boundaries

LONG_SIDE_PX = 640
"""Long side of a photograph in the report: a microaneurysm is still a dot, and 500 photographs take about 50 MB."""

HEAT_SIDE_PX = 160
"""Long side of a heat map; the browser interpolates it, and its actual resolution is no finer."""

FILLING_OPACITY = 0.35

_LAZY = 'loading="lazy" decoding="async"'
"""Attributes of every picture: the browser decodes only the visible ones, and does not stop scrolling meanwhile."""

_PAGE = Path(__file__).with_name("report_template.html")
_CARD = Path(__file__).with_name("card_template.html")


@dataclass(frozen=True, kw_only=True, eq=False)
class Card:
    """Content of the report for one photograph.

    Attributes:
        name: name of the file, as shown to the reader.
        image: RGB ``(H, W, 3)``, uint8.
        lesions: label map ``(H, W)`` of the same size, 0 background, 1-4 index in ``LESIONS`` + 1.
        heat: heat map of the predicted grade, ``(h, w)`` in [0, 1], covering the photograph; or None.
        probabilities: probabilities of the five grades.
        counts: number of lesions of each kind.
        areas_px: pixels of each lesion, in a picture whose field of view has ``field_px`` pixels.
        field_px: pixels of the field of view.
        feasible: grades that the predicted lesions allow.
        true_grade: true grade, if known.
        abstained: whether the confidence is too low for the likeliest grade to be used.

    Example:
        >>> image, lesions = np.full((4, 6, 3), 120, np.uint8), np.zeros((4, 6), np.uint8)
        >>> lesions[1, 2] = LESIONS.index("EX") + 1
        >>> card = Card(
        ...     name="7.jpg", image=image, lesions=lesions, heat=None, probabilities=(0.5, 0.1, 0.4, 0.0, 0.0),
        ...     counts={"EX": 1}, areas_px={"EX": 1}, field_px=20, feasible={2, 3, 4},
        ... )
        >>> card.grade, card.contradiction
        (0, True)
    """

    name: str
    image: NDArray[np.uint8]
    lesions: NDArray[np.uint8]
    heat: NDArray[np.floating] | None
    probabilities: tuple[float, ...]
    counts: Mapping[str, int]
    areas_px: Mapping[str, int]
    field_px: int
    feasible: Set[int]
    true_grade: int | None = None
    abstained: bool = False

    def __post_init__(self) -> None:
        if self.lesions.shape != self.image.shape[:2]:
            raise ValueError(f"{self.name!r}: expected lesions of {self.image.shape[:2]}, got {self.lesions.shape}")
        highest = 1 + PROBABILITY_TOLERANCE
        if len(self.probabilities) != len(GRADES) or not all(0 <= p <= highest for p in self.probabilities):
            raise ValueError(f"{self.name!r}: expected {len(GRADES)} probabilities, got {self.probabilities}")
        if self.field_px < 1:
            raise ValueError(f"{self.name!r}: expected a field of view of at least one pixel, got {self.field_px}")

    @property
    def grade(self) -> int:
        """The likeliest grade."""
        return int(np.argmax(self.probabilities))

    @property
    def contradiction(self) -> bool:
        """Whether the predicted lesions rule out the predicted grade."""
        return self.grade not in self.feasible


def write_report(
    path: str | os.PathLike,
    cards: Iterable[Card],
    title: str,
    facts: Mapping[str, str],
    unread: Mapping[str, str] | None = None,
) -> int:
    """Write the page one card at a time, so that memory does not grow with their number.

    The page runs only its own script and fetches nothing, and its content security policy enforces this.
    Its state is in the address: ``report.html#grade=2&most=60&contradictions=1&sort=confidence``.

    Args:
        path: page to write; the file appears once it is complete.
        cards: one per photograph; may be a generator.
        title: heading of the page.
        facts: origin of the results, such as model, manifest and date; shown in this order.
        unread: names of unreadable photographs, with the reasons; they have no card and are listed after the last one.

    Returns:
        Number of cards written.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path, facts = Path(folder, "report.html"), {"Model": "train/model.pt"}
        ...     number = write_report(path, [], title="Clinic", facts=facts, unread={"7.jpg": "cut off"})
        ...     number, "<b>7.jpg</b> cut off" in path.read_text(encoding="utf-8")
        (0, True)
    """
    head, tail = _page(title, facts, unread or {})
    template = Template(_CARD.read_text(encoding="utf-8"))
    number = 0
    with written_whole(path) as beside, beside.open("w", encoding="utf-8") as page:
        page.write(head)
        for number, card in enumerate(cards, start=1):
            page.write(template.substitute(_card_fields(card, number)))
        page.write(tail)
    return number


def _page(title: str, facts: Mapping[str, str], unread: Mapping[str, str]) -> tuple[str, str]:
    """Return the parts of the page before and after the cards."""
    template = _PAGE.read_text(encoding="utf-8")
    filled = Template(template).substitute(
        title=html.escape(title),
        facts="".join(f"<div><dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd></div>" for k, v in facts.items()),
        grades="".join(f'<option value="{grade}">{grade} {GRADE_NAMES[grade]}</option>' for grade in GRADES),
        layers="".join(_layer_switch(lesion) for lesion in LESIONS),
        unread_count=_unread_count(unread),
        unread=_unread_list(unread),
        script_sha256=_script_sha256(template),
    )
    head, tail = filled.split("<!-- cards -->")
    return head, tail


def _unread_count(unread: Mapping[str, str]) -> str:
    """Return the notice for the top of the page that some photographs could not be read; the end lists them."""
    return f'<p class="missing">{_unread_words(unread)}: see the end of this page.</p>' if unread else ""


def _unread_list(unread: Mapping[str, str]) -> str:
    if not unread:
        return ""
    rows = "".join(f"<li><b>{html.escape(name)}</b> {html.escape(why)}</li>" for name, why in unread.items())
    return f'<section class="unread"><h2>{_unread_words(unread)}</h2><ul>{rows}</ul></section>'


def _unread_words(unread: Mapping[str, str]) -> str:
    return f"{len(unread)} photograph{'s' * (len(unread) > 1)} could not be read"


def _script_sha256(template: str) -> str:
    """Return the hash of the page's script, the only one that its content security policy allows."""
    (script,) = re.findall(r"<script>(.*?)</script>", template, flags=re.DOTALL)
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _card_fields(card: Card, number: int) -> dict[str, object]:
    photograph = Image.fromarray(card.image)
    photograph.thumbnail((LONG_SIDE_PX, LONG_SIDE_PX))
    return {
        "number": number,
        "name": html.escape(card.name),
        "width": photograph.width,
        "height": photograph.height,
        "lazy": _LAZY,
        "photograph": data_uri(photograph, "JPEG", quality=82),
        "layers": "".join(_layers(card, photograph.size)),
        "heat_switch": "" if card.heat is None else _HEAT_SWITCH,
        "grade": card.grade,
        "grade_name": GRADE_NAMES[card.grade],
        "confidence": f"{max(card.probabilities):.4f}",
        "percent": f"{100 * max(card.probabilities):.0f}",
        "together": _together(card),
        "contradiction": int(card.contradiction),
        "abstained": int(card.abstained),
        "marks": _marks(card),
        "bars": "".join(_bar(card, grade) for grade in GRADES),
        "lesions": "".join(_lesion_row(card, lesion) for lesion in LESIONS),
    }


def _layers(card: Card, size: tuple[int, int]) -> Iterable[str]:
    """Yield one transparent picture of the heat map, and one per lesion that is present."""
    if card.heat is not None:
        yield f'<img class="layer" data-layer="heat" alt="" {_LAZY} src="{_heat_layer(card.heat)}">'
    for index, lesion in enumerate(LESIONS, start=1):
        mask = card.lesions == index
        if mask.any():
            yield f'<img class="layer" data-layer="{lesion}" alt="" {_LAZY} src="{_lesion_layer(mask, lesion, size)}">'


def _lesion_layer(mask: NDArray[np.bool_], lesion: str, size: tuple[int, int]) -> str:
    small = shrink_mask(mask, size)
    picture = Image.fromarray(small * np.uint8(1) + find_boundaries(small, mode="inner"))  # 0, 1 filling, 2 edge
    picture.putpalette((0, 0, 0) + 2 * LESION_COLOURS[lesion])
    return data_uri(picture, "PNG", transparency=bytes([0, round(255 * FILLING_OPACITY), 255]), bits=2, optimize=True)


def _heat_layer(heat: NDArray[np.floating]) -> str:
    picture = heat_picture(heat)
    picture.thumbnail((HEAT_SIDE_PX, HEAT_SIDE_PX))
    picture.putpalette(HEAT_RGBA[:, :3].tobytes())
    return data_uri(picture, "PNG", transparency=HEAT_RGBA[:, 3].tobytes(), optimize=True)


def _marks(card: Card) -> str:
    """Return the remarks on a card: an abstention, a contradiction, and the true grade if known."""
    allowed = ", ".join(map(str, sorted(card.feasible)))
    unsure = f'<p class="mark warning">Abstained: a confidence of {_percent(max(card.probabilities))} is too low</p>'
    marks = unsure * card.abstained
    marks += f'<p class="mark warning">Contradiction: lesions allow {allowed}</p>' * card.contradiction
    if card.true_grade is None:
        return marks
    kind = "right" if card.true_grade == card.grade else "wrong"
    return marks + f'<p class="mark {kind}">True grade {card.true_grade} {GRADE_NAMES[card.true_grade]}</p>'


def _together(card: Card) -> str:
    """Write the grade of both tasks together and the grade of the lesions alone, to add to the grade head's own."""
    both, alone = consistent_grade(card.probabilities, card.feasible), rules_grade(card.feasible)
    return f"Together with the lesions: {both} {GRADE_NAMES[both]}. Lesions alone: {alone} {GRADE_NAMES[alone]}."


def _bar(card: Card, grade: int) -> str:
    p = card.probabilities[grade]
    classes = " ".join(["predicted"] * (grade == card.grade) + ["excluded"] * (grade not in card.feasible))
    true = ' <abbr title="true grade">true</abbr>' if grade == card.true_grade else ""
    return (
        f'<tr class="{classes}"><th scope="row"><span>{grade} {GRADE_NAMES[grade]}</span>{true}</th>'
        f'<td class="bar"><i style="width:{100 * p:.1f}%"></i></td><td>{_percent(p)}</td></tr>'
    )


def _lesion_row(card: Card, lesion: str) -> str:
    count, area_px = card.counts.get(lesion, 0), card.areas_px.get(lesion, 0)
    found = f"<td>{count}</td><td>{area_px:,}</td><td>{html.escape(_percent_of_field(area_px, card.field_px))}</td>"
    none = "<td>0</td>" + 2 * '<td class="none">&ndash;</td>'
    return f'<tr><th scope="row">{_layer_switch(lesion)}</th>{found if count else none}</tr>'


def _layer_switch(lesion: str) -> str:
    return (
        f'<label class="switch"><input type="checkbox" data-shows="{lesion}" checked autocomplete="off">'
        f'<i class="swatch" style="--colour:{LESION_HEX[lesion]}"></i>{LESION_NAMES[lesion]}</label>'
    )


_HEAT_SWITCH = (
    '<label class="heat">Heat map <input type="range" data-shows="heat" min="0" max="100" value="0"'
    ' autocomplete="off" aria-label="opacity of the heat map, percent"></label>'
)


def _percent(p: float) -> str:
    return f"{100 * p:.0f} %"


def _percent_of_field(area_px: int, field_px: int) -> str:
    """Write a share in percent; only an area of 0 becomes 0.00.

    Example:
        >>> _percent_of_field(123, 10_000), _percent_of_field(4, 1_000_000)
        ('1.23', '<0.01')
    """
    percent = 100 * area_px / field_px
    return f"{percent:.2f}" if percent >= 0.005 or area_px == 0 else "<0.01"
