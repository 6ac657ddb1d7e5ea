"""Reader of your own photographs: a folder of images, with folders of masks, a table of grades, or both."""

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

import numpy as np
from bundle.datasets.patients import patients_in_headers, patients_in_names
from bundle.datasets.readers.files import (
    PICTURE_SUFFIXES,
    Gaps,
    masks_of,
    names,
    read_columns,
    read_grades,
    read_patients,
    read_splits,
)
from bundle.datasets.readers.raw import OPTIC_DISC, Drawn, RawPhotograph, Reading
from bundle.labels import LESIONS
from bundle.transforms.decode import IMAGE_SUFFIXES, decode_mask, mask_levels
from bundle.transforms.dicom import is_dicom
from numpy.typing import NDArray
from PIL import Image

ROLES = {lesion: lesion for lesion in LESIONS} | {"OD": OPTIC_DISC}
"""Role of each code in ``masks`` and ``indices``."""

OUTLINED = ("all", "masked")
"""Photographs that were searched for lesions: all, or those that have a mask of one."""


def read_folder(
    root: str | os.PathLike,
    *,
    images: str = "images",
    masks: str | None = None,
    indexed_masks: str | None = None,
    indices: str | None = None,
    mask_min: int | None = None,
    outlined: str | None = None,
    grades: str | None = None,
    table: str | None = None,
    name_column: str = "image",
    grade_column: str = "grade",
    split_column: str | None = None,
    patient_column: str | None = None,
    patient_pattern: str | None = None,
    columns: str | None = None,
    allow_missing: bool = False,
) -> Reading:
    """Read one folder of images. Images and masks are not opened, except that DICOM headers may state the patient.

    On an outlined photograph each of the listed lesions was looked for, and a lesion without a file is absent. With
    masks alone, every photograph counts as outlined. With masks and grades, a photograph without any mask may be free
    of lesions or not outlined at all; ``outlined`` says which. Outlined photographs need no grade, others no mask.

    Args:
        root: base folder; all other folders are given relative to it.
        images: folder of the photographs, of any suffix in ``PICTURE_SUFFIXES``, or DICOM without one; everything else
            in it is noted.
        masks: a folder for each outlined lesion, and ``OD`` for the optic disc, as ``MA=masks/ma,EX=masks/ex``. A mask
            has the name of its image, or ``<image>_MA``, and two values, 0 and another, unless ``mask_min`` is given.
        indexed_masks: instead of ``masks``, one folder of masks with an index for each lesion; each mask has the name
            of its image.
        indices: index of each lesion, as ``EX=1,HE=2,MA=3,SE=4``; 0 is background.
        mask_min: smallest grey value, 1-255, at which a pixel of ``masks`` belongs to the lesion.
        outlined: which photographs were searched for lesions: ``all``, or ``masked``, those with a mask of a lesion.
        grades: table of ICDRS grades (:func:`bundle.datasets.readers.files.read_grades`), below ``root`` or as an
            absolute path.
        table: table of the splits, patients and further columns, if it is not that of the grades.
        name_column: column of these tables with the names of the photographs.
        grade_column: column of ``grades`` with the grades.
        split_column: column with ``train`` or ``test``. Without it, all photographs are ``train``.
        patient_column: column with the ids of the patients.
        patient_pattern: instead of ``patient_column``, regular expression whose first group is the patient in the name
            of an image without its suffix, as ``(.+)_(left|right)``; it must match the whole name. Without either, the
            patient is the one in the header of a DICOM file, and unknown for other images.
        columns: further columns of this table to keep, as ``site,camera``; an empty cell is an unknown value. No other
            column is read, because tables may name patients.
        allow_missing: leave out images with neither a grade nor outlines, without a split or without a patient, and
            masks and rows without an image, and list them in the notes. The lack of a grade leaves no outlined
            photograph out. Misnamed masks, or a folder of masks none of which has a photograph, are refused even so.

    Raises:
        ValueError: if options contradict each other or lead out of ``root``, a folder or table is missing or not as
            described, or something else is missing.
    """
    root = Path(root).resolve()
    _check_options(masks, indexed_masks, indices, mask_min, outlined, grades)
    _check_table_options(grades, table, split_column, patient_column, patient_pattern, columns)
    kept = _kept_columns(columns, name_column, grade_column, split_column, patient_column)
    if not root.is_dir():
        raise ValueError(f"expected the folder of the photographs, found none at {root}")
    gaps = Gaps("photographs", root)
    images_found = _find_images(_below(root, "images", images), gaps)
    is_graded = grades is not None
    masks_found = _find_masks(root, masks, images_found, gaps) if masks is not None else {}
    searched, indexed = _searched(images_found, masks_found, outlined, is_graded), dict[str, Path]()
    if indexed_masks is not None:
        folder = _below(root, "indexed_masks", indexed_masks)
        searched = indexed = _find_indexed_masks(folder, images_found, is_graded, gaps)
    grade_of: Mapping[str, int | None] = {}
    if grades is not None:
        grade_of = _read_listed(_table(root, grades), name_column, grade_column, images_found, searched, gaps)
    rows = {
        stem: RawPhotograph(id=_id(stem, "train"), image=image, split="train", grade=grade_of.get(stem))
        for stem, image in images_found.items()
        if stem in searched or grade_of.get(stem) is not None
    }
    listing = str(grades if table is None else table)
    if split_column is not None:
        rows = _with_splits(rows, _table(root, listing), name_column, split_column, gaps)
    if patient_pattern is not None:
        named = f"a name that --patient_pattern '{patient_pattern}' matches"
        rows = _with_patients(rows, patients_in_names(rows, patient_pattern), named, gaps)
    elif patient_column is not None:
        patients = read_patients(_table(root, listing), name_column, patient_column)
        rows = _with_patients(rows, patients, f"a patient in column {patient_column!r}", gaps)
    else:
        stated = patients_in_headers(images_found)
        rows = {stem: replace(row, patient=stated.get(stem)) for stem, row in rows.items()}
    if kept:
        values = read_columns(_table(root, listing), name_column, kept)
        rows = {stem: replace(row, columns=values.get(stem, {})) for stem, row in rows.items()}
    if masks is not None:
        rows = _with_masks(rows, masks_found, searched, mask_min)
    if indices is not None:
        rows = _with_indices(rows, indexed, _read_indices(indices))
    notes = gaps.notes(allow_missing)
    if not any(row.annotated or row.grade is not None for row in rows.values()):
        raise ValueError(f"expected photographs with a grade or with outlines of lesions in {root}, found none")
    further = [*(_ungraded_notes(rows) if is_graded else []), *_valueless_notes(rows, kept)]
    return Reading(list(rows.values()), [*notes, *_unknown_notes(rows.values()), *further])


