"""Synthetic data set in IDRiD's official layout, so that all code can run and be tested without a download."""

import io
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from bundle.datasets.readers import idrid
from bundle.phantom.drawing import Drawing, draw_photograph
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin
from tqdm import tqdm

GRADE_SHARES = (0.26, 0.14, 0.26, 0.16, 0.18)
"""Shares of grades 0 to 4 in every part: always predicting one grade is right for a quarter."""

EMPTY_COLUMNS = {"train": ",,,,,,,,,", "test": ""}
"""Empty columns that end each line of the official tables of grades."""

QUALITY, QUALITY_OF_COPIES = 92, 80
"""Quality of the JPEG files, and of copies that are encoded a second time."""

NOTE = "Synthetic photographs in the layout of IDRiD; they show no patient. Seed {seed}, {width_px}x{height_px} px.\n"


class _Graded(NamedTuple):
    """A photograph of the grading part: its file's content, ICDRS grade and risk of macular edema."""

    jpeg: bytes
    grade: int
    edema: int


def write_phantom(
    root: str | os.PathLike,
    *,
    num_lesion_train: int = 40,
    num_lesion_test: int = 20,
    num_graded_train: int = 60,
    num_graded_test: int = 30,
    width_px: int = 720,
    height_px: int = 480,
    seed: int = 0,
) -> None:
    """Write a synthetic IDRiD: outlined photographs (part A) and graded ones (part B), each with both official splits.

    As in IDRiD, the outlined photographs are also in the grading part, under other numbers: half of them byte
    for byte, half encoded again; and one outlined *training* photograph is in the grading *test* set.
    Grades have the fixed shares ``GRADE_SHARES``. The same arguments give the same bytes, and a photograph stays
    the same when another part grows. ``root`` appears only when everything is written.

    Args:
        root: folder that does not exist or is empty.
        num_lesion_train: outlined training photographs.
        num_lesion_test: outlined test photographs.
        num_graded_train: graded training photographs, not counting the copies of outlined ones.
        num_graded_test: graded test photographs, not counting the copies of outlined ones.
        width_px: width of every photograph; see ``draw_photograph`` for the limits.
        height_px: height of every photograph.
        seed: seed of everything that is drawn.

    Raises:
        ValueError: if ``root`` is not empty, a part would be empty, or the size cannot be drawn.
    """
    root = Path(root).absolute()
    outlined_counts = {"train": num_lesion_train, "test": num_lesion_test}
    graded_counts = {"train": num_graded_train, "test": num_graded_test}
    _check(root, [*outlined_counts.values(), *graded_counts.values()])
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{root.name}.", dir=root.parent) as beside:
        tree = Path(beside) / root.name
        _make_folders(tree)
        _write_parts(tree, outlined_counts, graded_counts, (width_px, height_px), seed)
        (tree / "SYNTHETIC.txt").write_text(NOTE.format(seed=seed, width_px=width_px, height_px=height_px))
        if root.exists():
            root.rmdir()
        os.replace(tree, root)


def _check(root: Path, counts: Sequence[int]) -> None:
    if min(counts) < 1:
        raise ValueError(f"expected at least one photograph in each of the four parts, got {list(counts)}")
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise ValueError(f"expected a new or an empty folder, but {root} holds something; remove it or name another")


def _make_folders(tree: Path) -> None:
    for folder in idrid.SPLIT_FOLDERS.values():
        (tree / idrid.SEGMENTATION / idrid.IMAGES / folder).mkdir(parents=True)
        (tree / idrid.GRADING / idrid.IMAGES / folder).mkdir(parents=True)
        for lesion in idrid.OUTLINE_FOLDERS.values():
            (tree / idrid.SEGMENTATION / idrid.OUTLINES / folder / lesion).mkdir(parents=True)
    (tree / idrid.GRADING / idrid.GRADES_FOLDER).mkdir()


def _write_parts(
    tree: Path, outlined_counts: dict[str, int], graded_counts: dict[str, int], size_px: tuple[int, int], seed: int
) -> None:
    """Draw each part from its own seed, then mix the copies of outlined photographs into the grading part."""
    *part_seeds, order_seed = np.random.SeedSequence(seed).spawn(5)
    seeds = iter(part_seeds)
    number = iter(range(1, sum(outlined_counts.values()) + 1))
    with tqdm(
        total=sum((*outlined_counts.values(), *graded_counts.values())), desc="phantom", unit="photograph", disable=None
    ) as progress:
        copies: dict[str, list[_Graded]] = {}
        for split, count in outlined_counts.items():
            drawings = _draw(count, next(seeds), size_px, progress)
            copies[split] = [_write_outlined(tree, split, next(number), drawing) for drawing in drawings]
        copies["test"].append(copies["train"].pop())
        rng = np.random.default_rng(order_seed)
        for split, count in graded_counts.items():
            own = [_graded(drawing) for drawing in _draw(count, next(seeds), size_px, progress)]
            again = [_encode_again(copy) if index % 2 else copy for index, copy in enumerate(copies[split])]
            _write_graded(tree, split, [*own, *again], rng)


