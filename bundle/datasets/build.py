"""Building of a manifest from a reader's rows: open every photograph and mask once, then deal the folds."""

import hashlib
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from bundle.datasets.copies import perceptual_hash
from bundle.datasets.folds import deal
from bundle.datasets.notes import CHANGED, LEFT_OUT
from bundle.datasets.patients import pseudonym
from bundle.datasets.readers.files import names
from bundle.datasets.readers.raw import OPTIC_DISC, OUTLINES_NOTE, Drawn, Landmark, RawPhotograph
from bundle.files import content_sha256, written_whole
from bundle.labels import LESIONS
from bundle.manifest import Manifest, Photograph, Point, resized, resolve, same_shape
from bundle.transforms.decode import changes, decode_mask, decode_photograph, mask_levels, to_rgb
from bundle.transforms.field import field_of_view
from bundle.transforms.outlines import load_mask
from bundle.transforms.pixels import brightest
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

HASHED_SIDE_PX = 256
"""Shortest side of a photograph as decoded for the audit."""

INVERTED = "masks read the other way round, because they mark more than half of the photograph"


def build_manifest(
    name: str,
    rows: Sequence[RawPhotograph],
    root: str | os.PathLike,
    *,
    drawn_root: str | os.PathLike | None = None,
    folds: int = 5,
    seed: int = 0,
    notes: Iterable[str] = (),
    allow_missing: bool = False,
    keep_leaks: bool = False,
    follow_links: bool = False,
) -> Manifest:
    """Open, check and hash every photograph and its masks, then group the copies and deal the folds.

    A lesion with an empty mask is absent, and its mask is dropped. A mask that marks more than half of the photograph
    marks the background: it is inverted, with a note. Such masks and those drawn by a row are written to ``drawn_root``
    under names that change with the content, so an older manifest never refers to newer masks.

    Args:
        name: name of the data set; first part of every id and path.
        rows: photographs that a reader found.
        root: folder of the data set.
        drawn_root: folder for drawn masks; required if there are any.
        folds: number of cross-validation folds.
        seed: seed of the folds.
        notes: notes of the reader; the notes of this function are appended.
        allow_missing: leave out unusable photographs and note each of them, instead of raising an error.
        keep_leaks: see :func:`bundle.datasets.folds.deal`.
        follow_links: read symbolic links that lead out of ``root``, and put the files that they lead to into the
            manifest, below a root of their own, instead of raising an error.

    Raises:
        ValueError: if there are no rows, an image or mask cannot be decoded completely, an image has no field of view,
            a mask differs in size from its image or is not binary, or there are too few photographs for the folds.
    """
    if not rows:
        raise ValueError(f"data set {name!r}: expected at least one photograph, got none")
    roots = {name: Path(root).resolve()}
    if any(row.draw for row in rows) and drawn_root is None:
        raise ValueError(f"data set {name!r}: expected a drawn_root, because its masks must be drawn")
    if drawn_root is not None:
        roots[f"{name}.masks"] = Path(drawn_root).resolve()
    if follow_links:
        rows, roots = _followed(rows, name, roots)
    inspected, broken = _inspect_all(
        sorted(rows, key=lambda row: row.id), _Inspector(name, roots), roots[name] if allow_missing else None
    )
    if not inspected:
        raise ValueError(f"data set {name!r}: expected at least one photograph that can be used, got none: {broken[0]}")
    photographs = [one.photograph for one in inspected]
    used = {path.split("/")[0] for row in photographs for path in row.files().values()}
    roots = {root: folder for root, folder in roots.items() if root in {name, *used}}
    dealt_notes = (
        *notes, *_dispute_notes(photographs), *_landmark_notes(rows, photographs), *_change_notes(inspected), *broken
    )  # fmt: skip
    return deal(name, roots, photographs, folds, seed, dealt_notes, keep_leaks)


def _followed(
    rows: Sequence[RawPhotograph], name: str, roots: Mapping[str, Path]
) -> tuple[list[RawPhotograph], dict[str, Path]]:
    """Replace links out of the root by the files that they lead to, and add a root that holds all of these."""
    followed = [
        replace(
            row,
            image=_target(row.image, roots[name]),
            masks={lesion: _target(path, roots[name]) for lesion, path in row.masks.items()},
            optic_disc=_target(row.optic_disc, roots[name]) if row.optic_disc else None,
            drawn_from=tuple(_target(path, roots[name]) for path in row.drawn_from),
        )
        for row in rows
    ]
    files = [path for row in followed for path in (row.image, *row.masks.values(), row.optic_disc, *row.drawn_from)]
    outside = [path.parent for path in files if path and not path.is_relative_to(roots[name])]
    return followed, {**roots, **({f"{name}.links": Path(os.path.commonpath(outside))} if outside else {})}


