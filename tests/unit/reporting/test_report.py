"""The page to look through results: what stands in it, and what a browser makes of it."""

import base64
import dataclasses
import html
import io
import re
import shutil
import subprocess

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from bundle.labels import LESION_COLOURS
from bundle.reporting.report import Card, write_report

HOSTILE = "<img src=x onerror=\"document.title='broken into'\">\"'&.jpg"
FACTS = {"Model": "model.pt <v1>", "Manifest": "idrid.json"}


def card(name="a.jpg", grade=2, confidence=0.6, feasible=(2, 3, 4), height=48, width=72, **changes):
    probabilities = [(1 - confidence) / 4] * 5
    probabilities[grade] = confidence
    lesions = np.zeros((height, width), dtype=np.uint8)
    lesions[10:16, 20:30] = 3
    fields = {
        "name": name, "image": np.full((height, width, 3), 90, dtype=np.uint8), "lesions": lesions,
        "heat": np.linspace(0, 1, 12).reshape(3, 4), "probabilities": tuple(probabilities), "counts": {"EX": 1},
        "areas_px": {"EX": 60}, "field_px": 3000, "feasible": frozenset(feasible), "true_grade": None,
    }  # fmt: skip
    return Card(**(fields | changes))


def page_of(tmp_path, *cards, title="Results"):
    write_report(tmp_path / "report.html", cards, title, FACTS)
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def layer(page, name):
    """Return one layer of the page's first card as RGBA."""
    uri = re.search(rf'data-layer="{name}" alt="" src="data:image/png;base64,([^"]+)"', page).group(1)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri))).convert("RGBA"))


def test_counts_and_shares_of_the_field_are_told(tmp_path):
    page = page_of(tmp_path, card())
    assert "<td>1</td><td>60</td><td>2.00</td>" in page  # 60 of 3000 pixels
    assert "confidence 60 %" in page
    assert "moderate" in page
    assert "Research use only. Not a medical device." in page


def test_a_lesion_layer_has_an_opaque_outline_a_soft_inside_and_nothing_outside(tmp_path):
    rgba = layer(page_of(tmp_path, card()), "EX")
    assert rgba.shape == (48, 72, 4)
    assert rgba[10, 20].tolist() == [*LESION_COLOURS["EX"], 255]
    assert rgba[13, 25].tolist() == [*LESION_COLOURS["EX"], 89]  # 35 %
    assert rgba[0, 0, 3] == 0


def test_a_large_photograph_is_shrunk_and_its_smallest_lesion_kept(tmp_path):
    lesions = np.zeros((1500, 2000), dtype=np.uint8)
    lesions[751, 1001] = 1
    page = page_of(tmp_path, card(height=1500, width=2000, lesions=lesions))
    assert 'width="640" height="480"' in page
    assert (layer(page, "MA")[..., 3] > 0).sum() == 1


def test_heat_is_transparent_where_it_is_cold(tmp_path):
    rgba = layer(page_of(tmp_path, card()), "heat")
    assert rgba[0, 0, 3] == 0
    assert rgba[-1, -1, 3] == 191


def test_without_a_heat_map_there_is_no_slider(tmp_path):
    article = page_of(tmp_path, card(heat=None)).split("<article")[1].split("</article>")[0]
    assert 'type="range"' not in article
    assert 'data-layer="heat"' not in article


def test_a_grade_that_the_lesions_rule_out_is_marked_as_a_contradiction(tmp_path):
    page = page_of(tmp_path, card(grade=0, true_grade=3))
    assert "Contradiction: lesions allow 2, 3, 4" in page
    assert 'data-contradiction="1"' in page
    assert "True grade 3 severe" in page
    assert "Contradiction: lesions" not in page_of(tmp_path, card(grade=3))


@given(st.text(min_size=1))
@settings(max_examples=25, deadline=None)
def test_no_name_title_or_fact_can_leave_its_place(tmp_path_factory, name):
    tmp_path = tmp_path_factory.mktemp("report")
    hostile = f"</h2></script><!-- cards -->{name}$name"
    write_report(tmp_path / "report.html", [card(hostile)], hostile, {hostile: hostile})
    page = (tmp_path / "report.html").read_bytes().decode()
    assert page.count("<script") == page.count("</script>") == 1
    assert page.count("<article") == page.count("</h2>") == 1
    assert html.escape(hostile).replace("\r\n", "\n") in page.replace("\r\n", "\n")


