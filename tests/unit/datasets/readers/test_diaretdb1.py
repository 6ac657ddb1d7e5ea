"""DiaRetDB1 is read as published: the regions of four experts become outlines where enough of them are sure enough."""

import itertools
import math
import os
import pickle
import shutil
import socket
import sys

import numpy as np
import pytest
from bundle.datasets.build import build_manifest
from bundle.datasets.readers.diaretdb1 import DrawConsensus, read_diaretdb1
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.conftest import HEIGHT_PX, WIDTH_PX, eye

EXPERTS = ("01", "02", "03", "04")
LISTS = {"train": (1, 2, 3), "test": (4,)}
DOCTYPE = '<!DOCTYPE imgannotooldata SYSTEM "http://{host}/imgannotooldata.dtd">'
CONFIDENCES = {"High": 1.0, "Medium": 0.75, "Low": 0.25}


def circle(x, y, radius):
    return (
        f"<circleregion><centroid><coords2d>{x},{y}</coords2d></centroid>"
        f'<radius direction="x">{radius}</radius></circleregion>'
    )


def ellipse(x, y, radius_x, radius_y, angle_deg):
    return (
        f"<ellipseregion><centroid><coords2d>{x},{y}</coords2d></centroid><radius direction='x'>{radius_x}</radius>"
        f"<radius direction='y'>{radius_y}</radius><angle>{angle_deg}</angle></ellipseregion>"
    )


def polygon(*vertices, centroid=(1, 1)):
    """Write the centroid first, as the data set does."""
    corners = "".join(f"<coords2d>{x},{y}</coords2d>" for x, y in vertices)
    return (
        f"<polygonregion><centroid><coords2d>{centroid[0]},{centroid[1]}</coords2d></centroid>{corners}</polygonregion>"
    )


def marking(region, kind="Red_small_dots", confidence="High"):
    """Write a marking; its representative point lies where no region does."""
    return (
        f"<marking>{region}<representativepoint><coords2d>59,39</coords2d></representativepoint>"
        f"<confidencelevel>{confidence}</confidencelevel><markingtype>{kind}</markingtype></marking>"
    )


def document(*markings, before=""):
    return (
        f'<?xml version="1.0" encoding="ISO-8859-1"?>\n{before}\n<imgannotooldata><header><creator>Iiris</creator>'
        f"</header>\n<markinglist>\n{''.join(markings)}</markinglist></imgannotooldata>\n"
    )


