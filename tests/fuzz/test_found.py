"""What broken files once did to the readers, each by hand: every one of these failed before it was mended."""

import io
import json
import math
import struct
import subprocess
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from bundle.experiments.runs import _integer, _split_names
from bundle.files import load_json
from bundle.manifest import load_manifest
from bundle.method.initial_labels import InitialLabel, load_pseudo_labels
from bundle.networks.weights import load_grader, load_weights, refuse_fused
from bundle.transforms import Crop
from bundle.transforms.decode import decode, read_packed
from bundle.transforms.nifti import read_nifti
from PIL import Image
from torch import nn

from tests.fuzz.test_bombs import one_bit_tiff
from tests.fuzz.test_broken_manifests import CONTENT, LABEL, LABELS, MANIFEST, OUTLINED


def refused(tmp_path, **changes):
    """Return the sentence that a manifest with another second row is refused with."""
    (tmp_path / "made.json").write_text(json.dumps(CONTENT | {"photographs": [OUTLINED | changes]}))
    with pytest.raises(ValueError) as caught:  # noqa: PT011  (its sentence is returned)
        load_manifest(tmp_path / "made.json")
    return str(caught.value)


@pytest.mark.parametrize(
    "path", ["made//etc/passwd", "made/C:/x.jpg", "made/..\\x.jpg", "made/\\\\host\\x.jpg", "made/./x.jpg", "made/"]
)
def test_a_path_that_leads_out_of_its_root(tmp_path, path):
    """``Path("/data") / "/etc/passwd"`` is ``/etc/passwd``."""
    assert "expected a path below the data set's root" in refused(tmp_path, image=path)


def test_a_path_with_a_nul(tmp_path):
    assert "without NUL; ['image'] are not" in refused(tmp_path, image="made/\0.jpg")


def test_a_mask_below_an_unknown_root(tmp_path):
    assert "expected paths that begin with one of ['made']" in refused(tmp_path, masks={"EX": "other/x.tif"})


@pytest.mark.parametrize("size", [math.nan, 60.5, True, "60", None])
def test_a_size_that_is_no_whole_number(tmp_path, size):
    assert "['width_px'] are not" in refused(tmp_path, width_px=size)


def test_a_size_that_no_picture_may_have(tmp_path):
    """Label maps are made of it."""
    said = refused(tmp_path, width_px=100_000, height_px=100_000)
    assert "at most 178956970 pixels, got 100000x100000" in said


@pytest.mark.parametrize("change", [{"folds": "2"}, {"seed": 0.5}, {"name": None}, {"notes": [1]}])
def test_a_head_of_the_wrong_type(tmp_path, change):
    (tmp_path / "made.json").write_text(json.dumps(CONTENT | change))
    with pytest.raises(ValueError, match="expected folds and seed as whole numbers, name and notes as text"):
        load_manifest(tmp_path / "made.json")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a": ' + "9" * 5000 + "}"])
@pytest.mark.parametrize("read", [load_manifest, load_json, lambda path: load_pseudo_labels(path, MANIFEST)])
def test_endless_brackets_and_digits(tmp_path, read, text):
    """RecursionError, and a ValueError that named no file."""
    (tmp_path / "made.json").write_text(text)
    with pytest.raises(ValueError, match=r"made\.json"):
        read(tmp_path / "made.json")


@pytest.mark.parametrize("changes", [{"manifest_sha256": 5}, {"manifest_sha256": None}])
def test_pseudo_labels_whose_manifest_is_no_text(tmp_path, changes):
    """TypeError: it was cut to twelve characters for the message."""
    (tmp_path / "labels.json").write_text(json.dumps(LABELS | changes))
    with pytest.raises(ValueError, match=r"labels\.json were made from another manifest"):
        load_pseudo_labels(tmp_path / "labels.json", MANIFEST)


def test_a_share_of_hundreds_of_digits(tmp_path):
    """OverflowError, beside shares that are floats."""
    (tmp_path / "labels.json").write_text(json.dumps(LABELS | {"rows": [LABEL | {"soft_label_0": 10**400}]}))
    with pytest.raises(ValueError, match=r"labels\.json"):
        load_pseudo_labels(tmp_path / "labels.json", MANIFEST)


