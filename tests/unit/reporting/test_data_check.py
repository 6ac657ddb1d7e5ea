"""The check of a manifest: its tables, what a terminal shows of them, and the page."""

import base64
import dataclasses
import html
import io
import re
import shutil
import subprocess
import time
import zlib
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from bundle.datasets.build import build_manifest
from bundle.datasets.copies import group_copies, near_pairs, unpack
from bundle.datasets.readers.idrid import read_idrid
from bundle.labels import LESION_COLOURS, LESIONS
from bundle.manifest import Manifest, Photograph
from bundle.reporting.data_check import check_tables, check_text, summary_text
from bundle.reporting.data_check_page import outlined_shown, write_check
from bundle.reporting.overlay import LESION_HEX
from bundle.reporting.tables import MISSING
from PIL import Image

HOSTILE = (
    "</td></table><img src=x onerror=\"document.title='broken into'\"><script>document.title='worse'</script>&'$name"
)
VOID = {"meta", "img", "input", "br", "wbr"}


def hashed(seed):
    return np.random.default_rng(seed).bytes(32).hex()


def photograph(name, seed=None, **changes):
    """Describe a photograph of 100 x 60 pixels that is like no other, and is not there."""
    seed = zlib.crc32(name.encode()) if seed is None else seed
    areas_px = changes.pop("areas_px", {})
    fields = {
        "id": name, "image": f"{name}.png", "split": name.split("/")[-2], "width_px": 100, "height_px": 60,
        "group": name, "areas_px": areas_px,
        "masks": {lesion: f"{name}_{lesion}.png" for lesion in areas_px},
        "annotated": LESIONS if areas_px else (),
    }  # fmt: skip
    fields |= {key: hashed(seed) for key in ("sha256", "perceptual_hash") if key not in changes}
    return Photograph(**(fields | changes))


def manifest_of(*rows, root=Path("nowhere"), notes=(), folds=2, name="eyes"):
    """Make a manifest with the copies grouped, as a dealt one has them."""
    roots = {row.image.split("/")[0]: root for row in rows}
    if rows:
        first = group_copies(len(rows), near_pairs(unpack([row.perceptual_hash for row in rows])))
        rows = tuple(dataclasses.replace(row, group=rows[i].id) for row, i in zip(rows, first, strict=True))
    return Manifest(name=name, roots=roots, folds=folds, seed=0, photographs=rows, notes=notes)


@pytest.fixture
def eyes():
    """Two data sets; every number of the tables below can be counted here."""
    return manifest_of(
        photograph("eyes/graded/train/a", grade=0, fold=0),
        photograph("eyes/graded/train/b", grade=2, fold=1),
        photograph("eyes/graded/train/c", grade=2, fold=1),
        photograph("eyes/graded/test/d", grade=4),
        photograph("eyes/outlined/train/e", areas_px={"MA": 60, "EX": 1200}, fold=0),  # of 6000
        photograph("eyes/outlined/train/f", areas_px={"MA": 6}, left_out="copy of something"),
        photograph("more/g/train/h", areas_px={"HE": 600}, annotated=("HE",), width_px=50, height_px=40, fold=0),
    )


NOT_SOUGHT = " ".join([MISSING] * 4)
"""The four lesions, on photographs on which nobody looked for any."""


def test_photographs_are_counted_by_data_set_part_and_split(eyes):
    table = check_tables(eyes).tables["photographs"]
    assert table.header == (
        "data set/part/split", "photographs", "left\nout", "grade\n0", "grade\n1", "grade\n2", "grade\n3", "grade\n4",
        "no\ngrade", "outlined", "MA", "HE", "EX", "SE", "in a\nfold",
    )  # fmt: skip
    assert [" ".join(row) for row in table.rows] == [
        f"eyes/graded/test 1 0 0 0 0 0 1 0 0 {NOT_SOUGHT} {MISSING}",  # nobody looked for lesions
        f"eyes/graded/train 3 0 1 0 2 0 0 0 0 {NOT_SOUGHT} 1 to 2",
        "eyes/outlined/train 2 1 0 0 0 0 0 2 2 2 0 1 0 0 to 1",
        f"more/g/train 1 0 0 0 0 0 0 1 1 {MISSING} 1 {MISSING} {MISSING} 0 to 1",
        "all 7 1 1 0 2 0 1 3 3 2 1 1 0 2 to 3",
    ]


