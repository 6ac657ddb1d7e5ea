"""The report in a real browser: layers, filters, sorting, the keyboard, hostile names, 500 photographs, paper."""

import io
import shutil

import numpy as np
import pytest
from bundle.handlers.predictions import Prediction
from bundle.labels import GRADES, LESIONS
from bundle.reporting.report import card_html, patient_html, write_report
from PIL import Image

HOSTILE = (
    "<img src=x onerror=\"document.title='broken into'\">\"'&.jpg",
    "\"><script>document.title='broken into'</script>.jpg",
    "javascript:document.title='broken into'",
    "</h2></article><!-- cards -->${name}.jpg",
)
WIDE, LOW, NARROW = ({"width": w, "height": h} for w, h in ((1440, 900), (1440, 450), (400, 800)))
CARDS_MANY, SORTED_WITHIN_MS = 500, 500
GREY, LESION_AT_XY, BARE_AT_XY = 90, (25, 13), (60, 40)


def card(name, grade=2, confidence=0.6, grey=GREY, abstained=False, **more):
    """A grey photograph of 72 x 48 pixels with one hard exudate of 10 x 6, and a heat map that is hot on the right."""
    probabilities = [(1 - confidence) / 4] * 5
    probabilities[grade] = confidence
    lesions = np.zeros((48, 72), dtype=np.uint8)
    lesions[10:16, 20:30] = LESIONS.index("EX") + 1
    none = dict.fromkeys(LESIONS, 0)
    prediction = Prediction(
        name=name, path=f"/in/{name}", lesions_HW=lesions, heat_hw=np.tile(np.linspace(0, 1, 72), (48, 1)),
        probabilities=tuple(probabilities), counts=none | {"EX": 1}, areas_px=none | {"EX": 60}, field_px=3000,
        feasible=frozenset({2, 3, 4}), abstained=abstained, **more,
    )  # fmt: skip
    return card_html(prediction, np.full((48, 72, 3), grey, dtype=np.uint8))


FEW = (
    card("b10.jpg", grade=2, confidence=0.9),
    card("b9.jpg", grade=2, confidence=0.5, abstained=True),
    card("a.jpg", grade=1, confidence=0.7),  # against its exudate
)


