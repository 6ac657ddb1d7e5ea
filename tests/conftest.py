"""A tiny IDRiD tree to read: small photographs that are never square, with outlines that are never empty."""

import os
import shutil
from pathlib import Path

# One thread for each of the processes that run side by side; NumPy and torch read it when they are imported.
os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import pytest
from bundle.datasets.build import build_manifest
from bundle.datasets.readers.idrid import read_idrid
from bundle.manifest import save_manifest
from bundle.phantom.tree import write_phantom
from hypothesis import settings
from PIL import Image

# A busy machine is no failure, and a failure should come back when it is looked for.
settings.register_profile("here", deadline=None, derandomize=True)
settings.load_profile("here")

WIDTH_PX, HEIGHT_PX = 60, 40

# IDRiD's names as published, and not as the reader spells them: the reader is checked against this tree.
LESION_FOLDERS = {
    "MA": "1. Microaneurysms",
    "HE": "2. Haemorrhages",
    "EX": "3. Hard Exudates",
    "SE": "4. Soft Exudates",
    "OD": "5. Optic Disc",
}
SPLIT_FOLDERS = {"train": "a. Training Set", "test": "b. Testing Set"}
FOVEA_TABLES = {
    "train": "2. Fovea Center Location/IDRiD_Fovea_Center_Training Set_Markups.csv",
    "test": "2. Fovea Center Location/IDRiD_Fovea_Center_Testing Set_Markups.csv",
}
DISC_TABLES = {
    "train": "1. Optic Disc Center Location/a. IDRiD_OD_Center_Training Set_Markups.csv",
    "test": "1. Optic Disc Center Location/b. IDRiD_OD_Center_Testing Set_Markups.csv",
}
TABLES = {
    "train": "a. IDRiD_Disease Grading_Training Labels.csv",
    "test": "b. IDRiD_Disease Grading_Testing Labels.csv",
}


def disc(width_px: int, height_px: int) -> np.ndarray:
    y, x = np.mgrid[:height_px, :width_px]
    return (x - width_px / 2 + 0.5) ** 2 + (y - height_px / 2 + 0.5) ** 2 < (0.45 * height_px) ** 2


def eye(seed: int, width_px: int = WIDTH_PX, height_px: int = HEIGHT_PX) -> np.ndarray:
    """Draw a bright disc on black, patched at random so that no two seeds look alike."""
    patches = np.random.default_rng(seed).integers(80, 255, (12, 12, 3), dtype=np.uint8)
    smooth = Image.fromarray(patches).resize((width_px, height_px), Image.Resampling.BICUBIC)
    return np.where(disc(width_px, height_px)[..., None], np.asarray(smooth), 3).astype(np.uint8)


def write_mask(path: Path, mask: np.ndarray) -> None:
    """Write indices 0 and 1 of a palette whose 1 is dark red, as IDRiD does: read as grey, a lesion is 76."""
    image = Image.fromarray(mask.astype(np.uint8), mode="P")
    image.putpalette([0, 0, 0, 255, 0, 0])
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def spot(x: int, y: int, side_px: int = 3) -> np.ndarray:
    mask = np.zeros((HEIGHT_PX, WIDTH_PX), bool)
    mask[y : y + side_px, x : x + side_px] = True
    return mask


class TinyIdrid:
    """Write parts of an IDRiD tree, one photograph or table at a time."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.segmentation = root / "A. Segmentation"
        self.grading = root / "B. Disease Grading"

    def image(self, part: Path, split: str, stem: str) -> Path:
        return part / "1. Original Images" / SPLIT_FOLDERS[split] / f"{stem}.jpg"

    def mask(self, split: str, stem: str, code: str) -> Path:
        outlines = self.segmentation / "2. All Segmentation Groundtruths" / SPLIT_FOLDERS[split]
        return outlines / LESION_FOLDERS[code] / f"{stem}_{code}.tif"

    def table(self, split: str) -> Path:
        return self.grading / "2. Groundtruths" / TABLES[split]

    def outline(self, split: str, stem: str, seed: int, masks: dict[str, np.ndarray]) -> None:
        """Add an outlined photograph; the folder of every lesion is there, as in the whole data set."""
        save_jpg(self.image(self.segmentation, split, stem), eye(seed))
        for code in LESION_FOLDERS:
            self.mask(split, stem, code).parent.mkdir(parents=True, exist_ok=True)
        for code, mask in masks.items():
            write_mask(self.mask(split, stem, code), mask)

    def grade(self, split: str, grades: dict[str, int], first_seed: int) -> None:
        """Add graded photographs and their table, with the quirks of the published one."""
        for seed, stem in enumerate(grades, start=first_seed):
            save_jpg(self.image(self.grading, split, stem), eye(seed))
        lines = [
            "Image name,Retinopathy grade ,Risk of macular edema,,,",
            *(f"{n} ,{g},0,,," for n, g in grades.items()),
        ]
        self.write_table(split, "\r\n".join([*lines, ",,,,,"]) + "\r\n")

    def mark(self, name: str, points: dict[str, tuple[int, int]]) -> None:
        """Write a table of part C, with the quirks of the published ones; places count the pixels of 4288x2848."""
        path = self.root / "C. Localization" / "2. Groundtruths" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = ["Image No,X- Coordinate,Y - Coordinate,,,", *(f"{n},{x},{y},,," for n, (x, y) in points.items())]
        path.write_bytes(("\r\n".join([*lines, ",,,,,", ",,,,,"]) + "\r\n").encode())

    def write_table(self, split: str, text: str) -> None:
        self.table(split).parent.mkdir(parents=True, exist_ok=True)
        self.table(split).write_bytes(text.encode())


def save_jpg(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95)


@pytest.fixture
def empty_idrid(tmp_path: Path) -> TinyIdrid:
    """Nothing yet; a test adds what it needs."""
    return TinyIdrid(tmp_path / "idrid")


@pytest.fixture
def tiny_idrid(empty_idrid: TinyIdrid) -> TinyIdrid:
    """Four outlined and six graded training photographs, one outlined and two graded test ones; no copies."""
    tree = empty_idrid
    for number in range(1, 5):
        masks = {"MA": spot(20, 15), "EX": spot(30, 20, 5), "OD": spot(36, 12, 6)}
        tree.outline("train", f"IDRiD_{number:02}", number, masks | ({"SE": spot(25, 28)} if number == 1 else {}))
    tree.outline("test", "IDRiD_55", 5, {"HE": spot(22, 22, 4)})
    tree.grade("train", {f"IDRiD_{n:03}": g for n, g in enumerate((0, 1, 2, 3, 4, 0), start=1)}, first_seed=10)
    tree.grade("test", {"IDRiD_001": 2, "IDRiD_002": 4}, first_seed=20)
    return tree


@pytest.fixture(scope="session")
def write_phantom_manifest():
    """Draw a phantom with the given number of photographs of each kind, and write its manifest, ``without`` a part."""

    def write(folder, *, folds=3, name="manifest.json", without=None, **numbers):
        write_phantom(folder / "phantom", width_px=288, height_px=192, seed=3, **numbers)
        if without is not None:
            shutil.rmtree(folder / "phantom" / without)
        photographs, notes = read_idrid(folder / "phantom")
        manifest = build_manifest("phantom", photographs, folder / "phantom", folds=folds, notes=notes)
        save_manifest(manifest, folder / name)

    return write