def test_folds_are_counted_across_data_sets(eyes):
    table = check_tables(eyes).tables["folds"]
    assert [" ".join(row) for row in table.rows] == ["0 3 1 0 0 0 0 2 2 1 1 1 0", f"1 2 0 0 2 0 0 0 0 {NOT_SOUGHT}"]


def test_a_fold_without_photographs_has_its_row(eyes):
    empty = manifest_of(*eyes.photographs, folds=3)
    assert check_tables(empty).tables["folds"].rows[2] == ("2", *["0"] * 8, *[MISSING] * 4)


def test_further_columns_are_counted_by_value(eyes):
    values = {"a": {"camera": "A"}, "b": {"camera": "B", "site": "north"}, "e": {"camera": "A"}}
    rows = [dataclasses.replace(row, columns=values.get(row.id[-1], {})) for row in eyes.photographs]
    tables = check_tables(manifest_of(*rows)).tables
    assert "columns" not in check_tables(eyes).tables
    assert [" ".join(row) for row in tables["columns"].rows] == [
        "camera A 2 0 1 0 0 0 0 1 1 1 0 1 0",
        f"camera B 1 0 0 0 1 0 0 0 0 {NOT_SOUGHT}",  # nobody looked for lesions on b
        f"camera {MISSING} 4 1 0 0 1 0 1 2 2 1 1 0 0",
        f"site north 1 0 0 0 1 0 0 0 0 {NOT_SOUGHT}",
        f"site {MISSING} 6 1 1 0 1 0 1 3 3 2 1 1 0",
    ]
    assert "Further columns" in check_text(manifest_of(*rows))


def test_lesion_shares_are_pooled_and_ranged_over_single_photographs(eyes):
    assert check_tables(eyes).tables["lesions"].rows == (
        ("eyes/outlined", "microaneurysm", "2", "2", "0.550", "0.100", "1.000"),  # 66 of 12000; 6 and 60 of 6000
        ("eyes/outlined", "haemorrhage", "2", "0", *[MISSING] * 3),
        ("eyes/outlined", "hard exudate", "2", "1", "10.000", "20.000", "20.000"),  # 1200 of 12000
        ("eyes/outlined", "soft exudate", "2", "0", *[MISSING] * 3),
        ("more/g", "haemorrhage", "1", "1", "30.000", "30.000", "30.000"),  # where nobody looked, there is no row
    )


def test_a_lesion_of_one_pixel_is_not_rounded_away():
    row = photograph("a/b/train/c", areas_px={"MA": 1}, width_px=4288, height_px=2848)
    assert check_tables(manifest_of(row)).tables["lesions"].rows[0][4:] == ("<0.001", "<0.001", "<0.001")


def test_sizes_are_counted_and_the_frequent_ones_come_first(eyes):
    assert check_tables(eyes).tables["sizes"].rows == (
        ("eyes/graded", "100 x 60", "4"),
        ("eyes/outlined", "100 x 60", "2"),
        ("more/g", "50 x 40", "1"),
    )


def test_of_many_sizes_twenty_are_shown_and_the_others_counted(tmp_path):
    rows = [photograph(f"a/b/train/{n}", seed=n, width_px=100 + n) for n in range(23)]
    manifest = manifest_of(*rows)
    table = check_tables(manifest).tables["sizes"]
    assert (len(table.rows), table.hidden) == (20, 3)
    assert "and 3 more sizes" in check_text(manifest)
    assert "and 3 more sizes" in page_of(manifest, tmp_path)


