"""Decide what to teach as an image's grade: the graders' probabilities, checked against its outlined lesions."""

# flake8: noqa: N803, N806

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from bundle.labels import GRADES, LESION_NAMES, LESIONS, Feasible
from scipy.stats import binomtest
from skimage.measure import label
from skimage.morphology import isotropic_dilation
from sklearn.metrics import cohen_kappa_score

MODES = ("max_confidence", "log_mean")


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """Where the decision rules draw their lines; the paper gives none of these values.

    Attributes:
        lift_min: a supporting heat map has this many times the energy on lesions that chance would put there.
        coverage_min: and its hot part covers at least this share of the lesions.
        optic_disc_max: and at most this share of its hot part lies on the optic disc.
        hot: the hot part of a heat map is where it reaches this value.
        halo: lesions are widened by this share of the image's width, for heat maps are coarse.
        feasible_mass_min: below this probability of all feasible grades together, abstain.
        confidence_min: and below this share of the likeliest of them.
        evidence_gain: log of the factor by which support raises a grade in the soft label.
        few_haemorrhages: up to so many haemorrhages, all tiny and without exudates, may be microaneurysms: rule R2'.
            0 switches the rule off.
        tiny: diameter of a tiny haemorrhage as a share of the field's diameter: 125 um in some 14.4 mm (50 degrees).
        name_atypical: whether exudates without any red lesion are named R2'' rather than R2.

    Raises:
        ValueError: if a share is not in [0, 1], or a value is negative or not finite.

    Example:
        >>> Thresholds(coverage_min=1.5)
        Traceback (most recent call last):
            ...
        ValueError: expected threshold coverage_min in [0, 1.0], got 1.5
    """

    lift_min: float = 2.0
    coverage_min: float = 0.1
    optic_disc_max: float = 0.3
    hot: float = 0.5
    halo: float = 0.01
    feasible_mass_min: float = 0.2
    confidence_min: float = 0.4
    evidence_gain: float = 1.0
    few_haemorrhages: int = 0
    tiny: float = 0.0087
    name_atypical: bool = False

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            highest = math.inf if name in ("lift_min", "evidence_gain", "few_haemorrhages") else 1.0
            if not (0 <= value <= highest and math.isfinite(value)):
                raise ValueError(f"expected threshold {name} in [0, {highest}], got {value}")
        if self.hot == 0:
            raise ValueError("expected threshold hot above 0, got 0: every pixel would be hot")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """How the heat map of one grade lies on lesions and optic disc.

    Attributes:
        grade: whose heat map it is.
        energy: share of the heat map's sum that lies on lesions.
        hit: share of its hot pixels on lesions.
        optic_disc: share of its hot pixels on the optic disc; None where the disc is not outlined.
        coverage: share of the lesions that is hot; None without lesions.
        lift: energy over the lesions' share of the field of view, 1 by chance; None without lesions.
        supported: whether the lesions support this grade: membership in H.
        empty: whether the heat map is zero everywhere, so that it says nothing.
    """

    grade: int
    energy: float
    hit: float
    optic_disc: float | None
    coverage: float | None
    lift: float | None
    supported: bool
    empty: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What is taught as the grade of one image, and why.

    Attributes:
        proposed: the graders' likeliest grade.
        decided: the grade after the rules; always feasible.
        action: ``keep``, ``move`` or ``abstain``.
        rule: that gave the feasible grades, such as ``R2``.
        reason: all of it in one sentence.
        confidence: share of the likeliest among the feasible grades' probabilities.
        weight: of this image in the grading loss: the feasible probability, 0 after abstaining, 1 where only one
            grade is feasible.
        soft_label: five numbers that sum to 1, zero outside the feasible grades.
    """

    proposed: int
    decided: int
    action: str
    rule: str
    reason: str
    confidence: float
    weight: float
    soft_label: tuple[float, ...]


def combine(probabilities_GC: np.ndarray, mode: str) -> tuple[np.ndarray, int | None]:
    """Make one opinion of several graders.

    ``max_confidence`` (the paper): the grader with the largest probability of any grade is heard alone.
    ``log_mean``: the normalised geometric mean of all.

    Args:
        probabilities_GC: one row of five per grader.
        mode: one of ``MODES``.

    Returns:
        The five probabilities, and which grader won (the first of equals), None for ``log_mean``.

    Raises:
        ValueError: if the mode is unknown or a row is no probability distribution over the five grades.

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


