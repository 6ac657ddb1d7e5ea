"""Reader of DiaRetDB1 v2.1: four experts marked regions with a confidence; their consensus becomes the outlines."""

import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from xml.etree.ElementTree import Element

import numpy as np
from bundle.datasets.readers.files import Gaps, names
from bundle.datasets.readers.raw import OPTIC_DISC, OUTLINES_NOTE, Drawn, RawPhotograph, Reading
from bundle.labels import LESIONS
from bundle.transforms.decode import IMAGE_SUFFIXES
from defusedxml import ElementTree, EntitiesForbidden
from numpy.typing import NDArray
from skimage.draw import ellipse, polygon

TOP, IMAGES, MARKINGS = "ddb1_v02_01", "images", "groundtruth"
SPLITS = ("train", "test")
EXPERTS = ("01", "02", "03", "04")
"""Identified only by the file names; the ``creator`` is the same in all files."""

OLD_FOLDERS = ("ddb1_fundusimages", "ddb1_groundtruth")
"""Folders of version 1.1, which has images of each lesion and no regions."""

ROLES = {"Red_small_dots": "MA", "Haemorrhages": "HE", "Hard_exudates": "EX", "Soft_exudates": "SE", "Disc": OPTIC_DISC}
IGNORED_TYPES = ("IRMA", "Neovascularisation", "Fundus_area")
QUARTERS = {"High": 4, "Medium": 3, "Low": 1}
"""Confidence in quarters, so that sums are exact: High 1, Medium 0.75, Low 0.25."""

NUMBER_MAX = 1_000_000
"""Coordinates and radii beyond this many pixels come from a broken file."""

Shape = tuple[int, int]  # height, width
Pixels = tuple[NDArray[np.intp], NDArray[np.intp]]  # rows, columns


def read_diaretdb1(root: str | os.PathLike, *, consensus: float = 0.75, allow_missing: bool = False) -> Reading:
    """Read the photographs of both lists, one of which may be absent. Images and markings are not opened.

    Only the last part of each listed path is used, to find the file in ``images`` or ``groundtruth``, so that no path
    leads out of the data set. Of each expert's two files, the one without a document type (``_plain``) is preferred.
    The outlines are coarse: experts marked areas that contain lesions.

    Args:
        root: the folder ``ddb1_v02_01`` or its parent.
        consensus: smallest mean confidence of the four experts at which a pixel belongs to a lesion.
        allow_missing: leave out photographs without a row or without the markings of all experts, and the reverse, and
            list them in the notes.

    Raises:
        ValueError: if ``consensus`` is not above 0 and at most 1, ``root`` is not a DiaRetDB1 v2.1 tree, a list is not
            as published, or something is missing.

    Source:
        Kauppi et al., "The DIARETDB1 diabetic retinopathy database and evaluation protocol", BMVC 2007.
    """
    if not 0 < consensus <= 1:
        raise ValueError(f"expected a consensus above 0 and at most 1, got {consensus}")
    root = Path(root).resolve()
    base = root / TOP if (root / TOP).is_dir() else root
    gaps = Gaps("DiaRetDB1", base)
    split_of, experts_of = _read_lists(_find_lists(base))
    images, markings = gaps.files(base / IMAGES, *IMAGE_SUFFIXES), gaps.files(base / MARKINGS, ".xml")
    gaps.add("rows of the lists without an image", split_of.keys() - images.keys())
    gaps.add("images without a row in the lists", images.keys() - split_of.keys())
    usable = sorted(images.keys() & split_of.keys())
    found = {stem: _files_of_experts(stem, experts_of[stem], markings) for stem in usable}
    missing = [f"{stem}_{expert}" for stem in usable for expert in EXPERTS if expert not in found[stem]]
    gaps.add(f"experts' files that are not in their list or not in '{MARKINGS}'", missing)
    photographs = [
        _photograph(images[stem], split_of[stem], tuple(paths.values()), consensus)
        for stem, paths in found.items()
        if len(paths) == len(EXPERTS)
    ]
    notes = gaps.notes(allow_missing)
    notes.append(f"{OUTLINES_NOTE}where the mean confidence of four experts is {consensus:g} or more")
    if not photographs:
        raise ValueError(f"expected photographs with the markings of four experts in {base}, found none")
    return Reading(photographs, notes)


def _photograph(image: Path, split: str, markings: tuple[Path, ...], consensus: float) -> RawPhotograph:
    return RawPhotograph(
        id=f"segmentation/{split}/{image.stem}",
        image=image,
        split=split,
        annotated=LESIONS,
        draw=DrawConsensus(markings, consensus),
        drawn_from=markings,
    )


