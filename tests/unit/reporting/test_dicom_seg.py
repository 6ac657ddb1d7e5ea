"""The lesions as a DICOM Segmentation: every pixel, every code, and the patient and study of the photograph."""

import sys

import numpy as np
import pytest

pytest.importorskip("highdicom", reason="the extra `dicom` is not installed")
import highdicom
from bundle.labels import LESION_COLOURS, LESION_NAMES, LESIONS
from bundle.reporting.dicom_seg import CATEGORY, FAMILY, LESION_CODES, REGION, check_sources, write_dicom_seg
from PIL import Image
from pydicom import dcmread, uid
from pydicom.sr.codedict import codes

from tests import dicom_files as made
from tests.conftest import eye

PIXELS = eye(3, 90, 60)
LESIONS_HW = np.zeros((60, 90), np.uint8)
LESIONS_HW[10:13, 20:27], LESIONS_HW[40:42, 5:15], LESIONS_HW[30, 60] = 1, 3, 4  # no haemorrhage


def segmented(folder, lesions_HW=LESIONS_HW, dataset=None):
    source = made.photograph(PIXELS) if dataset is None else dataset
    write_dicom_seg(folder / "seg.dcm", lesions_HW, made.save(folder / "eye.dcm", source))
    return highdicom.seg.segread(folder / "seg.dcm"), source


def label_map(segmentation, source):
    found = segmentation.get_pixels_by_source_instance([source.SOPInstanceUID], combine_segments=True)
    assert found.shape == (1, 60, 90)
    return found[0]


KINDS = {
    "8 bits": lambda: made.photograph(PIXELS),
    "16 bits": lambda: made.photograph(PIXELS.astype(np.uint16)),
    "grey": lambda: made.photograph(PIXELS[..., 0], "MONOCHROME1"),
    "JPEG": lambda: made.jpeg(PIXELS),
    "JPEG 2000": lambda: made.jpeg2000(PIXELS),
    "RLE": lambda: made.compressed(PIXELS, uid.RLELossless),
    "photographic": lambda: made.photograph(PIXELS, SOPClassUID=uid.VLPhotographicImageStorage),
    "secondary capture": lambda: made.photograph(PIXELS, SOPClassUID=uid.SecondaryCaptureImageStorage),
    "with a size of pixels": lambda: made.photograph(PIXELS, PixelSpacing=[0.01, 0.02]),
    "with a place in space": lambda: made.photograph(PIXELS, FrameOfReferenceUID=uid.generate_uid()),
}


@pytest.mark.parametrize("make", KINDS.values(), ids=KINDS)
def test_every_pixel_is_read_back(tmp_path, make):
    assert np.array_equal(label_map(*segmented(tmp_path, dataset=make())), LESIONS_HW)


@pytest.mark.parametrize("lesions_HW", [np.zeros((60, 90), np.uint8), np.full((60, 90), 4, np.uint8)])
def test_no_lesion_and_lesions_everywhere_are_read_back(tmp_path, lesions_HW):
    assert np.array_equal(label_map(*segmented(tmp_path, lesions_HW)), lesions_HW)


def test_a_segment_of_each_lesion_is_binary_coded_and_coloured(tmp_path):
    segmentation, _ = segmented(tmp_path)
    assert segmentation.segmentation_type == highdicom.seg.SegmentationTypeValues.BINARY
    found = [segmentation.get_segment_description(number) for number in segmentation.segment_numbers]
    assert [one.segment_label for one in found] == [LESION_NAMES[lesion] for lesion in LESIONS]
    for one, lesion in zip(found, LESIONS, strict=True):
        kind = one.segmented_property_type
        assert (kind.value, kind.scheme_designator, kind.meaning) == LESION_CODES[lesion]
        assert one.segmented_property_category == codes.SCT.MorphologicallyAbnormalStructure
        assert one.anatomic_regions == [codes.SCT.Retina]
        assert one.algorithm_type == highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC
        colour = highdicom.color.CIELabColor.from_dicom_value(one.RecommendedDisplayCIELabValue)
        assert np.allclose(colour.to_rgb(), LESION_COLOURS[lesion], atol=2)


@pytest.mark.parametrize(
    ("code", "in_dictionary"),
    [
        (CATEGORY, codes.SCT.MorphologicallyAbnormalStructure),
        (REGION, codes.SCT.Retina),
        (FAMILY, codes.DCM.ArtificialIntelligence),
    ],
)
def test_the_codes_of_the_standard_are_those_of_pydicoms_dictionary(code, in_dictionary):
    assert code == (in_dictionary.value, in_dictionary.scheme_designator, in_dictionary.meaning)