def _check_options(
    masks: str | None,
    indexed_masks: str | None,
    indices: str | None,
    mask_min: int | None,
    outlined: str | None,
    grades: str | None,
) -> None:
    wrong = {
        "expected --masks, --indexed_masks or --grades, got none: nothing would be known of the photographs": (
            masks is None and indexed_masks is None and grades is None
        ),
        "expected --masks or --indexed_masks, got both": masks is not None and indexed_masks is not None,
        "expected --indexed_masks and --indices together, got one of them": (indexed_masks is None)
        != (indices is None),
        "expected --masks with --mask_min, got none": mask_min is not None and masks is None,
        "expected --masks and --grades with --outlined, got one of them or none": (
            outlined is not None and (masks is None or grades is None)
        ),
        f"expected --outlined out of {', '.join(OUTLINED)}, got {outlined!r}": outlined not in (None, *OUTLINED),
        f"expected --mask_min as a whole number in 1-255, got {mask_min!r}": (
            mask_min is not None and (isinstance(mask_min, bool) or mask_min not in range(1, 256))
        ),
    }
    for message, is_wrong in wrong.items():
        if is_wrong:
            raise ValueError(message)


def _check_table_options(
    grades: str | None,
    table: str | None,
    split_column: str | None,
    patient_column: str | None,
    patient_pattern: str | None,
    columns: str | None,
) -> None:
    of_table = {"--split_column": split_column, "--patient_column": patient_column, "--columns": columns}
    given = [option for option, value in of_table.items() if value is not None]
    if patient_column is not None and patient_pattern is not None:
        raise ValueError("expected --patient_column or --patient_pattern, got both")
    if given and grades is None and table is None:
        raise ValueError(f"expected --table or --grades with {given[0]}, got none: the column is one of such a table")
    if table is not None and not given:
        raise ValueError("expected --table with --split_column, --patient_column or --columns, got none of them")


