"""What a reader says of a photograph before anybody has opened it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

OPTIC_DISC = "optic_disc"

OUTLINES_NOTE = "outlines: "
"""How a note on the making of the outlines begins: it stays where manifests are joined."""


class Drawn(NamedTuple):
    """Masks ``(height, width)``, each under its lesion or ``optic_disc``, and the lesions that experts disagree on.

    Disputed is what some expert marked without a pixel in the mask: it is neither there nor surely absent.
    """

    masks: Mapping[str, NDArray[np.bool_]]
    disputed: tuple[str, ...] = ()


Draw = Callable[[int, int], Drawn]
"""Width and height in pixels to what is drawn at this size."""


class Landmark(NamedTuple):
    """A place as a table gives it: column and row, on the picture of the size on which it was marked."""

    x_px: float
    y_px: float
    size_px: tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class RawPhotograph:
    """One image file as the tables and folders of its data set describe it.

    Attributes:
        id: ``<part>/<split>/<file stem>``, unique in the data set.
        image: absolute path, below the data set's root; so are all other paths.
        split: the official split, ``train`` or ``test``.
        grade: ICDRS grade, or None.
        annotated: lesions that the annotators looked for.
        masks: lesion to mask path; an annotated lesion without a path is absent.
        optic_disc: mask path of the optic disc, or None.
        fovea: where the middle of the fovea was marked, or None.
        disc: the same of the optic disc.
        draw: draws the masks where the data set has no file of two values for each; it may raise ValueError.
        drawn_from: the files that ``draw`` reads.
    """

    id: str
    image: Path
    split: str
    grade: int | None = None
    annotated: tuple[str, ...] = ()
    masks: Mapping[str, Path] = field(default_factory=dict)
    optic_disc: Path | None = None
    fovea: Landmark | None = None
    disc: Landmark | None = None
    draw: Draw | None = None
    drawn_from: tuple[Path, ...] = ()


class Reading(NamedTuple):
    """The photographs that a reader found, and one sentence for everything it left out."""

    photographs: list[RawPhotograph]
    notes: list[str]