def _target(path: Path, root: Path) -> Path:
    """Return the file that a path leads to if it is not below the root; else the path as it is."""
    target = path.resolve()
    return path if target.is_relative_to(root) else target


def _dispute_notes(photographs: Sequence[Photograph]) -> list[str]:
    disputed = [f"{row.id} {'+'.join(row.disputed)}" for row in photographs if row.disputed]
    what = "disputed, marked by some without a pixel that counts"
    return [f"{OUTLINES_NOTE}{what}: {len(disputed)} ({names(disputed, 20)})"] if disputed else []


def _landmark_notes(rows: Sequence[RawPhotograph], photographs: Sequence[Photograph]) -> list[str]:
    placed = {row.id.partition("/")[2] for row in photographs if row.fovea_px or row.disc_px}
    opened = {row.id.partition("/")[2] for row in photographs}
    lost = [row.id for row in rows if (row.fovea or row.disc) and row.id in opened - placed]
    what = "fovea and disc not placed, for they were marked on a picture of another shape"
    return [f"{what}: {len(lost)} ({names(lost)})"] if lost else []


class _Inspected(NamedTuple):
    photograph: Photograph
    noted: Mapping[str, tuple[str, ...]]
    """What was read otherwise than stored, and what of the photograph."""


def _change_notes(inspected: Sequence[_Inspected]) -> list[str]:
    found: dict[str, list[str]] = defaultdict(list)
    for photograph, noted in inspected:
        for what, parts in noted.items():
            found[what] += [" ".join([photograph.id.partition("/")[2], *part.split()]) for part in parts]
    return [f"{CHANGED}: {len(changed)} {what} ({names(changed)})" for what, changed in found.items()]


def _inspect_all(
    rows: Sequence[RawPhotograph], inspect: Callable[[RawPhotograph], _Inspected], noted_below: Path | None
) -> tuple[list[_Inspected], list[str]]:
    """Return the photographs and a note for each unusable one, with paths below a root; if that is None, refuse it."""
    photographs, broken = [], []
    # Threads suffice: decoding and hashing release the interpreter lock.
    with ThreadPoolExecutor() as pool:
        futures = [pool.submit(inspect, row) for row in rows]
        try:
            for future in tqdm(futures, desc="opening photographs", disable=None):
                try:
                    photographs.append(future.result())
                except ValueError as error:
                    if noted_below is None:
                        raise
                    broken.append(f"{LEFT_OUT}: {str(error).replace(f'{noted_below}/', '')}")
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
    return photographs, broken


class _Inspector:
    """Converter from a reader's row to a manifest row in a group of its own; it opens the photograph and its masks."""

    def __init__(self, name: str, roots: Mapping[str, Path]) -> None:
        self.name, self.roots = name, roots

    def __call__(self, row: RawPhotograph) -> _Inspected:
        opened = decode_photograph(row.image, draft=("L", HASHED_SIDE_PX))
        image, (width_px, height_px), _ = opened
        grey = _grey(image, row.image)
        try:
            box = field_of_view(np.asarray(grey))
        except ValueError as error:
            raise ValueError(f"{row.image}: {error}") from None
        disc = {OPTIC_DISC: row.optic_disc} if row.optic_disc else {}
        drawn = row.draw(width_px, height_px) if row.draw else Drawn({})
        files = {**row.masks, **disc, **self._write_masks(row, drawn)}
        areas_px = {role: _area_px(path, row.image, (width_px, height_px)) for role, path in files.items()}
        large = [role for role in files if 2 * areas_px[role] > width_px * height_px]
        _refuse_drawn(drawn.masks.keys() & large, row)
        inverted = [role for role in large if role not in drawn.masks]
        turned = Drawn({role: ~load_mask(files[role]) for role in inverted})
        files |= self._write_masks(row, turned)
        areas_px |= {role: int(mask.sum()) for role, mask in turned.masks.items()}
        sources = (*row.drawn_from, *({**row.masks, **disc}[role] for role in inverted))
        masks = {lesion: files[lesion] for lesion in LESIONS if areas_px.get(lesion)}
        name = f"{self.name}/{row.id}"
        photograph = Photograph(
            id=name,
            image=self._mounted(row.image),
            split=row.split,
            sha256="0" * 64,  # placeholder; the hash of the files is set below
            perceptual_hash=perceptual_hash(grey.crop(box)),
            width_px=width_px,
            height_px=height_px,
            grade=row.grade,
            annotated=row.annotated,
            masks={lesion: self._mounted(path) for lesion, path in masks.items()},
            areas_px={lesion: areas_px[lesion] for lesion in masks},
            disputed=drawn.disputed,
            optic_disc=self._mounted(files[OPTIC_DISC]) if areas_px.get(OPTIC_DISC) else None,
            fovea_px=_placed(row.fovea, (width_px, height_px)),
            disc_px=_placed(row.disc, (width_px, height_px)),
            drawn_from=tuple(map(self._mounted, sources)),
            group=name,
            patient=f"{self.name}/{pseudonym(row.patient)}" if row.patient else None,
            columns=row.columns,
        )
        content = {role: resolve(self.roots, path) for role, path in photograph.files().items()}
        noted = {
            **({INVERTED: tuple(inverted)} if inverted else {}),
            **{f"photographs {change}": ("",) for change in changes(opened)},
        }
        return _Inspected(replace(photograph, sha256=content_sha256(content)), noted)

    def _write_masks(self, row: RawPhotograph, drawn: Drawn) -> dict[str, Path]:
        """Write the drawn masks that are not empty; return the path of each role."""
        masks = {role: mask for role, mask in drawn.masks.items() if mask.any()}
        if masks and f"{self.name}.masks" not in self.roots:
            raise ValueError(f"data set {self.name!r}: expected a drawn_root, because masks of {row.id} must be drawn")
        folder = self.roots[f"{self.name}.masks"] if masks else Path()
        return {role: _write_mask(folder / f"{row.id}_{role}", mask) for role, mask in masks.items()}

    def _mounted(self, path: Path) -> str:
        """Return an absolute path as the name of its root followed by the path relative to that root."""
        for name, root in self.roots.items():
            if path.is_relative_to(root):
                return f"{name}/{path.relative_to(root).as_posix()}"
        raise ValueError(f"expected a file below {' or '.join(map(str, self.roots.values()))}, got {path}")