def present_lesions(label_map_HW: np.ndarray, min_area_px: int = 1) -> tuple[str, ...]:
    """Name the lesions of a label map that have a connected component (8 neighbours) of ``min_area_px`` or more.

    Raises:
        ValueError: if the label map is not two-dimensional or holds a value that is no class.

    Example:
        >>> present_lesions(np.array([[0, 1, 0, 3, 3]])), present_lesions(np.array([[0, 1, 0, 3, 3]]), min_area_px=2)
        (('MA', 'EX'), ('EX',))
    """
    label_map = np.asarray(label_map_HW)
    if label_map.ndim != 2 or label_map.min() < 0 or label_map.max() > len(LESIONS):
        raise ValueError(f"expected a label map (H, W) of 0-{len(LESIONS)}, got shape {label_map.shape}")
    return tuple(
        lesion
        for value, lesion in enumerate(LESIONS, start=1)
        if _largest_component_px(label_map == value) >= max(min_area_px, 1)
    )


def _largest_component_px(mask_HW: np.ndarray) -> int:
    return int(np.bincount(label(mask_HW, connectivity=2)[mask_HW], minlength=1).max())


def haemorrhages_in_doubt(label_map_HW: np.ndarray, field_HW: np.ndarray, thresholds: Thresholds) -> tuple[str, ...]:
    """Return ``("HE",)`` where all haemorrhages together are so few and small that they may be microaneurysms.

    A component (8 neighbours) is tiny if its area is at most that of a disc of ``tiny`` times the field's diameter,
    the field being taken for a disc: ``area <= tiny ** 2 |V|``.

    Args:
        label_map_HW: classes 0-4.
        field_HW: bool, the field of view.
        thresholds: ``few_haemorrhages`` 0 finds none in doubt.

    Example:
        >>> label_map = np.zeros((20, 30), np.uint8)
        >>> label_map[8, 12] = LESIONS.index("HE") + 1
        >>> field = np.ones((20, 30), dtype=bool)
        >>> haemorrhages_in_doubt(label_map, field, Thresholds(few_haemorrhages=2, tiny=0.05))  # 1 <= 0.05^2 * 600
        ('HE',)
        >>> haemorrhages_in_doubt(label_map, field, Thresholds(few_haemorrhages=2, tiny=0.04))
        ()
    """
    areas_px = np.bincount(label(label_map_HW == LESIONS.index("HE") + 1, connectivity=2).ravel())[1:]
    few = 0 < len(areas_px) <= thresholds.few_haemorrhages
    return ("HE",) if few and areas_px.max() <= thresholds.tiny**2 * field_HW.sum() else ()


def evidence(
    maps_5HW: np.ndarray,
    lesions_HW: np.ndarray,
    optic_disc_HW: np.ndarray | None,
    field_HW: np.ndarray,
    thresholds: Thresholds,
) -> tuple[Evidence, ...]:
    """Measure how the heat map of every grade lies on the outlined lesions.

    With the map A, its hot part ``B = {A >= hot}``, the widened lesions M, optic disc O and field of view V:
    ``energy = sum(A M) / sum(A)``, ``hit = |B M| / |B|``, ``optic_disc = |B O| / |B|``, ``coverage = |B M| / |M|``,
    ``lift = energy / (|M| / |V|)``. A grade is supported where lift and coverage are high enough and the share on
    the optic disc is low enough; without lesions none is. A share of nothing, as in a map of zeros, is 0.

    Args:
        maps_5HW: in [0, 1], one per grade.
        lesions_HW: bool, the union of all lesions.
        optic_disc_HW: bool, or None where it is not outlined: then it is not tested.
        field_HW: bool, the field of view.
        thresholds: see there.

    Raises:
        ValueError: if shapes or types do not match, a map leaves [0, 1], or the field of view is empty.

    Example:
        >>> maps, lesions = np.zeros((5, 4, 6)), np.zeros((4, 6), dtype=bool)
        >>> maps[2, 1, 2:4], lesions[1, 2:5] = 1, True
        >>> found = evidence(maps, lesions, None, np.ones((4, 6), dtype=bool), Thresholds(halo=0.0))
        >>> round(found[2].coverage, 3), found[2].lift, found[2].supported  # 2 of 3 pixels; 1 / (3 / 24)
        (0.667, 8.0, True)
    """
    maps = np.asarray(maps_5HW, dtype=np.float64)
    _check_maps(maps, [lesions_HW, field_HW] + ([] if optic_disc_HW is None else [optic_disc_HW]))
    if not field_HW.any():
        raise ValueError("expected a field of view with at least one pixel, got an empty one")
    halo_px = thresholds.halo * maps.shape[2]
    lesions = isotropic_dilation(lesions_HW, halo_px) & field_HW
    return tuple(_weigh(grade, maps[grade], lesions, optic_disc_HW, field_HW, thresholds) for grade in GRADES)


