"""No weights grade or are scored on a photograph that they were trained on, whatever manifest it is in."""

import pytest
from bundle.datasets.seen import count_seen, refuse_scoring_seen, refuse_seen_by_graders, seen_photographs
from bundle.manifest import Manifest, Photograph
from bundle.networks.trained_on import hashes_for, trained_hashes
from bundle.networks.weights import provenance, save_weights
from torch import nn

OWN, OTHER = "a" * 64, "b" * 64
TRAINED = f"{0:064x}"
"""Hash of a photograph trained on: all 256 bits are 0."""


def bits(count):
    """A hash of so many ones."""
    return f"{2**count - 1:064x}"


def photograph(name, perceptual_hash, **known):
    return Photograph(
        id=f"clinic/{name}", image=f"clinic/{name}.jpg", split="train", sha256="0" * 64, width_px=60, height_px=40,
        perceptual_hash=perceptual_hash, group=f"clinic/{name}", **known,
    )  # fmt: skip


def manifest(tmp_path, *rows):
    return Manifest(name="clinic", roots={"clinic": tmp_path}, folds=2, seed=0, photographs=rows, sha256=OWN)


def grader(path, **facts):
    save_weights(path, nn.Linear(2, 3), facts)
    return path


ROWS = (photograph("same", TRAINED), photograph("copy", bits(35)), photograph("other", bits(128)))


def test_a_photograph_is_seen_up_to_the_distance_of_copies(tmp_path):
    path = grader(tmp_path / "model.pt", perceptual_hashes=[TRAINED])
    assert [row.id for row in seen_photographs(path, ROWS)] == ["clinic/same", "clinic/copy"]
    assert seen_photographs(path, [photograph("36", bits(36))]) == []
    assert count_seen(path, ROWS) == 2


def test_outlines_do_not_hide_a_photograph_that_was_graded_elsewhere(tmp_path):
    """The content hash of a row covers its masks; the perceptual hash covers the photograph alone."""
    outlined = photograph("x", TRAINED, annotated=("MA",), masks={"MA": "clinic/x_MA.png"}, areas_px={"MA": 7})
    assert count_seen(grader(tmp_path / "model.pt", perceptual_hashes=[TRAINED]), [outlined]) == 1


def test_graders_from_elsewhere_grade_what_they_never_saw(tmp_path):
    path = grader(tmp_path / "model.pt", perceptual_hashes=[TRAINED], manifest_sha256=OTHER)
    refuse_seen_by_graders([path], manifest(tmp_path, ROWS[2]), [ROWS[2]])
    refuse_seen_by_graders(str(path), manifest(tmp_path, ROWS[2]), [ROWS[2]])


def test_graders_that_saw_a_photograph_are_refused_with_a_count_and_names(tmp_path):
    path = grader(tmp_path / "model.pt", perceptual_hashes=[TRAINED], manifest_sha256=OTHER)
    message = (
        r"expected graders that never saw .* got .*model\.pt, trained on 2 of these 3 or copies of them \(clinic/copy, "
        r"clinic/same\): it would remember their grades; .* join them \(scripts\.prepare --dataset joined\)"
    )
    with pytest.raises(ValueError, match=message):
        refuse_seen_by_graders([path], manifest(tmp_path, *ROWS), ROWS)


def test_graders_without_the_list_are_taken_for_their_own_manifest_alone(tmp_path):
    own, other = (grader(tmp_path / f"{sha[0]}.pt", manifest_sha256=sha) for sha in (OWN, OTHER))
    refuse_seen_by_graders([own], manifest(tmp_path, *ROWS), ROWS)
    with pytest.raises(ValueError, match=r"got .*b\.pt of another manifest without such a list: train it again with"):
        refuse_seen_by_graders([own, other], manifest(tmp_path, *ROWS), ROWS)


def test_scoring_refuses_what_training_saw_of_another_manifest(tmp_path):
    path = grader(tmp_path / "model.pt", perceptual_hashes=[TRAINED], manifest_sha256=OTHER)
    refuse_scoring_seen(path, OWN, ROWS[2:])
    refuse_scoring_seen(path, OTHER, ROWS)  # of its own manifest, folds and splits decide
    refuse_scoring_seen(grader(tmp_path / "old.pt", manifest_sha256=OTHER), OWN, ROWS)  # not known
    with pytest.raises(ValueError, match=r"got 2 of these 3 or copies of them \(clinic/copy, clinic/same\), on which"):
        refuse_scoring_seen(path, OWN, ROWS)


def test_the_photographs_of_the_grader_that_a_training_starts_from_count(tmp_path):
    start, unknown = tmp_path / "grader.pt", tmp_path / "old.pt"
    for path, facts in ((start, {"perceptual_hashes": [TRAINED]}), (unknown, {})):
        save_weights(path, type("Grader", (nn.Linear,), {})(2, 3), facts)
    assert hashes_for([ROWS[2]], "vgg16", str(start)) == [TRAINED, bits(128)]
    assert hashes_for([ROWS[2]], "vgg16", str(unknown)) is None
    assert hashes_for([ROWS[2]], "vgg16", pretrained=True) == [bits(128)]


@pytest.mark.parametrize("broken", ["f" * 64, [5], ["f" * 63], {"a": 1}])
def test_a_list_of_another_form_is_refused(tmp_path, broken):
    path = grader(tmp_path / "model.pt", perceptual_hashes=broken)
    with pytest.raises(ValueError, match=r"expected perceptual_hashes as a list of 64 hexadecimal digits each in .*pt"):
        trained_hashes(path)


def test_records_of_runs_leave_the_list_out(tmp_path):
    path = grader(tmp_path / "model.pt", perceptual_hashes=[TRAINED] * 1000, image_size=64)
    assert "perceptual_hashes" not in provenance(path)
    assert provenance(path)["image_size"] == 64


def test_of_several_weights_what_any_of_them_saw_counts_once_and_is_refused(tmp_path):
    one, two = (
        grader(tmp_path / f"{name}.pt", perceptual_hashes=[seen], manifest_sha256=OTHER)
        for name, seen in (("one", TRAINED), ("two", bits(35)))
    )
    last, silent = grader(tmp_path / "last.pt", perceptual_hashes=[bits(128)]), grader(tmp_path / "silent.pt")
    assert [count_seen(paths, ROWS) for paths in ([one, two], [one, last], [one, silent])] == [2, 3, None]
    with pytest.raises(ValueError, match=r"got 1 of these 1 or copies of them \(clinic/other\), on which .*last\.pt"):
        refuse_scoring_seen([one, last], OWN, ROWS[2:])
