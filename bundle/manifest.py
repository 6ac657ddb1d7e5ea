"""The manifest: every photograph of a data set, its outlines, grade, group and fold, in one checked file."""

import dataclasses
import hashlib
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import Any

from bundle.files import write_text_whole
from bundle.labels import GRADES, LESIONS

SCHEMA = 4
SPLITS = ("train", "test")
HEXADECIMAL = re.compile("[0-9a-f]{64}")
PIXELS_MAX = 178_956_970
"""Largest photograph, as in Pillow; a manifest that declares more is refused, because maps of this size are made."""

Point = tuple[float, float]
"""Column and row in pixels, from the centre of the upper left pixel; fractional if from a copy of another size."""

LANDMARKS = ("fovea_px", "disc_px")

SHAPE_TOLERANCE = 0.01
"""Relative difference in aspect ratio allowed between copies of one shape: sizes are rounded to whole pixels."""

UNSAFE_PART = re.compile(r"\.{0,2}|[A-Za-z]:.*")
"""A part of a path that does not lead down, on this or another operating system."""

UNSAFE_CHARACTER = re.compile("[\0\ud800-\udfff]")
"""A file name cannot contain NUL, and a UTF-8 file cannot contain half a surrogate pair."""

COLUMN_MAX = 80
"""Most characters of the name of a further column, and of a value in it: both are parts of names in MLflow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Photograph:
    """One image file of a data set.

    Attributes:
        id: unique name, ``<data set>/<part>/<split>/<file stem>``.
        image: path with forward slashes; its first part names one of the manifest's roots. All paths have this form.
        split: the official split, ``train`` or ``test``.
        sha256: hash of the content and role of every file of :meth:`files`; the key of caches.
        perceptual_hash: 256 bits as hexadecimal digits, close to those of copies of the same photograph.
        width_px: native width.
        height_px: native height.
        grade: ICDRS grade that the data set gives for this file, or None.
        annotated: lesions that the annotators looked for; empty if nothing was outlined.
        masks: lesion to mask path; an annotated lesion without a path is absent.
        areas_px: number of native pixels of each mask.
        disputed: annotated lesions without a mask that some experts marked, but too few experts for an outline.
        optic_disc: mask path of the optic disc, or None.
        fovea_px: marked centre of the fovea, in native pixels of this file, or None.
        disc_px: the same for the optic disc.
        drawn_from: files that the masks were drawn from, if the data set has the outlines in another form.
        group: photographs of one group are copies of one photograph.
        patient: pseudonym of the patient, ``<data set>/<digits>``, or None if unknown; folds never part a patient.
        columns: further columns of the data set's table, such as ``{"camera": "Topcon"}``; unknown values are left out.
        fold: cross-validation fold of a training photograph; None in the test split and if left out.
        left_out: why this photograph is excluded from training, or None.

    Example:
        >>> known = {"split": "train", "sha256": "0" * 64, "perceptual_hash": "0" * 64, "width_px": 6, "height_px": 4}
        >>> one = Photograph(id="clinic/train/7", image="clinic/7.jpg", group="7", grade=2, **known)
        >>> one.dataset, one.outlined, one.files()
        ('clinic', False, {'image': 'clinic/7.jpg'})
        >>> Photograph(id="clinic/train/8", image="../8.jpg", group="8", **known)
        Traceback (most recent call last):
            ...
        ValueError: photograph 'clinic/train/8': expected a path below the data set's root, got '../8.jpg'
    """

    id: str
    image: str
    split: str
    sha256: str
    perceptual_hash: str
    width_px: int
    height_px: int
    grade: int | None = None
    annotated: tuple[str, ...] = ()
    masks: Mapping[str, str] = field(default_factory=dict)
    areas_px: Mapping[str, int] = field(default_factory=dict)
    disputed: tuple[str, ...] = ()
    optic_disc: str | None = None
    fovea_px: Point | None = None
    disc_px: Point | None = None
    drawn_from: tuple[str, ...] = ()
    group: str
    patient: str | None = None
    columns: Mapping[str, str] = field(default_factory=dict)
    fold: int | None = None
    left_out: str | None = None

    def __post_init__(self) -> None:
        _check(self)

    @property
    def outlined(self) -> bool:
        """Whether this photograph was annotated for lesions (it may have none)."""
        return bool(self.annotated)

    @property
    def dataset(self) -> str:
        """Name of the data set that the photograph comes from."""
        return self.id.split("/")[0]

    def files(self) -> dict[str, str]:
        """Map roles (``image``, a lesion, ``optic_disc``, ``drawn_from/0``, ...) to paths."""
        disc = {"optic_disc": self.optic_disc} if self.optic_disc else {}
        sources = {f"drawn_from/{number}": path for number, path in enumerate(self.drawn_from)}
        return {"image": self.image, **self.masks, **disc, **sources}


def _check(row: Photograph) -> None:
    """Raise ValueError, naming the photograph, for values that no data set can have."""
    where = f"photograph {row.id!r}"
    _check_types(row, where)
    if row.split not in SPLITS:
        raise ValueError(f"{where}: expected split in {list(SPLITS)}, got {row.split!r}")
    if row.grade is not None and (isinstance(row.grade, bool) or row.grade not in GRADES):
        raise ValueError(f"{where}: expected a grade in 0-4 or null, got {row.grade!r}")
    _check_lesions(row, where)
    if row.width_px < 1 or row.height_px < 1 or row.width_px * row.height_px > PIXELS_MAX:
        raise ValueError(
            f"{where}: expected a size of at least 1x1 px and at most {PIXELS_MAX} pixels, got "
            f"{row.width_px}x{row.height_px}"
        )
    for name in ("sha256", "perceptual_hash"):
        if not HEXADECIMAL.fullmatch(getattr(row, name)):
            raise ValueError(f"{where}: expected {name} as 64 hexadecimal digits, got {getattr(row, name)!r}")
    for name in LANDMARKS:
        _check_point(name, getattr(row, name), (row.width_px, row.height_px), where)
    check_columns(row.columns, where)
    for path in row.files().values():
        if any(map(UNSAFE_PART.fullmatch, re.split(r"[/\\]", path))):
            raise ValueError(f"{where}: expected a path below the data set's root, got {path!r}")
    if row.fold is not None and (row.fold < 0 or row.split == "test" or row.left_out):
        raise ValueError(f"{where}: a fold belongs to training photographs, got fold {row.fold}")


def _check_lesions(row: Photograph, where: str) -> None:
    """Raise ValueError for masks, areas and disputed lesions that contradict each other."""
    if not set(row.annotated) <= set(LESIONS) or not set(row.masks) <= set(row.annotated):
        raise ValueError(
            f"{where}: expected masks of annotated lesions out of {list(LESIONS)}, got {sorted(row.masks)}"
        )
    if not set(row.disputed) <= set(row.annotated) - set(row.masks):
        raise ValueError(
            f"{where}: expected disputed lesions among the annotated ones without a mask, got {list(row.disputed)}"
        )
    if set(row.areas_px) != set(row.masks):
        raise ValueError(f"{where}: expected an area for each of the masks {sorted(row.masks)}, got {row.areas_px}")


def _check_types(row: Photograph, where: str) -> None:
    """Raise ValueError for values that JSON allows and a row does not."""
    whole = {"width_px": row.width_px, "height_px": row.height_px, "fold": row.fold or 0, **row.areas_px}
    wrong = [name for name, value in whole.items() if isinstance(value, bool) or not isinstance(value, int)]
    text = {"id": row.id, "group": row.group, "left_out": row.left_out or "", **row.files()}
    text |= {} if row.patient is None else {"patient": row.patient}
    wrong += [name for name, value in text.items() if not isinstance(value, str) or UNSAFE_CHARACTER.search(value)]
    if wrong:
        raise ValueError(
            f"{where}: expected sizes, areas and folds as whole numbers, names and paths as text, without NUL; "
            f"{wrong} are not"
        )


def check_columns(columns: Mapping[str, str], where: str) -> None:
    """Check names and values of further columns, which pages and MLflow may show.

    Raises:
        ValueError: if one is no text, empty, longer than ``COLUMN_MAX``, or has a line break or another character that
            cannot be shown. A long text is not repeated in the message.

    Example:
        >>> check_columns({"camera": "Topcon"}, "eye.jpg")
        >>> check_columns({"camera": ""}, "eye.jpg")
        Traceback (most recent call last):
            ...
        ValueError: eye.jpg: expected names and values of columns as text of 1 to 80 printable characters, got ''
    """
    for word in chain.from_iterable(columns.items()):
        if not isinstance(word, str) or not (0 < len(word) <= COLUMN_MAX and word.isprintable()):
            got = f"{len(word)} characters" if isinstance(word, str) and len(word) > COLUMN_MAX else repr(word)
            raise ValueError(
                f"{where}: expected names and values of columns as text of 1 to {COLUMN_MAX} printable characters, got "
                f"{got}"
            )


def _check_point(name: str, point: Point | None, size_px: tuple[int, int], where: str) -> None:
    if point is None:
        return
    two = isinstance(point, tuple) and len(point) == len(size_px)
    places = zip(point, size_px, strict=True) if two else ()
    if not two or not all(type(at) in (int, float) and -0.5 <= at < size - 0.5 for at, size in places):
        raise ValueError(
            f"{where}: expected {name} as column and row, two numbers inside {size_px[0]}x{size_px[1]} px, got {point}"
        )


def same_shape(size_px: tuple[int, int], other_px: tuple[int, int]) -> bool:
    """Return whether one image may be the other, resized: the aspect ratios differ by one percent at most.

    Example:
        >>> same_shape((4288, 2848), (1072, 712)), same_shape((4288, 2848), (2848, 2848))
        (True, False)
    """
    return abs(size_px[0] * other_px[1] / (size_px[1] * other_px[0]) - 1) <= SHAPE_TOLERANCE


def resized(point: Point, size_px: tuple[int, int], new_px: tuple[int, int]) -> Point:
    """Map a point to the same image at another size: pixel edges are aligned, so ``(x + 1/2) s - 1/2``.

    Example:
        >>> resized((1501.5, 2001.5), size_px=(4288, 2848), new_px=(1072, 712))
        (375.0, 500.0)
        >>> resized((2858, 1805), size_px=(4288, 2848), new_px=(4288, 2848))
        (2858.0, 1805.0)
    """
    x_px, y_px = ((at + 0.5) * new / old - 0.5 for at, old, new in zip(point, size_px, new_px, strict=True))
    return x_px, y_px


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """A data set, as used by the stages.

    Attributes:
        name: data set name.
        roots: folders by name; every path begins with one of these names.
        folds: number of cross-validation folds.
        seed: random seed of the folds.
        photographs: the rows, in the order of their ids.
        notes: findings when the manifest was made, one sentence each.
        sha256: hash of the file it was loaded from; empty if it was never saved.
    """

    name: str
    roots: Mapping[str, Path]
    folds: int
    seed: int
    photographs: tuple[Photograph, ...]
    notes: tuple[str, ...] = ()
    sha256: str = ""

    def __post_init__(self) -> None:
        _check_head(self)
        twice = [name for name, count in Counter(row.id for row in self.photographs).items() if count > 1]
        if twice:
            raise ValueError(f"manifest {self.name!r}: expected unique ids, got {len(twice)} twice: {twice[:3]}")
        lost = [
            row.id
            for row in self.photographs
            if not all(path.split("/")[0] in self.roots for path in row.files().values())
        ]
        if lost:
            raise ValueError(
                f"manifest {self.name!r}: expected paths that begin with one of {sorted(self.roots)}, {len(lost)} "
                f"photographs have others: {lost[:3]}"
            )
        for what, key in (("copies of one photograph", "group"), ("photographs of one patient", "patient")):
            if parted := _parted(self.photographs, key):
                raise ValueError(f"manifest {self.name!r}: {what} lie in two folds: {parted[:3]}")

    def path(self, relative: str) -> Path:
        """Return the absolute path of a file listed in a row.

        Raises:
            ValueError: as :func:`resolve`.
        """
        return resolve(self.roots, relative)

    @property
    def dataset_dir(self) -> str:
        """Return the first root, because MONAI's tools read one folder under this name."""
        return str(next(iter(self.roots.values())))

    def files(self, row: Photograph) -> dict[str, Path]:
        """Return the absolute paths of a row's files by role."""
        return {role: self.path(path) for role, path in row.files().items()}

    def landmark(self, row: Photograph, name: str) -> Point | None:
        """Return ``fovea_px`` or ``disc_px`` of a photograph, in its own pixels; None if unknown.

        Its own mark takes precedence over that of a copy. Copies of another shape are skipped, because they are cropped
        at an unknown place.
        """
        size_px = row.width_px, row.height_px
        for copy in (row, *(other for other in self.photographs if other.group == row.group)):
            point, marked_px = getattr(copy, name), (copy.width_px, copy.height_px)
            if point is not None and same_shape(size_px, marked_px):
                return resized(point, marked_px, size_px)
        return None

    def known_grades(self) -> dict[str, int]:
        """Map each group to its grade, if the data set grades a copy and all graded copies agree."""
        grades = defaultdict(set)
        for row in self.photographs:
            if row.grade is not None:
                grades[row.group].add(row.grade)
        return {group: next(iter(found)) for group, found in grades.items() if len(found) == 1}