def _check_maps(maps: np.ndarray, masks: Sequence[np.ndarray]) -> None:
    if maps.ndim != 3 or len(maps) != len(GRADES) or any(mask.shape != maps.shape[1:] for mask in masks):
        shapes = [mask.shape for mask in masks]
        raise ValueError(f"expected maps (5, H, W) and masks (H, W), got {maps.shape} and {shapes}")
    if any(mask.dtype != np.bool_ for mask in masks):
        raise ValueError(f"expected bool masks, got {[str(mask.dtype) for mask in masks]}; compare them with 0 first")
    if not (maps.min() >= 0 and maps.max() <= 1):
        raise ValueError(f"expected heat maps in [0, 1], got values from {maps.min()} to {maps.max()}")


def _weigh(
    grade: int,
    heat: np.ndarray,
    lesions: np.ndarray,
    optic_disc: np.ndarray | None,
    field: np.ndarray,
    thresholds: Thresholds,
) -> Evidence:
    hot = heat >= thresholds.hot
    energy = _share(heat[lesions].sum(), heat.sum())
    on_disc = None if optic_disc is None else _share((hot & optic_disc).sum(), hot.sum())
    coverage = lift = None
    if lesions.any():
        coverage = _share((hot & lesions).sum(), lesions.sum())
        lift = energy / _share(lesions.sum(), field.sum())
    return Evidence(
        grade=grade,
        energy=energy,
        hit=_share((hot & lesions).sum(), hot.sum()),
        optic_disc=on_disc,
        coverage=coverage,
        lift=lift,
        supported=_supported(on_disc, coverage, lift, thresholds),
        empty=not heat.any(),
    )


def _share(part: float, whole: float) -> float:
    return float(part / whole) if whole > 0 else 0.0


def _supported(on_disc: float | None, coverage: float | None, lift: float | None, thresholds: Thresholds) -> bool:
    if coverage is None or lift is None:
        return False
    off_disc = on_disc is None or on_disc <= thresholds.optic_disc_max
    return off_disc and lift >= thresholds.lift_min and coverage >= thresholds.coverage_min


