"""Page of all pseudo-labels: their quality, and every decision in a table to sort and filter."""

import os
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from bundle.grade_rules import RULES
from bundle.labels import GRADE_NAMES, GRADES
from bundle.reporting.pages import write_page
from bundle.reporting.tables import MISSING, number, pseudo_label_tables

Row = Mapping[str, Any]

ACTIONS = {"keep": "kept", "move": "moved", "abstain": "abstained"}

CAPTIONS = {
    "actions": "What became of the proposed grades",
    "agreement": "Against the true grades, where these are known",
    "rules": "How often a rule admits the true grade",
}

_EVIDENCE = {
    "soft_label": "soft", "energy": "energy", "hit": "hit", "lift": "lift", "relative_lift": "/best",
    "coverage": "cover", "relative_coverage": "/best", "optic_disc": "disc",
}  # fmt: skip


def write_decisions(
    path: str | os.PathLike,
    rows: Sequence[Row],
    summary: Row,
    panels: Mapping[str, str],
    facts: Mapping[str, str] | None = None,
) -> None:
    """Write one self-contained page: summary tables, a glossary, and one row per photograph.

    The page runs only its own script and fetches nothing, and its content security policy enforces this. Its state is
    in the address: ``decisions.html#action=move&truth=wrong&sort=-confidence``. All rows can be read without the
    script.

    Args:
        path: page to write; the file appears once it is complete.
        rows: from ``pseudo_labels.audit_row``, with ``true_grade``, None if unknown.
        summary: from ``pseudo_labels.summarise``.
        panels: picture by id, relative to the page; a photograph without a picture gets no link.
        facts: origin of the decisions, shown in this order.

    Raises:
        ValueError: if a row is not an audit row.
    """
    needed = {"id", "proposed", "decided", "taught", "action", "rule", "reason", "weight", "confidence"}
    for row in rows:
        if needed - set(row):
            raise ValueError(f"expected audit rows, got one without {sorted(needed - set(row))}")
    write_page(
        path,
        "decisions.html",
        title="Pseudo-labels: all decisions",
        facts=facts or {},
        summary=pseudo_label_tables(summary),
        captions=CAPTIONS,
        grades=dict(enumerate(GRADE_NAMES)),
        actions=ACTIONS,
        rules={rule: RULES.get(rule, MISSING) for rule in sorted({row["rule"] for row in rows})},
        rows=(_as_text(row, panels.get(row["id"])) for row in rows),
    )


def _as_text(row: Row, panel: str | None) -> Row:
    """Write the values of a row as the page shows them."""
    truth, known = row.get("true_grade"), row.get("true_grade") is not None
    feasible = [grade for grade in GRADES if row.get(f"feasible_{grade}")]
    return {
        **row,
        "panel": quote(panel or ""),
        "taught": MISSING if row["taught"] is None else row["taught"],
        "true_grade": truth if known else MISSING,
        "truth": ("right" if truth == row["decided"] else "wrong") if known else "unknown",
        "feasible": feasible,
        "weight": number(row["weight"], decimals=2),
        "confidence": number(row["confidence"], decimals=2),
        "probabilities": {grade: number(row.get(f"probability_{grade}"), decimals=2) for grade in GRADES},
        "evidence": _evidence(row),
    }


def _evidence(row: Row) -> str:
    """Lay out the numbers of each grade as text, because thousands of tables would be slow."""
    lines = [" ".join(["grade", *(f"{name:>6}" for name in _EVIDENCE.values()), " heat map"])]
    for grade in GRADES:
        numbers = (f"{number(row.get(f'{name}_{grade}'), decimals=2):>6}" for name in _EVIDENCE)
        heat = "on lesions" if row.get(f"supported_{grade}") else "not on lesions"
        lines.append(" ".join([f"{grade:>5}", *numbers, " empty" if row.get(f"empty_{grade}") else f" {heat}"]))
    return "\n".join(lines)
