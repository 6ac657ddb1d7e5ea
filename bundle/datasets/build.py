"""Make the manifest: open every photograph once, find the copies, deal the folds."""

import os
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from bundle.datasets.audit import group_copies, perceptual_hash
from bundle.datasets.raw import RawPhotograph
from bundle.datasets.splits import stratified_folds
from bundle.manifest import Manifest, Photograph, file_sha256

HASHED_SIDE_PX = 256
"""Shortest side at which a photograph is decoded for the audit."""

FieldOfView = Callable[[NDArray[np.uint8]], tuple[int, int, int, int]]


class Inspection(NamedTuple):
    """What opening a photograph and its masks showed."""

    width_px: int
    height_px: int
    image_sha256: str
    sha256: str
    perceptual: NDArray[np.bool_]
    lesions: frozenset[str]


def build_manifest(
    name: str,
    rows: Sequence[RawPhotograph],
    root: str | os.PathLike,
    field_of_view: FieldOfView,
    *,
    folds: int = 5,
    seed: int = 0,
    notes: Iterable[str] = (),
) -> Manifest:
    """Open and hash every photograph, group the copies, leave out what would leak, deal the folds.

    Training photographs that are copies of a test photograph are left out of training. A lesion whose mask holds no
    pixel is absent, and loses its mask.

    Args:
        name: of the data set; first part of every id.
        rows: what a reader found.
        root: folder that their paths are relative to.
        field_of_view: ``(H, W)`` grey image to the ``(left, top, right, bottom)`` of its round field.
        folds: number of cross-validation folds.
        seed: of the folds.
        notes: of the reader; what is found here comes after them.

    Raises:
        ValueError: if there is no row, an image or mask cannot be decoded whole, has no field of view, a mask is not
            of its image's size, or there are too few photographs for the folds.
    """
    if not rows:
        raise ValueError(f"data set {name!r}: expected at least one photograph, got none")
    root = Path(root).resolve()
    rows = sorted(rows, key=lambda row: row.id)
    inspections = _inspect_all(rows, root, field_of_view)
    first = group_copies(np.stack([found.perceptual for found in inspections]))
    groups = [f"{name}/{rows[index].id}" for index in first]
    left_out = _left_out(name, rows, groups)
    fold_of = _folds(rows, inspections, groups, left_out, folds, seed)
    photographs = tuple(
        _photograph(name, row, found, group, fold_of.get(row.id), left_out.get(row.id))
        for row, found, group in zip(rows, inspections, groups, strict=True)
    )
    found_here = [*_copy_notes(groups, inspections), *_grade_notes(rows, groups), *_left_out_notes(name, left_out)]
    return Manifest(name=name, root=root, folds=folds, seed=seed, photographs=photographs, notes=(*notes, *found_here))


def _inspect_all(rows: Sequence[RawPhotograph], root: Path, field_of_view: FieldOfView) -> list[Inspection]:
    # Threads suffice: decoding and hashing release the interpreter lock.
    with ThreadPoolExecutor() as pool:
        futures = [pool.submit(_inspect, row, root, field_of_view) for row in rows]
        try:
            return [future.result() for future in tqdm(futures, desc="opening photographs", disable=None)]
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _inspect(row: RawPhotograph, root: Path, field_of_view: FieldOfView) -> Inspection:
    path = root / row.image
    size, grey = _decode(path, "L")
    try:
        box = field_of_view(np.asarray(grey))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    masks = {lesion: root / mask for lesion, mask in row.masks.items()}
    others = [root / row.optic_disc] if row.optic_disc else []
    drawn = frozenset(lesion for lesion, mask in masks.items() if _is_drawn(mask, path, size))
    for mask in others:
        _is_drawn(mask, path, size)
    return Inspection(
        *size,
        image_sha256=file_sha256([path]),
        sha256=file_sha256([path, *sorted([*masks.values(), *others])]),
        perceptual=perceptual_hash(grey.crop(box)),
        lesions=drawn,
    )


