"""A broken NIfTI is refused in one sentence that names it."""

import gzip

import nibabel
import numpy as np
import pytest
from bundle.transforms import PrepareFundusd, load_photograph
from bundle.transforms.nifti import affine_of, read_nifti
from hypothesis import strategies as st

from tests.conftest import HEIGHT_PX, WIDTH_PX, eye
from tests.fuzz.broken import broken_bytes, given_files, judged, written

RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])


def stored(values, kind=nibabel.Nifti1Image):
    return kind(np.ascontiguousarray(values), np.eye(4)).to_bytes()


PIXELS = eye(3).swapaxes(0, 1)
PLAIN = [
    stored(PIXELS),
    stored(PIXELS.view(RGB)),
    stored(PIXELS[..., 0].astype(np.float32)),
    stored(PIXELS[:, :, None], nibabel.Nifti2Image),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("nifti")


@given_files(content=st.sampled_from(PLAIN).flatmap(broken_bytes), packed=st.booleans())
def test_a_broken_nifti_is_refused_by_name_or_read(folder, content, packed):
    path = written(folder / ("eye.nii.gz" if packed else "eye.nii"), gzip.compress(content, 1) if packed else content)
    pixels = judged("NIfTI", lambda: read_nifti(path), "eye.nii")
    assert pixels is None or (pixels.dtype, pixels.ndim, pixels.shape[2]) == (np.uint8, 3, 3)
    judged("NIfTI, affine", lambda: affine_of(path), "eye.nii")


@given_files(content=broken_bytes(gzip.compress(PLAIN[0], 1)))
def test_a_broken_archive_is_refused_by_name_or_prepared(folder, content):
    path = written(folder / "packed.nii.gz", content)
    item = {"image": str(path), "masks": {}, "optic_disc": ""}
    judged("NIfTI, prepared", lambda: PrepareFundusd(32)(item), "packed.nii.gz")


def test_the_files_are_whole_before_they_are_broken(folder):
    for content in PLAIN:
        assert load_photograph(written(folder / "whole.nii", content)).native_px == (WIDTH_PX, HEIGHT_PX)
