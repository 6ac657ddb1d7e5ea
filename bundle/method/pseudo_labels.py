"""Pseudo-labels: the graders' probabilities of an image's grade, checked against its outlined lesions."""

# flake8: noqa: N803, N806

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from bundle.labels import GRADES, HAEMORRHAGES_MODERATE, LESION_NAMES, LESIONS, QUADRANTS, Feasible, consistent_grade
from bundle.transforms import lesion_areas_px
from scipy.stats import binomtest
from skimage.morphology import isotropic_dilation
from sklearn.metrics import cohen_kappa_score

MODES = ("max_confidence", "log_mean")

_HIGHEST = {
    "confidence_min": len(GRADES), "evidence_gain": math.inf, "few_haemorrhages": math.inf, "grid_min": math.inf,
}  # fmt: skip
"""Upper limits of the thresholds that are not shares."""

SMALLEST_RANGE = 1e-7
"""Added to the largest value of a map before dividing by it, as in pytorch-grad-cam."""

SHARE_MIN = 1e-6
"""Smallest share of a grade in a logarithm of a soft label: a photograph whose true grade is ruled out costs 13.8."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The grade taught for one image, and the reason.

    Attributes:
        proposed: the graders' likeliest grade.
        decided: the grade after the rules; always feasible.
        action: ``keep``, ``move`` or ``abstain``.
        rule: rule that gave the feasible grades, such as ``R2``.
        reason: the whole decision in one sentence.
        confidence: share of the likeliest feasible grade in the probability of all feasible grades.
        weight: weight of this image in the grading loss: the probability of the feasible grades, 0 after abstaining,
            1 if only one grade is feasible.
        soft_label: five numbers that sum to 1, zero outside the feasible grades.
        changed_by_heat: whether the decided grade would be different without heat maps.
    """

    proposed: int
    decided: int
    action: str
    rule: str
    reason: str
    confidence: float
    weight: float
    soft_label: tuple[float, ...]
    changed_by_heat: bool = False

    @property
    def taught(self) -> int | None:
        """The likeliest grade of the soft label, the first on ties; None if nothing is taught."""
        return self.soft_label.index(max(self.soft_label)) if self.weight > 0 else None


def combine(probabilities_GC: np.ndarray, mode: str) -> tuple[np.ndarray, int | None]:
    """Combine the probabilities of several graders.

    ``max_confidence`` (the paper): only the grader with the largest probability of any grade counts.
    ``log_mean``: the normalised geometric mean of all.

    Args:
        probabilities_GC: one row of five probabilities per grader.
        mode: one of ``MODES``.

    Returns:
        The five probabilities, and the index of the winning grader (the first on ties), None for ``log_mean``.

    Raises:
        ValueError: if the mode is unknown or a row is not a probability distribution over the five grades.

    Example:
        >>> probabilities, winner = combine(np.array([[0.6, 0.4, 0, 0, 0], [0, 0.3, 0.7, 0, 0]]), "max_confidence")
        >>> probabilities.tolist(), winner
        ([0.0, 0.3, 0.7, 0.0, 0.0], 1)
    """
    rows = np.asarray(probabilities_GC, dtype=np.float64)
    if mode not in MODES:
        raise ValueError(f"expected mode in {list(MODES)}, got {mode!r}")
    if rows.ndim != 2 or not len(rows):
        raise ValueError(f"expected one row of {len(GRADES)} probabilities per grader, got shape {rows.shape}")
    rows = np.stack([_distribution(row) for row in rows])
    if mode == "max_confidence":
        winner = int(rows.max(axis=1).argmax())
        return rows[winner], winner
    log_mean = np.log(np.maximum(rows, np.finfo(np.float64).tiny)).mean(axis=0)
    product = np.exp(log_mean - log_mean.max())
    return product / product.sum(), None


def _distribution(probabilities: np.ndarray) -> np.ndarray:
    p = np.asarray(probabilities, dtype=np.float64)
    if p.shape != (len(GRADES),):
        raise ValueError(f"expected {len(GRADES)} probabilities, got shape {p.shape}")
    if not (np.isfinite(p).all() and (p >= 0).all() and abs(p.sum() - 1) < 1e-4):
        raise ValueError(f"expected probabilities that are finite, not negative and sum to 1, got {p.tolist()}")
    return p / p.sum()