def test_cards_are_taken_one_at_a_time_and_the_page_appears_when_whole(tmp_path):
    def cards():
        for number in range(3):
            assert not (tmp_path / "report.html").exists()
            yield card(f"{number}.jpg")

    assert write_report(tmp_path / "report.html", cards(), "Results", FACTS) == 3
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_a_failure_half_way_leaves_the_former_page_and_no_rubbish(tmp_path):
    former = page_of(tmp_path, card())

    def cards():
        yield card("new.jpg")
        raise RuntimeError("the disk of the photographs is gone")

    with pytest.raises(RuntimeError, match="the disk"):
        write_report(tmp_path / "report.html", cards(), "Results", FACTS)
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == former
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_the_page_names_nothing_outside_itself(tmp_path):
    page = page_of(tmp_path, card())
    assert all(uri.startswith("data:image/") for uri in re.findall(r'src="([^"]*)"', page))
    assert not re.search(r"https?:|url\(|@import|<link", page)


def test_rejects_lesions_of_another_size():
    with pytest.raises(ValueError, match=r"'a.jpg': expected lesions of \(48, 72\), got \(2, 3\)"):
        card(lesions=np.ones((2, 3), dtype=np.uint8))


def test_rejects_four_probabilities():
    with pytest.raises(ValueError, match=r"expected 5 probabilities, got \(0.25, 0.25, 0.25, 0.25\)"):
        dataclasses.replace(card(), probabilities=(0.25,) * 4)


def test_rejects_an_empty_field_of_view():
    with pytest.raises(ValueError, match="expected a field of view of at least one pixel, got 0"):
        card(field_px=0)


@pytest.fixture(scope="module")
def browse(tmp_path_factory):
    """Return what Chromium makes of the page at an address: the document after its script has run."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    folder = tmp_path_factory.mktemp("browser")
    cards = [
        card(HOSTILE, grade=2, confidence=0.9),
        card("unsure.jpg", grade=2, confidence=0.5),
        card("mild.jpg", grade=1, confidence=0.7),
    ]
    write_report(folder / "report.html", cards, "Results", FACTS)
    options = (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-extensions",
        "--virtual-time-budget=2000", f"--user-data-dir={folder / 'profile'}", "--dump-dom",
    )  # fmt: skip

    def visit(state="", acting=""):
        page = (folder / "report.html").read_text(encoding="utf-8")
        if acting:  # as the reader would; the page's own policy lets no other script run
            page = re.sub(r"script-src '[^']*'", "script-src 'unsafe-inline'", page, count=1)
            page = page.replace("</body>", f"<script>{acting}</script></body>")
        (folder / "visited.html").write_text(page, encoding="utf-8")
        address = (folder / "visited.html").as_uri() + state
        done = subprocess.run([chromium, *options, address], capture_output=True, text=True, timeout=60, check=True)
        return done.stdout

    return visit


def shown(document):
    """Return the names of the cards that are not hidden, in their order."""
    articles = re.findall(r"<article([^>]*)>\s*<h2[^>]*>(.*?)</h2>", document, flags=re.DOTALL)
    return [html.unescape(name) for attributes, name in articles if "hidden" not in attributes]


def test_in_a_browser_a_hostile_file_name_is_only_text(browse):
    document = browse()
    assert "<title>Results</title>" in document
    assert shown(document) == [HOSTILE, "unsure.jpg", "mild.jpg"]
    assert "3 of 3 photographs, 1 with a contradiction" in document


def test_in_a_browser_the_address_filters_and_sorts(browse):
    document = browse("#grade=2&sort=confidence")
    assert shown(document) == ["unsure.jpg", HOSTILE]
    assert "2 of 3 photographs" in document


def test_in_a_browser_contradictions_can_be_singled_out(browse):
    assert shown(browse("#contradictions=1&grade=nonsense")) == ["mild.jpg"]


def test_in_a_browser_layers_are_switched_on_one_card_or_on_all(browse):
    document = browse(
        acting="""
        const press = (where, shows) => document.querySelector(where + " [data-shows=" + shows + "]").click();
        press("#cards", "EX"); press("#tools", "MA");
        const slider = document.querySelector("#tools [data-shows=heat]");
        slider.value = 40; slider.dispatchEvent(new Event("input", {bubbles: true}));
        """
    )
    layers = re.findall(r'<img class="layer" data-layer="(\w+)"[^>]*?src="[^"]*"([^>]*)>', document)
    assert [attributes for name, attributes in layers if name == "EX"] == [' hidden=""', "", ""]
    assert [attributes for name, attributes in layers if name == "heat"] == [' style="opacity: 0.4;"'] * 3


def test_in_a_browser_a_chosen_grade_is_kept_in_the_address(browse):
    document = browse(
        "#sort=name",
        acting="""
        const grade = document.querySelector("[name=grade]");
        grade.value = "1"; grade.dispatchEvent(new Event("input", {bubbles: true}));
        document.title = location.hash;
        """,
    )
    assert "<title>#grade=1&amp;sort=name</title>" in document
    assert shown(document) == ["mild.jpg"]
