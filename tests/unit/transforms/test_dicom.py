"""A photograph may be DICOM: every transfer syntax, photometric interpretation and depth gives the same pixels."""

import sys

import numpy as np
import pytest

pytest.importorskip("pydicom", reason="the extra `dicom` is not installed")
import pydicom
from bundle.transforms import load_photograph
from bundle.transforms.decode import is_photograph
from bundle.transforms.dicom import Identity, is_dicom, read_dicom, read_identity
from PIL import Image
from pydicom import uid
from pydicom.data import get_testdata_file

from tests import dicom_files as made
from tests.conftest import eye

PIXELS = eye(3, 90, 60)
GREY = PIXELS[..., 1]
TWELVE = GREY.astype(np.uint16) * 16 + 15
INSTALL = "`pip install 'fundus-dr-multitask[dicom]'`, or `pip install -e '.[dicom]'` in this bundle's folder"

PLACES = np.arange(60 * 90, dtype=np.uint16).reshape(60, 90)

LOSSLESS = {
    "explicit": lambda: made.photograph(PIXELS),
    "planar": lambda: made.planar(PIXELS),
    "RLE": lambda: made.compressed(PIXELS, uid.RLELossless),
    "JPEG-LS": lambda: made.compressed(PIXELS, uid.JPEGLSLossless),
    "JPEG 2000": lambda: made.jpeg2000(PIXELS),
    "JPEG 2000 by pydicom": lambda: made.compressed(PIXELS, uid.JPEG2000Lossless),
    "16 bits": lambda: made.photograph(PIXELS.astype(np.uint16) * 256 + 255),
    "palette": lambda: made.palette(PLACES, PIXELS.reshape(-1, 3).astype(np.uint16) * 257),
}  # fmt: skip
GREYS = {
    "MONOCHROME2": lambda: made.photograph(GREY),
    "MONOCHROME1": lambda: made.photograph(255 - GREY, "MONOCHROME1"),
    "16 bits": lambda: made.photograph(GREY.astype(np.uint16) * 257),
    "12 bits": lambda: made.photograph(TWELVE, bits_stored=12),
    "12 bits, MONOCHROME1": lambda: made.photograph(4095 - TWELVE, "MONOCHROME1", bits_stored=12),
    "12 bits at the top": lambda: made.photograph(TWELVE << 4, bits_stored=12, HighBit=15),
    "12 bits, something above": lambda: made.photograph(TWELVE | 0xF000, bits_stored=12),
    "12 bits in RLE": lambda: made.compressed(TWELVE, uid.RLELossless, bits_stored=12),
    "12 bits in JPEG-LS": lambda: made.compressed(TWELVE, uid.JPEGLSLossless, bits_stored=12),
    "12 bits in JPEG 2000": lambda: made.compressed(TWELVE, uid.JPEG2000Lossless, bits_stored=12),
    "JPEG 2000": lambda: made.jpeg2000(GREY),
}
LOSSY = {
    "YBR_FULL": (lambda: made.ybr_full(PIXELS), 2),
    "JPEG": (lambda: made.jpeg(PIXELS, quality=95, subsampling=0), 16),
    "JPEG, colours halved": (lambda: made.jpeg(PIXELS, quality=95), 24),
    "JPEG 2000, lossy": (lambda: made.jpeg2000(PIXELS, lossless=False), 8),
}


@pytest.mark.parametrize("make", LOSSLESS.values(), ids=LOSSLESS)
def test_every_lossless_form_gives_the_pixels_that_were_stored(tmp_path, make):
    assert np.array_equal(read_dicom(made.save(tmp_path / "eye.dcm", make())), PIXELS)


@pytest.mark.parametrize("make", GREYS.values(), ids=GREYS)
def test_grey_of_every_depth_keeps_its_upper_eight_bits_in_each_channel(tmp_path, make):
    assert np.array_equal(read_dicom(made.save(tmp_path / "eye.dcm", make())), np.repeat(GREY[..., None], 3, axis=2))


