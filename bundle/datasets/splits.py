"""Selection of the photographs that each stage may use."""

from collections import Counter
from collections.abc import Iterable
from typing import Literal

from bundle.manifest import Manifest, Photograph

TASKS = ("lesions", "grade")
SPLITS_SCORED = ("test", "fold", "train", "all")
"""Subsets that evaluation accepts."""


def lesion_training(manifest: Manifest, fold: int | None = None) -> list[Photograph]:
    """Select the outlined training photographs outside ``fold``; None holds nothing out.

    Raises:
        ValueError: as in all selections of this module, if the fold does not exist or nothing is selected.
    """
    return _outside(manifest, _outlined(manifest), fold, "outlined photographs to train on")


def lesion_validation(manifest: Manifest, fold: int | None) -> list[Photograph]:
    """Select the outlined training photographs of ``fold``; none if no fold is held out.

    Example:
        >>> manifest = Manifest(name="clinic", roots={}, folds=2, seed=0, photographs=())
        >>> lesion_validation(manifest, fold=None)
        []
        >>> lesion_validation(manifest, fold=2)
        Traceback (most recent call last):
            ...
        ValueError: manifest 'clinic': expected a fold in 0-1 or none, got 2
    """
    return _inside(manifest, _outlined(manifest), fold, "outlined photographs to validate on")


def graded_training(manifest: Manifest, fold: int | None = None) -> list[Photograph]:
    """Select the graded training photographs outside ``fold`` that have no outlined copy.

    A grader trained on a copy would remember its grade, and the pseudo-label would only repeat that grade.
    """
    return _outside(manifest, _graded(manifest), fold, "graded photographs to train on, without an outlined copy")


def graded_validation(manifest: Manifest, fold: int | None) -> list[Photograph]:
    """Select the graded training photographs of ``fold`` that have no outlined copy."""
    return _inside(manifest, _graded(manifest), fold, "graded photographs to validate on, without an outlined copy")


def graded_where(manifest: Manifest, fold: int | None, wanted: bool) -> list[Photograph]:
    """Return :func:`graded_training` if a training needs graded photographs, else an empty list.

    Example:
        >>> graded_where(Manifest(name="clinic", roots={}, folds=2, seed=0, photographs=()), fold=None, wanted=False)
        []
    """
    return graded_training(manifest, fold) if wanted else []


def graded_copies(manifest: Manifest) -> list[Photograph]:
    """Select the graded photographs of the training split that no grader is trained on: each has an outlined copy."""
    outlined = {row.group for row in manifest.photographs if row.outlined}
    train = (row for row in manifest.photographs if row.split == "train")
    return [row for row in train if row.grade is not None and row.group in outlined]


def lesion_labelling(manifest: Manifest) -> list[Photograph]:
    """Select the photographs that get a pseudo-label: all outlined ones that training may use."""
    return lesion_training(manifest, fold=None)


def evaluation(manifest: Manifest, fold: int | None, task: Literal["lesions", "grade"]) -> tuple[str, list[Photograph]]:
    """Select the photographs that a task is measured on: the official test split, else the held-out fold.

    For grading, the test split contributes every photograph whose own file is graded, as in published results; copies
    do not change it. A fold contributes one photograph of each group, and the grade of any copy counts.

    Returns:
        Name of the subset (``test`` or ``fold K``) and its photographs.

    Raises:
        ValueError: if the task is unknown, or neither subset has a photograph for it.
    """
    if task not in TASKS:
        raise ValueError(f"expected task 'lesions' or 'grade', got {task!r}")
    _check_fold(manifest, fold)
    subsets = _subsets(manifest, fold, task)
    if not subsets["test"] and not subsets["fold"]:
        raise ValueError(
            f"manifest {manifest.name!r}: expected photographs to measure {task!r} on, in the test split or in fold "
            f"{fold}, found none; hold out a fold in 0-{manifest.folds - 1}"
        )
    return ("test", subsets["test"]) if subsets["test"] else (f"fold {fold}", subsets["fold"])


