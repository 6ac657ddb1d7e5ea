"""The page of all decisions: what stands in it, and what a browser makes of it."""

import html
import json
import re
import shutil
import subprocess

import pytest
from bundle.reporting.decisions import write_decisions
from bundle.reporting.tables import MISSING
from hypothesis import given, settings
from hypothesis import strategies as st

HOSTILE = "<img src=x onerror=\"document.title='broken into'\">\"'&.jpg"
SUMMARY = {
    "n": 4, "n_known": 3, "n_taught": 2, "n_keep": 1, "n_move": 2, "n_abstain": 1,
    "n_supported": 3, "n_changed_by_heat": 2,
    "proposed/accuracy": 0.5, "decided/accuracy": 0.7, "majority/accuracy": 0.45,
    "gain/accuracy": 0.2, "gain/accuracy_low": -0.05, "gain/accuracy_high": 0.4,
    "truth_feasible": 1.0, "truth_feasible_low": 0.9, "truth_feasible_high": 1.0,
    "R2/n": 4, "R2/n_known": 3, "R2/truth_feasible": 1.0,
}  # fmt: skip


def row(name="set/a", proposed=0, decided=3, true=3, **changes):
    fields = {
        "id": name, "proposed": proposed, "decided": decided, "true_grade": true, "action": "move", "rule": "R2",
        "taught": decided, "weight": 0.6, "confidence": 0.5,
        "reason": "grade 0 was proposed, but hard exudates are outlined",
    }  # fmt: skip
    for grade in range(5):
        fields |= {
            f"probability_{grade}": 0.2, f"feasible_{grade}": grade > 1, f"lift_{grade}": 3.14,
            f"optic_disc_{grade}": None, f"supported_{grade}": grade == 3, f"empty_{grade}": grade == 4,
        }  # fmt: skip
    return fields | changes


def page_of(tmp_path, *rows, panels=None, facts=None):
    write_decisions(tmp_path / "decisions.html", rows, SUMMARY, panels or {}, facts)
    return (tmp_path / "decisions.html").read_text(encoding="utf-8")


def test_every_number_of_a_decision_stands_in_its_row(tmp_path):
    page = page_of(tmp_path, row())
    (found,) = re.findall(r'<tr data-action="move" data-rule="R2" data-truth="right">.*?</tr>', page, flags=re.DOTALL)
    cells = [re.sub("<[^>]*>", "", cell) for cell in re.findall(r"<td[^>]*>(.*?)</td>", found, flags=re.DOTALL)]
    assert cells[:9] == ["0", "3", "3", "3 right", "moved", "R2", "2, 3, 4", "0.60", "0.50"]
    assert cells[9:14] == ["0.20"] * 5
    assert "hard exudates are outlined" in cells[14]
    lines = cells[14].splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["0", "1", "2", "3", "4"]
    assert "3.14" in lines[4]
    assert [lines[number].split("  ")[-1].strip() for number in (3, 4, 5)] == ["not on lesions", "on lesions", "empty"]


def test_what_is_taught_may_be_another_grade_than_the_decided_one_or_none(tmp_path):
    page = page_of(tmp_path, row(taught=2), row(taught=None, action="abstain"))
    assert "<td>0</td><td>3</td><td>2</td><td>3 <span" in page
    assert f"<td>0</td><td>3</td><td>{MISSING}</td><td>3 <span" in page


def test_how_many_decisions_the_heat_maps_changed_stands_above(tmp_path):
    page = page_of(tmp_path, row())
    assert '<th scope="col">a heat map on the lesions</th><th scope="col">decided otherwise by it</th>' in page
    assert "<td>1</td><td>2</td><td>1</td><td>3</td><td>2</td><td>3</td>" in page


def test_the_gain_stands_below_what_it_was_gained_on(tmp_path):
    page = page_of(tmp_path, row())
    gain = page[page.index("gain: decided minus proposed") :]
    assert gain.startswith(
        f"gain: decided minus proposed</th><td>3</td><td>+0.200</td><td>-0.050 to +0.400</td><td>{MISSING}</td>"
    )
    assert "always the most frequent grade" in page
    assert "Research use only. Not a medical device." in page


def test_a_picture_is_linked_by_a_relative_address(tmp_path):
    page = page_of(tmp_path, row("set/a b"), row("set/b"), panels={"set/a b": "panels/set_a b#1.jpg"})
    assert '<a href="panels/set_a%20b%231.jpg">set/<wbr>a b</a>' in page
    assert page.count("<a ") == 1


def test_a_photograph_whose_lesions_no_one_looked_for_is_told_by_rule_and_words(tmp_path):
    anything = {f"feasible_{grade}": True for grade in range(5)}
    words = "grade 0 was proposed, and no lesion is outlined, though not every lesion was looked for"
    page = page_of(tmp_path, row(rule="R4", reason=words, true=None, **anything))
    assert f"<td>{MISSING}</td><td>moved</td><td>R4</td><td>0, 1, 2, 3, 4</td>" in page
    assert "<dt>R4</dt><dd>some lesion was never looked for" in page
    assert words in page


def test_a_rule_with_a_prime_is_explained(tmp_path):
    page = page_of(tmp_path, row(rule="R2''"))
    assert "<dt>R2&#39;&#39;</dt><dd>exudates without any red lesion" in page


@given(st.text(min_size=1))
@settings(max_examples=25)
def test_no_name_reason_or_fact_can_leave_its_place(tmp_path_factory, text):
    hostile = f"</td></script><!-- rows -->{text}$name"
    page = page_of(
        tmp_path_factory.mktemp("page"), row(hostile, reason=hostile), panels={hostile: hostile},
        facts={hostile: hostile},
    )  # fmt: skip
    assert page.count("<script") == page.count("</script>") == 1
    assert page.count("<tr data-action") == 1
    assert page.count("</tbody>") == 4