def _refuse_drawn(large: Iterable[str], row: RawPhotograph) -> None:
    """Refuse drawn masks of more than half of the photograph: all that is not the lesion may be another lesion."""
    if large := sorted(large):
        sources = ", ".join(path.name for path in row.drawn_from)
        raise ValueError(
            f"expected lesions on less than half of {row.image}, got more of {', '.join(large)} in {sources}: name the "
            f"index of the lesion, not of the background, in --indices; invert grey masks in which the lesion is dark"
        )


def _grey(image: Image.Image, path: Path) -> Image.Image:
    """Return the grey levels of the 8-bit colours that the networks see."""
    try:
        return Image.fromarray(to_rgb(image)).convert("L")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _placed(landmark: Landmark | None, size_px: tuple[int, int]) -> Point | None:
    """Convert a landmark to pixels of the file; return None if it was marked on another shape: the crop is unknown."""
    if landmark is None or not same_shape(size_px, landmark.size_px):
        return None
    return resized((landmark.x_px, landmark.y_px), landmark.size_px, size_px)


def _write_mask(stem: Path, mask: NDArray[np.bool_]) -> Path:
    """Write a mask with one bit per pixel, under a name that contains its hash."""
    packed = hashlib.sha256(np.packbits(mask).tobytes()).hexdigest()
    path = stem.with_name(f"{stem.name}.{packed[:12]}.png")
    if not path.is_file():
        with written_whole(path) as beside:
            Image.fromarray(mask).save(beside)
    return path


def _area_px(mask: Path, image: Path, size: tuple[int, int]) -> int:
    """Check a mask and count its foreground pixels."""
    content, mask_size, _ = decode_mask(mask)
    if mask_size != size:
        raise ValueError(
            f"expected a mask of {size[0]}x{size[1]} px as {image}, got {mask_size[0]}x{mask_size[1]} px in {mask}"
        )
    counts = _lesion_values(content, mask)
    if len(counts) > 1:
        raise ValueError(
            f"expected a mask of two values, 0 and another, got {names(map(str, counts))} as well as 0 in {mask}; "
            f"--dataset folder reads grey masks with --mask_min, and one mask of several lesions with --indexed_masks"
        )
    area_px = sum(counts.values())
    if area_px == size[0] * size[1]:
        raise ValueError(
            f"expected a mask with background, which is 0, got none in {mask}: the whole of {image.name} would be "
            f"lesion; mend the mask, or remove it where the lesion is absent"
        )
    return area_px


def _lesion_values(content: Image.Image, mask: Path) -> dict[object, int]:
    """Count the pixels of each value or colour other than background."""
    if content.mode in ("1", "L", "P"):  # three times as fast as np.unique
        return {value: count for value, count in enumerate(content.histogram()) if value and count}
    levels = mask_levels(content, mask)  # (H, W, C)
    values, counts = np.unique(levels[brightest(levels) != 0], axis=0, return_counts=True)
    return dict(zip(map(tuple, values.tolist()), counts.tolist(), strict=True))
