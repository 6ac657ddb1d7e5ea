"""The paper's Figure 7: photographs, their outlines and the predictions of each network, side by side."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from bundle.files import written_whole
from bundle.labels import LESION_NAMES, LESIONS
from bundle.reporting.overlay import LESION_HEX, lesion_overlay, shrink_lesions
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image

PICTURE_PX = 460
"""Long side of a photograph in the figure."""

DPI = 150
INK, QUIET = "#1c1e21", "#63686f"
TRUTH = "outlines of the data set"


@dataclass(frozen=True, kw_only=True, eq=False)
class Compared:
    """One photograph, its outlines, and the lesions that each column predicts.

    Attributes:
        name: id of the photograph.
        image: RGB ``(H, W, 3)``, uint8.
        truth: label map ``(H, W)`` of the outlines.
        predicted: label map ``(H, W)`` by column, in the order of the columns.
        scores: text below the picture of a column.
    """

    name: str
    image: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    predicted: Mapping[str, NDArray[np.uint8]]
    scores: Mapping[str, str]


def write_lesion_figure(path: str | os.PathLike, photographs: Sequence[Compared]) -> None:
    """Draw one row per photograph: the photograph, its outlines, and the lesions that each network predicts.

    Label maps are shrunk without losing a lesion: a pixel is drawn if any pixel that it covers was lesion.

    Raises:
        ValueError: if there is no photograph, or two differ in their columns.
    """
    columns = [list(one.predicted) for one in photographs]
    if not columns or any(names != columns[0] for names in columns):
        raise ValueError(f"expected one photograph or more, all with the same columns, got {columns}")
    figure = _figure(photographs, ["photograph", TRUTH, *columns[0]])
    with written_whole(path) as beside:
        figure.savefig(beside, dpi=DPI)


def _figure(photographs: Sequence[Compared], titles: Sequence[str]) -> Figure:
    tallest = max(one.image.shape[0] / one.image.shape[1] for one in photographs)
    width_in = PICTURE_PX / DPI
    size = ((width_in + 0.08) * len(titles), (width_in * tallest + 0.34) * len(photographs) + 0.62)
    figure = Figure(figsize=size, facecolor="white", layout="constrained")
    grid = figure.subplots(len(photographs), len(titles), squeeze=False)
    for axes, title in zip(grid[0], titles, strict=True):
        axes.set_title(title, size=9, color=INK)
    for cells, one in zip(grid, photographs, strict=True):
        _draw_row(cells, one)
    patches = [Patch(color=LESION_HEX[lesion], label=f"{LESION_NAMES[lesion]} ({lesion})") for lesion in LESIONS]
    figure.legend(handles=patches, loc="outside lower center", ncols=len(patches), frameon=False, fontsize=9)
    return figure


def _draw_row(cells: Sequence[Axes], one: Compared) -> None:
    picture = Image.fromarray(one.image)
    picture.thumbnail((PICTURE_PX, PICTURE_PX))
    small = np.asarray(picture)
    maps = [np.zeros(one.image.shape[:2], np.uint8), one.truth, *one.predicted.values()]
    below = [one.name, _present(one.truth), *(one.scores.get(name, "") for name in one.predicted)]
    for axes, lesions, text in zip(cells, maps, below, strict=True):
        axes.imshow(lesion_overlay(small, shrink_lesions(lesions, picture.size)))
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        axes.set_xlabel(text, size=8, color=QUIET, parse_math=False)


def _present(lesions: NDArray[np.uint8]) -> str:
    found = [lesion for value, lesion in enumerate(LESIONS, start=1) if (lesions == value).any()]
    return " ".join(found) or "no lesion"