def _kept_columns(columns: str | None, *others: str | None) -> list[str]:
    """Read ``site,camera``; refuse the columns that have an option of their own."""
    if columns is None:
        return []
    kept, taken = [name.strip() for name in columns.split(",")], {name.lower() for name in others if name}
    if not all(kept) or len({name.lower() for name in kept}) < len(kept):
        raise ValueError(f"expected --columns as different names of columns, separated by commas, got {columns!r}")
    if refused := [name for name in kept if name.lower() in taken]:
        raise ValueError(
            f"expected --columns without those of names, grades, splits and patients, got {refused[0]!r}: these are "
            f"read already, and ids of patients are not to be shown"
        )
    return kept


def _below(root: Path, option: str, text: str) -> Path:
    """Return a folder below ``root``; refuse any other."""
    folder = PurePath(text)
    if folder.is_absolute() or ".." in folder.parts:
        raise ValueError(f"expected --{option} to name a folder below {root}, got {text!r}")
    if not (root / folder).is_dir():
        raise ValueError(f"expected a folder at {root / folder}, named by --{option}, found none")
    return root / folder


def _table(root: Path, text: str) -> Path:
    if ".." in PurePath(text).parts:
        raise ValueError(f"expected --grades and --table to name tables below {root}, or absolute paths, got {text!r}")
    return root / text


def _pairs(option: str, text: str) -> dict[str, str]:
    """Read ``CODE=value,CODE=value``."""
    pairs = [pair.partition("=") for pair in text.split(",")]
    found = {code.strip(): value.strip() for code, _, value in pairs}
    if len(found) < len(pairs) or not found.keys() <= ROLES.keys() or not all(found.values()):
        raise ValueError(
            f"expected --{option} as CODE=..., separated by commas, with codes out of {', '.join(ROLES)}, each once, "
            f"got {text!r}"
        )
    return found


def _find_images(folder: Path, gaps: Gaps) -> dict[str, Path]:
    found = gaps.files(folder, *PICTURE_SUFFIXES, also=is_dicom)
    if not found:
        raise ValueError(
            f"expected photographs ({', '.join(PICTURE_SUFFIXES)}) in {folder}, found "
            f"{names(path.name for path in folder.iterdir())}"
        )
    return found


def _searched(
    images: Collection[str], masks: Mapping[str, Mapping[str, Path]], outlined: str | None, is_graded: bool
) -> Collection[str]:
    """Select the photographs on which lesions were looked for; refuse to guess where both answers are possible."""
    lesions = [found for code, found in masks.items() if code in LESIONS]
    masked = {stem for found in lesions for stem in found}
    bare = set(images) - masked
    if lesions and is_graded and bare and outlined is None:
        raise ValueError(
            f"expected --outlined with --masks and --grades, because {len(bare)} photographs have no mask of any "
            f"lesion ({names(bare)}): --outlined masked if they were graded but not outlined, --outlined all if "
            f"they were searched and are free of lesions"
        )
    return masked if outlined == "masked" or not lesions else images


def _read_listed(
    table: Path, name_column: str, grade_column: str, images: Collection[str], searched: Collection[str], gaps: Gaps
) -> dict[str, int | None]:
    """Read the grades; outlined photographs need neither a row nor a grade in it."""
    grades = read_grades(table, name_column, grade_column, gaps, may_be_empty=searched)
    gaps.add(f"rows of '{table.name}' without an image", grades.keys() - set(images))
    gaps.add(f"images without a row in '{table.name}'", set(images) - grades.keys() - set(searched))
    return grades


def _id(stem: str, split: str) -> str:
    return f"photographs/{split}/{stem}"


