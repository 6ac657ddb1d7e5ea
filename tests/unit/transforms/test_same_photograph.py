"""One photograph is the same pixels in every lossless form that people store it in."""

import nibabel
import numpy as np
import pytest
import tifffile
from bundle.transforms import load_photograph
from PIL import Image

from tests import dicom_files
from tests.conftest import eye

PIXELS = eye(0, 72, 48)


def by_pillow(**options):
    return lambda path: Image.fromarray(PIXELS).save(path, **options)


def as_tiff(pixels, **options):
    return lambda path: tifffile.imwrite(path, pixels, photometric="rgb", **options)


DEEP = PIXELS.astype(np.uint16) * 257
FORMS = {
    "eye.png": by_pillow(), "eye.bmp": by_pillow(), "eye.ppm": by_pillow(), "eye.tif": by_pillow(),
    "eye.webp": by_pillow(lossless=True),
    "planes_of_8_bits.tif": as_tiff(PIXELS.transpose(2, 0, 1), planarconfig="separate"),
    "16_bits.tif": as_tiff(DEEP),
    "planes_of_16_bits.tif": as_tiff(DEEP.transpose(2, 0, 1), planarconfig="separate"),
    "eye.nii.gz": lambda path: nibabel.Nifti1Image(PIXELS.transpose(1, 0, 2), np.eye(4)).to_filename(path),
    "eye.dcm": lambda path: dicom_files.save(path, dicom_files.photograph(PIXELS)),
    "jpeg_2000.dcm": lambda path: dicom_files.save(path, dicom_files.jpeg2000(PIXELS)),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_a_lossless_form_gives_the_same_pixels(tmp_path, name):
    FORMS[name](tmp_path / name)
    found = load_photograph(tmp_path / name)
    assert (found.native_px, found.changes) == ((72, 48), ())
    assert np.array_equal(found.pixels, PIXELS)
