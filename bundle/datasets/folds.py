"""Grouping of copies and patients, exclusion of leaks from training, dealing of folds, and joining of data sets."""

from collections import Counter, defaultdict
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import numpy as np
from bundle.datasets.copies import Pairs, group_copies, near_pairs, unpack
from bundle.datasets.notes import kind_of
from bundle.datasets.patients import both_eyes
from bundle.datasets.readers.files import names
from bundle.datasets.readers.raw import OUTLINES_NOTE
from bundle.manifest import Manifest, Photograph

COPY, SAME_PATIENT = "copy of the test photograph ", "same patient as the test photograph "
"""Reasons to leave a training photograph out, each before the id of the test photograph."""


def deal(
    name: str,
    roots: Mapping[str, Path],
    photographs: Sequence[Photograph],
    folds: int,
    seed: int,
    notes: Iterable[str] = (),
    keep_leaks: bool = False,
) -> Manifest:
    """Group copies by perceptual hash, exclude training photographs that leak into the test split, and deal the folds.

    Copies of one photograph and photographs of one patient stay together, directly or through a chain. Training
    photographs that stay with a test photograph are left out of training; the test split stays complete.

    Args:
        name: name of the manifest.
        roots: folders by name; the photographs' paths begin with one of these names.
        photographs: rows of one or several data sets; their groups, folds and exclusions are determined again.
        folds: number of cross-validation folds.
        seed: seed of the folds.
        notes: earlier notes; the notes of this function are appended.
        keep_leaks: keep copies of test photographs, and photographs of patients in the test, in training, and note it.

    Raises:
        ValueError: if there is no photograph, two share an id, or there are too few for the folds.
    """
    if not photographs:
        raise ValueError(f"data set {name!r}: expected at least one photograph that can be used, got none")
    rows = sorted(photographs, key=lambda row: row.id)
    hashes = unpack([row.perceptual_hash for row in rows])
    first = group_copies(len(rows), near_pairs(hashes))
    groups = [rows[index].id for index in first]
    rows = [replace(row, group=group, fold=None, left_out=None) for row, group in zip(rows, groups, strict=True)]
    together = _together(rows)
    leaks = _leaks(rows, together)
    if not keep_leaks:
        rows = [replace(row, left_out=leaks.get(row.id)) for row in rows]
    fold_of = _folds(rows, together, folds, seed)
    return Manifest(
        name=name,
        roots=dict(roots),
        folds=folds,
        seed=seed,
        photographs=tuple(replace(row, fold=fold_of.get(row.id)) for row in rows),
        notes=(
            *notes,
            *_copy_notes(rows),
            *_grade_notes(rows),
            *_leak_notes(leaks, keep_leaks),
            *_shared_id_notes(rows),
            *_side_notes(rows),
        ),
    )


def join(
    name: str,
    manifests: Sequence[Manifest],
    folds: int,
    seed: int,
    keep_leaks: bool = False,
    same_patients: bool = False,
) -> Manifest:
    """Make one manifest from several: copies are searched for across them, and the folds are dealt again.

    No photograph is opened, because a manifest contains everything the audit needs.

    Args:
        name: name of the new manifest.
        manifests: manifests of different data sets.
        folds: number of cross-validation folds.
        seed: seed of the folds.
        keep_leaks: as in :func:`deal`.
        same_patients: the same id of a patient in two data sets is the same patient. Otherwise these are two patients,
            because many data sets simply count theirs.

    Raises:
        ValueError: if there are fewer than two, two contain the same data set, or as in :func:`deal`.

    Example:
        >>> manifest = Manifest(name="clinic", roots={"clinic": Path("/data")}, folds=2, seed=0, photographs=())
        >>> join("both", [manifest, manifest], folds=2, seed=0)
        Traceback (most recent call last):
            ...
        ValueError: expected different data sets to join, got ['clinic'] twice; give one another --name
    """
    if len(manifests) < 2:
        raise ValueError(f"expected at least two manifests to join, got {len(manifests)}")
    twice = [root for root, count in Counter(root for one in manifests for root in one.roots).items() if count > 1]
    if twice:
        raise ValueError(f"expected different data sets to join, got {sorted(twice)} twice; give one another --name")
    roots = {root: path for one in manifests for root, path in one.roots.items()}
    notes = [  # all other notes are made again
        f"{one.name}: {note}" for one in manifests for note in one.notes if OUTLINES_NOTE in note or kind_of(note)
    ]
    rows = [row for one in manifests for row in one.photographs]
    if same_patients:
        rows = [replace(row, patient=f"{name}/{_digits(row.patient)}" if row.patient else None) for row in rows]
    return deal(name, roots, rows, folds, seed, notes, keep_leaks)


