"""Counts of the complete published data sets, to check whether a copy is complete."""

from collections import Counter
from collections.abc import Iterable, Mapping

from bundle.manifest import Photograph

PUBLISHED: Mapping[str, Mapping[str, int]] = {
    "idrid": {
        "outlined training photographs": 54, "outlined test photographs": 27, "graded training photographs": 413,
        "graded test photographs": 103, "masks of MA": 81, "masks of HE": 80, "masks of EX": 81, "masks of SE": 40,
    },
}  # fmt: skip
"""Counts by the name of the data set in `scripts.prepare`. IDRiD: Porwal et al., Data 3(3):25, 2018."""


def completeness(rows: Iterable[Photograph]) -> dict[str, str]:
    """Map each data set whose counts are known to ``complete``, or to the counts that differ from the published ones.

    Example:
        >>> known = {"sha256": "0" * 64, "perceptual_hash": "0" * 64, "width_px": 6, "height_px": 4}
        >>> rows = [
        ...     Photograph(id=f"idrid/{n}", image=f"idrid/{n}", group=f"{n}", split="train", grade=2, **known)
        ...     for n in range(412)
        ... ]
        >>> completeness(rows)["idrid"].split(", ")[2]
        '412 of 413 graded training photographs'
    """
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        if row.dataset in PUBLISHED:
            counts.setdefault(row.dataset, Counter()).update(_counts(row))
    return {name: _compared(counts[name], PUBLISHED[name]) for name in sorted(counts)}


def _counts(row: Photograph) -> list[str]:
    kind = "training" if row.split == "train" else "test"
    outlined = [f"outlined {kind} photographs"] * row.outlined
    return [*outlined, *[f"graded {kind} photographs"] * (row.grade is not None), *(f"masks of {x}" for x in row.masks)]


def _compared(found: Mapping[str, int], published: Mapping[str, int]) -> str:
    other = [f"{found[what]} of {number} {what}" for what, number in published.items() if found[what] != number]
    return f"not as published: {', '.join(other)}" if other else "complete"
