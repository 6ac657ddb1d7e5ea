"""A copy of IDRiD is complete by eight counts, or the check says which are not as published."""

from bundle.manifest import Photograph
from bundle.reporting.data_check import completeness

KNOWN = {"sha256": "0" * 64, "perceptual_hash": "0" * 64, "width_px": 60, "height_px": 40}
LESIONS = ("MA", "HE", "EX", "SE")


def photograph(name, split, grade=None, lesions=None):
    masks = {lesion: f"idrid/{name}_{lesion}.tif" for lesion in lesions or ()}
    return Photograph(
        id=f"idrid/{split}/{name}", image=f"idrid/{name}.jpg", split=split, grade=grade, group=name, masks=masks,
        annotated=LESIONS if lesions is not None else (), areas_px=dict.fromkeys(masks, 7), **KNOWN,
    )  # fmt: skip


def whole_idrid():
    """54 and 27 outlined photographs, 413 and 103 graded ones; one has no haemorrhage, 41 no soft exudate."""
    graded = [
        photograph(f"g{n}", split, grade=n % 5)
        for split, count in (("train", 413), ("test", 103))
        for n in range(count)
    ]
    lesions = [["MA", "EX", *["HE"] * (n != 9), *["SE"] * (n < 40)] for n in range(81)]
    outlined = [photograph(f"s{n}", "train" if n < 54 else "test", None, found) for n, found in enumerate(lesions)]
    return graded + outlined


def test_the_whole_data_set_is_complete():
    assert completeness(whole_idrid()) == {"idrid": "complete"}


def test_what_is_not_as_published_is_counted_and_named():
    rows = [row for row in whole_idrid() if row.id != "idrid/test/s80"]
    assert completeness(rows) == {
        "idrid": "not as published: 26 of 27 outlined test photographs, 80 of 81 masks of MA, 79 of 80 masks of HE, "
        "80 of 81 masks of EX"
    }


def test_nothing_is_said_of_data_sets_whose_counts_are_not_known():
    row = photograph("1", "train", 2)
    other = Photograph(id="clinic/train/1", image="clinic/1.jpg", split="train", group="1", **KNOWN)
    assert completeness([other]) == {}
    assert list(completeness([other, row])) == ["idrid"]