def stratified_folds(
    groups: Sequence[Hashable], strata: Sequence[Collection[Hashable]], folds: int, seed: int
) -> list[int]:
    """Deal photographs into folds of similar composition without splitting a group.

    Groups are dealt one by one, rarest stratum first. Each goes to the fold that so far has the smallest share
    ``sum_s n_s / N_s`` of the group's strata; ties go to the fold with the fewest photographs.

    Args:
        groups: group of each photograph; copies of one photograph share a group, and so do those of one patient.
        strata: properties to balance, any number per photograph, such as its grade and each of its lesions.
        folds: number of folds.
        seed: seed of the order in which groups of equally rare strata are dealt.

    Returns:
        The fold of each photograph, in ``0..folds-1``.

    Raises:
        ValueError: if there are fewer than 2 folds, or fewer groups than folds.

    Example:
        >>> stratified_folds(groups=["a", "a", "b", "c"], strata=[[0], [0], [0], [1]], folds=2, seed=0)
        [1, 1, 0, 0]

    Source:
        Sechidis et al., "On the Stratification of Multi-label Data", ECML PKDD 2011.
    """
    strata_of: dict[Hashable, list[Hashable]] = defaultdict(list)
    size = Counter(groups)
    for group, found in zip(groups, strata, strict=True):
        strata_of[group] += found
    if folds < 2 or len(size) < folds:
        raise ValueError(
            f"expected at least 2 folds and as many different photographs, or patients where they are known, got "
            f"{folds} folds and {len(size)} photographs to train on; choose other --folds"
        )
    total = Counter(stratum for found in strata_of.values() for stratum in found)
    ordered = sorted(size, key=str)
    order = [ordered[i] for i in np.random.default_rng(seed).permutation(len(ordered))]
    order.sort(key=lambda group: min((total[stratum] for stratum in strata_of[group]), default=len(groups)))
    dealt: list[Counter] = [Counter() for _ in range(folds)]
    photographs = [0] * folds
    fold_of = {}
    for group in order:
        found = strata_of[group]
        share = [sum(filled[stratum] / total[stratum] for stratum in found) for filled in dealt]
        fold_of[group] = fold = min(range(folds), key=lambda fold: (round(share[fold], 9), photographs[fold]))
        dealt[fold].update(found)
        photographs[fold] += size[group]
    return [fold_of[group] for group in groups]


def _together(rows: Sequence[Photograph]) -> dict[str, str]:
    """Map the id of each photograph to the id of the first one in the part of the data that is never divided.

    Two photographs are in the same part if they share a group or a patient, directly or through a chain of others.
    """
    first_of: dict[tuple[str, str], int] = {}
    shared = [(place, ("group", row.group)) for place, row in enumerate(rows)]
    shared += [(place, ("patient", row.patient)) for place, row in enumerate(rows) if row.patient is not None]
    links = np.array([(first_of.setdefault(key, place), place) for place, key in shared])  # (links, 2)
    first = group_copies(len(rows), Pairs(links[:, 0], links[:, 1], np.zeros(len(links), np.int64)))
    return {row.id: rows[index].id for row, index in zip(rows, first, strict=True)}


def _leaks(rows: Sequence[Photograph], together: Mapping[str, str]) -> dict[str, str]:
    """Map the id of each training photograph that belongs with a test photograph to the reason to exclude it."""
    tests = [row for row in rows if row.split == "test"]
    copied, seen = {row.group: row.id for row in tests}, {together[row.id]: row.id for row in tests}
    return {
        row.id: COPY + copied[row.group] if row.group in copied else SAME_PATIENT + seen[together[row.id]]
        for row in rows
        if row.split == "train" and together[row.id] in seen
    }


def _folds(rows: Sequence[Photograph], together: Mapping[str, str], folds: int, seed: int) -> dict[str, int]:
    """Deal the photographs that training may use, balancing outlined ones, each lesion, and each grade."""
    kept = [row for row in rows if row.split == "train" and not row.left_out]
    strata = [
        ["outlined"] * row.outlined + sorted(row.masks) + [f"grade {row.grade}"] * (row.grade is not None)
        for row in kept
    ]
    dealt = stratified_folds([together[row.id] for row in kept], strata, folds, seed)
    return {row.id: fold for row, fold in zip(kept, dealt, strict=True)}


def _copy_notes(rows: Sequence[Photograph]) -> list[str]:
    sizes = [count for count in Counter(row.group for row in rows).values() if count > 1]
    if not sizes:
        return []
    return [f"{sum(sizes)} files show only {len(sizes)} different photographs, up to {max(sizes)} copies of one"]


def _grade_notes(rows: Sequence[Photograph]) -> list[str]:
    grades = defaultdict(set)
    for row in rows:
        if row.grade is not None:
            grades[row.group].add(row.grade)
    torn = [group for group, different in grades.items() if len(different) > 1]
    return (
        [f"{len(torn)} photographs whose copies differ in grade count as ungraded: {names(torn, 20)}"] if torn else []
    )


def _leak_notes(leaks: Mapping[str, str], kept: bool) -> list[str]:
    if not leaks:
        return []
    where = "kept in training though" if kept else "taken out of training as"
    patients = {row for row, reason in leaks.items() if reason.startswith(SAME_PATIENT)}
    listed = {"copies of test photographs": leaks.keys() - patients, "photographs of patients in the test": patients}
    return [f"{where} {what}: {len(found)} ({names(found, 20)})" for what, found in listed.items() if found]


def _shared_id_notes(rows: Iterable[Photograph]) -> list[str]:
    """Note ids of patients that occur in several data sets: they may or may not be the same patients."""
    known = {row.patient for row in rows if row.patient is not None}
    shared = [count for count in Counter(map(_digits, known)).values() if count > 1]
    what = "ids of patients occur in more than one data set and count as different patients; if they are the same"
    return [f"{len(shared)} {what}, join with --same_patients"] if shared else []


def _digits(patient: str) -> str:
    """Return a patient's pseudonym without the name of the data set."""
    return patient.rpartition("/")[2]


def _side_notes(rows: Iterable[Photograph]) -> list[str]:
    """Note names that look like both eyes of a patient, in each data set that has photographs of unknown patients."""
    names_of = defaultdict(set)
    for row in rows:
        if row.patient is None:
            names_of[row.dataset].add(PurePosixPath(row.image).stem)
    found = {dataset: pairs for dataset, listed in names_of.items() if (pairs := both_eyes(listed))}
    return [
        f"{dataset}: {len(pairs)} pairs of names differ in the side of the eye alone ({' and '.join(pairs[0].names)}): "
        f"both eyes of a patient may lie in two folds or splits. To keep them together, prepare --dataset folder with "
        f'--patient_pattern "{pairs[0].pattern}", or with --patient_column'
        for dataset, pairs in found.items()
    ]