def decide(
    probabilities: np.ndarray,
    feasible: Feasible,
    evidence: Sequence[Evidence],
    thresholds: Thresholds,
    *,
    present: Collection[str],
) -> Decision:
    """Keep the proposed grade, move it to one that the lesions allow, or abstain.

    With the feasible grades F and the supported ones H: the likeliest grade of ``F & H`` is decided, or that of F
    where ``F & H`` is empty. The soft label is ``q_c ~ 1[c in F] p_c exp(evidence_gain 1[c in H])`` and the weight
    ``w = sum_{c in F} p_c``. Where w or the confidence is too low, the decision is to abstain, with weight 0; where
    no feasible grade has any probability, the soft label is uniform over F besides. Where F is one grade, the outlines
    alone decide it: its weight is 1, whatever the graders say.

    The soft label stays a compromise: its largest entry need not be the decided grade.

    Args:
        probabilities: of the five grades.
        feasible: from ``labels.feasible_grades``.
        evidence: of the grades; none leaves H empty.
        thresholds: see there.
        present: the lesions that made ``feasible``, named in the reason.

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
    candidates = supported if supported.any() else allowed
    decided = int(np.where(candidates, p, -1).argmax())
    confidence = _share(p[allowed].max(), mass)
    certain = len(feasible.grades) == 1
    doubtful = mass < thresholds.feasible_mass_min or confidence < thresholds.confidence_min or mass == 0
    abstain = doubtful and not certain
    kept = "keep" if decided == proposed else "move"
    reason = _reason(proposed, decided, feasible, evidence, present)
    return Decision(
        proposed=proposed,
        decided=decided,
        action="abstain" if abstain else kept,
        rule=feasible.rule,
        reason=reason + (_doubt(mass, confidence, thresholds) if abstain else ""),
        confidence=confidence,
        weight=1.0 if certain else 0.0 if abstain else mass,
        soft_label=tuple(_soft_label(p, allowed, supported, thresholds.evidence_gain).tolist()),
    )


def _soft_label(p: np.ndarray, allowed: np.ndarray, supported: np.ndarray, gain: float) -> np.ndarray:
    if not p[allowed].any():
        return allowed / allowed.sum()
    # In logarithms, neither a tiny p nor a large gain leaves the range of a float.
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
    "R4": ", though not every lesion was looked for",
    "R6": ", though some expert marked what too few others did",
}
"""What a rule adds to the lesions that it names."""


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
    return f"the heat map of grade {decided} lies on the lesions (lift {found.lift:.1f}){unlike}: "


def _doubt(mass: float, confidence: float, thresholds: Thresholds) -> str:
    if mass == 0 or mass < thresholds.feasible_mass_min:
        return f", yet not taught, for the feasible grades had a probability of only {mass:.2f}"
    return f", yet not taught, for the likeliest feasible grade has a share of only {confidence:.2f}"


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
) -> dict[str, Any]:
    """Lay out one decision with every number that it rests on, flat, for JSON or a spreadsheet.

    Columns of one grade end in ``_<grade>``, those of one grader begin with ``grader<index>_``; None is undefined.

    Example:
        >>> from bundle.labels import feasible_grades
        >>> opinion, feasible = np.array([0.5, 0.1, 0.3, 0.05, 0.05]), feasible_grades({"EX"})
        >>> decision = decide(opinion, feasible, [], Thresholds(), present=["EX"])
        >>> row = audit_row(
        ...     "idrid/train/1", decision, [], feasible=feasible, present=["EX"], probabilities=opinion,
        ...     graders_GC=opinion[None], winner=0,
        ... )
        >>> row["id"], row["decided"], row["feasible_1"], row["present_EX"], row["grader0_probability_2"]
        ('idrid/train/1', 2, False, True, 0.3)
    """
    row: dict[str, Any] = {"id": photograph} | asdict(decision) | {"winner": winner}
    del row["soft_label"]
    row |= {f"present_{lesion}": lesion in present for lesion in LESIONS}
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
    """Score the pseudo-labels wherever the true grade is known.

    ``proposed/*`` and ``decided/*`` are over all images of known grade, ``taught/*`` over those that were not
    abstained on, ``majority/accuracy`` is what the most frequent true grade scores everywhere. ``gain/*`` is decided
    minus proposed on the same images. ``truth_feasible`` is how often the true grade is among the feasible ones, also
    per rule. ``*_low`` and ``*_high`` bound 95 % intervals: Wilson's for proportions, the bootstrap over images for
    kappa and for the gain, whose two sides share each resample. What is undefined is None.

    Args:
        rows: from ``audit_row``.
        true_grades: image id to grade, where known; others may be missing.
        seed: of the bootstrap.
        resamples: of the bootstrap.

    Example:
        >>> row = {"id": "7", "proposed": 0, "decided": 2, "action": "move", "weight": 0.5}
        >>> found = summarise([row | {"rule": "R2", "feasible_2": True}], true_grades={"7": 2}, resamples=10)
        >>> found["n_move"], found["gain/accuracy"], found["R2/truth_feasible"]
        (1, 1.0, 1.0)
    """
    known = [row for row in rows if row["id"] in true_grades]
    taught = [row for row in known if row["weight"] > 0]
    summary: dict[str, Any] = {"n": len(rows), "n_known": len(known), "n_taught": len(taught)}
    actions = Counter(row["action"] for row in rows)
    summary |= {f"n_{action}": actions[action] for action in ("keep", "move", "abstain")}
    proposed, decided, of_taught = (
        _score(group, column, true_grades, seed, resamples)
        for group, column in ((known, "proposed"), (known, "decided"), (taught, "decided"))
    )
    for name, scored in (("proposed", proposed), ("decided", decided), ("taught", of_taught)):
        summary |= _agreement(name, scored)
    summary |= _with_bounds("gain/accuracy", decided.accuracy - proposed.accuracy)
    summary |= _with_bounds("gain/quadratic_kappa", decided.kappa - proposed.kappa)
    truths = Counter(true_grades[row["id"]] for row in known)
    summary |= _proportion("majority/accuracy", max(truths.values(), default=0), len(known))
    return summary | _feasibility(rows, known, true_grades)


class _Scored(NamedTuple):
    """Scores of one column; the first of each is of the images themselves, the others of their resamples."""

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
    drawn = np.random.default_rng(seed).integers(len(rows), size=(resamples, len(rows)))
    draws = np.concatenate([np.arange(len(rows))[None], drawn])
    kappa = np.array([_quadratic_kappa(truth[draw], found[draw]) for draw in draws])
    hits = truth == found
    return _Scored(int(hits.sum()), len(rows), hits[draws].mean(axis=1), kappa)


def _agreement(name: str, scored: _Scored) -> dict[str, float | None]:
    kappa = _with_bounds(f"{name}/quadratic_kappa", scored.kappa)
    return _proportion(f"{name}/accuracy", scored.hits, scored.total) | kappa


def _with_bounds(key: str, samples: np.ndarray) -> dict[str, float | None]:
    """Report the first sample, and bounds from the others in which the score is defined."""
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
