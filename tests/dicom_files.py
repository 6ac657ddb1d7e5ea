"""DICOM files for tests, made by pydicom: one photograph in every transfer syntax, colour and depth."""

import io

import numpy as np
from PIL import Image
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import convert_color_space

PATIENT_NAME, PATIENT_ID = "Mustermann^Erika", "CLINIC-0042"


def photograph(pixels, photometric=None, bits_stored=None, **header):
    """Return an uncompressed ophthalmic photograph of pixels ``(H, W)`` or ``(H, W, 3)``, of 8 or 16 bits."""
    deep, colour = pixels.dtype == np.uint16, pixels.ndim == 3
    dataset = Dataset()
    dataset.SOPClassUID = (
        uid.OphthalmicPhotography16BitImageStorage if deep else uid.OphthalmicPhotography8BitImageStorage
    )
    dataset.SOPInstanceUID, dataset.StudyInstanceUID, dataset.SeriesInstanceUID = (uid.generate_uid() for _ in range(3))
    dataset.PatientName, dataset.PatientID, dataset.Modality = PATIENT_NAME, PATIENT_ID, "OP"
    dataset.Rows, dataset.Columns = pixels.shape[:2]
    dataset.NumberOfFrames = 1
    dataset.SamplesPerPixel = 3 if colour else 1
    if colour:
        dataset.PlanarConfiguration = 0
    dataset.PhotometricInterpretation = photometric or ("RGB" if colour else "MONOCHROME2")
    dataset.BitsAllocated = 16 if deep else 8
    dataset.BitsStored = bits_stored or dataset.BitsAllocated
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, 0
    dataset.PixelData = pixels.tobytes() + b"\0" * (pixels.nbytes % 2)
    dataset["PixelData"].VR = "OW"
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    for name, value in header.items():
        setattr(dataset, name, value)
    return dataset


def save(path, dataset):
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def encapsulated(pixels, frame, syntax, photometric, **header):
    """Return a photograph whose pixel data are the bytes of one encoded picture."""
    dataset = photograph(pixels, photometric, **header)
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.PixelData = encapsulate([frame])
    dataset["PixelData"].VR = "OB"
    return dataset


def compressed(pixels, syntax, **header):
    """Let pydicom compress a photograph."""
    dataset = photograph(pixels, **header)
    dataset.compress(syntax, generate_instance_uid=False)
    return dataset


def picture(pixels, kind, **options):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def jpeg(pixels, photometric="YBR_FULL_422", **options):
    frame = picture(pixels, "JPEG", **{"quality": 90, **options})
    return encapsulated(pixels, frame, uid.JPEGBaseline8Bit, photometric)


def jpeg2000(pixels, lossless=True):
    many = pixels.ndim == 3
    frame = picture(pixels, "JPEG2000", irreversible=not lossless, no_jp2=True, mct=int(many))
    photometric = ("YBR_RCT" if lossless else "YBR_ICT") if many else "MONOCHROME2"
    return encapsulated(pixels, frame, uid.JPEG2000Lossless if lossless else uid.JPEG2000, photometric)


def ybr_full(pixels):
    return photograph(convert_color_space(pixels, "RGB", "YBR_FULL"), "YBR_FULL")


def ybr_full_422(pixels):
    """Store two brightnesses beside one pair of colours, that of the left of two pixels."""
    ybr = convert_color_space(pixels, "RGB", "YBR_FULL")
    shared = np.stack([ybr[:, ::2, 0], ybr[:, 1::2, 0], ybr[:, ::2, 1], ybr[:, ::2, 2]], axis=-1)
    dataset = photograph(pixels, "YBR_FULL_422")
    dataset.PixelData = shared.tobytes()
    return dataset


def planar(pixels):
    dataset = photograph(pixels, PlanarConfiguration=1)
    dataset.PixelData = np.ascontiguousarray(np.moveaxis(pixels, -1, 0)).tobytes()
    return dataset


def palette(indices, colours):
    """Return a photograph of indices into a table of colours ``(N, 3)``, uint8 or uint16."""
    dataset = photograph(indices, "PALETTE COLOR")
    bits = 8 * colours.itemsize
    for number, name in enumerate(("Red", "Green", "Blue")):
        setattr(dataset, f"{name}PaletteColorLookupTableDescriptor", [len(colours), 0, bits])
        setattr(dataset, f"{name}PaletteColorLookupTableData", colours[:, number].tobytes())
    return dataset


def save_in(path, dataset, syntax):
    """Save uncompressed in another order of bytes or without explicit types."""
    dataset.file_meta.TransferSyntaxUID = syntax
    if syntax == uid.ExplicitVRBigEndian and dataset.BitsAllocated == 16:
        dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
    return save(path, dataset)
