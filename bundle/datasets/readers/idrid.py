"""Reader of the Indian Diabetic Retinopathy Image Dataset (IDRiD) in its official layout, complete or partial."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from bundle.datasets.readers.files import Gaps, masks_of, names, read_grades, read_points
from bundle.datasets.readers.raw import Landmark, RawPhotograph, Reading
from bundle.labels import LESIONS
from bundle.transforms.decode import IMAGE_SUFFIXES

SEGMENTATION, GRADING, LOCALISATION = "A. Segmentation", "B. Disease Grading", "C. Localization"
IMAGES, OUTLINES, GRADES_FOLDER = "1. Original Images", "2. All Segmentation Groundtruths", "2. Groundtruths"
SPLIT_FOLDERS = {"train": "a. Training Set", "test": "b. Testing Set"}
OUTLINE_FOLDERS = {
    "MA": "1. Microaneurysms", "HE": "2. Haemorrhages", "EX": "3. Hard Exudates", "SE": "4. Soft Exudates",
    "OD": "5. Optic Disc",
}  # fmt: skip
GRADE_TABLES = {
    "train": "a. IDRiD_Disease Grading_Training Labels.csv",
    "test": "b. IDRiD_Disease Grading_Testing Labels.csv",
}
NAME_COLUMN, GRADE_COLUMN = "Image name", "Retinopathy grade"
FOVEA_TABLES = {
    "train": "2. Fovea Center Location/IDRiD_Fovea_Center_Training Set_Markups.csv",
    "test": "2. Fovea Center Location/IDRiD_Fovea_Center_Testing Set_Markups.csv",
}
DISC_TABLES = {
    "train": "1. Optic Disc Center Location/a. IDRiD_OD_Center_Training Set_Markups.csv",
    "test": "1. Optic Disc Center Location/b. IDRiD_OD_Center_Testing Set_Markups.csv",
}
LANDMARK_COLUMNS = ("Image No", "X- Coordinate", "Y - Coordinate")
PUBLISHED_SIZE_PX = (4288, 2848)
"""Size of every photograph of IDRiD; the tables of part C use these pixels, whatever the size of a copy."""


def read_idrid(root: str | os.PathLike, *, allow_missing: bool = False) -> Reading:
    """Read the segmentation and grading parts, one of which may be absent, and the fovea and disc of the latter.

    If the folder of a lesion exists, a photograph without a file in it does not have that lesion; if the folder is
    missing, the lesion was not looked for. ``C. Localization`` has the photographs of the grading part under the same
    numbers, so only its tables are read; a landmark is unknown if its table or row is missing. Images are not opened.

    Args:
        root: folder that holds ``A. Segmentation`` and/or ``B. Disease Grading``.
        allow_missing: leave out images without a grade or outline, and the reverse, and list them in the notes. A
            folder of outlines none of which has a photograph is refused even so.

    Raises:
        ValueError: if ``root`` is not an IDRiD tree, a table is not as published, or something is missing.

    Source:
        Porwal et al., Data 3(3):25, 2018.
    """
    root = Path(root).resolve()
    if not root.is_dir():
        raise ValueError(f"expected the folder of IDRiD, found none at {root}")
    photographs: list[RawPhotograph] = []
    gaps = Gaps("IDRiD", root)
    graded = partial(_read_grading, places=_find(root, LOCALISATION))
    for part, read in ((SEGMENTATION, _read_segmentation), (GRADING, graded)):
        if folder := _find(root, part):
            for split in SPLIT_FOLDERS:
                photographs += read(folder, split, gaps)
    notes = gaps.notes(allow_missing)
    if not photographs:
        raise ValueError(
            f"expected an IDRiD tree in {root}, with photographs in '{SEGMENTATION}/{IMAGES}' or "
            f"'{GRADING}/{IMAGES}', found {names(path.name for path in root.iterdir())}"
        )
    return Reading(photographs, notes)


def _find(root: Path, part: str) -> Path | None:
    """Find a part of the data set; some unzip programs double the top folder of the data set or of the part."""
    for folder in (base / inner for base in (root, root / root.name) for inner in (f"{part}/{part}", part)):
        if any((folder / name).is_dir() for name in (IMAGES, OUTLINES, GRADES_FOLDER)):
            return folder
    return None


def _read_segmentation(folder: Path, split: str, gaps: Gaps) -> Iterator[RawPhotograph]:
    images = gaps.files(folder / IMAGES / SPLIT_FOLDERS[split], *IMAGE_SUFFIXES)
    outlines = {
        code: masks_of(outlined, code, images, gaps, f"{code} outlines of segmentation {split}", any_case=True)
        for code, name in OUTLINE_FOLDERS.items()
        if (outlined := folder / OUTLINES / SPLIT_FOLDERS[split] / name).is_dir()
    }
    annotated = tuple(lesion for lesion in LESIONS if lesion in outlines)
    if not annotated:
        gaps.add(f"segmentation {split} images in a copy without any folder of lesion outlines", images)
        return
    for stem, image in images.items():
        masks = {code: paths[stem] for code, paths in outlines.items() if stem in paths}
        yield RawPhotograph(
            id=f"segmentation/{split}/{stem}",
            image=image,
            split=split,
            annotated=annotated,
            optic_disc=masks.pop("OD", None),
            masks=masks,
        )


def _read_landmarks(folder: Path | None, name: str) -> dict[str, Landmark]:
    """Map photographs of the grading part to their landmark."""
    table = folder / GRADES_FOLDER / name if folder else None
    points = read_points(table, *LANDMARK_COLUMNS) if table and table.is_file() else {}
    return {stem: Landmark(*point, PUBLISHED_SIZE_PX) for stem, point in points.items()}


def _read_grading(folder: Path, split: str, gaps: Gaps, places: Path | None) -> Iterator[RawPhotograph]:
    images = gaps.files(folder / IMAGES / SPLIT_FOLDERS[split], *IMAGE_SUFFIXES)
    table = folder / GRADES_FOLDER / GRADE_TABLES[split]
    grades = read_grades(table, NAME_COLUMN, GRADE_COLUMN, gaps) if table.is_file() else {}
    gaps.add(f"rows of '{table.name}' without an image", grades.keys() - images.keys())
    gaps.add(f"grading {split} images without a row in '{table.name}'", images.keys() - grades.keys())
    foveas, discs = (_read_landmarks(places, tables[split]) for tables in (FOVEA_TABLES, DISC_TABLES))
    known = {stem: grade for stem, grade in grades.items() if grade is not None}
    for stem in sorted(images.keys() & known.keys()):
        yield RawPhotograph(
            id=f"grading/{split}/{stem}",
            image=images[stem],
            split=split,
            grade=known[stem],
            fovea=foveas.get(stem),
            disc=discs.get(stem),
        )
