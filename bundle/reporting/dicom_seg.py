"""Lesions as a DICOM Segmentation of their photograph."""

# flake8: noqa: N803, N806

import os
from collections.abc import Iterable
from typing import Any

import numpy as np
from bundle import ROOT
from bundle.files import load_json, written_whole
from bundle.labels import LESION_COLOURS, LESION_NAMES, LESIONS
from bundle.optional import import_optional
from bundle.transforms.dicom import is_dicom, read_header
from numpy.typing import NDArray

PROGRAM = "fundus_dr_multitask"

CATEGORY = ("49755003", "SCT", "Morphologically Abnormal Structure")
REGION = ("5665001", "SCT", "Retina")
FAMILY = ("123110", "DCM", "Artificial Intelligence")
"""All three as in pydicom's dictionary of the standard's codes."""

LESION_CODES = {
    "MA": ("HP:0032416", "99HPO", "Retinal microaneurysm"),
    "HE": ("28998008", "SCT", "Retinal hemorrhage"),
    "EX": ("39832008", "SCT", "Retinal exudate"),
    "SE": ("HP:0031606", "99HPO", "Retinal cotton wool spot"),
}
"""Code, its scheme, and its meaning. The standard has none for them. SCT is SNOMED CT, here as the Human Phenotype
Ontology cross-references it; for the other two it names no code of SNOMED CT, so they keep its own (decision 0027)."""

SCHEME = ("99HPO", "Human Phenotype Ontology")

IDENTIFYING = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
MAY_BE_EMPTY = (
    "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID", "StudyDate",
    "StudyTime", "ReferringPhysicianName",
)  # fmt: skip
"""What the standard wants in every file, but lets be empty; programs that remove names often remove all of it."""


def check_sources(photographs: Iterable[str | os.PathLike], wanted: bool) -> None:
    """Refuse photographs that no segmentation can refer to, before a network runs; nothing happens unless ``wanted``.

    A DICOM file that cannot be read is left to the reader of photographs.

    Raises:
        ValueError: if highdicom is not installed, or a photograph is not DICOM or does not identify itself.

    Example:
        >>> check_sources(["eye.jpg"], wanted=True)
        Traceback (most recent call last):
            ...
        ValueError: expected DICOM photographs for --dicom_seg, got eye.jpg; leave --dicom_seg out, or give DICOM alone
    """
    if not wanted:
        return
    import_optional("highdicom", "--dicom_seg")
    for photograph in photographs:
        if not is_dicom(photograph):
            raise ValueError(
                f"expected DICOM photographs for --dicom_seg, got {photograph}; leave --dicom_seg out, or give DICOM "
                f"alone"
            )
        _check_identified(photograph)


def _check_identified(photograph: str | os.PathLike) -> None:
    try:
        header = read_header(photograph)
    except ValueError:
        return
    missing = [name for name in IDENTIFYING if not header.get(name)]
    if missing:
        raise ValueError(
            f"expected DICOM photographs that a segmentation can refer to for --dicom_seg, got {photograph} without "
            f"{', '.join(missing)}; leave --dicom_seg out"
        )


def write_dicom_seg(path: str | os.PathLike, lesions_HW: NDArray[np.uint8], photograph: str | os.PathLike) -> None:
    """Write a label map as a binary DICOM Segmentation with a segment for each lesion, in the order of ``LESIONS``.

    It belongs to the patient and the study of the photograph, so it has their name and ids. A lesion that is not there
    has a segment without pixels.

    Args:
        path: file to write.
        lesions_HW: 0 background, 1-4 as in ``LESIONS``, at the size of the photograph.
        photograph: the DICOM file that the lesions are on.

    Raises:
        ValueError: if highdicom is not installed, the photograph is not DICOM, or it does not allow a segmentation.
    """
    highdicom = import_optional("highdicom", "--dicom_seg")
    source = _completed(read_header(photograph))
    try:
        segmentation = highdicom.seg.Segmentation(
            source_images=[source],
            pixel_array=lesions_HW[None],
            segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[_segment(number, lesion) for number, lesion in enumerate(LESIONS, start=1)],
            series_instance_uid=highdicom.UID(),
            series_number=1,
            sop_instance_uid=highdicom.UID(),
            instance_number=1,
            manufacturer=PROGRAM,
            manufacturer_model_name=PROGRAM,
            software_versions=_version(),
            device_serial_number="0",
            content_label="LESIONS",
            omit_empty_frames=bool(lesions_HW.any()),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"expected a photograph that allows a DICOM Segmentation, got {photograph}: {error}") from None
    # The photograph states the size of a pixel; without a thickness, highdicom does not read it again.
    segmentation.SharedFunctionalGroupsSequence[0].pop("PixelMeasuresSequence", None)
    segmentation.CodingSchemeIdentificationSequence = [highdicom.coding_schemes.CodingSchemeIdentificationItem(*SCHEME)]
    with written_whole(path) as beside:
        segmentation.save_as(beside)


def _version() -> str:
    return load_json(ROOT / "configs" / "metadata.json")["version"]


def _completed(source: Any) -> Any:  # noqa: ANN401  (pydicom is optional)
    """Add what highdicom insists on to a header that was read for this.

    It takes an ophthalmic photograph, which may have several frames, for an image with groups of properties by frame.
    """
    pydicom = import_optional("pydicom", "--dicom_seg")
    shared = pydicom.Dataset()
    shared.PixelMeasuresSequence = [pydicom.Dataset()]
    additions: dict[str, Any] = dict.fromkeys(MAY_BE_EMPTY, "")
    additions |= {"Modality": "OP", "NumberOfFrames": 1, "SharedFunctionalGroupsSequence": [shared]}
    for name, value in additions.items():
        if name not in source:
            setattr(source, name, value)
    return source


def _segment(number: int, lesion: str) -> Any:  # noqa: ANN401
    highdicom = import_optional("highdicom", "--dicom_seg")
    code = highdicom.sr.CodedConcept
    return highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=LESION_NAMES[lesion],
        segmented_property_category=code(*CATEGORY),
        segmented_property_type=code(*LESION_CODES[lesion]),
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=highdicom.AlgorithmIdentificationSequence(
            name=PROGRAM, version=_version(), family=code(*FAMILY)
        ),
        anatomic_regions=[code(*REGION)],
        display_color=highdicom.color.CIELabColor.from_rgb(*LESION_COLOURS[lesion]),
    )