def test_a_feasible_grade_that_is_text():
    """ "no" is true."""
    with pytest.raises(ValueError, match="expected true or false for each grade"):
        InitialLabel(soft=(0.0, 0.0, 1.0, 0.0, 0.0), feasible=("no", "no", "yes", "no", "no"), weight=1.0)


@pytest.mark.parametrize("change", [{"facts": None}, {"facts": [1]}, {"model": None}, {"model": {"weight": 1}}])
def test_weights_with_other_things_where_facts_and_tensors_belong(tmp_path, change):
    content = {"model": nn.Linear(3, 2).state_dict(), "network": "Linear", "facts": {}}
    torch.save(content | change, tmp_path / "model.pt")
    for read in (lambda path: load_weights(nn.Linear(3, 2), path), load_grader, refuse_fused):
        with pytest.raises(ValueError, match=r"expected tensors by name in 'model' .* of .*model\.pt"):
            read(tmp_path / "model.pt")


def test_a_field_of_view_whose_square_no_memory_holds():
    """A photograph of one pixel by 100,000 is a small file; its square is 30 GB."""
    with pytest.raises(ValueError, match="in a square of at most 178956970 pixels, got one of 1x100000 px"):
        Crop.about((0, 0, 1, 100_000), 1, 100_000)
    assert Crop.about((0, 0, 13_000, 2), 13_000, 2).side == 13_000


def test_a_picture_that_is_a_program(tmp_path, monkeypatch):
    """PostScript under the name of a photograph went to Ghostscript."""
    ran = []
    monkeypatch.setattr(subprocess, "check_call", lambda *words, **options: ran.append(words))
    (tmp_path / "eye.jpg").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 60 40\n%%EndComments\nshowpage\n")
    with pytest.raises(ValueError, match=r"expected a whole image in .*eye\.jpg, .*cannot identify"):
        decode(tmp_path / "eye.jpg")
    assert ran == []


def test_a_tiff_whose_strip_begins_at_a_fraction(tmp_path):
    """TypeError in Pillow: ``'IFDRational' object cannot be interpreted as an integer``."""
    buffer = io.BytesIO()
    Image.new("P", (60, 40), 1).save(buffer, "TIFF")
    content, tag = buffer.getvalue(), struct.pack("<HH", 273, 4)
    assert content.count(tag) == 1
    (tmp_path / "mask.tif").write_bytes(content.replace(tag, struct.pack("<HH", 273, 5)))
    with pytest.raises(ValueError, match=r"expected a whole mask in .*mask\.tif"):
        decode(tmp_path / "mask.tif", "mask")


def test_a_one_bit_tiff_without_a_row(tmp_path):
    """ValueError of a reshape, which named no file."""
    (tmp_path / "mask.tif").write_bytes(one_bit_tiff(60, 0, 1, b""))
    assert read_packed(tmp_path / "mask.tif") is None


def test_a_nifti_of_colours_that_scales_them(tmp_path):
    """TypeError: three named bytes cannot be multiplied by a slope."""
    colours = np.zeros((60, 40), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    image = nibabel.Nifti1Image(colours, np.eye(4)).to_bytes()
    (tmp_path / "eye.nii").write_bytes(image[:112] + struct.pack("<ff", 2.0, 1.0) + image[120:])
    with pytest.raises(ValueError, match=r"expected a photograph in .*eye\.nii"):
        read_nifti(tmp_path / "eye.nii")


def test_names_of_metrics_that_another_program_logged():
    assert _split_names({"loss": 1.0, "a/b": 2.0, "test/grade/accuracy": 0.5}) == (
        {"grade/accuracy": 0.5},
        {"grade": "test"},
    )


def test_a_fold_of_thousands_of_digits():
    assert (_integer("9" * 5000), _integer("3")) == (-1, 3)


def test_a_root_that_links_to_itself(tmp_path):
    """RuntimeError before Python 3.13."""
    Path(tmp_path / "images").symlink_to(tmp_path / "images")
    (tmp_path / "made.json").write_text(json.dumps(CONTENT))
    assert load_manifest(tmp_path / "made.json").roots == {"made": tmp_path / "images"}
