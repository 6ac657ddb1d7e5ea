"""The page to look through results: what stands in it. What a browser makes of it: test_report_in_browser.py."""

import base64
import io
import re

import numpy as np
import pytest
from bundle.handlers.predictions import Prediction
from bundle.labels import LESION_COLOURS, LESIONS
from bundle.reporting.report import card_html, write_report
from hypothesis import given, settings
from hypothesis import strategies as st
from markupsafe import escape
from PIL import Image

FACTS = {"Model": "model.pt <v1>", "Manifest": "idrid.json"}


def card(name="a.jpg", grade=2, confidence=0.6, height=48, width=72, **changes):
    """A grey photograph with one hard exudate, and a heat map that is hottest at the lower right."""
    probabilities = [(1 - confidence) / 4] * 5
    probabilities[grade] = confidence
    lesions = np.zeros((height, width), dtype=np.uint8)
    lesions[10:16, 20:30] = 3
    none = dict.fromkeys(LESIONS, 0)
    fields = {
        "name": name, "path": f"/in/{name}", "lesions_HW": lesions, "heat_hw": np.linspace(0, 1, 12).reshape(3, 4),
        "probabilities": tuple(probabilities), "counts": none | {"EX": 1}, "areas_px": none | {"EX": 60},
        "field_px": 3000, "feasible": frozenset({2, 3, 4}),
    }  # fmt: skip
    return card_html(Prediction(**(fields | changes)), np.full((height, width, 3), 90, dtype=np.uint8))


def page_of(tmp_path, *cards, title="Results"):
    write_report(tmp_path / "report.html", cards, title, FACTS)
    return (tmp_path / "report.html").read_text(encoding="utf-8")


def layer(page, name):
    """Return one layer of the page's first card as RGBA."""
    uri = re.search(rf'data-layer="{name}"[^>]* src="data:image/png;base64,([^"]+)"', page).group(1)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri))).convert("RGBA"))


def test_counts_and_shares_of_the_field_are_told(tmp_path):
    page = page_of(tmp_path, card())
    assert "<td>1</td><td>60</td><td>2.00</td>" in page  # 60 of 3000 pixels
    assert "confidence 60 %" in page
    assert "moderate" in page
    assert "Research use only. Not a medical device." in page


def test_the_share_of_a_lesion_that_rounds_to_nothing_is_not_shown_as_nothing(tmp_path):
    one = {"areas_px": dict.fromkeys(LESIONS, 0) | {"EX": 49}, "field_px": 1_000_000}
    assert "<td>1</td><td>49</td><td>&lt;0.01</td>" in page_of(tmp_path, card(**one))
    assert "<td>1</td><td>49</td><td>0.01</td>" in page_of(tmp_path, card(**(one | {"field_px": 980_000})))


def test_a_lesion_layer_has_an_opaque_outline_a_soft_inside_and_nothing_outside(tmp_path):
    rgba = layer(page_of(tmp_path, card()), "EX")
    assert rgba.shape == (48, 72, 4)
    assert rgba[10, 20].tolist() == [*LESION_COLOURS["EX"], 255]
    assert rgba[13, 25].tolist() == [*LESION_COLOURS["EX"], 89]  # 35 %
    assert rgba[0, 0, 3] == 0


def test_a_grade_that_was_abstained_from_is_marked(tmp_path):
    page = page_of(tmp_path, card(confidence=0.3, abstained=True))
    assert "Abstained: a confidence of 30 % is too low" in page
    assert 'data-abstained="1"' in page
    assert "Abstained: a" not in page_of(tmp_path, card())


def test_photographs_that_could_not_be_read_are_counted_at_the_top_and_listed_at_the_end(tmp_path):
    unread = {"dark.jpg": "all but black", "<b>&.jpg": "cut off after <81> bytes"}
    write_report(tmp_path / "report.html", [card()], "Results", FACTS, unread)
    before, after = (tmp_path / "report.html").read_text(encoding="utf-8").split("<article")
    assert "2 photographs could not be read: see the end of this page." in before
    assert "<li><b>dark.jpg</b> all but black</li>" in after
    assert "<li><b>&lt;b&gt;&amp;.jpg</b> cut off after &lt;81&gt; bytes</li>" in after


def test_a_long_list_of_remarks_is_cut(tmp_path):
    names = [f"{number}.txt" for number in range(203)]
    write_report(tmp_path / "report.html", [card()], "Results", FACTS, remarks={"passed over": names})
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "203 files passed over" in page
    assert "<li>199.txt</li><li>and 3 more</li></ul>" in page


def test_one_unread_photograph_is_one_and_none_takes_no_room(tmp_path):
    write_report(tmp_path / "report.html", [], "Results", FACTS, {"dark.jpg": "all but black"})
    assert "1 photograph could not be read" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "could not be read" not in page_of(tmp_path, card())


def test_the_head_says_that_not_all_doubtful_photographs_are_found(tmp_path):
    head = page_of(tmp_path, card()).split("<article")[0]
    assert "unlike those that the network learned from, are marked as doubtful; not all of them are found" in head


def test_a_large_photograph_is_shrunk_and_its_smallest_lesion_kept(tmp_path):
    lesions = np.zeros((1500, 2000), dtype=np.uint8)
    lesions[751, 1001] = 1
    page = page_of(tmp_path, card(height=1500, width=2000, lesions_HW=lesions))
    assert 'width="640" height="480"' in page
    assert (layer(page, "MA")[..., 3] > 0).sum() == 1


def test_heat_is_transparent_where_it_is_cold(tmp_path):
    rgba = layer(page_of(tmp_path, card()), "heat")
    assert rgba[0, 0, 3] == 0
    assert rgba[-1, -1, 3] == 191


def test_a_grade_that_the_lesions_rule_out_is_marked_as_a_contradiction(tmp_path):
    page = page_of(tmp_path, card(grade=0))
    assert "Contradiction: lesions allow 2, 3, 4" in page
    assert 'data-contradiction="1"' in page
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
    assert str(escape(hostile)).replace("\r\n", "\n") in page.replace("\r\n", "\n")


def test_cards_are_taken_one_at_a_time_and_the_page_appears_when_whole(tmp_path):
    def cards():
        for number in range(3):
            assert not (tmp_path / "report.html").exists()
            yield card(f"{number}.jpg")

    write_report(tmp_path / "report.html", cards(), "Results", FACTS)
    assert (tmp_path / "report.html").read_text(encoding="utf-8").count("<article") == 3
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_lesions_of_another_size_than_the_photograph_are_refused():
    with pytest.raises(ValueError, match=r"'a.jpg': expected lesions of \(48, 72\), got \(2, 3\)"):
        card(lesions_HW=np.ones((2, 3), dtype=np.uint8))


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
