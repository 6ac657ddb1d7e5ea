"""Evidence for each grade: how far its heat map lies on the outlined lesions; and the thresholds of all decisions."""

# flake8: noqa: N803

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import cv2
import numpy as np
from bundle.labels import GRADES
from bundle.networks.explained import SMALLEST_RANGE
from skimage.morphology import isotropic_dilation

_HIGHEST = {
    "confidence_min": len(GRADES), "evidence_gain": math.inf, "few_haemorrhages": math.inf, "grid_min": math.inf,
}  # fmt: skip
"""Upper limits of the thresholds that are not shares."""

NO_GAIN = 1e-6
"""A perfect map that gains no more than this over chance counts as gaining nothing: it is rounding error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Thresholds of the decision rules; the paper gives none of these values.

    Attributes:
        lift_min: least gain over chance of a supporting heat map, as a share of the gain of a perfect map of its grid.
        coverage_min: least share of the lesions covered by its hot part, as a share of what a perfect map covers.
        optic_disc_max: largest share of its hot part that may lie on the optic disc.
        hot: the hot part of a heat map is where it reaches this value.
        halo: lesions are dilated by this share of the image's width, because heat maps are coarse.
        feasible_mass_min: abstain if all feasible grades together have a lower probability than this.
        confidence_min: abstain if the share of the likeliest feasible grade is below this factor times the uniform one.
        grid_min: heat maps on a grid with fewer rows or columns are refused; at 2x2 they carry no information.
        evidence_gain: log of the factor by which support raises a grade in the soft label.
        few_haemorrhages: up to this number of haemorrhages, all tiny and without exudates, may be microaneurysms: rule
            R2'. 0 switches the rule off.
        tiny: diameter of a tiny haemorrhage as a share of the field's diameter: 125 um in about 14.4 mm (50 degrees).
        name_atypical: whether exudates without any red lesion are named R2'' instead of R2.

    Raises:
        ValueError: if a share is not in [0, 1], or a value is negative, not finite or too large.

    Example:
        >>> Thresholds(coverage_min=1.5)
        Traceback (most recent call last):
            ...
        ValueError: expected threshold coverage_min in [0, 1.0], got 1.5
    """

    lift_min: float = 0.25
    coverage_min: float = 0.25
    optic_disc_max: float = 0.3
    hot: float = 0.5
    halo: float = 0.01
    feasible_mass_min: float = 0.2
    confidence_min: float = 1.2
    evidence_gain: float = 1.0
    few_haemorrhages: int = 0
    tiny: float = 0.0087
    name_atypical: bool = False
    grid_min: int = 8

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            highest = _HIGHEST.get(name, 1.0)
            if not (0 <= value <= highest and math.isfinite(value)):
                raise ValueError(f"expected threshold {name} in [0, {highest}], got {value}")
        if self.hot == 0:
            raise ValueError("expected threshold hot above 0, got 0: every pixel would be hot")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Overlap of one grade's heat map with the lesions and the optic disc.

    Attributes:
        grade: grade of the heat map.
        energy: share of the heat map's sum that lies on lesions.
        hit: share of its hot pixels on lesions.
        optic_disc: share of its hot pixels on the optic disc; None if the disc is not outlined.
        coverage: share of the lesions that is hot; None without lesions.
        lift: energy divided by the lesions' share of the field of view, 1 by chance; None without lesions.
        supported: whether the lesions support this grade: membership in H.
        empty: whether the heat map is zero everywhere and so carries no information.
        relative_lift: gain of the lift over chance, as a share of a perfect map's gain: 0 by chance, 1 for a perfect
            map, more if the heat lies on only a few of the lesions; None if a perfect map gains nothing.
        relative_coverage: coverage divided by that of a perfect map; None if a perfect map covers nothing.
    """

    grade: int
    energy: float
    hit: float
    optic_disc: float | None
    coverage: float | None
    lift: float | None
    supported: bool
    empty: bool = False
    relative_lift: float | None = None
    relative_coverage: float | None = None


def check_grid(grid_hw: tuple[int, int], image_size: int, thresholds: Thresholds) -> None:
    """Refuse heat maps on a grid that is too coarse to separate lesions from their surroundings.

    Args:
        grid_hw: height and width of the activations that heat maps are made from.
        image_size: side of the images, in pixels.
        thresholds: ``grid_min`` is the smallest number of rows and columns.

    Raises:
        ValueError: if the grid has fewer rows or columns.

    Example:
        >>> check_grid((8, 8), 256, Thresholds())
        >>> check_grid((3, 3), 96, Thresholds())
        Traceback (most recent call last):
            ...
        ValueError: expected heat maps on a grid of 8x8 or more, got 3x3 at image_size 96: a lesion fills a part of \