def _parted(photographs: Iterable[Photograph], key: str) -> list[str]:
    """Return the groups or patients that have photographs in more than one fold."""
    folds = defaultdict(set)
    for row in photographs:
        if row.fold is not None:
            folds[getattr(row, key)].add(row.fold)
    return [name for name, found in folds.items() if len(found) > 1 and name is not None]


def _check_head(manifest: Manifest) -> None:
    """Raise ValueError for values that JSON allows and a manifest does not."""
    head = {"folds": manifest.folds, "seed": manifest.seed}
    wrong = [name for name, value in head.items() if isinstance(value, bool) or not isinstance(value, int)]
    text = {"name": manifest.name, **{f"note {number}": note for number, note in enumerate(manifest.notes)}}
    wrong += [name for name, value in text.items() if not isinstance(value, str)]
    if wrong:
        raise ValueError(
            f"manifest {manifest.name!r}: expected folds and seed as whole numbers, name and notes as text; {wrong} "
            f"are not"
        )


def resolve(roots: Mapping[str, Path], relative: str) -> Path:
    """Turn a path that begins with the name of a root into an absolute path.

    Raises:
        ValueError: if a symbolic link leads out of the root; its target is not part of the data set.
    """
    root, _, below = relative.partition("/")
    path = roots[root] / below
    real = Path(os.path.realpath(path)) if os.path.islink(path) else _real(path.parent) / path.name
    if not real.is_relative_to(_real(roots[root])):
        raise ValueError(
            f"expected {relative} below {roots[root]}, found a symbolic link to {real}; put the file there, or prepare "
            f"the data set with --follow_links, and the manifest names the files that its links lead to"
        )
    return path