@pytest.mark.parametrize("syntax", [uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian])
@pytest.mark.parametrize(("stored", "expected"), [(PIXELS, PIXELS), (TWELVE, np.repeat(GREY[..., None], 3, axis=2))])
def test_the_order_of_bytes_does_not_matter(tmp_path, syntax, stored, expected):
    dataset = made.photograph(stored, bits_stored=12 if stored is TWELVE else None)
    del dataset["PixelData"].VR
    dataset["PixelData"].VR = "OB" if stored is PIXELS else "OW"
    assert np.array_equal(read_dicom(made.save_in(tmp_path / "eye.dcm", dataset, syntax)), expected)


@pytest.mark.parametrize(("make", "most"), LOSSY.values(), ids=LOSSY)
def test_a_lossy_form_is_near(tmp_path, make, most):
    found = read_dicom(made.save(tmp_path / "eye.dcm", make())).astype(int)
    assert np.abs(found - PIXELS).mean() < most / 4
    assert np.percentile(np.abs(found - PIXELS), 99) <= most


def test_halved_colours_are_those_of_the_left_of_two_pixels(tmp_path):
    found = read_dicom(made.save(tmp_path / "eye.dcm", made.ybr_full_422(PIXELS))).astype(int)
    assert np.abs(found[:, ::2] - PIXELS[:, ::2]).max() <= 2
    brightness = [0.299, 0.587, 0.114]
    apart = np.abs((found - PIXELS)[:, 1::2] @ brightness)
    assert np.percentile(apart, 90) < 2  # more only where a borrowed colour leaves the range of RGB


@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"keep_rgb": True}, {"quality": 60}])
@pytest.mark.parametrize("photometric", ["YBR_FULL_422", "RGB"])
def test_a_jpeg_is_read_as_if_it_were_a_file_whatever_the_header_calls_its_colours(tmp_path, options, photometric):
    Image.fromarray(PIXELS).save(tmp_path / "eye.jpg", **{"quality": 90, **options})
    dicom = made.save(tmp_path / "eye.dcm", made.jpeg(PIXELS, photometric, **options))
    assert np.array_equal(read_dicom(dicom), load_photograph(tmp_path / "eye.jpg").pixels)


@pytest.mark.parametrize("photometric", ["YBR_FULL", "RGB"])
def test_a_jpeg_without_markers_has_the_colours_that_the_header_names(tmp_path, photometric):
    """Three channels of one brightness: read as brightness and colour, they are grey or not."""
    stored = np.full((60, 90, 3), 200, np.uint8)
    frame = made.picture(stored, "JPEG", keep_rgb=True, quality=95, subsampling=0)
    frame = frame.replace(b"\x03R\x11\x00G\x11\x00B", b"\x03\x01\x11\x00\x02\x11\x00\x03")  # ids of channels
    frame = frame.replace(b"\x03R\x00G\x00B", b"\x03\x01\x00\x02\x00\x03")
    start = frame.find(b"\xff\xee")
    frame = frame if start < 0 else frame[:start] + frame[start + 16 :]  # Adobe's marker
    dataset = made.encapsulated(stored, frame, uid.JPEGBaseline8Bit, photometric)
    colour = read_dicom(made.save(tmp_path / "eye.dcm", dataset))[30, 45].tolist()
    assert (max(colour) - min(colour) <= 2) is (photometric == "RGB")


SHIPPED = {
    "SC_rgb_jpeg_gdcm.dcm": "JPEG Lossless",
    "JPGExtended.dcm": "JPEG Extended",
    "SC_rgb_rle_16bit.dcm": "RLE of 16 bits",
    "SC_ybr_full_422_uncompressed.dcm": "YBR_FULL_422",
    "examples_palette.dcm": "palette",
    "examples_jpeg2k.dcm": "JPEG 2000",
    "JPEGLSNearLossless_08.dcm": "JPEG-LS",
    "ExplVR_BigEnd.dcm": "big endian",
    "SC_rgb_jpeg_app14_dcmd.dcm": "a JPEG of RGB",
    "SC_rgb_dcmtk_+eb+cy+s4.dcm": "a JPEG of quartered colours",
}


