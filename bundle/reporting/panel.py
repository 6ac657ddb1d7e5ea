"""The paper's Figure 6 for one photograph: its lesions, the heat map of every grade, and the decision in words."""

# flake8: noqa: N803

import os
import textwrap
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from bundle.files import written_at_once
from bundle.labels import GRADE_NAMES, GRADES, LESION_NAMES, LESIONS
from bundle.reporting.overlay import LESION_HEX, heat_overlay, lesion_overlay, shrink_lesions
from bundle.reporting.style import BLUE, DPI, INK, QUIET
from bundle.reporting.tables import number
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import ArrayLike, NDArray
from PIL import Image

PHOTOGRAPH_PX, HEAT_PX = 420, 240
PROPOSED, DECIDED = "#c26a12", BLUE


def write_panel(
    path: str | os.PathLike, image: ArrayLike, lesions_HW: ArrayLike, maps_5HW: ArrayLike, row: Mapping[str, Any]
) -> None:
    """Draw the evidence for a pseudo-label, in 1340 x 920 pixels.

    Args:
        path: picture to write; ``.jpg`` takes about 150 kB, ``.png`` four times that.
        image: RGB photograph, uint8, ``(3, S, S)`` or ``(H, W, 3)``.
        lesions_HW: label map of the same size.
        maps_5HW: heat map of each grade, in [0, 1].
        row: audit row of the photograph: its decision, and each grade's probability, soft label and evidence.

    Raises:
        ValueError: if a shape does not match, or a key of the row is missing.
    """
    photograph, lesions, maps = _channels_last(image), np.asarray(lesions_HW), np.asarray(maps_5HW)
    if len(maps) != len(GRADES) or lesions.shape != photograph.shape[:2]:
        raise ValueError(
            f"expected 5 heat maps and lesions of size {photograph.shape[:2]}, "
            f"got maps {maps.shape} and lesions {lesions.shape}"
        )
    missing = {"id", "proposed", "decided", "action", "rule", "reason", "weight"} - set(row)
    if missing:
        raise ValueError(f"expected an audit row, got one without {sorted(missing)}")
    figure = _figure(photograph, lesions, maps, row)
    with written_at_once(path) as buffer:
        figure.savefig(buffer, dpi=DPI, format=Path(path).suffix[1:], pil_kwargs={"quality": 85})


def _figure(photograph: NDArray[np.uint8], lesions: NDArray[Any], maps: NDArray[Any], row: Mapping[str, Any]) -> Figure:
    figure = Figure(figsize=(13.4, 9.2), facecolor="white")
    figure.text(0.02, 0.972, str(row["id"]), size=13, weight="bold", color=INK, parse_math=False)
    large = _shrunk(photograph, PHOTOGRAPH_PX)
    _show(figure, (0.02, 0.5, 0.315, 0.458), large)
    # Shrunk before drawing, so that outlines are one pixel wide in the figure and no lesion is lost.
    outlines = shrink_lesions(lesions, (large.shape[1], large.shape[0]))
    outlined = _show(figure, (0.345, 0.5, 0.315, 0.458), lesion_overlay(large, outlines))
    _draw_lesion_legend(outlined, lesions)
    _draw_probabilities(figure.add_axes((0.77, 0.56, 0.2, 0.36)), row)
    small = _shrunk(photograph, HEAT_PX)
    for grade in GRADES:
        axes = _show(figure, (0.02 + 0.193 * grade, 0.183, 0.185, 0.25), heat_overlay(small, maps[grade]))
        _draw_evidence(axes, grade, row)
    _draw_decision(figure, row)
    return figure


def _channels_last(image: ArrayLike) -> NDArray[np.uint8]:
    array = np.asarray(image)
    return array.transpose(1, 2, 0) if array.ndim == 3 and array.shape[0] == 3 and array.shape[2] != 3 else array


def _shrunk(photograph: NDArray[np.uint8], side_px: int) -> NDArray[np.uint8]:
    picture = Image.fromarray(photograph)
    picture.thumbnail((side_px, side_px))
    return np.asarray(picture)


def _show(figure: Figure, box: tuple[float, float, float, float], picture: NDArray[np.uint8]) -> Axes:
    axes = figure.add_axes(box)
    axes.imshow(picture)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    return axes