def test_what_is_missing_is_told_apart_from_what_is_noted():
    notes = ("left out: 2 rows", "3 files are copies", "eyes: left out: cut off")
    tables = check_tables(manifest_of(photograph("a/b/train/c"), notes=notes)).tables
    assert tables["missing"].rows == (("left out: 2 rows",), ("eyes: left out: cut off",))
    assert tables["notes"].rows == (("3 files are copies",),)


def test_of_many_notes_the_first_are_shown_and_the_others_counted(tmp_path):
    manifest = manifest_of(photograph("a/b/train/c"), notes=[f"left out: {n}" for n in range(203)])
    text, page = check_text(manifest), page_of(manifest, tmp_path)
    assert "left out: 19\nand 183 more notes\n" in text
    assert "left out: 199<" in page
    assert "left out: 200<" not in page
    assert "and 3 more notes" in page


def test_pairs_are_told_with_what_is_wrong_about_them():
    manifest = manifest_of(
        photograph("a/b/test/c", seed=1, grade=1, group="g"),
        photograph("a/b/train/d", seed=1, grade=2, group="g", left_out="copy of the test photograph a/b/test/c"),
        photograph("a/b/train/e", seed=2),
        photograph("a/b/train/f", seed=2),
    )
    check = check_tables(manifest)
    remark = "crosses the official split; grades differ (1 and 2); left out of training: second"
    assert check.tables["copies"].rows == (
        ("a/b/test/c", "a/b/train/d", "0", "test, train", "1, 2", remark),
        ("a/b/train/e", "a/b/train/f", "0", "train, train", f"{MISSING}, {MISSING}", ""),
    )
    assert check.tables["copies"].caption.startswith("2 pairs: 1 across the official split, 1 with different grades.")
    assert (check.facts["photographs"], check.facts["different photographs"]) == ("4", "2")


def test_of_many_pairs_two_hundred_are_shown_and_the_others_counted():
    manifest = manifest_of(*(photograph(f"a/b/train/{n:03}", seed=1) for n in range(204)))
    table = check_tables(manifest).tables["copies"]
    assert (len(table.rows), table.hidden) == (200, 3)
    assert check_text(manifest).endswith("and 183 more pairs")


def test_columns_line_up_in_the_terminal(eyes):
    text = check_text(eyes)
    assert (
        "data set/part  size, px  photographs\n"
        "eyes/graded    100 x 60            4\n"
        "eyes/outlined  100 x 60            2\n"
        "more/g          50 x 40            1\n"
    ) in text
    lines = text.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith("data set/part/split"))
    assert lines[start - 1].split() == ["left", *["grade"] * 5, "no", "in", "a"]
    assert len({len(line) for line in lines[start : start + 6]}) == 1


def test_an_empty_manifest_has_a_check(tmp_path):
    empty = Manifest(name="none", roots={"none": tmp_path}, folds=2, seed=0, photographs=())
    text, page = check_text(empty), page_of(empty, tmp_path)
    for told in ("The manifest is empty.", "No two photographs look alike.", "Nothing was."):
        assert told in text
        assert told in page
    assert "No photograph has an outlined lesion." in page


def outlined(name, lesions, seed):
    return photograph(name, seed=seed, areas_px=dict.fromkeys(lesions, 9))


def test_parts_take_turns_until_one_has_no_more():
    rows = [outlined(f"a/ample/train/{n}", LESIONS, n) for n in range(40)]
    rows += [outlined(f"a/few/train/{n}", LESIONS, 100 + n) for n in range(3)]
    shown = outlined_shown(manifest_of(*rows))
    assert Counter(row.id.split("/")[1] for row in shown) == {"ample": 21, "few": 3}
    assert [row.id for row in shown] == sorted(row.id for row in shown)


