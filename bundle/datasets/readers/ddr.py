"""Reader of DDR (a general-purpose data set of diabetic retinopathy) in its official layout, complete or partial."""

import os
import re
from collections.abc import Iterator
from pathlib import Path

from bundle.datasets.notes import LEFT_OUT
from bundle.datasets.readers.files import Gaps, masks_of, names
from bundle.datasets.readers.raw import RawPhotograph, Reading
from bundle.labels import LESIONS
from bundle.transforms.decode import IMAGE_SUFFIXES

TOP, GRADING, SEGMENTATION = "DDR-dataset", "DR_grading", "lesion_segmentation"
IMAGES, OUTLINES = "image", ("label", "segmentation label")
SPLITS = {"train": "train", "valid": "train", "test": "test"}
"""The official splits, and the manifest's split that each goes to."""

UNGRADABLE = 5
"""Value in place of a grade in the lists, if the photograph is too poor to grade."""

ROW = re.compile(r"(\S+)\.jpg\s+([0-5])", re.IGNORECASE)


def read_ddr(root: str | os.PathLike, *, allow_missing: bool = False) -> Reading:
    """Read the grading and segmentation parts; either part, and any split, may be absent. Images are not opened.

    A manifest has the splits ``train`` and ``test``, and its folds are dealt inside ``train``. So the official
    ``valid`` split goes to ``train``; the ids keep its name. Ungradable photographs are left out and noted. Every
    outlined photograph has four masks, some of which may be empty. The boxes of ``lesion_detection`` are not read.

    Args:
        root: the folder ``DDR-dataset`` or its parent.
        allow_missing: leave out images without a row or a mask, and the reverse, and list them in the notes.

    Raises:
        ValueError: if ``root`` is not a DDR tree, a list is not as published, or something is missing.

    Source:
        Li et al., "Diagnostic Assessment of Deep Learning Algorithms for Diabetic Retinopathy Screening",
        Information Sciences 501, 2019.
    """
    root = Path(root).resolve()
    if not root.is_dir():
        raise ValueError(f"expected the folder of DDR, found none at {root}")
    base = root / TOP if (root / TOP).is_dir() else root
    _check_layout(base, GRADING, SEGMENTATION)
    gaps = Gaps("DDR", base)
    graded = list(_read_grading(base / GRADING, gaps))
    outlined = list(_read_segmentation(base / SEGMENTATION, gaps))
    photographs = [*(row for row in graded if row.grade != UNGRADABLE), *outlined]
    notes = gaps.notes(allow_missing)
    if ungradable := [row.id for row in graded if row.grade == UNGRADABLE]:
        notes.append(f"{LEFT_OUT}: {len(ungradable)} ungradable photographs ({names(ungradable)})")
    if not photographs:
        raise ValueError(f"expected photographs with a grade or with outlines in {base}, found none")
    return Reading(photographs, notes)


def _check_layout(folder: Path, *looked_for: str) -> None:
    """Refuse a folder that exists but has none of the entries of the official archive."""
    if folder.is_dir() and not any((folder / name).exists() for name in looked_for):
        raise ValueError(
            f"expected {' or '.join(map(repr, looked_for))} in {folder}, as in the official {TOP}, found "
            f"{names(path.name for path in folder.iterdir())}; copies from elsewhere are arranged differently"
        )


def _read_grading(folder: Path, gaps: Gaps) -> Iterator[RawPhotograph]:
    """Yield every photograph of the lists, including ungradable ones."""
    _check_layout(folder, *(f"{split}.txt" for split in SPLITS), *SPLITS)
    for split in SPLITS:
        images, table = gaps.files(folder / split, *IMAGE_SUFFIXES), folder / f"{split}.txt"
        grades = _read_list(table) if table.is_file() else {}
        gaps.add(f"rows of '{table.name}' without an image", grades.keys() - images.keys())
        gaps.add(f"grading {split} images without a row in '{table.name}'", images.keys() - grades.keys())
        for stem in sorted(images.keys() & grades.keys()):
            yield RawPhotograph(
                id=f"grading/{split}/{stem}", image=images[stem], split=SPLITS[split], grade=grades[stem]
            )


def _read_list(table: Path) -> dict[str, int]:
    """Read the value of each photograph, 0-5."""
    grades: dict[str, int] = {}
    for number, line in enumerate(table.read_text(encoding="utf-8-sig", errors="replace").splitlines(), start=1):
        if not line.strip():
            continue
        row = ROW.fullmatch(line.strip())
        if row is None:
            raise ValueError(f"{table}, line {number}: expected '<name>.jpg <grade 0-5>', got {line!r}")
        if row[1] in grades:
            raise ValueError(f"{table}, line {number}: expected one row for each photograph, got {row[1]!r} twice")
        grades[row[1]] = int(row[2])
    return grades


def _read_segmentation(folder: Path, gaps: Gaps) -> Iterator[RawPhotograph]:
    _check_layout(folder, *SPLITS)
    for split in SPLITS:
        _check_layout(folder / split, IMAGES, *OUTLINES)
        images = gaps.files(folder / split / IMAGES, *IMAGE_SUFFIXES)
        outlined = _outline_folder(folder / split)
        masks = {
            lesion: masks_of(outlined / lesion, lesion, images, gaps, f"{lesion} masks of segmentation {split}")
            for lesion in LESIONS
        }
        for lesion, paths in masks.items():
            gaps.add(f"segmentation {split} images without a mask of {lesion}", images.keys() - paths.keys())
        for stem in sorted(images.keys() & set.intersection(*map(set, masks.values()))):
            yield RawPhotograph(
                id=f"segmentation/{split}/{stem}",
                image=images[stem],
                split=SPLITS[split],
                annotated=LESIONS,
                masks={lesion: paths[stem] for lesion, paths in masks.items()},
            )


def _outline_folder(folder: Path) -> Path:
    """Find the mask folder of a split; in the official archive, it has another name in ``valid``."""
    found = [folder / name for name in OUTLINES if (folder / name).is_dir()]
    if len(found) > 1:
        raise ValueError(f"expected one folder of masks in {folder}, got {' and '.join(map(repr, OUTLINES))}")
    return found[0] if found else folder / OUTLINES[0]