def scored(manifest: Manifest, fold: int | None, split: str | None = None) -> dict[str, tuple[str, list[Photograph]]]:
    """Select the photographs that ``lesions``, ``grade`` and ``grade_with_copies`` are measured on, possibly none.

    Args:
        manifest: any manifest.
        fold: fold that was held out of the training, if that used this manifest.
        split: ``test``, ``fold``, ``train`` or ``all``. None takes, for each task, the test split if it has photographs
            for it, else the fold, or all photographs without a fold. ``train`` and ``all`` contain no copies.

    Returns:
        For each task, the name of the subset, ``none`` if it is empty, and its photographs.

    Raises:
        ValueError: if the split or the fold does not exist, or there are no photographs for either task.
    """
    if split not in (None, *SPLITS_SCORED):
        raise ValueError(f"expected --split out of {list(SPLITS_SCORED)}, or none, got {split!r}")
    _check_fold(manifest, fold)
    found = {task: _scored(manifest, fold, task, split) for task in TASKS}
    if not any(rows for _, rows in found.values()):
        raise ValueError(
            f"manifest {manifest.name!r}: expected outlined or graded photographs to measure on (split {split}, fold "
            f"{fold}), found none; choose another --split out of {list(SPLITS_SCORED)}"
        )
    with_copies = evaluation_with_copies(manifest) if split in (None, "test") else ("", [])
    return {**found, "grade_with_copies": with_copies if with_copies[1] else ("none", [])}


def _scored(manifest: Manifest, fold: int | None, task: str, split: str | None) -> tuple[str, list[Photograph]]:
    subsets = _subsets(manifest, fold, task)
    wanted = ("test", "all" if fold is None else "fold") if split is None else (split,)
    name = next((name for name in wanted if subsets[name]), None)
    if name is None:
        return "none", []
    return f"fold {fold}" if name == "fold" else name, subsets[name]


def _subsets(manifest: Manifest, fold: int | None, task: str) -> dict[str, list[Photograph]]:
    """Map each subset to the photographs that a task can be measured on."""
    if task == "lesions":
        own = able = [row for row in manifest.photographs if row.outlined]
    else:
        own, able = [row for row in manifest.photographs if row.grade is not None], _one_per_group(manifest)
    kept = [row for row in able if not row.left_out]
    return {
        "test": [row for row in own if row.split == "test"],
        "fold": [row for row in able if fold is not None and row.fold == fold],
        "train": [row for row in kept if row.split == "train"],
        "all": kept,
    }


def training_grades(manifest: Manifest, fold: int | None, was_trained_on: bool) -> list[int]:
    """List the grades that a training on this manifest used; none if the weights were trained on another one.

    Example:
        >>> training_grades(Manifest(name="clinic", roots={}, folds=2, seed=0, photographs=()), None, True)
        []
    """
    rows = [row for row in _graded(manifest) if fold is None or row.fold != fold] if was_trained_on else []
    return [row.grade for row in rows if row.grade is not None]


def counts(outlined: Iterable[Photograph], graded: Iterable[Photograph]) -> dict[str, dict[str, int]]:
    """Count the photographs of a training by data set, as recorded in its weights file.

    Example:
        >>> known = {"split": "train", "sha256": "0" * 64, "perceptual_hash": "0" * 64, "width_px": 6, "height_px": 4}
        >>> names = ("idrid/1", "idrid/2", "ddr/1")
        >>> rows = [Photograph(id=name, image=f"{name}.jpg", group=name, **known) for name in names]
        >>> counts(rows[:2], rows[2:])
        {'ddr': {'outlined': 0, 'graded': 1}, 'idrid': {'outlined': 2, 'graded': 0}}
    """
    found = {"outlined": Counter(row.dataset for row in outlined), "graded": Counter(row.dataset for row in graded)}
    names = sorted({name for counter in found.values() for name in counter})
    return {name: {kind: counter[name] for kind, counter in found.items()} for name in names}