@lru_cache
def _real(folder: Path) -> Path:
    """Resolve the links of a folder; cached, because a data set has few folders and many files."""
    return Path(os.path.realpath(folder))


def load_manifest(path: str | os.PathLike | None) -> Manifest:
    """Read and check a manifest.

    Raises:
        ValueError: if the file is missing, is not a manifest, or contains a value that no data set can have.

    Example:
        >>> load_manifest("nowhere.json")
        Traceback (most recent call last):
            ...
        ValueError: expected a manifest at nowhere.json, found no such file; make one with `python -m scripts.prepare`
    """
    if path is None:
        raise ValueError("expected --manifest FILE: what `python -m scripts.prepare` writes")
    path = Path(path)
    if not path.is_file():
        raise ValueError(
            f"expected a manifest at {path}, found no such file; make one with `python -m scripts.prepare`"
        )
    text = path.read_bytes()
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:  # also numbers of thousands of digits and deep nesting
        raise ValueError(f"expected a manifest (JSON) in {path}, got a file that does not parse: {error}") from None
    return _from_content(content, path, hashlib.sha256(text).hexdigest())


def _from_content(content: object, path: Path, sha256: str) -> Manifest:
    if not isinstance(content, dict) or content.get("schema") != SCHEMA:
        found = content.get("schema") if isinstance(content, dict) else type(content).__name__
        raise ValueError(
            f"expected a manifest of schema {SCHEMA} in {path}, got {found!r}; run `scripts.prepare` again"
        )
    try:
        rows = tuple(_row(entry) for entry in content["photographs"])
        roots = {name: _root(path.parent, root) for name, root in content["roots"].items()}
        return Manifest(
            name=content["name"],
            roots=roots,
            folds=content["folds"],
            seed=content["seed"],
            photographs=rows,
            notes=tuple(content["notes"]),
            sha256=sha256,
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"manifest {path}: a key is missing, unknown or of the wrong type: {error}") from None


