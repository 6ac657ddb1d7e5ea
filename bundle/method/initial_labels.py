"""Pseudo-labels from stage 1 for stage 2: the initial label of every lesion image, and its origin."""

import os
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bundle.files import file_sha256, load_json, write_json_whole
from bundle.labels import GRADES, PROBABILITY_TOLERANCE
from bundle.manifest import Manifest

SCHEMA = 1
PEAK = 0.6
"""Share of the likeliest grade in a label of :func:`with_known_errors`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialLabel:
    """The label that stage 2 starts from.

    Attributes:
        soft: probability of each grade; sums to 1 and lies inside ``feasible``.
        feasible: whether the lesions allow each grade.
        weight: factor of the image in the grading loss; 0 where stage 1 abstained.

    Example:
        >>> InitialLabel(soft=(0.0, 0.5, 0.75, 0.0, 0.0), feasible=(False, True, True, True, True), weight=1.0)
        Traceback (most recent call last):
            ...
        ValueError: expected a soft label that sums to 1, got (0.0, 0.5, 0.75, 0.0, 0.0)
    """

    soft: tuple[float, ...]
    feasible: tuple[bool, ...]
    weight: float

    def __post_init__(self) -> None:
        if len(self.soft) != len(GRADES) or len(self.feasible) != len(GRADES):
            raise ValueError(f"expected {len(GRADES)} grades, got {len(self.soft)} and {len(self.feasible)}")
        if any(not isinstance(allowed, bool) for allowed in self.feasible):
            raise ValueError(f"expected true or false for each grade, got {self.feasible}")
        if not (min(self.soft) >= 0 and abs(sum(self.soft) - 1) <= PROBABILITY_TOLERANCE):  # NaN fails as well
            raise ValueError(f"expected a soft label that sums to 1, got {self.soft}")
        if any(share > 0 and not allowed for share, allowed in zip(self.soft, self.feasible, strict=True)):
            raise ValueError(f"expected no share outside the feasible grades {self.feasible}, got {self.soft}")
        if not 0 <= self.weight <= 1 + PROBABILITY_TOLERANCE:
            raise ValueError(f"expected a weight in [0, 1], got {self.weight}")


UNGRADED = InitialLabel(soft=(1 / len(GRADES),) * len(GRADES), feasible=(True,) * len(GRADES), weight=0.0)
"""Label of a photograph whose grade is not trained."""


def save_pseudo_labels(
    path: str | os.PathLike, manifest: Manifest, settings: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]
) -> None:
    """Write the audit rows together with the manifest's hash and the settings that they came from."""
    content = {
        "schema": SCHEMA, "manifest_sha256": manifest.sha256, "settings": dict(settings), "rows": list(rows),
    }  # fmt: skip
    write_json_whole(path, content)


def load_pseudo_labels(path: str | os.PathLike | None, manifest: Manifest) -> dict[str, InitialLabel]:
    """Read the initial labels by photograph id.

    Raises:
        ValueError: if no file is given, or it is missing, broken, or made from another manifest.

    Example:
        >>> load_pseudo_labels("nowhere.json", Manifest(name="clinic", roots={}, folds=2, seed=0, photographs=()))
        Traceback (most recent call last):
            ...
        ValueError: expected pseudo-labels at nowhere.json, found no such file; run configs/pseudo_label.yaml first
    """
    if path is None:
        raise ValueError("expected --pseudo_labels FILE: stage 2 trains on what configs/pseudo_label.yaml writes")
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"expected pseudo-labels at {path}, found no such file; run configs/pseudo_label.yaml first")
    try:
        content = load_json(path)
        made_from, rows = str(content["manifest_sha256"]), content["rows"]
        labels = {row["id"]: _initial(row) for row in rows}
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise ValueError(f"expected pseudo-labels (JSON of stage 1) in {path}, got: {error!r}") from None
    if made_from != manifest.sha256:
        raise ValueError(
            f"pseudo-labels {path} were made from another manifest (sha256 {made_from[:12]}, "
            f"this one is {manifest.sha256[:12]}): run configs/pseudo_label.yaml again"
        )
    return labels


def labels_to_start_from(path: str | os.PathLike | None, manifest: Manifest, beta: float) -> dict[str, InitialLabel]:
    """Read the initial labels; without a file and with ``beta`` 0, return labels that train no grade.

    In these labels every grade is equally likely, and the weight of each photograph in the grading loss is 0.

    Args:
        path: file of pseudo-labels, or None.
        manifest: manifest that they were made from.
        beta: weight of the grading loss.

    Raises:
        ValueError: as :func:`load_pseudo_labels`, unless there is no path and ``beta`` is 0.

    Example:
        >>> manifest = Manifest(name="clinic", roots={}, folds=2, seed=0, photographs=())
        >>> labels_to_start_from(None, manifest, beta=0.0)
        {}
    """
    if path is None and beta == 0:
        return {row.id: UNGRADED for row in manifest.photographs}
    return load_pseudo_labels(path, manifest)


def labels_sha256(path: str | os.PathLike | None) -> str | None:
    """Hash a file of pseudo-labels; None without a file.

    Example:
        >>> labels_sha256(None) is None
        True
    """
    return None if path is None else file_sha256(path)


def _initial(row: Mapping[str, Any]) -> InitialLabel:
    soft, feasible = (tuple(row[f"{name}_{grade}"] for grade in GRADES) for name in ("soft_label", "feasible"))
    return InitialLabel(soft=soft, feasible=feasible, weight=row["weight"])


def with_known_errors(
    labels: Mapping[str, InitialLabel], manifest: Manifest, share: float, seed: int
) -> dict[str, InitialLabel]:
    """Replace the labels that can move by correct ones, except for a known share of wrong ones.

    This shows which errors an update of the labels can repair. A label can move if it has more than one feasible grade
    and its true grade is known. It gets ``PEAK`` on the true grade and equal shares of the rest on the other feasible
    grades; ``round(share n)`` of these ``n`` labels, drawn at random, get the peak on another feasible grade instead.
    All ``n`` labels have weight 1; other labels are unchanged.

    Args:
        labels: from :func:`load_pseudo_labels`.
        manifest: manifest with the true grades.
        share: share of wrong labels, in [0, 1].
        seed: seed of the draw.

    Raises:
        ValueError: if the share is not in [0, 1], or no label can move.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"expected a share of wrong labels in [0, 1], got {share}")
    known = manifest.known_grades()
    truth = {row.id: known[row.group] for row in manifest.photographs if row.group in known}
    free = sorted(name for name, label in labels.items() if sum(label.feasible) > 1 and name in truth)
    if not free:
        raise ValueError("expected labels with more than one feasible grade and a known true one, found none")
    draw = random.Random(seed)
    wrong = set(draw.sample(free, round(share * len(free))))
    return {**labels, **{name: _peaked(labels[name], truth[name], name in wrong, draw) for name in free}}


def _peaked(label: InitialLabel, truth: int, wrong: bool, draw: random.Random) -> InitialLabel:
    feasible = [grade for grade in GRADES if label.feasible[grade]]
    others = [grade for grade in feasible if grade != truth]
    peak = draw.choice(others) if wrong else truth
    rest = (1 - PEAK) / (len(feasible) - 1)
    shares = {grade: PEAK if grade == peak else rest for grade in feasible}
    return InitialLabel(soft=tuple(shares.get(grade, 0.0) for grade in GRADES), feasible=label.feasible, weight=1.0)