def _find_lists(base: Path) -> dict[str, Path]:
    """Find the list of each available split; of two lists, take the plain one."""
    if not base.is_dir():
        raise ValueError(f"expected the folder of DiaRetDB1, found none at {base}")
    choices = {split: [base / f"{TOP}_{split}{plain}.txt" for plain in ("_plain", "")] for split in SPLITS}
    found = {split: next(filter(Path.is_file, paths), None) for split, paths in choices.items()}
    if not any(found.values()):
        old = any((base / inner / name).exists() for inner in ("", "resources/images") for name in OLD_FOLDERS)
        raise ValueError(
            f"expected DiaRetDB1 v2.1 in {base}, with '{TOP}_train_plain.txt', '{IMAGES}' and '{MARKINGS}', found "
            f"{'version 1.1; take version 2.1' if old else names(path.name for path in base.iterdir())}"
        )
    return {split: path for split, path in found.items() if path}


def _read_lists(lists: Mapping[str, Path]) -> tuple[dict[str, str], dict[str, set[str]]]:
    """Read the split of each image, and the experts whose files its row lists."""
    split_of: dict[str, str] = {}
    experts_of: dict[str, set[str]] = {}
    for split, table in lists.items():
        text = table.read_text(encoding="utf-8-sig", errors="replace")
        for number, line in enumerate(text.splitlines(), start=1):
            if not line.split():
                continue
            stem, experts = _read_row(line, f"{table}, line {number}")
            if stem in split_of:
                raise ValueError(f"{table}, line {number}: expected each image once in the lists, got {stem!r} twice")
            split_of[stem], experts_of[stem] = split, experts
    return split_of, experts_of


def _read_row(line: str, where: str) -> tuple[str, set[str]]:
    """Read the paths of an image and of its experts' files."""
    image, *markings = (PurePosixPath(path.replace("\\", "/")).stem for path in line.split())
    named = [re.fullmatch(rf"{re.escape(image)}_(0[1-4])(_plain)?", stem) for stem in markings]
    experts = {match[1] for match in named if match}
    if len(experts) < len(markings):
        raise ValueError(
            f"{where}: expected an image and its experts' files, each once, as '<image>.png <image>_01.xml ...', "
            f"got {line!r}"
        )
    return image, experts


def _files_of_experts(stem: str, listed: Iterable[str], markings: Mapping[str, Path]) -> dict[str, Path]:
    """Look up the files of the experts listed in an image's row."""
    names_of = {expert: (f"{stem}_{expert}_plain", f"{stem}_{expert}") for expert in sorted(listed)}
    found = {expert: next((name for name in both if name in markings), None) for expert, both in names_of.items()}
    return {expert: markings[name] for expert, name in found.items() if name}


@dataclass(frozen=True, slots=True)
class DrawConsensus:
    """Masks where ``1/4 * sum over experts e of max over e's regions r at the pixel of confidence(r) >= consensus``.

    An expert without markings of a lesion counts as 0 everywhere. A lesion is disputed if some pixel of it is marked
    but none is drawn.

    Attributes:
        markings: the files of the four experts.
        consensus: smallest mean confidence.

    Raises:
        ValueError: when called, if a file is not XML, defines entities, or contains a type, confidence, region or
            number that the data set does not have; the message names the file. Nothing is fetched from a network.

    Shape:
        - output: a mask ``(height_px, width_px)`` for each lesion and the optic disc.
    """

    markings: tuple[Path, ...]
    consensus: float

    def __call__(self, width_px: int, height_px: int) -> Drawn:
        experts = [_read_markings(path) for path in self.markings]
        least = self.consensus * len(experts) * QUARTERS["High"]
        quarters = {role: _sum_quarters(experts, role, (height_px, width_px)) for role in ROLES.values()}
        masks = {role: found >= least for role, found in quarters.items()}
        disputed = tuple(lesion for lesion in LESIONS if quarters[lesion].any() and not masks[lesion].any())
        return Drawn(masks, disputed)


class _Ellipse(NamedTuple):
    """The pixels whose centres are inside an ellipse with axes of at least a pixel; integer coordinates are centres.

    The angle is anticlockwise as seen on the screen: with this direction, more of the data set's representative points
    lie in their own ellipses than with the opposite one.
    """

    x: float
    y: float
    radius_x: float
    radius_y: float
    angle_deg: float = 0.0

    @property
    def centre_xy(self) -> tuple[float, float]:
        return self.x, self.y

    def pixels(self, shape: Shape) -> Pixels:
        radii = max(self.radius_y, 0.5), max(self.radius_x, 0.5)
        return ellipse(self.y, self.x, *radii, shape=shape, rotation=math.radians(self.angle_deg))


class _Polygon(NamedTuple):
    """The pixels whose centres are inside a polygon or on its edge."""

    vertices_xy: tuple[tuple[float, float], ...]

    @property
    def centre_xy(self) -> tuple[float, float]:
        x, y = np.mean(self.vertices_xy, axis=0)
        return float(x), float(y)

    def pixels(self, shape: Shape) -> Pixels:
        x, y = np.transpose(self.vertices_xy)
        return polygon(y, x, shape=shape)