def _decode(path: Path, mode: str | None = None) -> tuple[tuple[int, int], Image.Image]:
    """Return native size and image; a JPEG in a given mode comes reduced, yet every byte of it is read."""
    try:
        with Image.open(path) as image:
            size = image.size
            if mode:
                image.draft(mode, (HASHED_SIDE_PX, HASHED_SIDE_PX))
            image.load()
    except OSError as error:
        raise ValueError(f"expected a whole image in {path}, got one that cannot be decoded: {error}") from None
    return size, image.convert(mode) if mode else image


def _is_drawn(mask: Path, image: Path, size: tuple[int, int]) -> bool:
    """Tell whether a mask holds a pixel, having checked it."""
    mask_size, content = _decode(mask)
    if mask_size != size:
        raise ValueError(
            f"expected a mask of {size[0]}x{size[1]} px as {image}, got {mask_size[0]}x{mask_size[1]} px in {mask}"
        )
    if len(content.getbands()) != 1:
        raise ValueError(f"expected a mask of one channel, got {content.mode} in {mask}")
    return content.getbbox() is not None


def _left_out(name: str, rows: Sequence[RawPhotograph], groups: Sequence[str]) -> dict[str, str]:
    """Map the id of each training photograph that is a copy of a test photograph to that reason."""
    tests = {group: row.id for row, group in zip(rows, groups, strict=True) if row.split == "test"}
    return {
        row.id: f"copy of the test photograph {name}/{tests[group]}"
        for row, group in zip(rows, groups, strict=True)
        if row.split == "train" and group in tests
    }


def _folds(
    rows: Sequence[RawPhotograph],
    inspections: Sequence[Inspection],
    groups: Sequence[str],
    left_out: dict[str, str],
    folds: int,
    seed: int,
) -> dict[str, int]:
    """Deal the photographs that training may see, balancing outlined ones, each lesion, and each grade."""
    kept = [
        (row.id, group, _strata(row, found))
        for row, found, group in zip(rows, inspections, groups, strict=True)
        if row.split == "train" and row.id not in left_out
    ]
    ids, kept_groups, strata = zip(*kept, strict=True) if kept else ((), (), ())
    return dict(zip(ids, stratified_folds(kept_groups, strata, folds, seed), strict=True))


def _strata(row: RawPhotograph, found: Inspection) -> list[str]:
    grade = [f"grade {row.grade}"] if row.grade is not None else []
    return [*(["outlined"] if row.annotated else []), *sorted(found.lesions), *grade]


def _photograph(
    name: str, row: RawPhotograph, found: Inspection, group: str, fold: int | None, left_out: str | None
) -> Photograph:
    return Photograph(
        id=f"{name}/{row.id}",
        image=row.image,
        split=row.split,
        sha256=found.sha256,
        width_px=found.width_px,
        height_px=found.height_px,
        grade=row.grade,
        annotated=row.annotated,
        masks={lesion: path for lesion, path in row.masks.items() if lesion in found.lesions},
        optic_disc=row.optic_disc,
        group=group,
        fold=fold,
        left_out=left_out,
    )


def _copy_notes(groups: Sequence[str], inspections: Sequence[Inspection]) -> list[str]:
    sizes = [count for count in Counter(groups).values() if count > 1]
    if not sizes:
        return []
    identical = len(inspections) - len({found.image_sha256 for found in inspections})
    return [
        f"{sum(sizes)} files show only {len(sizes)} different photographs, up to {max(sizes)} copies of one; "
        f"{identical} of the files are copies byte for byte"
    ]


def _grade_notes(rows: Sequence[RawPhotograph], groups: Sequence[str]) -> list[str]:
    grades = defaultdict(set)
    for row, group in zip(rows, groups, strict=True):
        if row.grade is not None:
            grades[group].add(row.grade)
    torn = sorted(group for group, found in grades.items() if len(found) > 1)
    return [f"{len(torn)} photographs whose copies differ in grade count as ungraded: {_list(torn)}"] if torn else []


def _left_out_notes(name: str, left_out: dict[str, str]) -> list[str]:
    if not left_out:
        return []
    ids = _list([f"{name}/{row}" for row in sorted(left_out)])
    return [f"left out of training as copies of test photographs: {len(left_out)} ({ids})"]


def _list(names: Sequence[str], count: int = 20) -> str:
    return ", ".join(names[:count]) + (", ..." if len(names) > count else "")