def _draw_lesion_legend(axes: Axes, lesions: NDArray[Any]) -> None:
    present = [lesion for index, lesion in enumerate(LESIONS, start=1) if (lesions == index).any()]
    if not present:
        axes.set_xlabel("no lesion", size=9, color=QUIET)
        return
    patches = [Patch(color=LESION_HEX[name], label=LESION_NAMES[name]) for name in present]
    axes.legend(
        handles=patches, ncols=4, loc="upper center", bbox_to_anchor=(0.5, 0.0), frameon=False, fontsize=9,
        handlelength=0.9, handleheight=0.9, columnspacing=1.2, handletextpad=0.4, borderaxespad=0.3,
    )  # fmt: skip


def _draw_probabilities(axes: Axes, row: Mapping[str, Any]) -> None:
    """Draw, for each grade, the graders' probability above the soft label that is taught."""
    for name, key, shift, colour in (
        ("graders", "probability", -0.19, PROPOSED),
        ("soft label", "soft_label", 0.19, DECIDED),
    ):
        values = [row.get(f"{key}_{grade}") or 0.0 for grade in GRADES]
        bars = axes.barh(np.array(GRADES) + shift, values, height=0.34, color=colour, label=name)
        axes.bar_label(bars, labels=[_number(value) for value in values], size=8, color=QUIET, padding=3)
    axes.set(xlim=(0, 1.12), ylim=(4.6, -0.6), xticks=[], yticks=GRADES)
    axes.set_yticklabels([f"{grade} {GRADE_NAMES[grade]}" for grade in GRADES], size=9)
    for tick, grade in zip(axes.get_yticklabels(), GRADES, strict=True):
        tick.set_color(INK if row.get(f"feasible_{grade}") else QUIET)
    axes.tick_params(length=0)
    axes.spines[["top", "right", "bottom"]].set_visible(False)
    axes.legend(loc="upper center", bbox_to_anchor=(0.4, 0.0), ncols=2, frameon=False, fontsize=9)


def _draw_evidence(axes: Axes, grade: int, row: Mapping[str, Any]) -> None:
    roles = [role for role in ("proposed", "decided") if row[role] == grade]
    colour = {"proposed": PROPOSED, "decided": DECIDED}[roles[-1]] if roles else INK
    heading = f"{grade} {GRADE_NAMES[grade]}" + f" ({', '.join(roles)})" * bool(roles)
    axes.set_title(heading, size=10, color=colour, weight="bold" if roles else "normal", pad=5)
    if roles:
        axes.spines[:].set(visible=True, edgecolor=colour, linewidth=2.5)
    feasible = bool(row.get(f"feasible_{grade}"))
    where = "lies on the lesions" if row.get(f"supported_{grade}") else "not on the lesions"
    supported = "empty heat map" if row.get(f"empty_{grade}") else where
    names = ("probability", "lift", "relative_lift", "coverage", "relative_coverage", "optic_disc")
    value = {name: _number(row.get(f"{name}_{grade}")) for name in names}
    axes.set_xlabel(
        f"probability {value['probability']}   optic disc {value['optic_disc']}\n"
        f"lift {value['lift']}, of perfect {value['relative_lift']}\n"
        f"coverage {value['coverage']}, of perfect {value['relative_coverage']}\n"
        f"{'feasible' if feasible else 'not feasible'}, {supported}",
        size=9, linespacing=1.5, color=INK if feasible else QUIET,
    )  # fmt: skip


def _draw_decision(figure: Figure, row: Mapping[str, Any]) -> None:
    verdict = {
        "keep": f"Kept: grade {row['decided']} {GRADE_NAMES[row['decided']]}",
        "move": f"Moved: grade {row['proposed']} to {row['decided']} {GRADE_NAMES[row['decided']]}",
        "abstain": "Abstained: not taught",
    }[row["action"]]
    figure.text(
        0.02, 0.078, f"{verdict}   (rule {row['rule']}, weight {_number(row['weight'])})",
        size=12, weight="bold", color=INK,
    )  # fmt: skip
    reason = textwrap.fill(str(row["reason"]), width=165, max_lines=3)
    figure.text(0.02, 0.065, reason, size=10, color=INK, va="top", linespacing=1.4, parse_math=False)


_number = partial(number, decimals=2)
