"""What a reader says of a photograph before anybody has opened it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple


@dataclass(frozen=True, slots=True, kw_only=True)
class RawPhotograph:
    """One image file as the tables and folders of its data set describe it.

    Attributes:
        id: ``<part>/<split>/<file stem>``, unique in the data set.
        image: path below the data set's root, with forward slashes; so are all other paths.
        split: the official split, ``train`` or ``test``.
        grade: ICDRS grade, or None.
        annotated: lesions that the annotators looked for.
        masks: lesion to mask path; an annotated lesion without a path is absent.
        optic_disc: mask path of the optic disc, or None.
    """

    id: str
    image: str
    split: str
    grade: int | None = None
    annotated: tuple[str, ...] = ()
    masks: Mapping[str, str] = field(default_factory=dict)
    optic_disc: str | None = None


class Reading(NamedTuple):
    """The photographs that a reader found, and one sentence for everything it left out."""

    photographs: list[RawPhotograph]
    notes: list[str]
