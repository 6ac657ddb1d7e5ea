"""Pseudo-labels: the graders' probabilities of an image's grade, checked against its outlined lesions."""

# flake8: noqa: N803

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from bundle.grade_rules import REMARKS, Feasible, consistent_grade
from bundle.labels import GRADES, LESION_NAMES, LESIONS, QUADRANTS
from bundle.method.evidence import Evidence, Thresholds
from bundle.transforms import lesion_areas_px

MODES = ("max_confidence", "log_mean")


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
        >>> field = np.ones((20, 30), dtype=bool)
        >>> label_map = np.zeros((20, 30), np.uint8)
        >>> label_map[8, 12] = LESIONS.index("HE") + 1
        >>> haemorrhages_in_doubt(label_map, field, Thresholds(few_haemorrhages=2, tiny=0.05))  # 1 <= 0.05^2 * 600
        ('HE',)
        >>> haemorrhages_in_doubt(label_map, field, Thresholds(few_haemorrhages=2, tiny=0.04))
        ()
    """
    areas_px = lesion_areas_px(label_map_HW)["HE"]
    few = 0 < len(areas_px) <= thresholds.few_haemorrhages
    return ("HE",) if few and areas_px.max() <= thresholds.tiny**2 * field_HW.sum() else ()


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
        feasible: from ``grade_rules.feasible_grades``.
        evidence: of the grades; if empty, H is empty.
        thresholds: see :class:`Thresholds`.
        present: the lesions that ``feasible`` is based on, named in the reason.

    Raises:
        ValueError: if the probabilities are not five numbers, finite and not negative, that sum to 1.

    Example:
        >>> from bundle.grade_rules import feasible_grades
        >>> opinion = np.array([0.5, 0.1, 0.3, 0.05, 0.05])
        >>> decision = decide(opinion, feasible_grades({"EX"}), [], Thresholds(), present=["EX"])
        >>> decision.proposed, decision.decided, decision.action, round(decision.weight, 2)
        (0, 2, 'move', 0.4)
    """
    p = _distribution(probabilities)
    allowed = np.isin(GRADES, list(feasible.grades))
    supported = np.isin(GRADES, [e.grade for e in evidence if e.supported]) & allowed
    proposed, mass = int(p.argmax()), min(1.0, float(p[allowed].sum()))  # rounding may exceed 1
    likeliest = consistent_grade(p.tolist(), feasible.grades)
    decided = int(np.where(supported, p, -1).argmax()) if supported.any() else likeliest
    confidence = float(p[allowed].max() / mass) if mass > 0 else 0.0
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


def _findings(rule: str, present: Collection[str]) -> str:
    names = [LESION_NAMES[lesion] + "s" for lesion in LESIONS if lesion in present]
    listed = " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
    only = "only " if rule == "R1" else ""
    return (f"{only}{listed} are outlined" if names else "no lesion is outlined") + REMARKS.get(rule, "")


def _where_the_heat_lies(proposed: int, decided: int, feasible: Feasible, evidence: Sequence[Evidence]) -> str:
    of_grade = {e.grade: e for e in evidence if e.lift is not None}
    if not of_grade:
        return ""
    if all(heat.empty for heat in of_grade.values()):
        return "all heat maps are empty, so the probabilities alone choose: "
    heat = of_grade.get(decided)
    if heat is None or not heat.supported:
        return "no heat map of a feasible grade lies on the lesions: "
    unlike = f", that of grade {proposed} does not" if proposed in feasible.grades and proposed != decided else ""
    lift = f"lift {heat.lift:.1f}, {heat.relative_lift:.0%} of a perfect map's gain"
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
    ``largest_px_<lesion>`` is the largest component of a lesion, in native pixels; it and ``present_<lesion>`` are None
    for a lesion that was not looked for, which is one without an entry in ``largest_px``.
    ``haemorrhages_<quadrant>`` are counted if the quadrants are known. ``taught`` is the likeliest grade of the soft
    label, None if nothing is taught.
    """
    row: dict[str, Any] = {"id": photograph} | asdict(decision) | {"taught": decision.taught, "winner": winner}
    del row["soft_label"]
    row |= {f"present_{lesion}": lesion in present if lesion in largest_px else None for lesion in LESIONS}
    row |= {f"largest_px_{lesion}": largest_px.get(lesion) for lesion in LESIONS}
    row |= {f"haemorrhages_{name}": quadrants and quadrants[place] for place, name in enumerate(QUADRANTS)}
    row |= {f"feasible_{grade}": grade in feasible.grades for grade in GRADES}
    row |= _by_grade("probability", probabilities) | _by_grade("soft_label", decision.soft_label)
    for index, probabilities_C in enumerate(graders_GC):
        row |= _by_grade(f"grader{index}_probability", probabilities_C)
    for heat in evidence:
        row |= {f"{name}_{heat.grade}": value for name, value in asdict(heat).items() if name != "grade"}
    return row


def _by_grade(name: str, values: Collection[float]) -> dict[str, float]:
    return {f"{name}_{grade}": float(value) for grade, value in zip(GRADES, values, strict=True)}
