"""A broken DICOM file is refused in one sentence that names it, and never by the words of the patient."""

import io

import numpy as np
import pytest

pytest.importorskip("pydicom", reason="the extra `dicom` is not installed")
from bundle.transforms.dicom import read_dicom, read_identity
from hypothesis import strategies as st
from pydicom import uid

from tests import dicom_files as made
from tests.conftest import eye
from tests.fuzz.broken import broken_bytes, given_files, judged, written

PIXELS = eye(3)


def stored(dataset):
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


WHOLE = [
    stored(made.photograph(PIXELS)),
    stored(made.photograph(PIXELS[..., 0].astype(np.uint16), bits_stored=12)),
    stored(made.jpeg(PIXELS)),
    stored(made.jpeg2000(PIXELS)),
    stored(made.compressed(PIXELS, uid.RLELossless)),
    stored(made.compressed(PIXELS, uid.JPEGLSLossless)),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("dicom")


@pytest.mark.filterwarnings("ignore")
@given_files(content=st.sampled_from(WHOLE).flatmap(broken_bytes))
def test_a_broken_dicom_is_refused_by_name_or_read(folder, content):
    path = written(folder / "eye.dcm", content)
    pixels = judged("DICOM", lambda: read_dicom(path), "eye.dcm")
    assert pixels is None or (pixels.dtype, pixels.ndim, pixels.shape[2]) == (np.uint8, 3, 3)
    identity = judged("DICOM, patient", lambda: read_identity(path), "eye.dcm")
    assert identity is None or identity.laterality in (None, "left", "right")