def _root(folder: Path, root: str) -> Path:
    if UNSAFE_CHARACTER.search(root):
        raise ValueError(f"expected the roots of a manifest as folders, got {root!r}")
    return Path(os.path.realpath(folder / root))  # unlike Path.resolve, does not raise on circular links


def _row(entry: dict[str, Any]) -> Photograph:
    listed = {name: tuple(entry.get(name, ())) for name in ("annotated", "disputed", "drawn_from")}
    points = {name: tuple(entry[name]) for name in LANDMARKS if entry.get(name) is not None}
    return Photograph(**{**entry, **listed, **points})


def save_manifest(manifest: Manifest, path: str | os.PathLike) -> None:
    """Write a manifest; the final name appears only when the file is complete.

    A root inside the manifest's own folder is written relative to it, so that both can be moved together.
    """
    folder = Path(path).resolve().parent
    roots = {
        name: root.relative_to(folder).as_posix() if root.is_relative_to(folder) else str(root)
        for name, root in manifest.roots.items()
    }
    content = {
        "schema": SCHEMA, "name": manifest.name, "roots": roots, "folds": manifest.folds,
        "seed": manifest.seed, "notes": list(manifest.notes),
        "photographs": [_compact(row) for row in manifest.photographs],
    }  # fmt: skip
    write_text_whole(path, json.dumps(content, indent=1) + "\n")


def _compact(row: Photograph) -> dict[str, Any]:
    """Leave out fields that have their default value, so that 100,000 rows stay readable."""
    defaults = {f.name: f.default for f in dataclasses.fields(row)}
    values = {name: getattr(row, name) for name in defaults}
    return {name: value for name, value in values.items() if value not in (defaults[name], (), {})}