@pytest.mark.parametrize("name", SHIPPED, ids=SHIPPED.values())
def test_what_pydicom_ships_is_read_as_pydicom_reads_it(name):
    dataset = pydicom.dcmread(get_testdata_file(name))
    levels, _ = pydicom.pixels.get_decoder(dataset.file_meta.TransferSyntaxUID).as_array(dataset, index=0)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        levels = pydicom.pixels.apply_color_lut(levels, dataset)
    bits = dataset.BitsStored if levels.dtype == np.uint16 and levels.ndim == 2 else 8 * levels.itemsize
    expected = np.broadcast_to((levels >> (bits - 8)).reshape(*levels.shape[:2], -1), (*levels.shape[:2], 3))
    expected = expected if dataset.PhotometricInterpretation != "MONOCHROME1" else 255 - expected
    assert np.abs(read_dicom(get_testdata_file(name)).astype(int) - expected).max() <= 1


def test_a_dicom_is_told_by_its_suffix_or_by_its_magic(tmp_path):
    for name in ("eye", "1.2.840.113619.7", "DICOMDIR", "eye.png", "eye.DCM"):
        made.save(tmp_path / name, made.photograph(PIXELS))
    (tmp_path / "README").write_text("nothing")
    (tmp_path / "folder").mkdir()
    found = {path.name for path in tmp_path.iterdir() if is_dicom(path)}
    assert found == {"eye", "1.2.840.113619.7", "eye.DCM"}
    assert {path.name for path in tmp_path.iterdir() if is_photograph(path)} == found | {"eye.png"}
    assert not is_dicom(tmp_path / "missing")


def test_a_photograph_without_a_suffix_is_loaded(tmp_path):
    found = load_photograph(made.save(tmp_path / "IM0001", made.photograph(PIXELS)), target_px=16)
    assert np.array_equal(found.pixels, PIXELS)
    assert (found.native_px, found.reduction) == ((90, 60), 1)


# the patient


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ({}, Identity("CLINIC-0042", None)),
        ({"PatientID": " 7 ", "ImageLaterality": "R"}, Identity("7", "right")),
        ({"PatientID": "", "Laterality": "L"}, Identity(None, "left")),
        ({"ImageLaterality": "L", "Laterality": "R"}, Identity("CLINIC-0042", "left")),
        ({"ImageLaterality": "B"}, Identity("CLINIC-0042", None)),
    ],
)
def test_patient_id_and_eye_are_those_of_the_header(tmp_path, header, expected):
    assert read_identity(made.save(tmp_path / "eye.dcm", made.photograph(PIXELS, **header))) == expected


def test_a_file_without_a_patient_has_none(tmp_path):
    dataset = made.photograph(PIXELS)
    del dataset.PatientID
    assert read_identity(made.save(tmp_path / "eye.dcm", dataset)) == Identity(None, None)


# what is refused


def frames(count):
    return made.photograph(np.concatenate([PIXELS] * count), Rows=60, NumberOfFrames=count)


def without_pixels():
    dataset = made.photograph(PIXELS, SOPClassUID=uid.EncapsulatedPDFStorage)
    del dataset.PixelData
    return dataset


def without(name):
    dataset = made.photograph(PIXELS)
    delattr(dataset, name)
    return dataset


def other_size():
    return made.encapsulated(PIXELS, made.picture(PIXELS[:50], "JPEG"), uid.JPEGBaseline8Bit, "YBR_FULL_422")


def other_size_2000():
    frame = made.picture(PIXELS[:50], "JPEG2000", no_jp2=True)
    return made.encapsulated(PIXELS, frame, uid.JPEG2000Lossless, "YBR_RCT")


def tiny_tiles():
    frame = bytearray(made.picture(np.zeros((60, 90, 3), np.uint8), "JPEG2000", no_jp2=True))
    frame[24:32] = b"\0\0\0\1" * 2  # after the size and the corner
    return made.encapsulated(PIXELS, bytes(frame), uid.JPEG2000Lossless, "YBR_RCT")


def cut():
    dataset = made.photograph(PIXELS)
    dataset.PixelData = dataset.PixelData[:500]
    return dataset


def video():
    return made.encapsulated(PIXELS, b"\0" * 40, uid.MPEG2MPML, "YBR_FULL_422")