def _with_splits(
    rows: Mapping[str, RawPhotograph], table: Path, name_column: str, split_column: str, gaps: Gaps
) -> dict[str, RawPhotograph]:
    splits = read_splits(table, name_column, split_column)
    gaps.add(f"images without a split in '{table.name}'", rows.keys() - splits.keys())
    return {
        stem: replace(row, id=_id(stem, splits[stem]), split=splits[stem])
        for stem, row in rows.items()
        if stem in splits
    }


def _ungraded_notes(rows: Mapping[str, RawPhotograph]) -> list[str]:
    ungraded = [stem for stem, row in rows.items() if row.grade is None]
    return [f"outlined photographs without a grade: {len(ungraded)} ({names(ungraded)})"] if ungraded else []


def _valueless_notes(rows: Mapping[str, RawPhotograph], columns: Iterable[str]) -> list[str]:
    without = {column: [stem for stem, row in rows.items() if column not in row.columns] for column in columns}
    return [
        f"photographs without a value in column {column!r}: {len(stems)} ({names(stems)})"
        for column, stems in without.items()
        if stems
    ]


def _with_patients(
    rows: Mapping[str, RawPhotograph], patients: Mapping[str, str], wanted: str, gaps: Gaps
) -> dict[str, RawPhotograph]:
    gaps.add(f"images without {wanted}", rows.keys() - patients.keys())
    return {stem: replace(row, patient=patients[stem]) for stem, row in rows.items() if stem in patients}


def _unknown_notes(rows: Collection[RawPhotograph]) -> list[str]:
    """Note the photographs of unknown patients, if others have one: they may be of the same patients."""
    unknown = [row.image.name for row in rows if row.patient is None]
    if not 0 < len(unknown) < len(rows):
        return []
    return [
        f"patients are known by their DICOM headers, but not those of {len(unknown)} images ({names(unknown)}), which "
        f"may lie in other folds than the rest of their patient; --patient_column or --patient_pattern can name all"
    ]


def _find_masks(root: Path, text: str, images: Collection[str], gaps: Gaps) -> dict[str, dict[str, Path]]:
    """Map each code to the masks of its folder, by image."""
    folders = {code: _below(root, "masks", folder) for code, folder in _pairs("masks", text).items()}
    masks = {code: masks_of(folder, code, images, gaps, f"{code} masks") for code, folder in folders.items()}
    for code, found in masks.items():
        if not found:  # a wrong folder would mean that no photograph has the lesion
            raise ValueError(f"expected masks ({', '.join(IMAGE_SUFFIXES)}) of {code} in {folders[code]}, found none")
    return masks


def _with_masks(
    rows: Mapping[str, RawPhotograph],
    masks: Mapping[str, Mapping[str, Path]],
    searched: Collection[str],
    mask_min: int | None,
) -> dict[str, RawPhotograph]:
    with_masks = {}
    for stem, row in rows.items():
        paths = {ROLES[code]: found[stem] for code, found in masks.items() if stem in found}
        row = replace(row, annotated=_lesions(masks) if stem in searched else ())
        if mask_min is None:
            disc = paths.pop(OPTIC_DISC, None)
            with_masks[stem] = replace(row, masks=paths, optic_disc=disc)
        else:
            draw = DrawGrey(paths, mask_min) if paths else None
            with_masks[stem] = replace(row, draw=draw, drawn_from=tuple(paths.values()))
    return with_masks


def _find_indexed_masks(folder: Path, images: Collection[str], is_graded: bool, gaps: Gaps) -> dict[str, Path]:
    """Map photographs to their masks; where there are grades, a photograph without a mask was not outlined."""
    masks = gaps.files(folder, *IMAGE_SUFFIXES)
    gaps.add("indexed masks without an image", masks.keys() - set(images))
    if not is_graded:
        gaps.add("images without an indexed mask", set(images) - masks.keys())
    return masks