def test_photographs_with_all_lesions_are_preferred():
    rows = [outlined(f"a/b/train/{n}", ("MA",), n) for n in range(50)]
    rows += [outlined(f"a/b/train/all{n}", LESIONS, 100 + n) for n in range(5)]
    shown = outlined_shown(manifest_of(*rows), count=5)
    assert {len(row.masks) for row in shown} == {4}


def test_where_none_has_all_lesions_each_lesion_has_its_share():
    rows = [outlined(f"a/b/train/{lesion}{n}", (lesion,), n) for n in range(30) for lesion in LESIONS]
    shown = outlined_shown(manifest_of(*rows), count=8)
    assert Counter(lesion for row in shown for lesion in row.masks) == dict.fromkeys(LESIONS, 2)


def test_the_choice_does_not_hang_on_the_order_of_the_rows():
    rows = [outlined(f"a/{n % 3}/train/{n}", LESIONS[: 1 + n % 4], n) for n in range(60)]
    assert outlined_shown(manifest_of(*rows)) == outlined_shown(manifest_of(*rows[::-1]))
    assert outlined_shown(manifest_of(photograph("a/b/train/c"))) == []


def page_of(manifest, tmp_path):
    write_check(manifest, tmp_path / "page" / "check.html")
    assert [file.name for file in (tmp_path / "page").iterdir()] == ["check.html"]
    return (tmp_path / "page" / "check.html").read_text(encoding="utf-8")


@pytest.fixture
def read(tiny_idrid):
    """A manifest of photographs that exist, as `scripts.prepare` makes it."""
    reading = read_idrid(tiny_idrid.root)
    return build_manifest("idrid", reading.photographs, tiny_idrid.root, folds=2)