def haemorrhages_in_doubt(label_map_HW: np.ndarray, field_HW: np.ndarray, thresholds: Thresholds) -> tuple[str, ...]:
    """Return ``("HE",)`` if all haemorrhages together are so few and small that they may be microaneurysms.

    A component (8 neighbours) is tiny if its area is at most that of a disc of ``tiny`` times the field's diameter,
    with the field treated as a disc: ``area <= tiny ** 2 |V|``.

    Args:
        label_map_HW: classes 0-4.
        field_HW: bool, the field of view.
        thresholds: with ``few_haemorrhages`` 0, none are in doubt.

    Example:
        >>> label_map = np.zeros((20, 30), np.uint8)
        >>> label_map[8, 12] = LESIONS.index("HE") + 1
        >>> field = np.ones((20, 30), dtype=bool)
        >>> haemorrhages_in_doubt(label_map, field, Thresholds(few_haemorrhages=2, tiny=0.05))  # 1 <= 0.05^2 * 600
        ('HE',)
        >>> haemorrhages_in_doubt(label_map, field, Thresholds(few_haemorrhages=2, tiny=0.04))
        ()
    """
    areas_px = lesion_areas_px(label_map_HW)["HE"]
    few = 0 < len(areas_px) <= thresholds.few_haemorrhages
    return ("HE",) if few and areas_px.max() <= thresholds.tiny**2 * field_HW.sum() else ()


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
        >>> maps, lesions = np.zeros((5, 4, 6)), np.zeros((4, 6), dtype=bool)
        >>> maps[2, 1, 2:4], lesions[1, 2:5] = 1, True
        >>> field, thresholds = np.ones((4, 6), dtype=bool), Thresholds(halo=0.0)
        >>> found = evidence(maps, lesions, None, field, thresholds, grids=[(4, 6)])  # as fine as the image
        >>> round(found[2].coverage, 3), found[2].lift, found[2].supported  # 2 of 3 pixels; 1 / (3 / 24)
        (0.667, 8.0, True)
        >>> found[2].relative_lift
        1.0
    """
    maps = np.asarray(maps_5HW, dtype=np.float64)
    _check_maps(maps, [lesions_HW, field_HW] + ([] if optic_disc_HW is None else [optic_disc_HW]))
    if not field_HW.any():
        raise ValueError("expected a field of view with at least one pixel, got an empty one")
    if not grids:
        raise ValueError("expected the grid (h, w) of the activations that the heat maps were made on, got none")
    halo_px = thresholds.halo * maps.shape[2]
    lesions = isotropic_dilation(lesions_HW, halo_px) & field_HW
    best = None
    if lesions.any():
        perfect = np.mean([perfect_map(lesions, grid_hw) for grid_hw in grids], axis=0)
        best = _on_lesions(perfect, lesions, field_HW, thresholds.hot)
    return tuple(_weigh(grade, maps[grade], lesions, optic_disc_HW, field_HW, best, thresholds) for grade in GRADES)


def _check_maps(maps: np.ndarray, masks: Sequence[np.ndarray]) -> None:
    if maps.ndim != 3 or len(maps) != len(GRADES) or any(mask.shape != maps.shape[1:] for mask in masks):
        shapes = [mask.shape for mask in masks]
        raise ValueError(f"expected maps (5, H, W) and masks (H, W), got {maps.shape} and {shapes}")
    if any(mask.dtype != np.bool_ for mask in masks):
        raise ValueError(f"expected bool masks, got {[str(mask.dtype) for mask in masks]}; compare them with 0 first")
    if not (maps.min() >= 0 and maps.max() <= 1):
        raise ValueError(f"expected heat maps in [0, 1], got values from {maps.min()} to {maps.max()}")


class _OnLesions(NamedTuple):
    """Scores of a heat map on an image with lesions."""

    energy: float
    coverage: float
    lift: float


def _on_lesions(heat: np.ndarray, lesions: np.ndarray, field: np.ndarray, hot: float) -> _OnLesions:
    energy = _share(heat[lesions].sum(), heat.sum())
    coverage = _share(((heat >= hot) & lesions).sum(), lesions.sum())
    return _OnLesions(energy, coverage, lift=energy / _share(lesions.sum(), field.sum()))


def _weigh(
    grade: int,
    heat: np.ndarray,
    lesions: np.ndarray,
    optic_disc: np.ndarray | None,
    field: np.ndarray,
    best: _OnLesions | None,
    thresholds: Thresholds,
) -> Evidence:
    hot = heat >= thresholds.hot
    on_disc = None if optic_disc is None else _share((hot & optic_disc).sum(), hot.sum())
    found = None if best is None else _on_lesions(heat, lesions, field, thresholds.hot)
    relative_lift = relative_coverage = None
    if found is not None and best is not None:
        relative_lift = _relative(found.lift, best.lift, chance=1.0)
        relative_coverage = _relative(found.coverage, best.coverage, chance=0.0)
    return Evidence(
        grade=grade,
        energy=0.0 if found is None else found.energy,
        hit=_share((hot & lesions).sum(), hot.sum()),
        optic_disc=on_disc,
        coverage=None if found is None else found.coverage,
        lift=None if found is None else found.lift,
        supported=_supported(on_disc, relative_coverage, relative_lift, thresholds),
        empty=not heat.any(),
        relative_lift=relative_lift,
        relative_coverage=relative_coverage,
    )


def _relative(value: float, best: float, chance: float) -> float | None:
    return None if best - chance <= NO_GAIN else (value - chance) / (best - chance)


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else 0.0


def _supported(
    on_disc: float | None, relative_coverage: float | None, relative_lift: float | None, thresholds: Thresholds
) -> bool:
    if relative_coverage is None or relative_lift is None:
        return False
    off_disc = on_disc is None or on_disc <= thresholds.optic_disc_max
    return off_disc and relative_lift >= thresholds.lift_min and relative_coverage >= thresholds.coverage_min


def decide(
    probabilities: np.ndarray,
    feasible: Feasible,
    evidence: Sequence[Evidence],
    thresholds: Thresholds,
    *,
    present: Collection[str],
) -> Decision:
    """Keep the proposed grade, move it to a grade that the lesions allow, or abstain.

    With the feasible grades F and the supported grades H, the likeliest grade of ``F & H`` is decided, or that of F
    if ``F & H`` is empty. The soft label is ``q_c ~ 1[c in F] p_c exp(evidence_gain 1[c in H])`` and the weight
    ``w = sum_{c in F} p_c``. If w is too low, or the confidence is below ``confidence_min / |F|`` (``1 / |F|`` is the
    uniform share), the decision is to abstain, with weight 0. If no feasible grade has any probability, the soft
    label is also uniform over F. If F is one grade, the outlines alone decide it: its weight is 1, regardless of the
    graders.

    The soft label is a compromise: its largest entry need not be the decided grade.

    Args:
        probabilities: of the five grades.
        feasible: from ``labels.feasible_grades``.
        evidence: of the grades; if empty, H is empty.
        thresholds: see :class:`Thresholds`.
        present: the lesions that ``feasible`` is based on, named in the reason.

    Raises:
        ValueError: if the probabilities are not five numbers, finite and not negative, that sum to 1.

    Example:
        >>> from bundle.labels import feasible_grades
        >>> opinion = np.array([0.5, 0.1, 0.3, 0.05, 0.05])
        >>> found = decide(opinion, feasible_grades({"EX"}), [], Thresholds(), present=["EX"])
        >>> found.proposed, found.decided, found.action, round(found.weight, 2)
        (0, 2, 'move', 0.4)
    """
    p = _distribution(probabilities)
    allowed = np.isin(GRADES, list(feasible.grades))
    supported = np.isin(GRADES, [e.grade for e in evidence if e.supported]) & allowed
    proposed, mass = int(p.argmax()), min(1.0, float(p[allowed].sum()))  # rounding may exceed 1
    likeliest = consistent_grade(p.tolist(), feasible.grades)
    decided = int(np.where(supported, p, -1).argmax()) if supported.any() else likeliest
    confidence = _share(p[allowed].max(), mass)
    certain = len(feasible.grades) == 1
    unsure = confidence < thresholds.confidence_min / len(feasible.grades)
    doubtful = mass < thresholds.feasible_mass_min or unsure or mass == 0
    abstain = doubtful and not certain
    kept = "keep" if decided == proposed else "move"
    reason = _reason(proposed, decided, feasible, evidence, present)
    return Decision(
        proposed=proposed,
        decided=decided,
        action="abstain" if abstain else kept,
        rule=feasible.rule,
        reason=reason + (_doubt(mass, confidence, len(feasible.grades), thresholds) if abstain else ""),
        confidence=confidence,
        weight=1.0 if certain else 0.0 if abstain else mass,
        soft_label=tuple(_soft_label(p, allowed, supported, thresholds.evidence_gain).tolist()),
        changed_by_heat=decided != likeliest,
    )


def _soft_label(p: np.ndarray, allowed: np.ndarray, supported: np.ndarray, gain: float) -> np.ndarray:
    if not p[allowed].any():
        return allowed / allowed.sum()
    # Logarithms keep a tiny p and a large gain within the range of a float.
    with np.errstate(divide="ignore"):
        score = np.where(allowed, np.log(p) + gain * supported, -np.inf)
    q = np.exp(score - score.max())
    return q / q.sum()


def _reason(
    proposed: int, decided: int, feasible: Feasible, evidence: Sequence[Evidence], present: Collection[str]
) -> str:
    link = "and" if proposed in feasible.grades else "but"
    verb = "is" if len(feasible.grades) == 1 else "are"
    grades = ", ".join(str(grade) for grade in sorted(feasible.grades))
    heat = _where_the_heat_lies(proposed, decided, feasible, evidence)
    return (
        f"grade {proposed} was proposed, {link} {_findings(feasible.rule, present)}: "
        f"feasible {verb} {grades}; {heat}decided {decided}"
    )


_REMARKS = {
    "R2'": ", so few and small that they may be microaneurysms",
    "R2''": " without any red lesion, which is atypical of diabetes",
    "R3": f", more than {HAEMORRHAGES_MODERATE} haemorrhages in each quadrant",
    "R4": ", though not every lesion was looked for",
    "R6": ", though some expert marked what too few others did",
}
"""Text that a rule adds to the list of lesions."""


def _findings(rule: str, present: Collection[str]) -> str:
    names = [LESION_NAMES[lesion] + "s" for lesion in LESIONS if lesion in present]
    listed = " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
    only = "only " if rule == "R1" else ""
    return (f"{only}{listed} are outlined" if names else "no lesion is outlined") + _REMARKS.get(rule, "")


def _where_the_heat_lies(proposed: int, decided: int, feasible: Feasible, evidence: Sequence[Evidence]) -> str:
    of_grade = {e.grade: e for e in evidence if e.lift is not None}
    if not of_grade:
        return ""
    if all(found.empty for found in of_grade.values()):
        return "all heat maps are empty, so the probabilities alone choose: "
    found = of_grade.get(decided)
    if found is None or not found.supported:
        return "no heat map of a feasible grade lies on the lesions: "
    unlike = f", that of grade {proposed} does not" if proposed in feasible.grades and proposed != decided else ""
    lift = f"lift {found.lift:.1f}, {found.relative_lift:.0%} of a perfect map's gain"
    return f"the heat map of grade {decided} lies on the lesions ({lift}){unlike}: "


def _doubt(mass: float, confidence: float, feasible_count: int, thresholds: Thresholds) -> str:
    if mass == 0 or mass < thresholds.feasible_mass_min:
        return f", yet not taught, for the feasible grades had a probability of only {mass:.2f}"
    share = f"has a share of only {confidence:.2f}"
    return f", yet not taught, for the likeliest of the {feasible_count} feasible grades {share}"


def audit_row(
    photograph: str,
    decision: Decision,
    evidence: Sequence[Evidence],
    *,
    feasible: Feasible,
    present: Collection[str],
    probabilities: np.ndarray,
    graders_GC: np.ndarray,
    winner: int | None,
    largest_px: Mapping[str, int],
    quadrants: Sequence[int] | None = None,
) -> dict[str, Any]:
    """Return one decision with every number that it is based on, as a flat row for JSON or a spreadsheet.

    Columns of one grade end in ``_<grade>``, those of one grader begin with ``grader<index>_``; None means undefined.
    ``largest_px_<lesion>`` is the largest component of a lesion, in native pixels.
    ``haemorrhages_<quadrant>`` are counted if the quadrants are known. ``taught`` is the likeliest grade of the soft
    label, None if nothing is taught.

    Example:
        >>> from bundle.labels import feasible_grades
        >>> opinion, feasible = np.array([0.5, 0.1, 0.3, 0.05, 0.05]), feasible_grades({"EX"})
        >>> decision = decide(opinion, feasible, [], Thresholds(), present=["EX"])
        >>> row = audit_row(
        ...     "idrid/train/1", decision, [], feasible=feasible, present=["EX"], probabilities=opinion,
        ...     graders_GC=opinion[None], winner=0, largest_px={"EX": 80},
        ... )
        >>> row["id"], row["decided"], row["feasible_1"], row["present_EX"], row["grader0_probability_2"]
        ('idrid/train/1', 2, False, True, 0.3)
    """
    row: dict[str, Any] = {"id": photograph} | asdict(decision) | {"taught": decision.taught, "winner": winner}
    del row["soft_label"]
    row |= {f"present_{lesion}": lesion in present for lesion in LESIONS}
    row |= {f"largest_px_{lesion}": largest_px.get(lesion, 0) for lesion in LESIONS}
    row |= {f"haemorrhages_{name}": quadrants and quadrants[place] for place, name in enumerate(QUADRANTS)}
    row |= {f"feasible_{grade}": grade in feasible.grades for grade in GRADES}
    row |= _by_grade("probability", probabilities) | _by_grade("soft_label", decision.soft_label)
    for index, probabilities_C in enumerate(graders_GC):
        row |= _by_grade(f"grader{index}_probability", probabilities_C)
    for found in evidence:
        row |= {f"{name}_{found.grade}": value for name, value in asdict(found).items() if name != "grade"}
    return row


def _by_grade(name: str, values: Collection[float]) -> dict[str, float]:
    return {f"{name}_{grade}": float(value) for grade, value in zip(GRADES, values, strict=True)}


def summarise(
    rows: Sequence[Mapping[str, Any]], true_grades: Mapping[str, int], seed: int = 0, resamples: int = 1000
) -> dict[str, Any]:
    """Score the pseudo-labels on the images with a known true grade.

    ``proposed/*`` and ``decided/*`` cover all images of known grade. ``taught/*`` covers those without abstention: the
    likeliest grade of their soft label, and ``taught/log_probability``, the mean log of its share for the true grade,
    with shares below ``SHARE_MIN`` raised to it. ``majority/accuracy`` is the accuracy of always answering the most
    frequent true grade. ``gain/*`` is decided minus proposed on the same images. ``n_supported`` counts the images with
    a feasible grade whose heat map lies on the lesions, ``n_changed_by_heat`` those whose decided grade would be
    different without heat maps. ``truth_feasible`` is the share of images whose true grade is feasible, also per rule.
    ``*_low`` and ``*_high`` bound 95 % intervals: Wilson's for proportions, the bootstrap over images for kappa and for
    the gain, whose two sides share each resample. Undefined values are None.

    Args:
        rows: from ``audit_row``.
        true_grades: image id to grade; images of unknown grade may be missing.
        seed: random seed of the bootstrap.
        resamples: number of resamples of the bootstrap.

    Example:
        >>> row = {"id": "7", "proposed": 0, "decided": 2, "taught": 2, "soft_label_2": 0.5, "action": "move"}
        >>> row |= {"weight": 0.5, "rule": "R2", "feasible_2": True, "changed_by_heat": False}
        >>> found = summarise([row], true_grades={"7": 2}, resamples=10)
        >>> found["n_move"], found["gain/accuracy"], found["R2/truth_feasible"]
        (1, 1.0, 1.0)
        >>> round(found["taught/log_probability"], 3)  # log 0.5
        -0.693
    """
    known = [row for row in rows if row["id"] in true_grades]
    taught = [row for row in known if row["weight"] > 0]
    summary: dict[str, Any] = {"n": len(rows), "n_known": len(known), "n_taught": len(taught)}
    actions = Counter(row["action"] for row in rows)
    summary |= {f"n_{action}": actions[action] for action in ("keep", "move", "abstain")}
    summary["n_supported"] = sum(map(_has_support, rows))
    summary["n_changed_by_heat"] = sum(bool(row["changed_by_heat"]) for row in rows)
    proposed, decided, of_taught = (
        _score(group, column, true_grades, seed, resamples)
        for group, column in ((known, "proposed"), (known, "decided"), (taught, "taught"))
    )
    for name, scored in (("proposed", proposed), ("decided", decided), ("taught", of_taught)):
        summary |= _agreement(name, scored)
    summary |= _with_bounds("taught/log_probability", _log_probabilities(taught, true_grades, seed, resamples))
    summary |= _with_bounds("gain/accuracy", decided.accuracy - proposed.accuracy)
    summary |= _with_bounds("gain/quadratic_kappa", decided.kappa - proposed.kappa)
    truths = Counter(true_grades[row["id"]] for row in known)
    summary |= _proportion("majority/accuracy", max(truths.values(), default=0), len(known))
    return summary | _feasibility(rows, known, true_grades)


class _Scored(NamedTuple):
    """Scores of one column; the first of each is for the images themselves, the others are for their resamples."""

    hits: int
    total: int
    accuracy: np.ndarray
    kappa: np.ndarray


def _score(
    rows: Sequence[Mapping[str, Any]], column: str, true_grades: Mapping[str, int], seed: int, resamples: int
) -> _Scored:
    if not rows:
        return _Scored(0, 0, np.array([np.nan]), np.array([np.nan]))
    truth = np.array([true_grades[row["id"]] for row in rows], dtype=int)
    found = np.array([row[column] for row in rows], dtype=int)
    draws = _draws(len(rows), seed, resamples)  # (1 + resamples, N)
    kappa = np.array([_quadratic_kappa(truth[draw], found[draw]) for draw in draws])
    hits = truth == found
    return _Scored(int(hits.sum()), len(rows), hits[draws].mean(axis=1), kappa)


def _draws(count: int, seed: int, resamples: int) -> np.ndarray:
    """Return indices, all images in row 0 and one resample in each other row: ``(1 + resamples, count)``."""
    drawn = np.random.default_rng(seed).integers(count, size=(resamples, count))
    return np.concatenate([np.arange(count)[None], drawn])


def _has_support(row: Mapping[str, Any]) -> bool:
    return any(row.get(f"supported_{grade}") and row.get(f"feasible_{grade}") for grade in GRADES)


def _log_probabilities(
    rows: Sequence[Mapping[str, Any]], true_grades: Mapping[str, int], seed: int, resamples: int
) -> np.ndarray:
    if not rows:
        return np.array([np.nan])
    shares = np.array([row[f"soft_label_{true_grades[row['id']]}"] for row in rows])  # (N,)
    return np.log(np.maximum(shares, SHARE_MIN))[_draws(len(rows), seed, resamples)].mean(axis=1)


def _agreement(name: str, scored: _Scored) -> dict[str, float | None]:
    kappa = _with_bounds(f"{name}/quadratic_kappa", scored.kappa)
    return _proportion(f"{name}/accuracy", scored.hits, scored.total) | kappa


def _with_bounds(key: str, samples: np.ndarray) -> dict[str, float | None]:
    """Return the first sample, and bounds from the other samples in which the score is defined."""
    defined = samples[1:][np.isfinite(samples[1:])]
    low, high = np.percentile(defined, [2.5, 97.5]).tolist() if len(defined) else (None, None)
    score = float(samples[0]) if np.isfinite(samples[0]) else None
    return {key: score, f"{key}_low": low, f"{key}_high": high}


def _quadratic_kappa(truth: np.ndarray, found: np.ndarray) -> float:
    if len({*truth.tolist(), *found.tolist()}) < 2:
        return math.nan
    return float(cohen_kappa_score(truth, found, labels=GRADES, weights="quadratic"))


def _feasibility(
    rows: Sequence[Mapping[str, Any]], known: Sequence[Mapping[str, Any]], true_grades: Mapping[str, int]
) -> dict[str, Any]:
    inside = [(row["rule"], row[f"feasible_{true_grades[row['id']]}"]) for row in known]
    found = _proportion("truth_feasible", sum(hit for _, hit in inside), len(inside))
    for rule, count in sorted(Counter(row["rule"] for row in rows).items()):
        hits = [hit for name, hit in inside if name == rule]
        found |= {f"{rule}/n": count, f"{rule}/n_known": len(hits)}
        found |= _proportion(f"{rule}/truth_feasible", sum(hits), len(hits))
    return found


def _proportion(key: str, hits: int, total: int) -> dict[str, float | None]:
    if total == 0:
        return {key: None, f"{key}_low": None, f"{key}_high": None}
    interval = binomtest(hits, total).proportion_ci(method="wilson")
    return {key: hits / total, f"{key}_low": float(interval.low), f"{key}_high": float(interval.high)}