def _draw(count: int, seed: np.random.SeedSequence, size_px: tuple[int, int], progress: tqdm) -> Iterator[Drawing]:
    grades = grades_of_part(count, np.random.default_rng(seed))
    for grade, child in zip(grades, seed.spawn(count), strict=True):
        yield draw_photograph(grade, np.random.default_rng(child), *size_px)
        progress.update()


def grades_of_part(count: int, rng: np.random.Generator) -> list[int]:
    """Divide ``count`` photographs among the grades by ``GRADE_SHARES`` (largest remainders), in random order.

    Example:
        >>> sorted(grades_of_part(10, np.random.default_rng(0)))
        [0, 0, 0, 1, 2, 2, 2, 3, 4, 4]
    """
    exact = count * np.array(GRADE_SHARES)
    whole = np.floor(exact).astype(int)
    largest = np.argsort(whole - exact, kind="stable")[: count - whole.sum()]
    whole[largest] += 1
    return [int(grade) for grade in rng.permutation(np.repeat(np.arange(len(whole)), whole))]


def macular_edema_risk(drawing: Drawing) -> int:
    """Grade the risk as IDRiD does: 0 no hard exudate, 2 one within a disc diameter of the fovea, else 1.

    (Porwal et al., Indian Diabetic Retinopathy Image Dataset, Data 3(3):25, 2018.)
    """
    y_px, x_px = np.nonzero(drawing.masks["EX"])
    if not len(y_px):
        return 0
    nearest_px = np.hypot(x_px - drawing.fovea_px[0], y_px - drawing.fovea_px[1]).min()
    disc_diameter_px = 2 * np.sqrt(drawing.optic_disc.sum() / np.pi)
    return 2 if nearest_px <= disc_diameter_px else 1


def _graded(drawing: Drawing) -> _Graded:
    return _Graded(_jpeg(Image.fromarray(drawing.image), QUALITY), drawing.grade, macular_edema_risk(drawing))


def _encode_again(photograph: _Graded) -> _Graded:
    return photograph._replace(jpeg=_jpeg(Image.open(io.BytesIO(photograph.jpeg)), QUALITY_OF_COPIES))


def _jpeg(image: Image.Image, quality: int) -> bytes:
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=quality)
    return encoded.getvalue()


def _write_outlined(tree: Path, split: str, number: int, drawing: Drawing) -> _Graded:
    """Write the photograph and a mask for each present lesion; an absent lesion has no file."""
    stem, photograph = f"IDRiD_{number:02d}", _graded(drawing)
    part, folder = tree / idrid.SEGMENTATION, idrid.SPLIT_FOLDERS[split]
    (part / idrid.IMAGES / folder / f"{stem}.jpg").write_bytes(photograph.jpeg)
    for name, mask in {**drawing.masks, "OD": drawing.optic_disc}.items():
        if mask.any():
            outlines = part / idrid.OUTLINES / folder / idrid.OUTLINE_FOLDERS[name]
            _write_mask(outlines / f"{stem}_{name}.tif", mask)
    return photograph


def _write_mask(path: Path, mask: NDArray[np.bool_]) -> None:
    """Write a 1-bit palette TIFF, black and red, as in IDRiD; Pillow itself writes only 8-bit palettes."""
    height_px, width_px = mask.shape
    rows = np.packbits(mask, axis=1).tobytes()  # (H, ceil(W / 8)): each row is padded to whole bytes
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[TiffImagePlugin.IMAGEWIDTH] = width_px
    tags[TiffImagePlugin.IMAGELENGTH] = height_px
    tags[TiffImagePlugin.BITSPERSAMPLE] = 1
    tags[TiffImagePlugin.COMPRESSION] = 1
    tags[TiffImagePlugin.PHOTOMETRIC_INTERPRETATION] = 3
    tags[TiffImagePlugin.SAMPLESPERPIXEL] = 1
    tags[TiffImagePlugin.ROWSPERSTRIP] = height_px
    tags[TiffImagePlugin.STRIPBYTECOUNTS] = len(rows)
    tags[TiffImagePlugin.STRIPOFFSETS] = 0  # from the end of the tags; `save` adds where that is
    tags[TiffImagePlugin.COLORMAP] = (0, 65535, 0, 0, 0, 0)
    with path.open("wb") as file:
        tags.save(file)
        file.write(rows)


def _write_graded(tree: Path, split: str, photographs: Sequence[_Graded], rng: np.random.Generator) -> None:
    """Number the photographs in random order and write them with their table."""
    empty = EMPTY_COLUMNS[split]
    lines = [f"{idrid.NAME_COLUMN},{idrid.GRADE_COLUMN},Risk of macular edema{empty}\r\n"]
    for number, index in enumerate(rng.permutation(len(photographs)), start=1):
        stem, (jpeg, grade, edema) = f"IDRiD_{number:03d}", photographs[index]
        (tree / idrid.GRADING / idrid.IMAGES / idrid.SPLIT_FOLDERS[split] / f"{stem}.jpg").write_bytes(jpeg)
        lines.append(f"{stem},{grade},{edema}{empty}\r\n")
    (tree / idrid.GRADING / idrid.GRADES_FOLDER / idrid.GRADE_TABLES[split]).write_bytes("".join(lines).encode())