class Outline(HTMLParser):
    """Note the elements of a page, and fail where one is closed that is not open."""

    def __init__(self, page):
        super().__init__()
        self.open, self.seen = [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.seen.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def of(self, tag):
        return [attributes for name, attributes in self.seen if name == tag]


def test_the_page_is_made_of_headings_and_captioned_tables(read, tmp_path):
    page = page_of(read, tmp_path)
    outline = Outline(page)
    assert outline.open == []
    assert len(outline.of("h1")) == 1
    assert [link["href"].removeprefix("#") for link in outline.of("a")] == [head["id"] for head in outline.of("h2")]
    assert len(outline.of("table")) == len(outline.of("caption")) == 4  # nothing missing, to note or alike
    ids = [attributes["id"] for _, attributes in outline.seen if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert all(region["tabindex"] == "0" for region in outline.of("div") if "wide" in region.get("class", ""))
    assert {attributes["scope"] for attributes in outline.of("th")} == {"col", "row"}
    assert all("alt" in image for image in outline.of("img"))
    assert "Research use only. Not a medical device." in page


def test_the_page_runs_nothing_and_names_nothing_outside_itself(read, tmp_path):
    page = page_of(read, tmp_path)
    assert "<script" not in page
    assert "default-src 'none'" in page
    assert all(uri.startswith("data:image/") for uri in re.findall(r'src="([^"]*)"', page))
    assert not re.search(r"https?:|url\(|@import|<link", page)


def layers_of(page, number=0):
    """Return the layers of one tile as RGBA, by name."""
    tile = page.split("<figure>")[1 + number]
    found = re.findall(r'class="layer (\w+)" alt="" src="data:image/png;base64,([^"]+)"', tile)
    return {name: np.asarray(Image.open(io.BytesIO(base64.b64decode(uri))).convert("RGBA")) for name, uri in found}


def test_outlines_lie_over_their_photographs_in_their_colours(read, tmp_path):
    page = page_of(read, tmp_path)
    assert page.count("<figure>") == 5
    assert all(f"--colour:{LESION_HEX[lesion]}" in page for lesion in LESIONS)
    layers = layers_of(page, number=1)  # the first of training: MA, EX, SE and the optic disc
    assert list(layers) == ["OD", "EX", "SE", "MA"]  # the smallest lesion on top
    for lesion in ("MA", "EX", "SE"):
        inked = layers[lesion][layers[lesion][..., 3] == 255]
        assert len(inked) > 0
        assert (inked[:, :3] == LESION_COLOURS[lesion]).all()


def test_a_microaneurysm_of_three_pixels_stays_visible_at_full_size(tmp_path):
    y, x = np.mgrid[:2848, :4288]
    field = (x - 2000) ** 2 + (y - 1424) ** 2 < 1400**2
    (tmp_path / "a").mkdir()
    Image.fromarray((field * 150).astype(np.uint8)).save(tmp_path / "a" / "eye.jpg")
    mask = np.zeros((2848, 4288), bool)
    mask[1500, 2100:2103] = True
    Image.fromarray(mask).save(tmp_path / "a" / "MA.png")
    row = photograph(
        "a/b/train/c", areas_px={"MA": 3}, width_px=4288, height_px=2848, image="a/eye.jpg", masks={"MA": "a/MA.png"}
    )
    alpha = layers_of(page_of(manifest_of(row, root=tmp_path / "a"), tmp_path))["MA"][..., 3]
    lines, columns = np.nonzero(alpha == 255)
    assert (np.ptp(lines), np.ptp(columns)) == (2, 2)  # a ring of 3 x 3: more than a pixel where the tile is halved


def test_a_photograph_that_is_gone_leaves_its_place_to_the_reason(read, tmp_path):
    gone, torn = (read.photographs[n] for n in (-1, -2))
    read.path(gone.image).unlink()
    read.path(torn.masks["MA"]).write_bytes(b"no mask")
    page = page_of(read, tmp_path)
    reasons = re.findall(r'<p class="stack refusal">cannot be shown: ([^<]+)</p>', page)
    assert len(reasons) == 2
    assert "expected a whole mask in idrid/A. Segmentation/" in reasons[0]
    assert "expected a whole image in idrid/A. Segmentation/" in reasons[1]
    assert page.count('<div class="stack">') == 3
    assert str(tmp_path) not in page


def test_pairs_are_shown_side_by_side(read, tmp_path):
    twice = dataclasses.replace(read.photographs[0], id="idrid/again/train/x", split="train")
    page = page_of(manifest_of(*read.photographs, twice, root=read.roots["idrid"]), tmp_path)
    (uri,) = re.findall(r'sheet"[^>]*><img src="data:image/jpeg;base64,([^"]+)"', page)
    sheet = Image.open(io.BytesIO(base64.b64decode(uri)))
    assert f'width="{sheet.width}" height="{sheet.height}"' in page
    assert np.asarray(sheet.convert("L")).std() > 20


def hostile_manifest(tmp_path):
    name = HOSTILE.replace("/", "\\")
    rows = [photograph(f"{name}/{name}/train/{name}{n}", seed=1, areas_px={"MA": 9}) for n in range(2)]
    return manifest_of(*rows, root=tmp_path / "none", notes=(HOSTILE, f"left out: {HOSTILE}"), name=HOSTILE)


def test_hostile_names_are_only_text(tmp_path):
    page = page_of(hostile_manifest(tmp_path), tmp_path)
    outline = Outline(page)
    assert outline.open == []
    assert outline.of("script") == []
    assert all("onerror" not in image for image in outline.of("img"))
    (title,) = re.findall("<title>([^<>]*)</title>", page)
    assert html.unescape(title) == f"Data check: {HOSTILE}"


def test_a_hostile_name_of_a_photograph_that_is_shown_is_only_text(read, tmp_path):
    row = dataclasses.replace(read.photographs[-1], id='idrid/a/train/" onerror="broken into')
    outline = Outline(page_of(manifest_of(row, root=read.roots["idrid"]), tmp_path))
    assert [image["alt"] for image in outline.of("img") if image["alt"]] == [f"fundus photograph {row.id}"]
    assert all("onerror" not in image for image in outline.of("img"))


def test_nothing_in_a_manifest_steers_the_terminal():
    rows = [photograph(f"a\x1b[2J/b\nc/train/{n}\u202e", seed=1) for n in range(2)]
    text = check_text(manifest_of(*rows, notes=["left out: \x1b]0;title\x07", "a\r\nb\ud800"], name="\x1b[31m"))
    assert all(line.isprintable() for line in text.splitlines())
    assert "a b\N{REPLACEMENT CHARACTER}" in text


@pytest.fixture(scope="module")
def chromium():
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    return found or pytest.skip("no Chromium on this machine")


def visit(chromium, page, tmp_path, acting=""):
    """Return what Chromium makes of a page; `acting` is done as the reader would, which the page's policy forbids."""
    if acting:
        page = page.replace("style-src", "script-src 'unsafe-inline'; style-src", 1)
        page = page.replace("</body>", f"<script>{acting}</script></body>")
    (tmp_path / "visited.html").write_text(page, encoding="utf-8")
    options = (
        "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-extensions",
        "--virtual-time-budget=2000", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom",
    )  # fmt: skip
    address = (tmp_path / "visited.html").as_uri()
    return subprocess.run([chromium, *options, address], capture_output=True, text=True, timeout=60, check=True).stdout


def test_in_a_browser_hostile_names_do_nothing(chromium, tmp_path):
    page = page_of(hostile_manifest(tmp_path), tmp_path)
    document = visit(chromium, page, tmp_path)
    assert "<title>Data check: &lt;/td&gt;" in document
    forged = page.replace("<main>", "<main><script>document.title='worse'</script>")
    assert "<title>Data check: &lt;/td&gt;" in visit(chromium, forged, tmp_path)  # the policy lets no script run


def test_in_a_browser_a_box_hides_its_lesion_alone(chromium, read, tmp_path):
    acting = """
        document.getElementById("show-EX").click();
        const shown = [...document.querySelectorAll("figure:nth-child(2) .layer")].filter(
            layer => getComputedStyle(layer).display !== "none");
        document.title = shown.map(layer => layer.className).join(", ");
    """
    document = visit(chromium, page_of(read, tmp_path), tmp_path, acting)
    assert "<title>layer OD, layer SE, layer MA</title>" in document


@pytest.mark.slow
def test_a_hundred_thousand_photographs_are_checked_within_ten_seconds():
    hashes = np.random.default_rng(0).bytes(32 * 100_000).hex()
    rows = [
        photograph(
            f"set{n % 7}/part{n % 3}/{('train', 'test')[n % 5 == 0]}/{n:06}", seed=0, sha256=f"{n:064x}",
            perceptual_hash=hashes[64 * n : 64 * n + 64], grade=n % 5, areas_px={LESIONS[n % 4]: 1 + n % 50},
            width_px=100 + n % 997,
        )
        for n in range(100_000)
    ]  # fmt: skip
    # Each is a group of its own: hashes at random are no copies of each other.
    manifest = Manifest(
        name="eyes", roots={f"set{n}": Path("nowhere") for n in range(7)}, folds=2, seed=0, photographs=tuple(rows),
        notes=[f"left out: {n}" for n in range(10_000)],
    )  # fmt: skip
    started_s = time.thread_time()  # of this thread: what else the machine does is not counted
    text = check_text(manifest)
    shown = outlined_shown(manifest)
    assert time.thread_time() - started_s < 10
    assert "photographs: 100,000\n" in text
    assert len(shown) == 24


def test_the_summary_has_the_counts_and_the_notes_alone(eyes):
    text = summary_text(eyes)
    assert text.startswith("Photographs\n")
    assert all(note in text for note in eyes.notes)
    assert "Lesion pixels" not in text
    assert len(text) < len(check_text(eyes)) / 2