def test_it_belongs_to_the_patient_and_the_study_of_the_photograph(tmp_path):
    segmentation, source = segmented(tmp_path)
    for name in ("PatientName", "PatientID", "StudyInstanceUID"):
        assert segmentation[name].value == source[name].value
    assert segmentation.SeriesInstanceUID != source.SeriesInstanceUID
    (reference,) = segmentation.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    assert reference.ReferencedSOPInstanceUID == source.SOPInstanceUID
    assert reference.ReferencedSOPClassUID == source.SOPClassUID


def test_two_runs_on_a_photograph_make_two_objects(tmp_path):
    first, source = segmented(tmp_path)
    second, _ = segmented(tmp_path, dataset=source)
    assert first.SOPInstanceUID != second.SOPInstanceUID


def test_a_header_from_which_all_names_were_removed_is_enough(tmp_path):
    dataset = made.photograph(PIXELS)
    for name in ("PatientName", "PatientID", "Modality", "NumberOfFrames"):
        delattr(dataset, name)
    segmentation, _ = segmented(tmp_path, dataset=dataset)
    assert np.array_equal(label_map(segmentation, dataset), LESIONS_HW)
    assert not segmentation.PatientName


def test_what_the_standard_requires_is_there(tmp_path):
    """Of dciodvfy's list for a Segmentation: elements that must have a value."""
    segmented(tmp_path)
    dataset = dcmread(tmp_path / "seg.dcm")
    required = (
        "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "Modality", "SeriesNumber",
        "Manufacturer", "ManufacturerModelName", "DeviceSerialNumber", "SoftwareVersions", "InstanceNumber",
        "ContentLabel", "ContentDate", "ContentTime", "ImageType", "SegmentationType", "SegmentSequence",
        "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "DimensionIndexSequence",
        "DimensionOrganizationSequence", "LossyImageCompression", "NumberOfFrames", "PixelData",
    )  # fmt: skip
    assert [name for name in required if name not in dataset or dataset[name].is_empty] == []
    empty_allowed = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime", "StudyID")
    assert [name for name in empty_allowed if name not in dataset] == []
    assert (dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.Rows, dataset.Columns) == (
        1,
        1,
        0,
        60,
        90,
    )
    assert len(dataset.PerFrameFunctionalGroupsSequence) == dataset.NumberOfFrames == 3
    private = {item.CodingSchemeDesignator for item in dataset.CodingSchemeIdentificationSequence}
    assert {scheme for _, scheme, _ in LESION_CODES.values()} - private == {"SCT"}


# what is refused


def test_a_photograph_that_is_no_dicom_is_an_error_before_anything_runs(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "eye.png")
    dicom = made.save(tmp_path / "eye.dcm", made.photograph(PIXELS))
    check_sources([dicom, tmp_path / "eye.png"], wanted=False)
    check_sources([dicom], wanted=True)
    with pytest.raises(
        ValueError, match=r"expected DICOM photographs for --dicom_seg, got .*eye\.png; leave --dicom_seg"
    ):
        check_sources([dicom, tmp_path / "eye.png"], wanted=True)


def test_a_photograph_that_cannot_be_referred_to_is_an_error(tmp_path):
    dataset = made.photograph(PIXELS)
    del dataset.StudyInstanceUID
    path = made.save(tmp_path / "eye.dcm", dataset)
    with pytest.raises(ValueError, match=r"got .*eye\.dcm without StudyInstanceUID; leave --dicom_seg out"):
        check_sources([path], wanted=True)


def test_a_file_that_cannot_be_read_is_left_to_the_reader(tmp_path):
    (tmp_path / "eye.dcm").write_text("no image")
    check_sources([tmp_path / "eye.dcm"], wanted=True)


def test_a_kind_of_image_that_the_standard_does_not_know_is_refused_by_name(tmp_path):
    dataset = made.photograph(PIXELS, SOPClassUID="1.2.3.4")
    with pytest.raises(ValueError, match=r"expected a photograph that allows a DICOM Segmentation, got .*eye\.dcm"):
        segmented(tmp_path, dataset=dataset)


def test_without_highdicom_one_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(
        ValueError, match=r"expected the package highdicom for --dicom_seg, found none; say .*\[dicom\]"
    ):
        check_sources([], wanted=True)