def _read_indices(text: str) -> dict[str, int]:
    """Map roles to indices."""
    found = _pairs("indices", text)
    if len(set(found.values())) < len(found) or not set(found.values()) <= set(map(str, range(1, 256))):
        raise ValueError(f"expected --indices as different whole numbers in 1-255, got {text!r}")
    return {code: int(index) for code, index in found.items()}


def _with_indices(
    rows: Mapping[str, RawPhotograph], masks: Mapping[str, Path], index_of: Mapping[str, int]
) -> dict[str, RawPhotograph]:
    roles = {ROLES[code]: index for code, index in index_of.items()}
    drawn = {
        stem: replace(
            row, annotated=_lesions(index_of), draw=DrawIndexed(masks[stem], roles), drawn_from=(masks[stem],)
        )
        for stem, row in rows.items()
        if stem in masks
    }
    return {**rows, **drawn}


def _lesions(codes: Iterable[str]) -> tuple[str, ...]:
    return tuple(lesion for lesion in LESIONS if lesion in set(codes))


@dataclass(frozen=True, slots=True)
class DrawGrey:
    """Callable that draws the pixels where a grey mask reaches a value.

    Attributes:
        paths: mask file of each lesion, or of the optic disc.
        mask_min: smallest grey value that belongs to the lesion.

    Raises:
        ValueError: when called, if a file cannot be decoded, has another size, or is not grey; the message names it.

    Shape:
        - output: a mask ``(height_px, width_px)`` for each path.
    """

    paths: Mapping[str, Path]
    mask_min: int

    def __call__(self, width_px: int, height_px: int) -> Drawn:
        return Drawn({role: _grey(path, width_px, height_px) >= self.mask_min for role, path in self.paths.items()})


@dataclass(frozen=True, slots=True)
class DrawIndexed:
    """Callable that draws each lesion at the pixels with its index.

    Attributes:
        path: file of the mask.
        index_of: maps each lesion, or the optic disc, to its index.

    Raises:
        ValueError: when called, if the file cannot be decoded, has another size, does not contain indices, or contains
            one that is neither 0 nor listed; the message names the file.

    Shape:
        - output: a mask ``(height_px, width_px)`` for each index.
    """

    path: Path
    index_of: Mapping[str, int]

    def __call__(self, width_px: int, height_px: int) -> Drawn:
        levels = mask_levels(_open(self.path, width_px, height_px), self.path)  # (H, W, C)
        if not _is_grey(levels):
            raise ValueError(f"expected a mask of indices (one channel, or equal ones) in {self.path}, got colours")
        stored = levels[..., 0]
        unknown = set(np.unique(stored).tolist()) - {0, *self.index_of.values()}
        if unknown:
            raise ValueError(
                f"expected indices out of 0, {', '.join(map(str, sorted(self.index_of.values())))} in {self.path}, got "
                f"{', '.join(map(str, sorted(unknown)))} too; name all of them in --indices"
            )
        return Drawn({role: stored == index for role, index in self.index_of.items()})


def _open(path: Path, width_px: int, height_px: int) -> Image.Image:
    mask, size, _ = decode_mask(path)
    if size != (width_px, height_px):
        raise ValueError(
            f"expected a mask of {width_px}x{height_px} px, as its photograph, got {size[0]}x{size[1]} px in {path}"
        )
    return mask


def _grey(path: Path, width_px: int, height_px: int) -> NDArray[np.uint8]:
    """Read grey values 0-255; some data sets store grey as three equal channels, plus opacity."""
    mask = _open(path, width_px, height_px)
    levels = mask_levels(mask.convert("L") if mask.mode == "1" else mask, path)
    reasons = {
        "indices of a palette": mask.mode in ("P", "PA"),
        f"{8 * levels.itemsize} bits": levels.itemsize > 1,
        "colours": not _is_grey(levels),
    }
    for found, is_wrong in reasons.items():
        if is_wrong:
            raise ValueError(
                f"expected a grey mask of 8 bits in {path}, got {found}; a mask of two values is read without "
                f"--mask_min, any other must be saved as grey"
            )
    return levels[..., 0]


def _is_grey(levels: NDArray) -> bool:
    """Return whether all channels are equal, or there is only one."""
    return bool((levels == levels[..., :1]).all())