def test_the_page_names_nothing_outside_itself(tmp_path):
    page = page_of(tmp_path, row())
    assert not re.search(r"https?:|url\(|@import|<link|src=", page)


def test_refuses_what_is_no_audit_row_and_leaves_no_page(tmp_path):
    with pytest.raises(ValueError, match=r"expected audit rows, got one without \['decided', 'reason'\]"):
        page_of(tmp_path, {key: value for key, value in row().items() if key not in ("decided", "reason")})
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def browse(tmp_path_factory):
    """Return what Chromium makes of the page at an address: the document after its script has run."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    folder = tmp_path_factory.mktemp("browser")
    rows = [
        row("set/10", weight=0.5, true=3),
        row(HOSTILE, weight=1.0, true=None, action="keep", rule="R1"),
        row("set/9", weight=0.0, true=2, action="abstain", reason="yet not taught"),
        row("set/2", weight=0.25, true=4, rule="R4"),
    ]
    options = (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-extensions",
        "--virtual-time-budget=2000", f"--user-data-dir={folder / 'profile'}", "--dump-dom",
    )  # fmt: skip

    def visit(state="", acting="", rows=rows):
        page = page_of(folder, *rows)
        if acting:  # as the reader would; the page's own policy lets no other script run
            page = re.sub(r"script-src '[^']*'", "script-src 'unsafe-inline'", page, count=1)
            page = page.replace("</body>", f"<script>{acting}</script></body>")
        (folder / "visited.html").write_text(page, encoding="utf-8")
        address = (folder / "visited.html").as_uri() + state
        done = subprocess.run([chromium, *options, address], capture_output=True, text=True, timeout=60, check=True)
        return done.stdout

    return visit


def shown(document):
    """Return the ids of the rows that are not hidden, in their order."""
    found = re.findall(r'<tr (data-action[^>]*)><th scope="row">(.*?)</th>', document, flags=re.DOTALL)
    names = [(attributes, html.unescape(name.replace("<wbr>", ""))) for attributes, name in found]
    return [name for attributes, name in names if "hidden" not in attributes]


def press(*columns):
    return "".join(f"document.querySelector('[data-sort={column}]').click();" for column in columns)


def sorted_columns(document):
    return dict(re.findall(r'aria-sort="(\w+ending)"><button type="button" data-sort="(\w+)"', document))


def test_in_a_browser_a_hostile_file_name_is_only_text(browse):
    document = browse()
    assert "<title>Pseudo-labels: all decisions</title>" in document
    assert shown(document) == ["set/10", HOSTILE, "set/9", "set/2"]
    assert "4 of 4 photographs" in document


def test_in_a_browser_a_press_on_a_heading_sorts_and_a_second_one_turns_round(browse):
    document = browse(acting=press("weight"))
    assert shown(document) == ["set/9", "set/2", "set/10", HOSTILE]
    assert sorted_columns(document) == {"ascending": "weight"}
    document = browse(acting=press("weight", "weight"))
    assert shown(document) == [HOSTILE, "set/10", "set/2", "set/9"]
    assert sorted_columns(document) == {"descending": "weight"}


def test_in_a_browser_a_name_sorts_by_its_numbers_and_an_unknown_grade_comes_last_either_way(browse):
    assert [name for name in shown(browse("#sort=id")) if name != HOSTILE] == ["set/2", "set/9", "set/10"]
    assert shown(browse("#sort=true"))[-1] == shown(browse("#sort=-true"))[-1] == HOSTILE


@pytest.mark.parametrize(
    ("state", "names"),
    [
        ("#action=abstain", ["set/9"]),
        ("#rule=R4", ["set/2"]),
        ("#truth=wrong&sort=weight", ["set/9", "set/2"]),
        ("#truth=unknown", [HOSTILE]),
        ("#text=NOT%20taught", ["set/9"]),
        ("#text=set/1", ["set/10"]),
        ("#text=evidence", []),
        ("#action=nonsense&sort=nonsense", ["set/10", HOSTILE, "set/9", "set/2"]),
    ],
)
def test_in_a_browser_the_address_filters(browse, state, names):
    document = browse(state)
    assert shown(document) == names
    assert f"{len(names)} of 4 photographs" in document


def test_in_a_browser_a_filter_is_kept_in_the_address_and_cleared(browse):
    choose = """
        const action = document.querySelector("[name=action]");
        action.value = "move"; action.dispatchEvent(new Event("input", {bubbles: true}));
        """
    document = browse(acting=choose + press("weight") + "document.title = location.hash;")
    assert "<title>#action=move&amp;sort=weight</title>" in document
    assert shown(document) == ["set/2", "set/10"]
    document = browse(acting=choose + press("weight") + "document.getElementById('reset').click();")
    assert shown(document) == ["set/10", HOSTILE, "set/9", "set/2"]
    assert sorted_columns(document) == {}


def test_in_a_browser_five_thousand_rows_sort_and_filter_within_two_seconds(browse):
    rows = [row(f"set/{number}", weight=(number * 7919 % 5000) / 5000) for number in range(5000)]
    document = browse(
        rows=rows,
        acting="const start = performance.now();" + press("weight", "words") + "tools.elements.text.value = 'set/49';"
        "tools.dispatchEvent(new Event('input')); document.body.offsetHeight;"
        "document.title = JSON.stringify({ms: performance.now() - start});",
    )
    assert "111 of 5000 photographs" in document  # 49, 490-499, 4900-4999
    assert json.loads(re.search(r"<title>(.*?)</title>", document).group(1))["ms"] < 2000