@pytest.fixture(scope="module")
def chromium():
    """The machine's own browser: none is downloaded."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright on this machine")
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if found is None:
        pytest.skip("no Chromium on this machine")
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=found, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, tmp_path):
    """Open a report of some cards; what it asked the network for is in ``page.requested``."""
    contexts = []

    def open_report(*cards, state="", viewport=WIDE, unread=None):
        write_report(tmp_path / "report.html", cards, "Results", {"Model": "model.pt"}, unread)
        contexts.append(chromium.new_context(viewport=viewport, locale="en-GB"))
        page = contexts[-1].new_page()
        page.requested, page.complaints = [], []
        page.on("request", lambda request: page.requested.append(request.url))
        page.on("pageerror", lambda error: page.complaints.append(str(error)))
        page.goto((tmp_path / "report.html").as_uri() + state)
        return page

    yield open_report
    for context in contexts:
        context.close()


def shown(page):
    """Return the names of the cards that can be seen, from top to bottom."""
    return page.locator(".card:visible h2").all_text_contents()


def pixel(page, at_xy, card_number=0):
    """Return the colour that a pixel of a photograph has on the screen."""
    stack = page.locator(".stack").nth(card_number)
    picture = Image.open(io.BytesIO(stack.screenshot())).convert("RGB")
    x, y = ((place + 0.5) / side for place, side in zip(at_xy, (72, 48), strict=True))
    return picture.getpixel((int(x * picture.width), int(y * picture.height)))


def near(colour, expected, off_by=3):
    return all(abs(one - other) <= off_by for one, other in zip(colour, expected, strict=True))


def test_a_box_takes_a_lesion_off_the_photograph_and_puts_it_back(visit):
    page = visit(*FEW)
    filled = tuple(round(0.65 * GREY + 0.35 * part) for part in (255, 224, 32))
    assert near(pixel(page, LESION_AT_XY), filled)
    assert near(pixel(page, BARE_AT_XY), (GREY,) * 3)
    box = page.locator(".card [data-shows=EX]").first
    box.uncheck()
    assert near(pixel(page, LESION_AT_XY), (GREY,) * 3)
    assert near(pixel(page, LESION_AT_XY, card_number=1), filled)  # the other photographs keep theirs
    box.check()
    assert near(pixel(page, LESION_AT_XY), filled)


def test_a_box_of_the_tools_takes_a_lesion_off_every_photograph(visit):
    page = visit(*FEW)
    page.locator("#tools [data-shows=EX]").uncheck()
    assert all(near(pixel(page, LESION_AT_XY, number), (GREY,) * 3) for number in range(3))
    assert page.locator(".card [data-shows=EX]:checked").count() == 0
    assert page.locator(".card [data-shows=MA]:checked").count() == 3


def test_the_slider_lays_the_heat_map_over_by_degrees(visit):
    page = visit(*FEW)
    slider = page.locator(".card [data-shows=heat]").first
    blueness = []
    for percent in (0, 50, 100):
        slider.fill(str(percent))
        blueness.append(pixel(page, (70, 40))[1] - pixel(page, (70, 40))[2])
    assert blueness[0] == 0
    assert 30 < blueness[1] < blueness[2] - 30  # the hot end is yellow: green and no blue
    assert near(pixel(page, (70, 40), card_number=1), (GREY,) * 3)
    page.locator("#tools [data-shows=heat]").fill("40")
    assert page.evaluate("[...document.querySelectorAll('[data-layer=heat]')].map(l => l.style.opacity)") == ["0.4"] * 3


def test_filters_by_grade_confidence_contradiction_and_abstention_each_hide_cards(visit):
    page = visit(*FEW)
    assert shown(page) == ["b10.jpg", "b9.jpg", "a.jpg"]
    page.locator("[name=grade]").select_option("2")
    assert shown(page) == ["b10.jpg", "b9.jpg"]
    page.get_by_label("confidence of at most").fill("60")
    assert shown(page) == ["b9.jpg"]
    page.get_by_role("button", name="Clear filters").click()
    page.get_by_label("confidence of at least").fill("70")
    assert shown(page) == ["b10.jpg", "a.jpg"]  # 70 % as it stands on the card
    page.get_by_label("contradictions only").check()
    assert shown(page) == ["a.jpg"]
    assert page.locator("#shown").inner_text() == "1 of 3 photographs, 1 with a contradiction, 0 abstained, 0 doubtful"
    page.get_by_role("button", name="Clear filters").click()
    page.get_by_label("abstained only").check()
    assert shown(page) == ["b9.jpg"]


def test_doubtful_photographs_can_be_shown_alone_and_a_withheld_grade_is_below_all(visit):
    page = visit(*FEW, card("odd.jpg", unlikeness=2.0), card("gone.jpg", unlikeness=2.0, withhold_doubtful=True))
    page.locator("[name=sort]").select_option("grade")
    assert shown(page)[:2] == ["gone.jpg", "a.jpg"]
    page.get_by_label("doubtful only").check()
    assert shown(page) == ["gone.jpg", "odd.jpg"]
    assert (
        page.locator("#shown")
        .inner_text()
        .endswith("2 of 5 photographs, 0 with a contradiction, 0 abstained, 2 doubtful")
    )
    page.get_by_label("confidence of at least").fill("0")
    assert shown(page) == ["odd.jpg"]


@pytest.mark.parametrize(
    ("sort", "names"),
    [
        ("", ["b10.jpg", "b9.jpg", "a.jpg"]),
        ("name", ["a.jpg", "b9.jpg", "b10.jpg"]),
        ("grade", ["a.jpg", "b10.jpg", "b9.jpg"]),
        ("-grade", ["b10.jpg", "b9.jpg", "a.jpg"]),
        ("confidence", ["b9.jpg", "a.jpg", "b10.jpg"]),
        ("-confidence", ["b10.jpg", "a.jpg", "b9.jpg"]),
    ],
)
def test_cards_can_be_sorted(visit, sort, names):
    page = visit(*FEW, state="#sort=-name")  # an order that there is not counts as none
    page.locator("[name=sort]").select_option("confidence")
    page.locator("[name=sort]").select_option(sort)
    assert shown(page) == names


def test_the_state_is_in_the_address_and_comes_back_from_it(visit):
    page = visit(*FEW)
    page.locator("[name=grade]").select_option("2")
    page.get_by_label("confidence of at most").fill("60")
    page.locator("[name=sort]").select_option("name")
    address = page.url
    assert address.endswith("#grade=2&most=60&sort=name")
    page.get_by_role("button", name="Clear filters").click()
    assert shown(page) == ["b10.jpg", "b9.jpg", "a.jpg"]
    page.goto(address)
    assert shown(page) == ["b9.jpg"]
    assert page.get_by_label("confidence of at most").input_value() == "60"


def test_an_address_of_nonsense_filters_by_what_is_none(visit):
    page = visit(*FEW, state="#contradictions=1&grade=nonsense&least=%3Cb%3E")
    assert shown(page) == ["a.jpg"]
    assert page.locator("[name=grade]").input_value() == page.get_by_label("confidence of at least").input_value() == ""


CONTROLS = "[...document.querySelectorAll('select, input, button')].filter(one => one.offsetParent)"
FOCUSED = (
    f"() => {{ const place = {CONTROLS}.indexOf(document.activeElement);"
    """
  const one = document.activeElement, style = getComputedStyle(one), box = one.getBoundingClientRect();
  const top = document.elementFromPoint(box.x + box.width / 2, box.y + box.height / 2);
  const outline = style.outlineStyle === "none" ? 0 : parseFloat(style.outlineWidth);
  return {place, outline, seen: top !== null && (one.contains(top) || top.contains(one))};
}"""
)


@pytest.mark.parametrize("viewport", [LOW, NARROW], ids=["low", "narrow"])
def test_tab_reaches_every_control_in_order_and_shows_where_it_is(visit, viewport):
    page = visit(*FEW, viewport=viewport)
    count = page.evaluate(f"{CONTROLS}.length")
    visited = []
    for _ in range(count):
        page.keyboard.press("Tab")
        visited.append(page.evaluate(FOCUSED))
    for _ in range(count - 1):
        page.keyboard.press("Shift+Tab")
        visited.append(page.evaluate(FOCUSED))
    assert [one["place"] for one in visited] == [*range(count), *reversed(range(count - 1))]
    assert count > 3 * len(LESIONS)
    assert all(one["outline"] >= 2 for one in visited)
    assert all(one["seen"] for one in visited), "a control lies under the tools or outside of the window"


def test_a_control_that_gets_the_focus_comes_out_from_under_the_tools(visit):
    page = visit(*FEW, *(card(f"{n}.jpg") for n in range(5)), viewport=LOW)
    before, wanted = "#cards [data-shows=heat]", "#cards button"
    page.evaluate(
        """([before, wanted]) => {
          const third = selector => document.querySelectorAll(selector)[2];
          scrollBy(0, third(wanted).getBoundingClientRect().y - 10);
          third(before).focus({preventScroll: true});
        }""",
        [before, wanted],
    )
    assert page.locator(wanted).nth(2).bounding_box()["y"] < page.locator(".bar-of-tools").bounding_box()["height"]
    page.keyboard.press("Tab")
    assert page.locator(wanted).nth(2).evaluate("one => one === document.activeElement")
    assert page.evaluate(FOCUSED)["seen"]


def test_the_keyboard_alone_works_every_kind_of_control(visit):
    page = visit(*FEW)

    def tab_to(selector):
        for _ in range(60):
            page.keyboard.press("Tab")
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                return
        raise AssertionError(f"Tab does not reach {selector}")

    tab_to("[name=grade]")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    assert shown(page) == ["a.jpg"]  # grade 1
    page.keyboard.press("Home")
    tab_to("[name=most]")
    page.keyboard.type("60")
    assert shown(page) == ["b9.jpg"]
    page.keyboard.press("ArrowUp")
    assert page.get_by_label("confidence of at most").input_value() == "65"
    tab_to("[name=contradictions]")
    page.keyboard.press("Space")
    assert shown(page) == []
    tab_to("#reset")
    page.keyboard.press("Enter")
    assert shown(page) == ["b10.jpg", "b9.jpg", "a.jpg"]
    tab_to(".card [data-shows=heat]")
    page.keyboard.press("End")
    assert page.locator("[data-layer=heat]").first.evaluate("layer => layer.style.opacity") == "1"
    tab_to(".card button")
    page.keyboard.press("Space")
    assert page.locator(".card").first.evaluate("one => one.classList.contains('large')")
    tab_to(".card [data-shows=EX]")
    page.keyboard.press("Space")
    assert page.locator("[data-layer=EX]").evaluate_all("layers => layers.map(layer => layer.hidden)") == [
        True, False, False,
    ]  # fmt: skip


def test_an_enlarged_photograph_is_larger(visit):
    page = visit(*FEW)
    before = page.locator(".stack").first.bounding_box()["width"]
    page.locator(".card button").first.click()
    assert page.locator(".stack").first.bounding_box()["width"] > 1.5 * before


def test_hostile_names_are_text_and_run_nothing(visit):
    unread = {name: f"unreadable {name}" for name in HOSTILE}
    page = visit(*(card(name) for name in HOSTILE), unread=unread)
    page.wait_for_timeout(100)  # an image that fails to load says so a little later
    assert shown(page) == list(HOSTILE)
    assert page.locator(".unread b").all_text_contents() == list(HOSTILE)
    assert page.title() == "Results"
    assert page.locator("script").count() == 1
    assert page.locator("img:not([src^='data:image/'])").count() == 0
    assert page.locator("a, iframe, [onerror], [onclick]").count() == 0
    assert page.complaints == []


def test_nothing_is_fetched_and_no_script_could(visit):
    page = visit(*FEW, unread={"http://127.0.0.1:9/a.jpg": "no photograph"})
    assert page.url in page.requested
    assert [address for address in page.requested if not address.startswith("data:image/")] == [page.url]
    with page.expect_event("requestfailed") as refused:
        page.evaluate("new Image().src = 'http://127.0.0.1:9/pixel.png'; 0")
    assert (refused.value.url, refused.value.failure) == ("http://127.0.0.1:9/pixel.png", "csp")


def test_five_hundred_photographs_are_filtered_and_sorted_at_once(visit):
    rng = np.random.default_rng(0)
    confidences = rng.uniform(0.3, 1, CARDS_MANY)
    cards = [
        card(f"{rng.integers(10_000)}.jpg", int(rng.integers(5)), float(confidence), abstained=bool(n % 2))
        for n, confidence in enumerate(confidences)
    ]
    page = visit(*cards)
    took_ms = page.evaluate(
        """() => ["confidence", "-grade", "name", ""].map((sort, turn) => {
          const {elements} = document.getElementById("tools"), began = performance.now();
          elements.sort.value = sort; elements.least.value = turn % 2 ? "60" : "";
          elements.sort.dispatchEvent(new Event("input", {bubbles: true}));
          document.body.offsetHeight; // lay the page out
          return performance.now() - began;
        })"""
    )
    assert max(took_ms) < SORTED_WITHIN_MS, took_ms
    assert page.locator("#shown").inner_text().startswith(f"{(confidences >= 0.595).sum()} of {CARDS_MANY} ")
    assert page.evaluate("getComputedStyle(document.querySelector('.card')).contentVisibility") == "auto"
    assert page.locator("img:not([loading=lazy]), img:not([decoding=async])").count() == 0


def test_on_paper_stand_the_cards_that_were_chosen_and_no_controls(visit):
    page = visit(*FEW, *(card(f"{n}.jpg", 3, grey=50 + n) for n in range(5)), state="#grade=3")
    page.emulate_media(media="print")
    assert shown(page) == [f"{n}.jpg" for n in range(5)]
    assert page.locator("select:visible, button:visible, input:visible").count() == 0
    assert page.locator("#shown").is_visible()
    assert page.locator(".disclaimer").is_visible()
    paper = page.pdf(format="A4")
    assert 2 <= paper.count(b"/Type /Page\n") <= 3  # two or three cards on a sheet, none cut in two
    assert page.evaluate("getComputedStyle(document.querySelector('.card')).breakInside") == "avoid"
    assert paper.count(b"/Subtype /Image") >= 5  # those far below the window too


def test_grades_are_named_in_the_filter(visit):
    options = visit(*FEW).locator("[name=grade] option").all_text_contents()
    assert options[0] == "all"
    assert [int(option.split()[0]) for option in options[1:]] == list(GRADES)


def both_eyes(patient, left, right):
    grades = {f"{patient}_left.jpg": left, f"{patient}_right.jpg": right}
    row = {"consistent_grade": 2, "abstained": False, "doubts": "", "error": ""}
    rows = [{"file": name, "grade": grade, **row} for name, grade in grades.items()]
    return "".join(patient_html(patient, rows, [card(name, grade) for name, grade in grades.items()]))


def boxes(page):
    return [card.bounding_box() for card in page.locator(".card").all()]


@pytest.mark.parametrize("width", [1440, 1200, 720])
def test_both_eyes_stand_side_by_side(visit, width):
    page = visit(both_eyes("0", 1, 3), viewport={"width": width, "height": 900})
    left, right = boxes(page)
    assert left["y"] == right["y"]
    assert left["x"] + left["width"] < right["x"]
    assert left["width"] == pytest.approx(right["width"])
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    for each in page.locator(".card table").all():
        inside = each.evaluate(
            "table => table.getBoundingClientRect().right <= table.closest('.card').getBoundingClientRect().right"
        )
        assert inside


def test_on_a_narrow_page_an_eye_stands_below_the_other(visit):
    page = visit(both_eyes("0", 1, 3), viewport=NARROW)
    left, right = boxes(page)
    assert left["x"] == right["x"]
    assert left["y"] + left["height"] < right["y"]
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_both_eyes_stay_together_when_cards_are_sorted_and_a_patient_without_one_goes(visit):
    page = visit(both_eyes("0", 1, 0), both_eyes("1", 2, 4), card("a.jpg", grade=3))
    page.locator("[name=sort]").select_option("-grade")
    assert shown(page) == ["1_left.jpg", "1_right.jpg", "a.jpg", "0_left.jpg", "0_right.jpg"]
    page.locator("[name=sort]").select_option("")
    assert shown(page)[0] == "0_left.jpg"
    page.locator("[name=grade]").select_option("4")
    assert shown(page) == ["1_right.jpg"]
    (heading,) = page.locator(".patient:visible > h2").all_text_contents()
    assert heading.startswith("Patient 1: grade 4 proliferative, the higher of 2 photographs: 1_right.jpg.")
    assert page.complaints == []