one cell there; raise image_size to 256, take heat_map_stride 16 (from image_size 128 on), or lower thresholds::grid_min
    """
    least = thresholds.grid_min
    if min(grid_hw) >= least:
        return
    stride = image_size // min(grid_hw)
    finer = f" take heat_map_stride 16 (from image_size {16 * least} on)," if stride > 16 else ""
    raise ValueError(
        f"expected heat maps on a grid of {least}x{least} or more, got {grid_hw[0]}x{grid_hw[1]} at image_size "
        f"{image_size}: a lesion fills a part of one cell there; raise image_size to {stride * least},{finer} or lower "
        f"thresholds::grid_min"
    )


def perfect_map(lesions_HW: np.ndarray, grid_hw: tuple[int, int]) -> np.ndarray:
    """Return the best heat map that a grid allows: the share of lesion pixels in each of its cells.

    It is resized to the image and scaled to [0, 1], as pytorch-grad-cam does with real maps.

    Args:
        lesions_HW: bool, with at least one pixel.
        grid_hw: height and width of the grid.

    Returns:
        ``(H, W)``, float32.

    Example:
        >>> lesions = np.zeros((4, 8), dtype=bool)
        >>> lesions[:2, 2:4] = True
        >>> perfect_map(lesions, (2, 4)).round(2)[[0, 3]]  # bilinear: what fills a cell reaches into its neighbours
        array([[0.  , 0.33, 1.  , 1.  , 0.33, 0.  , 0.  , 0.  ],
               [0.  , 0.  , 0.  , 0.  , 0.  , 0.  , 0.  , 0.  ]], dtype=float32)
    """
    (height, width), (rows, columns) = lesions_HW.shape, grid_hw
    shares = cv2.resize(lesions_HW.astype(np.float32), (columns, rows), interpolation=cv2.INTER_AREA)  # (h, w)
    return _scaled(cv2.resize(_scaled(shares), (width, height), interpolation=cv2.INTER_LINEAR))


def _scaled(heat: np.ndarray) -> np.ndarray:
    above = heat - heat.min()
    return above / (SMALLEST_RANGE + above.max())


def evidence(
    maps_5HW: np.ndarray,
    lesions_HW: np.ndarray,
    optic_disc_HW: np.ndarray | None,
    field_HW: np.ndarray,
    thresholds: Thresholds,
    *,
    grids: Sequence[tuple[int, int]],
) -> tuple[Evidence, ...]:
    """Measure how well the heat map of every grade overlaps the outlined lesions.

    With the map A, its hot part ``B = {A >= hot}``, the dilated lesions M, optic disc O and field of view V:
    ``energy = sum(A M) / sum(A)``, ``hit = |B M| / |B|``, ``optic_disc = |B O| / |B|``, ``coverage = |B M| / |M|``,
    ``lift = energy / (|M| / |V|)``. A share with denominator 0, as for a map of zeros, is 0.

    The grid limits what a map can reach. So lift and coverage are compared with those of the perfect map of the same
    grid (:func:`perfect_map` of M), measured by the same formulas: ``relative_lift = (lift - 1) / (lift_perfect - 1)``
    and ``relative_coverage = coverage / coverage_perfect``. A grade is supported if both are high enough and the
    share on the optic disc is low enough. Without lesions no grade is supported.

    Args:
        maps_5HW: in [0, 1], one per grade.
        lesions_HW: bool, the union of all lesions.
        optic_disc_HW: bool, or None if it is not outlined; it is then not tested.
        field_HW: bool, the field of view.
        thresholds: see :class:`Thresholds`.
        grids: height and width of the activations that the maps were made from; with several grids, maps and perfect
            maps are means.

    Raises:
        ValueError: if shapes or types do not match, a map has values outside [0, 1], there is no grid, or the field of
            view is empty.

    Example:
        >>> maps, lesions, field = np.zeros((5, 4, 6)), np.zeros((4, 6), dtype=bool), np.ones((4, 6), dtype=bool)
        >>> maps[2, 1, 2:4], lesions[1, 2:5] = 1, True
        >>> of_2 = evidence(maps, lesions, None, field, Thresholds(halo=0.0), grids=[(4, 6)])[2]
        >>> round(of_2.coverage, 3), of_2.lift, of_2.relative_lift, of_2.supported  # 2 of 3 pixels; 1 / (3 / 24)
        (0.667, 8.0, 1.0, True)
    """
    maps = np.asarray(maps_5HW, dtype=np.float64)
    _check_maps(maps, [lesions_HW, field_HW] + ([] if optic_disc_HW is None else [optic_disc_HW]))
    if not field_HW.any():
        raise ValueError("expected a field of view with at least one pixel, got an empty one")
    if not grids:
        raise ValueError("expected the grid (h, w) of the activations that the heat maps were made on, got none")
    halo_px = thresholds.halo * maps.shape[2]
    lesions = isotropic_dilation(lesions_HW, halo_px) & field_HW  # (H, W)
    perfect = None
    if lesions.any():
        best_HW = np.mean([perfect_map(lesions, grid_hw) for grid_hw in grids], axis=0)
        perfect = _overlap(best_HW, lesions, field_HW, thresholds.hot)
    return tuple(
        _of_grade(grade, maps[grade], lesions, optic_disc_HW, field_HW, perfect, thresholds) for grade in GRADES
    )


def _check_maps(maps: np.ndarray, masks: Sequence[np.ndarray]) -> None:
    if maps.ndim != 3 or len(maps) != len(GRADES) or any(mask.shape != maps.shape[1:] for mask in masks):
        shapes = [mask.shape for mask in masks]
        raise ValueError(f"expected maps (5, H, W) and masks (H, W), got {maps.shape} and {shapes}")
    if any(mask.dtype != np.bool_ for mask in masks):
        raise ValueError(f"expected bool masks, got {[str(mask.dtype) for mask in masks]}; compare them with 0 first")
    if not (maps.min() >= 0 and maps.max() <= 1):
        raise ValueError(f"expected heat maps in [0, 1], got values from {maps.min()} to {maps.max()}")


class _Overlap(NamedTuple):
    """Scores of a heat map on an image with lesions."""

    energy: float
    coverage: float
    lift: float


def _overlap(heat_HW: np.ndarray, lesions_HW: np.ndarray, field_HW: np.ndarray, hot: float) -> _Overlap:
    energy = _share(heat_HW[lesions_HW].sum(), heat_HW.sum())
    coverage = _share(((heat_HW >= hot) & lesions_HW).sum(), lesions_HW.sum())
    return _Overlap(energy, coverage, lift=energy / _share(lesions_HW.sum(), field_HW.sum()))


def _of_grade(
    grade: int,
    heat_HW: np.ndarray,
    lesions_HW: np.ndarray,
    optic_disc_HW: np.ndarray | None,
    field_HW: np.ndarray,
    perfect: _Overlap | None,
    thresholds: Thresholds,
) -> Evidence:
    """Compare a heat map with the perfect one, which is None without lesions."""
    hot_HW = heat_HW >= thresholds.hot
    on_disc = None if optic_disc_HW is None else _share((hot_HW & optic_disc_HW).sum(), hot_HW.sum())
    overlap = relative_lift = relative_coverage = None
    if perfect is not None:
        overlap = _overlap(heat_HW, lesions_HW, field_HW, thresholds.hot)
        relative_lift = _relative(overlap.lift, perfect.lift, chance=1.0)
        relative_coverage = _relative(overlap.coverage, perfect.coverage, chance=0.0)
    return Evidence(
        grade=grade,
        energy=0.0 if overlap is None else overlap.energy,
        hit=_share((hot_HW & lesions_HW).sum(), hot_HW.sum()),
        optic_disc=on_disc,
        coverage=None if overlap is None else overlap.coverage,
        lift=None if overlap is None else overlap.lift,
        supported=_supported(on_disc, relative_coverage, relative_lift, thresholds),
        empty=not heat_HW.any(),
        relative_lift=relative_lift,
        relative_coverage=relative_coverage,
    )


def _relative(value: float, perfect: float, chance: float) -> float | None:
    return None if perfect - chance <= NO_GAIN else (value - chance) / (perfect - chance)


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else 0.0


def _supported(
    on_disc: float | None, relative_coverage: float | None, relative_lift: float | None, thresholds: Thresholds
) -> bool:
    if relative_coverage is None or relative_lift is None:
        return False
    off_disc = on_disc is None or on_disc <= thresholds.optic_disc_max
    return off_disc and relative_lift >= thresholds.lift_min and relative_coverage >= thresholds.coverage_min