def write_experts(folder, *texts):
    """Write one file for each expert, and return their paths; the others get no markings."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = tuple(folder / f"diaretdb1_image001_{expert}_plain.xml" for expert in EXPERTS)
    for path, text in itertools.zip_longest(paths, texts, fillvalue=document()):
        path.write_text(text)
    return paths


def drawn(folder, *texts, consensus=0.75):
    return DrawConsensus(write_experts(folder, *texts), consensus)(WIDTH_PX, HEIGHT_PX).masks


def all_of(region, kind="Red_small_dots"):
    return [document(marking(region, kind))] * 4


class TinyDiaretdb1:
    """Write a tree as it is published, one photograph at a time."""

    def __init__(self, root):
        self.root = root

    def image(self, number):
        return self.root / "images" / f"diaretdb1_image{number:03}.png"

    def xml(self, number, expert, plain="_plain"):
        return self.root / "groundtruth" / f"diaretdb1_image{number:03}_{expert}{plain}.xml"

    def list(self, split, plain="_plain"):
        return self.root / f"ddb1_v02_01_{split}{plain}.txt"

    def row(self, number, plain="_plain"):
        paths = [self.image(number), *(self.xml(number, expert, plain) for expert in EXPERTS)]
        return " ".join(path.relative_to(self.root).as_posix() for path in paths) + "\n"

    def mark(self, number, *texts):
        """Write what each expert marked, in a plain file and in one with a remote document type."""
        for expert, text in itertools.zip_longest(EXPERTS, texts, fillvalue=document()):
            self.xml(number, expert).write_text(text)
            head, body = text.split("\n", 1)
            self.xml(number, expert, "").write_text("\n".join([head, DOCTYPE.format(host="192.0.2.1"), body]))

    def write(self):
        for folder in ("images", "groundtruth"):
            (self.root / folder).mkdir(parents=True)
        for number in itertools.chain(*LISTS.values()):
            Image.fromarray(eye(number)).save(self.image(number))
        for split, plain in itertools.product(LISTS, ("", "_plain")):
            self.list(split, plain).write_text("".join(self.row(number, plain) for number in LISTS[split]))


@pytest.fixture
def tree(tmp_path):
    """Four photographs: a red dot and a disc, a lesion of doubt, exudates, and one without marks."""
    tiny = TinyDiaretdb1(tmp_path / "ddb1_v02_01")
    tiny.write()
    dot, disc = marking(circle(20, 15, 5)), marking(polygon((35, 10), (44, 10), (44, 19), (35, 19)), "Disc")
    tiny.mark(1, document(dot, disc), document(dot, disc), document(dot, disc), document(disc))
    doubt = document(marking(circle(30, 20, 4), "Haemorrhages"))
    tiny.mark(2, doubt, doubt)
    tiny.mark(3)
    exudates = [marking(circle(25, 20, 3), "Hard_exudates"), marking(ellipse(35, 25, 10, 2, 0), "Soft_exudates")]
    tiny.mark(4, *[document(*exudates, marking(circle(30, 20, 15), "Fundus_area", "Medium"))] * 4)
    return tiny


def by_id(found):
    return {row.id: row for row in found.photographs}


def test_a_circle_that_three_of_four_experts_are_sure_of_is_a_lesion_of_69_pixels(tmp_path):
    certain = document(marking(circle(20, 15, 5)))
    assert drawn(tmp_path, certain, certain, certain)["MA"].sum() == 69
    assert drawn(tmp_path, certain, certain)["MA"].sum() == 0


def test_confidence_counts_by_its_level(tmp_path):
    high, medium, low = (document(marking(circle(20, 15, 5), confidence=level)) for level in CONFIDENCES)
    assert drawn(tmp_path, high, high, medium, low)["MA"].sum() == 69  # 3/4
    assert drawn(tmp_path, medium, medium, medium, medium)["MA"].sum() == 69  # 3/4
    assert drawn(tmp_path, high, high, low, low)["MA"].sum() == 0  # 2.5/4
    assert drawn(tmp_path, high, consensus=0.25)["MA"].sum() == 69
    assert drawn(tmp_path, high, high, high, consensus=1)["MA"].sum() == 0


def test_what_an_expert_marked_without_a_pixel_of_consensus_is_disputed(tmp_path):
    one, low = (
        document(marking(circle(20, 15, 5), "Hard_exudates")),
        document(marking(circle(9, 9, 2), confidence="Low")),
    )
    three = marking(circle(40, 20, 5), "Haemorrhages")
    texts = [document(three), document(three), document(three), document(marking(circle(20, 15, 5), "Disc"))]
    found = DrawConsensus(write_experts(tmp_path / "a", one, low), 0.75)(WIDTH_PX, HEIGHT_PX)
    assert (found.disputed, sum(mask.sum() for mask in found.masks.values())) == (("MA", "EX"), 0)
    found = DrawConsensus(write_experts(tmp_path / "b", *texts), 0.75)(WIDTH_PX, HEIGHT_PX)
    assert (found.disputed, found.masks["HE"].sum()) == ((), 69)  # the optic disc is no lesion
    found = DrawConsensus(write_experts(tmp_path / "c", one), 0.25)(WIDTH_PX, HEIGHT_PX)
    assert (found.disputed, found.masks["EX"].sum()) == ((), 69)


def test_the_manifest_names_the_consensus_and_what_is_disputed(tree, tmp_path):
    photographs, notes = read_diaretdb1(tree.root, consensus=0.75)
    options = {"drawn_root": tmp_path / "drawn", "folds": 2, "notes": notes}
    manifest = build_manifest("experts", photographs, tree.root, **options)
    disputed = {row.id.split("/")[-1][-3:]: row.disputed for row in manifest.photographs}
    assert disputed == {"001": (), "002": ("HE",), "003": (), "004": ()}  # two of four experts
    assert manifest.notes[:2] == (
        "outlines: where the mean confidence of four experts is 0.75 or more",
        "outlines: disputed, marked by some without a pixel that counts: 1 (experts/segmentation/train/"
        "diaretdb1_image002 HE)",
    )


def test_an_expert_who_marks_twice_counts_once_with_the_higher_confidence(tmp_path):
    twice = document(marking(circle(20, 15, 5)), marking(circle(20, 15, 5)))
    assert drawn(tmp_path, twice, twice)["MA"].sum() == 0
    wavering = document(marking(circle(20, 15, 5)), marking(circle(20, 15, 7), confidence="Low"))
    assert drawn(tmp_path, wavering, wavering, wavering)["MA"].sum() == 69


def test_experts_agree_where_their_regions_overlap(tmp_path):
    left, right = (document(marking(polygon((x, 5), (x + 9, 5), (x + 9, 9), (x, 9)))) for x in (10, 15))
    mask = drawn(tmp_path, left, left, right, right, consensus=1)["MA"]
    assert mask[5:10, 15:20].all()
    assert mask.sum() == 5 * 5


def test_each_type_is_a_lesion_of_its_own(tmp_path):
    kinds = {"Red_small_dots": "MA", "Haemorrhages": "HE", "Hard_exudates": "EX", "Soft_exudates": "SE"}
    kinds["Disc"] = "optic_disc"
    markings = [marking(circle(5 + 11 * number, 15, number + 1), kind) for number, kind in enumerate(kinds)]
    areas = {role: mask.sum() for role, mask in drawn(tmp_path, *[document(*markings)] * 4).items()}
    assert areas == {"MA": 1, "HE": 9, "EX": 25, "SE": 45, "optic_disc": 69}


def test_vessels_and_the_field_are_no_lesions(tmp_path):
    kinds = ("IRMA", "Neovascularisation", "Fundus_area")
    masks = drawn(tmp_path, *[document(*(marking(circle(20, 15, 5), kind) for kind in kinds))] * 4)
    assert not any(mask.any() for mask in masks.values())


def test_the_centroid_of_a_polygon_is_no_vertex(tmp_path):
    region = polygon((10, 5), (20, 5), (20, 15), (10, 15), centroid=(55, 35))
    mask = drawn(tmp_path, *all_of(region))["MA"]
    assert mask[5:16, 10:21].all()
    assert mask.sum() == 11 * 11


def test_an_ellipse_of_radii_10_and_2_has_53_pixels_along_x(tmp_path):
    mask = drawn(tmp_path, *all_of(ellipse(30, 20, 10, 2, 0)))["MA"]
    assert mask.sum(axis=1)[18:23].tolist() == [0, 17, 19, 17, 0]


def test_the_angle_of_an_ellipse_turns_anticlockwise_on_the_screen(tmp_path):
    upright = drawn(tmp_path, *all_of(ellipse(30, 20, 10, 2, 90)))["MA"]
    assert upright.sum(axis=0)[28:33].tolist() == [0, 17, 19, 17, 0]
    tilted = drawn(tmp_path, *all_of(ellipse(30, 20, 10, 2, 45)))["MA"]
    assert tilted[15, 35]
    assert not tilted[25, 35]


@pytest.mark.parametrize(
    ("x", "y", "area_px"), [(0, 0, 22), (59, 39, 22), (-40, 20, 0), (30, 400, 0), (1_000_000, -1_000_000, 0)]
)
def test_what_lies_outside_of_the_image_is_cut_off(tmp_path, x, y, area_px):
    # Of a disc's 69 pixels, 17 lie on its two axes: a quarter with its edges has 52 / 4 + 9.
    assert drawn(tmp_path, *all_of(circle(x, y, 5)))["MA"].sum() == area_px


@pytest.mark.parametrize(
    "region",
    [
        circle(20, 15, 0),
        circle(20.4, 14.6, 0.1),
        ellipse(20.4, 15.4, 0.1, 0.2, 30),
        polygon((19.6, 14.7), (20.3, 14.7), (20.2, 14.9)),
        polygon((20, 15)),
    ],
)
def test_a_region_smaller_than_a_pixel_is_one_pixel(tmp_path, region):
    mask = drawn(tmp_path, *all_of(region))["MA"]
    assert np.argwhere(mask).tolist() == [[15, 20]]


def test_files_without_markings_have_no_lesion(tmp_path):
    masks = drawn(tmp_path)
    assert sorted(masks) == ["EX", "HE", "MA", "SE", "optic_disc"]
    assert all(mask.shape == (40, 60) and mask.dtype == bool and not mask.any() for mask in masks.values())
    bare = "<imgannotooldata><header/></imgannotooldata>"
    assert not any(mask.any() for mask in drawn(tmp_path, bare, bare, bare, bare).values())


@given(
    x=st.integers(-5, 65),
    y=st.integers(-5, 45),
    radius=st.floats(1, 30),
    levels=st.lists(st.sampled_from([None, *CONFIDENCES]), min_size=4, max_size=4),
    consensus=st.floats(0.01, 1),
)
def test_a_disc_is_drawn_where_the_mean_confidence_suffices(tmp_path_factory, x, y, radius, levels, consensus):
    texts = [document(*([marking(circle(x, y, radius), confidence=level)] if level else [])) for level in levels]
    folder = tmp_path_factory.getbasetemp() / "experts"
    row, column = np.mgrid[:HEIGHT_PX, :WIDTH_PX]
    disc = ((column - x) / radius) ** 2 + ((row - y) / radius) ** 2 < 1
    agreed = sum(CONFIDENCES[level] for level in levels if level) / 4 >= consensus
    assert np.array_equal(drawn(folder, *texts, consensus=consensus)["MA"], disc & agreed)


@given(
    vertices=st.lists(st.tuples(st.floats(-20, 80), st.floats(-20, 60)), min_size=3, max_size=6),
    angle_deg=st.floats(-720, 720),
)
def test_half_a_turn_and_the_order_of_the_vertices_do_not_matter(tmp_path_factory, vertices, angle_deg):
    folder = tmp_path_factory.getbasetemp() / "experts"
    turned = [drawn(folder, *all_of(ellipse(30.2, 20.1, 9, 3, a)))["MA"] for a in (angle_deg, angle_deg + 180)]
    # Pixels whose centre lies on the edge may fall to either side.
    assert (turned[0] ^ turned[1]).sum() <= 1
    assert turned[0].sum() == pytest.approx(math.pi * 9 * 3, abs=8)
    forth, back = (drawn(folder, *all_of(polygon(*corners)))["MA"] for corners in (vertices, vertices[::-1]))
    assert np.array_equal(forth, back)


def test_reads_both_lists_and_the_plain_files(tree):
    rows = by_id(read_diaretdb1(tree.root))
    assert {id_: row.split for id_, row in rows.items()} == {
        "segmentation/train/diaretdb1_image001": "train",
        "segmentation/train/diaretdb1_image002": "train",
        "segmentation/train/diaretdb1_image003": "train",
        "segmentation/test/diaretdb1_image004": "test",
    }
    row = rows["segmentation/train/diaretdb1_image001"]
    assert row.image == tree.image(1)
    assert row.drawn_from == tuple(tree.xml(1, expert) for expert in EXPERTS)
    assert row.annotated == ("MA", "HE", "EX", "SE")
    assert row.grade is None


def test_the_folder_that_holds_the_tree_will_do(tree):
    assert read_diaretdb1(tree.root.parent) == read_diaretdb1(tree.root)


def test_a_drawing_survives_the_way_to_another_process(tree):
    draw = by_id(read_diaretdb1(tree.root))["segmentation/train/diaretdb1_image001"].draw
    assert pickle.loads(pickle.dumps(draw))(60, 40).masks["MA"].sum() == 69


def test_a_remote_document_type_is_not_fetched(tree):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        for path in tree.root.rglob("*_plain.*"):
            path.unlink()
        host = f"127.0.0.1:{server.getsockname()[1]}"
        for expert in EXPERTS:
            dot = document(marking(circle(20, 15, 5)), before=DOCTYPE.format(host=host))
            tree.xml(1, expert, "").write_text(dot)
        row = by_id(read_diaretdb1(tree.root))["segmentation/train/diaretdb1_image001"]
        assert row.drawn_from[0].name == "diaretdb1_image001_01.xml"
        assert row.draw(60, 40).masks["MA"].sum() == 69
        with pytest.raises(BlockingIOError):
            server.accept()


def test_no_path_in_a_list_leads_out_of_the_data_set(tree):
    outside = tree.root.parent / "elsewhere"
    shutil.copytree(tree.root, outside)
    rows = [f"../elsewhere/{path}" for path in tree.row(1).split()]
    rows[2] = "C:\\data\\groundtruth\\" + tree.xml(1, "02").name
    tree.list("train").write_text(" ".join(rows) + "\n" + tree.row(2) + tree.row(3))
    row = by_id(read_diaretdb1(tree.root))["segmentation/train/diaretdb1_image001"]
    for path in (row.image, *row.drawn_from):
        assert path.resolve().is_relative_to(tree.root)


def test_one_list_is_enough_where_the_other_images_are_absent(tree):
    tree.list("test").unlink()
    tree.list("test", "").unlink()
    tree.image(4).unlink()
    assert {row.split for row in read_diaretdb1(tree.root).photographs} == {"train"}


def test_the_manifest_holds_what_was_drawn_and_what_from(tree, tmp_path):
    photographs, notes = read_diaretdb1(tree.root)
    manifest = build_manifest("ddb1", photographs, tree.root, drawn_root=tmp_path / "drawn", folds=2, notes=notes)
    rows = by_id(manifest)
    first = rows["ddb1/segmentation/train/diaretdb1_image001"]
    assert first.areas_px == {"MA": 69}
    assert first.optic_disc.startswith("ddb1.masks/segmentation/train/diaretdb1_image001_optic_disc.")
    assert first.drawn_from[3] == "ddb1/groundtruth/diaretdb1_image001_04_plain.xml"
    assert rows["ddb1/segmentation/train/diaretdb1_image002"].masks == {}
    assert rows["ddb1/segmentation/test/diaretdb1_image004"].areas_px == {"EX": 25, "SE": 53}
    with Image.open(manifest.path(first.masks["MA"])) as mask:
        assert mask.size == (60, 40)
        assert np.asarray(mask)[15, 20]
    assert all(row.outlined for row in manifest.photographs)


def test_a_lower_consensus_makes_doubt_a_lesion_and_another_manifest(tree, tmp_path):
    def build(consensus):
        rows = read_diaretdb1(tree.root, consensus=consensus).photographs
        manifest = build_manifest("ddb1", rows, tree.root, drawn_root=tmp_path / "drawn", folds=2)
        return by_id(manifest)["ddb1/segmentation/train/diaretdb1_image002"]

    assert build(0.5).areas_px == {"HE": 45}
    assert build(0.5).sha256 != build(0.75).sha256


def test_markings_that_cannot_be_read_are_left_out_on_request_and_noted(tree, tmp_path):
    tree.xml(2, "03").write_text("<imgannotooldata>")
    rows = read_diaretdb1(tree.root).photographs
    build = {"drawn_root": tmp_path / "drawn", "folds": 2}
    with pytest.raises(ValueError, match=r"image002_03_plain\.xml: expected markings in XML, .*no element found"):
        build_manifest("ddb1", rows, tree.root, **build)
    manifest = build_manifest("ddb1", rows, tree.root, **build, allow_missing=True)
    assert len(manifest.photographs) == 3
    assert any(note.startswith("left out: ") for note in manifest.notes)


def test_rows_without_an_image_and_images_without_a_row_are_counted_and_named(tree):
    tree.image(2).rename(tree.image(9))
    with pytest.raises(
        ValueError,
        match=r"1 rows of the lists without an image \(diaretdb1_image002\); "
        r"1 images without a row in the lists \(diaretdb1_image009\)",
    ):
        read_diaretdb1(tree.root)


def test_an_expert_without_a_file_or_without_a_place_in_the_list_is_a_gap(tree):
    for plain in ("", "_plain"):
        tree.xml(1, "03", plain).unlink()
    tree.list("test").write_text(" ".join(tree.row(4).split()[:4]))
    with pytest.raises(
        ValueError,
        match=r"2 experts' files that are not in their list or not in 'groundtruth' "
        r"\(diaretdb1_image001_03, diaretdb1_image004_04\)",
    ):
        read_diaretdb1(tree.root)
    assert len(read_diaretdb1(tree.root, allow_missing=True).photographs) == 2


def test_refuses_entities_that_grow_when_they_are_read(tmp_path):
    bomb = "<!DOCTYPE bomb [<!ENTITY a 'aaaaaaaa'>" + "".join(
        f"<!ENTITY {name} '{f'&{before};' * 8}'>" for before, name in itertools.pairwise("abcdefghij")
    )
    text = document(marking(circle("&j;", 15, 5)), before=f"{bomb}]>")
    with pytest.raises(ValueError, match=r"image001_02_plain\.xml: expected markings, got a file that defines entit"):
        drawn(tmp_path, document(), text)


def test_refuses_an_entity_that_reads_a_file_or_a_page(tmp_path):
    for reference in ("file:///etc/hostname", "http://192.0.2.1/x"):
        doctype = f"<!DOCTYPE imgannotooldata [<!ENTITY x SYSTEM '{reference}'>]>"
        with pytest.raises(ValueError, match="got a file that defines entities"):
            drawn(tmp_path, document(marking(circle("&x;", 15, 5)), before=doctype))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no element found"),
        ("<imgannotooldata><markinglist>", "no element found"),
        ("not XML", "syntax error"),
        ("<?xml version='1.0' encoding='klingon'?><imgannotooldata/>", "unknown encoding"),
        ("<?xml version='1.0' encoding='gbk'?><imgannotooldata/>", "multi-byte encodings"),
        (document(before=DOCTYPE.format(host="192.0.2.1")).replace("Iiris", "&iiris;"), "undefined entity"),
    ],
)
def test_refuses_what_is_no_xml_and_names_the_file(tmp_path, text, said):
    with pytest.raises(ValueError, match=rf"image001_01_plain\.xml: expected markings in XML, got .*{said}"):
        drawn(tmp_path, text)


def test_refuses_a_file_that_is_gone_when_it_is_drawn(tmp_path):
    paths = write_experts(tmp_path)
    paths[2].unlink()
    with pytest.raises(ValueError, match=r"image001_03_plain\.xml: expected markings in XML, got .*No such file"):
        DrawConsensus(paths, 0.75)(WIDTH_PX, HEIGHT_PX)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<annotation/>", r"expected markings in <imgannotooldata>, got <annotation>"),
        (document(marking(circle(1, 2, 3), "Drusen")), r"expected a markingtype out of Red_.*, got 'Drusen'"),
        (document(marking(circle(1, 2, 3), "")), r"expected a markingtype out of .*, got ''"),
        (
            document(marking(circle(1, 2, 3), confidence="100%")),
            r"expected a confidencelevel out of High, .*, got '100%'",
        ),
        (document(marking("<boxregion/>")), r"expected one region out of circleregion, .*, got \['boxregion', "),
        (document(marking("")), r"expected one region .*, got \['representativepoint', "),
        (document(marking(circle(1, 2, 3) * 2)), r"expected one region .*, got \['circleregion', 'circleregion', "),
        (document(marking(polygon())), r"expected a polygonregion with vertices \(coords2d\), got none"),
        (document(marking(circle("x", 2, 3))), r"expected a number, got 'x'"),
        (document(marking(circle("", 2, 3))), r"expected a number, got ''"),
        (document(marking(circle("nan", 2, 3))), r"expected a number of at most 1000000, got 'nan'"),
        (document(marking(circle("1e400", 2, 3))), r"expected a number of at most 1000000, got '1e400'"),
        (document(marking(circle(1, "2,9", 3))), r"expected coordinates 'x,y', got '1,2,9'"),
        (document(marking("<circleregion/>")), r"expected a number, got None"),
        (
            document(marking("<circleregion><radius direction='x'>3</radius></circleregion>")),
            r"expected coordinates 'x,y', got N",
        ),
        (document(marking(circle(1, 2, -3))), r"expected a radius of at least 0 px, got -3\.0"),
        (document(marking(circle(1, 2, "inf"))), r"expected a number of at most 1000000, got 'inf'"),
        (document(marking(ellipse(1, 2, 3, 4, "steep"))), r"expected a number, got 'steep'"),
    ],
)
def test_refuses_what_the_data_set_does_not_have_and_names_the_file(tmp_path, text, said):
    with pytest.raises(ValueError, match=rf"image001_04_plain\.xml: {said}"):
        drawn(tmp_path, document(), document(), document(), text)


@pytest.mark.parametrize("consensus", [0, -1, 1.01, math.nan])
def test_refuses_a_consensus_that_is_no_share(tree, consensus):
    with pytest.raises(ValueError, match=rf"expected a consensus above 0 and at most 1, got {consensus}"):
        read_diaretdb1(tree.root, consensus=consensus)


@pytest.mark.parametrize(
    "row",
    [
        "images/diaretdb1_image001.png groundtruth/diaretdb1_image002_01_plain.xml",
        "images/diaretdb1_image001.png groundtruth/diaretdb1_image001_05_plain.xml",
        "images/diaretdb1_image001.png g/diaretdb1_image001_01_plain.xml g/diaretdb1_image001_01.xml",
        "images/diaretdb1_image001.png,groundtruth/diaretdb1_image001_01.xml g/diaretdb1_image001_02.xml",
    ],
)
def test_refuses_a_row_that_is_not_of_one_image_and_its_experts(tree, row):
    tree.list("train").write_text(f"{tree.row(2)}{row}\n")
    with pytest.raises(ValueError, match=r"train_plain\.txt, line 2: expected an image and its experts' files, each"):
        read_diaretdb1(tree.root)


def test_refuses_an_image_that_stands_in_both_lists(tree):
    tree.list("test").write_text(tree.row(4) + "\n" + tree.row(2))
    with pytest.raises(ValueError, match=r"test_plain\.txt, line 3: expected each image once .*image002' twice"):
        read_diaretdb1(tree.root)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not store such a name")
def test_refuses_a_file_name_that_is_not_utf8(tree):
    with open(os.path.join(os.fsencode(tree.root / "groundtruth"), b"diaretdb1_image\xe9_01.xml"), "wb"):
        pass
    with pytest.raises(ValueError, match=r"expected file names in UTF-8 in .*groundtruth, got b'diaretdb1_image\\xe9"):
        read_diaretdb1(tree.root)


@pytest.mark.parametrize("folder", ["resources/images/ddb1_fundusimages", "ddb1_groundtruth/hardexudates"])
def test_refuses_version_1_1_and_says_which_one_to_take(tmp_path, folder):
    (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(ValueError, match=r"expected DiaRetDB1 v2\.1 in .*, found version 1\.1; take version 2\.1"):
        read_diaretdb1(tmp_path)


def test_refuses_another_tree_and_says_what_it_looked_for(tmp_path):
    (tmp_path / "holidays").mkdir()
    with pytest.raises(ValueError, match=r"with 'ddb1_v02_01_train_plain\.txt', 'images' and .*, found holidays"):
        read_diaretdb1(tmp_path)


def test_refuses_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match=r"expected the folder of DiaRetDB1, found none at .*nowhere"):
        read_diaretdb1(tmp_path / "nowhere")


def test_refuses_a_copy_of_which_nothing_can_be_used(tree):
    shutil.rmtree(tree.root / "groundtruth")
    with pytest.raises(ValueError, match=r"expected photographs with the markings of four experts in .*, found none"):
        read_diaretdb1(tree.root, allow_missing=True)
