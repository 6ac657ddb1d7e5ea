"""Types that readers return: photographs as their data set describes them, before any file is opened."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

OPTIC_DISC = "optic_disc"

OUTLINES_NOTE = "outlines: "
"""Prefix of notes on how the outlines were made; these notes are kept when manifests are joined."""


class Drawn(NamedTuple):
    """Masks ``(height, width)`` by lesion or ``optic_disc``, and the lesions that experts disagree on.

    A lesion is disputed if some expert marked it but its mask is empty: it is neither present nor certainly absent.
    """

    masks: Mapping[str, NDArray[np.bool_]]
    disputed: tuple[str, ...] = ()


Draw = Callable[[int, int], Drawn]
"""Function of width and height in pixels that returns the masks at this size."""


class Landmark(NamedTuple):
    """A position as given in a table: column and row, and the size of the image on which it was marked."""

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
        fovea: marked centre of the fovea, or None.
        disc: the same for the optic disc.
        draw: draws the masks if the data set does not have them as binary files; it may raise ValueError.
        drawn_from: the files that ``draw`` reads.
        patient: id of the patient as a table, the file name or the photograph itself has it; None or empty if unknown.
            The manifest stores its pseudonym (:func:`bundle.datasets.patients.pseudonym`).
        columns: further columns of the table that were asked for, with the values that are known.
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
    patient: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)


class Reading(NamedTuple):
    """The photographs that a reader found, and one sentence for each group that it left out."""

    photographs: list[RawPhotograph]
    notes: list[str]
