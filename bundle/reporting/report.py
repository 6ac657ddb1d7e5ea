"""Self-contained page to browse photographs, their lesions and their grades: no network, no server."""

# flake8: noqa: N803, N806

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from bundle.handlers.predictions import Prediction, Row
from bundle.labels import GRADE_NAMES, LESION_COLOURS, LESION_NAMES, LESIONS, grades_in_words
from bundle.reporting.overlay import HEAT_RGBA, LESION_HEX, heat_picture, shrink_lesions
from bundle.reporting.pages import TEMPLATES, data_uri, write_page
from numpy.typing import NDArray
from PIL import Image
from skimage.segmentation import find_boundaries

LONG_SIDE_PX = 640
"""Long side of a photograph in the report: a microaneurysm is still a dot, and 500 photographs take about 50 MB."""

HEAT_SIDE_PX = 160
"""Long side of a heat map; the browser interpolates it, and its actual resolution is no finer."""

LESION_OPACITIES = bytes([0, round(0.35 * 255), 255])
"""Opacities of the background, of the inside of a lesion and of its edge, 0-255."""

REMARKS_MAX = 200
"""Largest number of names listed for one remark."""

NAMES = {"grade_names": GRADE_NAMES, "lesion_names": LESION_NAMES, "lesion_hex": LESION_HEX}
"""Names and colours that the templates show."""


def card_html(prediction: Prediction, image_HW3: NDArray[np.uint8], eye: str | None = None) -> str:
    """Return the part of the report for one photograph, its pictures included: about 0.1 MB of text.

    Args:
        prediction: what the network predicts for the photograph.
        image_HW3: the photograph at native size, 8-bit RGB.
        eye: ``left`` or ``right``, if it is known.

    Raises:
        ValueError: if the lesions have another size than the photograph.

    Example:
        >>> none, black_HW = dict.fromkeys(LESIONS, 0), np.zeros((2, 3), np.uint8)
        >>> numbers = {"probabilities": (0.6, *4 * (0.1,)), "field_px": 6, "counts": none, "areas_px": none}
        >>> pictures = {"lesions_HW": black_HW, "heat_hw": black_HW / 1}
        >>> prediction = Prediction(name="<7>.jpg", path="", feasible=frozenset({0}), **numbers, **pictures)
        >>> "<h2>&lt;7&gt;.jpg</h2>" in card_html(prediction, np.stack(3 * [black_HW], axis=-1))
        True
    """
    size_HW, lesions_HW = image_HW3.shape[:2], prediction.lesions_HW
    if lesions_HW.shape != size_HW:
        raise ValueError(f"{prediction.name!r}: expected lesions of {size_HW}, got {lesions_HW.shape}")
    photograph = Image.fromarray(image_HW3)
    photograph.thumbnail((LONG_SIDE_PX, LONG_SIDE_PX))
    return TEMPLATES.get_template("card.html").render(
        prediction=prediction,
        eye=eye,
        likely=grades_in_words(prediction.grade_set) if prediction.grade_set else "",
        width_px=photograph.width,
        height_px=photograph.height,
        photograph=data_uri(photograph, "JPEG", quality=82),
        layers=dict(_layers(prediction, photograph.size)),
        **NAMES,
    )


def patient_html(patient: str, rows: Sequence[Row], cards: Iterable[str]) -> Iterator[str]:
    """Yield the part of the report for one patient: the highest grade, then the cards side by side; none if all fail.

    Args:
        patient: id of the patient, as it stands in the names of the photographs, or its pseudonym.
        rows: of :func:`bundle.handlers.predictions.prediction_row`, of all photographs of the patient.
        cards: from :func:`card_html`, of the photographs that could be read, or in pieces; may be a generator.

    Example:
        >>> same = {"consistent_grade": 2, "abstained": False, "doubts": "", "error": ""}
        >>> rows = [{"file": f"0_{side}.jpg", "grade": grade, **same} for side, grade in (("left", 1), ("right", 3))]
        >>> "".join(patient_html("0", rows, [])).splitlines()[1]  # doctest: +NORMALIZE_WHITESPACE
        '<h2>Patient 0: grade 3 severe<span>, the higher of 2 photographs: 0_right.jpg. Together with the lesions:
            2 moderate.</span></h2>'
    """
    read = [row for row in rows if not row["error"]]
    if not read:
        return
    graded = [row for row in read if row["grade"] is not None]
    grade = max((row["grade"] for row in graded), default=None)
    yield from TEMPLATES.get_template("patient.html").generate(
        patient=patient,
        read=graded,
        unread=[row["file"] for row in rows if row["error"]],
        withheld=[row["file"] for row in read if row["grade"] is None],
        doubtful=[row["file"] for row in graded if row["doubts"]],
        abstained=[row["file"] for row in graded if row["abstained"]],
        grade=grade,
        highest=[row["file"] for row in graded if row["grade"] == grade],
        together=max((row["consistent_grade"] for row in graded), default=None),
        cards=cards,
        **NAMES,
    )


def write_report(
    path: str | os.PathLike,
    cards: Iterable[str],
    title: str,
    facts: Mapping[str, str],
    unread: Mapping[str, str] | None = None,
    remarks: Mapping[str, Sequence[str]] | None = None,
) -> None:
    """Write the page one card at a time, so that memory does not grow with their number.

    The page runs only its own script and fetches nothing, and its content security policy enforces this.
    Its state is in the address: ``report.html#grade=2&most=60&contradictions=1&sort=confidence``.

    Args:
        path: page to write; the file appears once it is complete.
        cards: HTML from :func:`card_html` or :func:`patient_html`, whole or in pieces; may be a generator.
        title: heading of the page.
        facts: origin of the results, such as model, manifest and date; shown in this order.
        unread: names of unreadable photographs, with the reasons; they have no card and are listed after the last one.
        remarks: what else became of files, such as ``passed over``, and their names; listed after these.

    Example:
        >>> import tempfile
        >>> from pathlib import Path
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path, facts = Path(folder, "report.html"), {"Model": "train/model.pt"}
        ...     write_report(path, [], title="Clinic", facts=facts, unread={"7.jpg": "cut off"})
        ...     "<b>7.jpg</b> cut off" in path.read_text(encoding="utf-8")
        True
    """
    write_page(
        path, "report.html", cards=cards, title=title, facts=facts, unread=unread or {}, remarks=remarks or {},
        remarks_max=REMARKS_MAX, **NAMES,
    )  # fmt: skip


def _layers(prediction: Prediction, size: tuple[int, int]) -> Iterator[tuple[str, str]]:
    """Yield the name and the transparent picture of the heat map, and of each lesion that is present."""
    heat = heat_picture(prediction.heat_hw)
    heat.thumbnail((HEAT_SIDE_PX, HEAT_SIDE_PX))
    heat.putpalette(HEAT_RGBA[:, :3].tobytes())
    yield "heat", data_uri(heat, "PNG", transparency=HEAT_RGBA[:, 3].tobytes(), optimize=True)
    lesions_hw = shrink_lesions(prediction.lesions_HW, size)
    for index, lesion in enumerate(LESIONS, start=1):
        mask_hw = lesions_hw == index
        if mask_hw.any():
            layer = Image.fromarray(mask_hw * np.uint8(1) + find_boundaries(mask_hw, mode="inner"))
            layer.putpalette((0, 0, 0) + 2 * LESION_COLOURS[lesion])  # background, filling, edge
            yield lesion, data_uri(layer, "PNG", transparency=LESION_OPACITIES, bits=2, optimize=True)