class _Marking(NamedTuple):
    role: str
    quarters: int
    region: _Ellipse | _Polygon


def _sum_quarters(experts: Iterable[Sequence[_Marking]], role: str, shape: Shape) -> NDArray[np.uint8]:
    """Add up the highest confidence of each expert at each pixel, in quarters."""
    total = np.zeros(shape, np.uint8)
    for markings in experts:
        highest = np.zeros(shape, np.uint8)
        for marking in sorted(markings, key=lambda marking: marking.quarters):
            if marking.role == role:
                highest[_pixels(marking.region, shape)] = marking.quarters
        total += highest
    return total


def _pixels(region: _Ellipse | _Polygon, shape: Shape) -> Pixels:
    """List a region's pixels in the image; a region smaller than a pixel gets the pixel at its centre."""
    rows, columns = region.pixels(shape)
    if not len(rows):
        column, row = (math.floor(value + 0.5) for value in region.centre_xy)
        if 0 <= row < shape[0] and 0 <= column < shape[1]:
            return np.array([row]), np.array([column])
    return rows, columns


def _read_markings(path: Path) -> list[_Marking]:
    """Read one expert's markings of lesions and of the optic disc."""
    root = _parse(path)
    if root.tag != "imgannotooldata":
        raise ValueError(f"{path}: expected markings in <imgannotooldata>, got <{root.tag}>")
    try:
        found = [
            (_one_of((*ROLES, *IGNORED_TYPES), one, "markingtype"), one) for one in root.iterfind("markinglist/marking")
        ]
        return [_read_marking(kind, one) for kind, one in found if kind in ROLES]
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _parse(path: Path) -> Element:
    """Parse a file; if it names a remote document type, this is not fetched."""
    try:
        return ElementTree.parse(path, forbid_dtd=False).getroot()
    except EntitiesForbidden:
        raise ValueError(
            f"{path}: expected markings, got a file that defines entities; take the published one"
        ) from None
    # As well as its own error, the parser raises LookupError or ValueError for unknown encodings.
    except (OSError, ElementTree.ParseError, LookupError, ValueError) as error:
        raise ValueError(f"{path}: expected markings in XML, got a file that cannot be parsed: {error}") from None


def _read_marking(kind: str, marking: Element) -> _Marking:
    quarters = QUARTERS[_one_of(QUARTERS, marking, "confidencelevel")]
    found = [child for child in marking if child.tag.endswith("region")]
    if len(found) != 1 or found[0].tag not in REGIONS:
        raise ValueError(f"expected one region out of {', '.join(REGIONS)}, got {[child.tag for child in marking]}")
    return _Marking(ROLES[kind], quarters, REGIONS[found[0].tag](found[0]))


def _one_of(known: Iterable[str], marking: Element, tag: str) -> str:
    text = (marking.findtext(tag) or "").strip()
    if text not in known:
        raise ValueError(f"expected a {tag} out of {', '.join(known)}, got {text!r}")
    return text


def _circle(region: Element) -> _Ellipse:
    radius = _radius(region, "x")
    return _Ellipse(*_point(region.find("centroid/coords2d")), radius, radius)


def _ellipse(region: Element) -> _Ellipse:
    centre_xy = _point(region.find("centroid/coords2d"))
    return _Ellipse(*centre_xy, _radius(region, "x"), _radius(region, "y"), _number(region.findtext("angle")))


def _polygon(region: Element) -> _Polygon:
    # The centroid has coordinates too, but not as a direct child.
    vertices = region.findall("coords2d")
    if not vertices:
        raise ValueError("expected a polygonregion with vertices (coords2d), got none")
    return _Polygon(tuple(map(_point, vertices)))


REGIONS: Mapping[str, Callable[[Element], _Ellipse | _Polygon]] = {
    "circleregion": _circle,
    "ellipseregion": _ellipse,
    "polygonregion": _polygon,
}


def _point(coordinates: Element | None) -> tuple[float, float]:
    text = None if coordinates is None else coordinates.text
    x, *rest = (text or "").split(",")
    if len(rest) != 1:
        raise ValueError(f"expected coordinates 'x,y', got {text!r}")
    return _number(x), _number(rest[0])


def _radius(region: Element, direction: str) -> float:
    radius = _number(region.findtext(f"radius[@direction='{direction}']"))
    if radius < 0:
        raise ValueError(f"expected a radius of at least 0 px, got {radius}")
    return radius


def _number(text: str | None) -> float:
    try:
        number = float(text or "")
    except ValueError:
        raise ValueError(f"expected a number, got {text!r}") from None
    if not abs(number) <= NUMBER_MAX:
        raise ValueError(f"expected a number of at most {NUMBER_MAX}, got {text!r}")
    return number