REFUSED = {
    "frames": (lambda: frames(3), "3 frames; save the frame to look at as a file of its own, DICOM or PNG"),
    "no pixels": (without_pixels, r"no pixels \(Encapsulated PDF Storage\)"),
    "signed": (lambda: made.photograph(TWELVE, PixelRepresentation=1), "signed values of 16 bits; save it with"),
    "too few bits": (lambda: made.photograph(GREY, bits_stored=6), "values of 6 bits; save it with unsigned values"),
    "HSV": (lambda: made.photograph(PIXELS, "HSV"), "3 channels of HSV; save it as RGB or MONOCHROME2"),
    "RGB of one channel": (lambda: made.photograph(GREY, "RGB"), "1 channels of RGB"),
    "too large": (lambda: made.photograph(PIXELS, Rows=60_000, Columns=60_000), "60000 x 60000 pixels; the limit is"),
    "nothing": (lambda: made.photograph(PIXELS, Rows=0), "90 x 0 pixels"),
    "no depth": (lambda: without("BitsStored"), "no BitsStored in its header"),
    "cut off": (cut, "less than expected"),
    "a JPEG of another size": (other_size, "a frame of 90 x 50 x 3 where 90 x 60 x 3 is declared"),
    "a JPEG 2000 of another size": (other_size_2000, "a frame of 90 x 50 x 3 where 90 x 60 x 3 is declared"),
    "a JPEG 2000 of tiny tiles": (tiny_tiles, "tiles of 1 x 1 pixels in a JPEG 2000; save it with larger ones"),
    "a video": (video, "MPEG2"),
}  # fmt: skip


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_single_photograph_is_refused_in_one_line(tmp_path, make, message):
    path = made.save(tmp_path / "eye.dcm", make())
    with pytest.raises(
        ValueError, match=r"expected a photograph in .*eye\.dcm, got a DICOM file that is none: "
    ) as caught:
        read_dicom(path)
    assert caught.match(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("make", "message"), [(made.jpeg, "it is cut off"), (made.photograph, "less than expected")])
def test_a_file_that_is_cut_off_is_refused_by_name(tmp_path, make, message):
    path = made.save(tmp_path / "eye.dcm", make(PIXELS))
    path.write_bytes(path.read_bytes()[:-900])
    with pytest.raises(ValueError, match=rf"eye\.dcm.*{message}"):
        read_dicom(path)


def deflated(folder):
    dataset = made.photograph(PIXELS)
    dataset.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    return made.save(folder / "eye.dcm", dataset)


def text(folder):
    (folder / "eye.dcm").write_text("no image")
    return folder / "eye.dcm"


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (deflated, "it is deflated, and may unpack to any size; save it in another transfer syntax"),
        (text, "DICM does not follow its first 128 bytes"),
        (lambda folder: folder / "eye.dcm", "No such file"),
    ],
)
@pytest.mark.parametrize("read", [read_dicom, read_identity])
def test_what_is_no_whole_dicom_is_refused_by_name(tmp_path, write, message, read):
    with pytest.raises(ValueError, match=rf"expected a whole DICOM file in .*eye\.dcm, got .*{message}"):
        read(write(tmp_path))


def test_no_message_about_a_broken_header_repeats_it(tmp_path):
    """The length of a number is made to cover what follows it."""
    path = made.save(tmp_path / "eye.dcm", made.photograph(PIXELS, PatientID="7", Laterality="L"))
    content = path.read_bytes()
    at = content.index(b"\x28\x00\x10\x00US") + 6  # Rows
    path.write_bytes(content[:at] + b"\x05\x00" + content[at + 2 :])
    with pytest.raises(
        ValueError, match=r"eye\.dcm, got one that cannot be read: it is cut off, or its header is broken \(\w+\)$"
    ):
        read_dicom(path)


# without the extra


@pytest.mark.parametrize("read", [read_dicom, read_identity, load_photograph])
def test_without_pydicom_one_sentence_says_what_to_install(tmp_path, monkeypatch, read):
    path = made.save(tmp_path / "eye.dcm", made.photograph(PIXELS))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(ValueError, match="expected the package pydicom for DICOM photographs, found none") as caught:
        read(path)
    assert str(caught.value).endswith(INSTALL)


def test_without_its_decoder_a_compressed_photograph_says_what_to_install(tmp_path, monkeypatch):
    path = made.save(tmp_path / "eye.dcm", made.jpeg2000(PIXELS))
    monkeypatch.setattr(pydicom.pixels.get_decoder(uid.JPEG2000Lossless), "_available", {})
    with pytest.raises(ValueError, match=r"eye\.dcm.* no decoder of JPEG 2000 .* is installed; say ") as caught:
        read_dicom(path)
    assert str(caught.value).endswith(INSTALL)