def evaluation_with_copies(manifest: Manifest) -> tuple[str, list[Photograph]]:
    """Select the graded test photographs, and the test photographs of which only a copy in another split is graded.

    This set is larger than the official test split and differs from it, so it is not comparable with published results.
    A group without an official grade is represented by its first photograph.

    Returns:
        Name of the subset, and its photographs; none if the copies add none.
    """
    test = [row for row in manifest.photographs if row.split == "test"]
    official = {row.group for row in test if row.grade is not None}
    added = {row.id for row in _one_per_group(manifest) if row.split == "test" and row.group not in official}
    rows = [row for row in test if row.grade is not None or row.id in added]
    return "test and copies", rows if added else []


def training(manifest: Manifest, fold: int | None) -> list[Photograph]:
    """Select the outlined or graded training photographs outside ``fold``, one of each group of copies."""
    return _outside(manifest, _known(manifest), fold, "photographs to train on")


def validation(manifest: Manifest, fold: int | None) -> list[Photograph]:
    """Select the outlined or graded training photographs of ``fold``, one of each group of copies."""
    return _inside(manifest, _known(manifest), fold, "photographs to validate on")


def fold_is_lesion_test(manifest: Manifest, fold: int | None) -> bool:
    """Return whether lesions are measured on the held-out fold; then nothing may be fitted on it."""
    return fold is not None and any(row.split != "test" for row in evaluation(manifest, fold, "lesions")[1])


def _outlined(manifest: Manifest) -> list[Photograph]:
    return [row for row in _trainable(manifest) if row.outlined]


def _graded(manifest: Manifest) -> list[Photograph]:
    """Select graded photographs without an outlined copy; if copies are graded differently, their grade is unknown."""
    outlined = {row.group for row in manifest.photographs if row.outlined}
    known = set(manifest.known_grades()) - outlined
    return [row for row in _trainable(manifest) if row.grade is not None and row.group in known]


def _known(manifest: Manifest) -> list[Photograph]:
    """Select one outlined photograph of each group, or the first graded one where none is outlined."""
    rows = [row for row in _trainable(manifest) if row.outlined or row.grade is not None]
    first = {row.group: row for row in sorted(reversed(rows), key=lambda row: row.outlined)}
    return [row for row in rows if first[row.group] is row]


def _trainable(manifest: Manifest) -> Iterable[Photograph]:
    return (row for row in manifest.photographs if row.split == "train" and not row.left_out)


def _one_per_group(manifest: Manifest) -> list[Photograph]:
    """Select, in each split, the first photograph of each group whose grade is known."""
    known = manifest.known_grades()
    first = {(row.split, row.group): row for row in reversed(manifest.photographs) if row.group in known}
    return [row for row in manifest.photographs if first.get((row.split, row.group)) is row]


def _outside(manifest: Manifest, rows: list[Photograph], fold: int | None, what: str) -> list[Photograph]:
    _check_fold(manifest, fold)
    return _some([row for row in rows if fold is None or row.fold != fold], manifest, fold, what)


def _inside(manifest: Manifest, rows: list[Photograph], fold: int | None, what: str) -> list[Photograph]:
    _check_fold(manifest, fold)
    if fold is None:
        return []
    return _some([row for row in rows if row.fold == fold], manifest, fold, what)


def _some(rows: list[Photograph], manifest: Manifest, fold: int | None, what: str) -> list[Photograph]:
    if not rows:
        raise ValueError(
            f"manifest {manifest.name!r}: expected {what} (fold {fold} of {manifest.folds}), found none; prepare a "
            f"data set that has some, or choose other folds"
        )
    return rows


def _check_fold(manifest: Manifest, fold: int | None) -> None:
    if fold is not None and (isinstance(fold, bool) or fold not in range(manifest.folds)):
        raise ValueError(f"manifest {manifest.name!r}: expected a fold in 0-{manifest.folds - 1} or none, got {fold!r}")
