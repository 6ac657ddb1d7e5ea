"""Page of all pseudo-labels: their quality, and every decision in a table to sort and filter."""

import base64
import hashlib
import html
import os
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from string import Template
from typing import Any
from urllib.parse import quote

from bundle.files import written_whole
from bundle.labels import GRADE_NAMES, GRADES
from bundle.reporting.tables import MISSING, Table, number, pseudo_label_tables

Row = Mapping[str, Any]

RULES = {
    "R0": "all four lesions were looked for, none is there: grade 0",
    "R1": "all four were looked for, only microaneurysms are there: grade 1",
    "R2": "a haemorrhage or an exudate is there: grades 2, 3, 4",
    "R2'": "a few tiny haemorrhages, which may be microaneurysms, and no exudate: grades 1, 2, 3, 4",
    "R2''": "exudates without any red lesion, which is atypical of diabetes: grades 2, 3, 4",
    "R3": "more than 20 haemorrhages in each quadrant about the fovea, or else the disc: grades 3, 4",
    "R4": "some lesion was never looked for, and what is outlined rules nothing out: all grades",
    "R6": "some expert marked a lesion that too few others did: the grades without it, and with it",
}
"""The rules of ``labels.feasible_grades`` in words."""

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

_PAGE = Path(__file__).with_name("decisions_template.html")


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
    _check(rows)
    head, tail = _page(rows, summary, facts or {})
    with written_whole(path) as beside, beside.open("w", encoding="utf-8") as page:
        page.write(head)
        page.writelines(_row(row, panels.get(row["id"])) for row in rows)
        page.write(tail)


def _check(rows: Sequence[Row]) -> None:
    needed = {"id", "proposed", "decided", "taught", "action", "rule", "reason", "weight", "confidence"}
    for row in rows:
        if needed - set(row):
            raise ValueError(f"expected audit rows, got one without {sorted(needed - set(row))}")


def _page(rows: Sequence[Row], summary: Row, facts: Mapping[str, str]) -> tuple[str, str]:
    """Return the parts of the page before and after the rows."""
    template = _PAGE.read_text(encoding="utf-8")
    found = sorted({row["rule"] for row in rows})
    filled = Template(template).substitute(
        facts="".join(f"<div><dt>{html.escape(k)}</dt><dd>{html.escape(v)}</dd></div>" for k, v in facts.items()),
        summary="".join(_table(name, table) for name, table in pseudo_label_tables(summary).items()),
        actions="".join(f'<option value="{action}">{name}</option>' for action, name in ACTIONS.items()),
        rules="".join(f'<option value="{html.escape(rule)}">{html.escape(rule)}</option>' for rule in found),
        rule_words="".join(_rule_words(rule) for rule in found),
        grades=", ".join(f"{grade} {GRADE_NAMES[grade]}" for grade in GRADES),
        probabilities="".join(_probability_head(grade) for grade in GRADES),
        script_sha256=_script_sha256(template),
    )
    head, tail = filled.split("<!-- rows -->")
    return head, tail


def _script_sha256(template: str) -> str:
    """Return the hash of the page's script, the only one that its content security policy allows."""
    (script,) = re.findall(r"<script>(.*?)</script>", template, flags=re.DOTALL)
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _table(name: str, table: Table) -> str:
    head = "".join(f'<th scope="col">{html.escape(cell)}</th>' for cell in table.header)
    body = "".join(_table_row(cells) for cells in table.rows)
    return (
        f'<div class="wide" role="region" tabindex="0" aria-label="{CAPTIONS[name]}"><table class="{name}">'
        f"<caption>{CAPTIONS[name]}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>\n"
    )


def _table_row(cells: Sequence[str]) -> str:
    first, *others = (html.escape(cell) for cell in cells)
    return f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in others)}</tr>'


def _rule_words(rule: str) -> str:
    return f"<div><dt>{html.escape(rule)}</dt><dd>{html.escape(RULES.get(rule, MISSING))}</dd></div>"


def _probability_head(grade: int) -> str:
    return (
        f'<th scope="col" aria-sort="none"><button type="button" data-sort="p{grade}" data-kind="number" '
        f'title="probability of grade {grade} {GRADE_NAMES[grade]}">p{grade}</button></th>'
    )


def _row(row: Row, panel: str | None) -> str:
    truth = _truth(row)
    cells = [
        str(row["proposed"]), str(row["decided"]), _taught(row), _true_cell(row, truth), ACTIONS[row["action"]],
        html.escape(row["rule"]), ", ".join(str(grade) for grade in GRADES if row.get(f"feasible_{grade}")),
        _number(row["weight"]), _number(row["confidence"]),
    ]  # fmt: skip
    probabilities = "".join(_probability(row, grade) for grade in GRADES)
    words = f'<td class="words">{html.escape(row["reason"])}{_evidence(row)}</td>'
    return (
        f'<tr data-action="{row["action"]}" data-rule="{html.escape(row["rule"])}" data-truth="{truth}">'
        f'<th scope="row">{_name(row["id"], panel)}</th>{"".join(f"<td>{cell}</td>" for cell in cells)}'
        f"{probabilities}{words}</tr>\n"
    )


def _name(name: str, panel: str | None) -> str:
    """Link an id to its picture, with line breaks allowed after its folders."""
    shown = html.escape(name).replace("/", "/<wbr>")
    return shown if panel is None else f'<a href="{html.escape(quote(panel))}">{shown}</a>'


def _taught(row: Row) -> str:
    return MISSING if row["taught"] is None else str(row["taught"])


def _truth(row: Row) -> str:
    if row.get("true_grade") is None:
        return "unknown"
    return "right" if row["true_grade"] == row["decided"] else "wrong"


def _true_cell(row: Row, truth: str) -> str:
    return MISSING if truth == "unknown" else f'{row["true_grade"]} <span class="{truth}">{truth}</span>'


def _probability(row: Row, grade: int) -> str:
    classes = ["decided"] * (grade == row["decided"]) + ["excluded"] * (not row.get(f"feasible_{grade}"))
    return f'<td class="{" ".join(classes)}">{_number(row.get(f"probability_{grade}"))}</td>'


def _evidence(row: Row) -> str:
    """Lay out the numbers of each grade as text, because thousands of tables would be slow."""
    lines = [" ".join(["grade", *(f"{name:>6}" for name in _EVIDENCE.values()), " heat map"])]
    for grade in GRADES:
        numbers = (f"{_number(row.get(f'{name}_{grade}')):>6}" for name in _EVIDENCE)
        lines.append(" ".join([f"{grade:>5}", *numbers, f" {_heat(row, grade)}"]))
    return "<details><summary>evidence of each grade</summary><pre>" + "\n".join(lines) + "</pre></details>"


def _heat(row: Row, grade: int) -> str:
    if row.get(f"empty_{grade}"):
        return "empty"
    return "on lesions" if row.get(f"supported_{grade}") else "not on lesions"


_number = partial(number, decimals=2)
