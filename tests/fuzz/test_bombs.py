"""A small file that would fill the memory is refused: none of these may take more than 100 MiB."""

import gzip
import io
import json
import multiprocessing
import os
import resource
import struct
import sys
import zipfile
import zlib
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from bundle.datasets.readers.diaretdb1 import DrawConsensus
from bundle.files import load_json
from bundle.manifest import load_manifest
from bundle.method.initial_labels import load_pseudo_labels
from bundle.networks.imagenet import read_weights
from bundle.transforms import PrepareFundusd, load_mask, load_runs
from bundle.transforms.decode import decode, read_packed
from bundle.transforms.dicom import read_dicom
from bundle.transforms.nifti import read_nifti
from PIL import Image, PngImagePlugin

from tests.fuzz.test_broken_manifests import CONTENT, MANIFEST, ROW

MEMORY_MAX_MIB = 100
REFUSED, READ, OTHER = 3, 4, 5


def chunk(name, content):
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def huge_text():
    return chunk(b"zTXt", b"a\0\0" + zlib.compress(b"a" * 200_000_000, 1))


def png(width_px, height_px, data=b"", *chunks):
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width_px, height_px, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def one_bit_tiff(width_px, height_px, strips, packed, compression=8):
    """Write a header whose strips are all the same bytes."""
    entries = [
        (256, 4, 1, width_px), (257, 4, 1, height_px), (258, 3, 1, 1), (259, 3, 1, compression), (262, 3, 1, 1),
        (277, 3, 1, 1), (278, 4, 1, -(-height_px // strips)), (273, 4, strips, 0), (279, 4, strips, 0),
    ]  # fmt: skip
    entries.sort()
    at = 8 + 2 + 12 * len(entries) + 4
    offsets, counts, data = at, at + 4 * strips, at + 8 * strips
    content = struct.pack("<2sHIH", b"II", 42, 8, len(entries))
    for tag, kind, count, value in entries:
        single = {273: data, 279: len(packed)}.get(tag, value)
        several = {273: offsets, 279: counts}.get(tag, value)
        content += struct.pack("<HHII", tag, kind, count, several if count > 1 else single)
    content += struct.pack("<I", 0)
    return content + struct.pack("<I", data) * strips + struct.pack("<I", len(packed)) * strips + packed


def strip(width_px):
    """Write a white photograph of eight rows, compressed a thousandfold."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((8, width_px, 3), 255, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def weights(replaced=None, compression=zipfile.ZIP_STORED):
    """Write a file of torch, with another pickle or compressed."""
    buffer, made = io.BytesIO(), io.BytesIO()
    torch.save({"model": torch.zeros(1 if replaced else 50_000_000)}, buffer)
    with zipfile.ZipFile(buffer) as old, zipfile.ZipFile(made, "w", compression, compresslevel=1) as new:
        for name in old.namelist():
            new.writestr(name, replaced if replaced and name.endswith("data.pkl") else old.read(name))
    return made.getvalue()


def nifti(width_px, height_px, remark_bytes=0):
    """Write a grey photograph, packed a thousandfold, of which only the remark is there."""
    header = nibabel.Nifti1Header()
    header.set_data_shape((width_px, height_px))
    header["vox_offset"] = 352 + remark_bytes
    remark = struct.pack("<4sii", b"\1\0\0\0", remark_bytes, 6) + bytes(remark_bytes) if remark_bytes else bytes(4)
    return gzip.compress(header.binaryblock[:348] + remark, 1)


def dicom(kind):
    """Write a DICOM photograph of 60 x 40 px that unpacks to more, or declares more."""
    from pydicom import uid

    from tests import dicom_files as made

    small, large = np.zeros((40, 60, 3), np.uint8), np.zeros((1000, 30_000, 3), np.uint8)
    if kind == "declared":
        dataset = made.photograph(small, Rows=60_000, Columns=60_000)
    elif kind == "deflated":
        dataset = made.photograph(small, ImageComments="x" * 400_000_000)
        dataset.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    elif kind == "JPEG":
        dataset = made.encapsulated(small, made.picture(large, "JPEG"), uid.JPEGBaseline8Bit, "YBR_FULL_422")
    else:
        frame = bytearray(made.picture(small, "JPEG2000", no_jp2=True))
        frame[8:16] = (100_000).to_bytes(4, "big") * 2
        dataset = made.encapsulated(small, bytes(frame), uid.JPEG2000Lossless, "YBR_RCT")
    file = io.BytesIO()
    dataset.save_as(file, enforce_file_format=True)
    return file.getvalue()


def laughs():
    lines = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10))
    return f'<!DOCTYPE x [<!ENTITY a0 "lol">{lines}]><imgannotooldata>&a9;</imgannotooldata>'.encode()


def manifest_of(**changes):
    return json.dumps(CONTENT | {"photographs": [ROW | changes]}).encode()


def prepared(path):
    return PrepareFundusd(32)({"image": str(path), "masks": {}, "optic_disc": ""})


def drawn(path):
    return DrawConsensus((path,), 0.5)(60, 40)


GIBIBYTE = b"\x80\x02cbuiltins\nbytearray\nJ" + (2**30).to_bytes(4, "little") + b"\x85R."
BOMBS = {
    "a PNG of 100,000 x 100,000 px": (lambda: png(100_000, 100_000), decode),
    "a mask of 100,000 x 100,000 px": (lambda: png(100_000, 100_000), lambda path: load_runs(path, 60, 40)),
    "a mask of 2^31 px a side": (lambda: png(2**31 - 1, 2**31 - 1), load_mask),
    "a PNG with a text of 200 MB": (lambda: png(60, 40, zlib.compress(bytes(61 * 40)), huge_text()), decode),
    "a one-bit TIFF of 100,000 x 100,000 px": (
        lambda: one_bit_tiff(100_000, 100_000, 1, b""), lambda path: load_runs(path, 60, 40),
    ),
    "a photograph of 200,000 x 8 px": (lambda: strip(200_000), prepared),
    "a NIfTI of 30,000 x 30,000 px": (lambda: nifti(30_000, 30_000), read_nifti),
    "a NIfTI with a remark of 300 MB": (lambda: nifti(60, 40, 300_000_000), read_nifti),
    "a DICOM of 60,000 x 60,000 px": (lambda: dicom("declared"), read_dicom),
    "a DICOM that unpacks to 400 MB": (lambda: dicom("deflated"), read_dicom),
    "a DICOM with a JPEG of 30,000 x 1,000 px": (lambda: dicom("JPEG"), read_dicom),
    "a DICOM with a JPEG 2000 of 100,000 px a side": (lambda: dicom("JPEG 2000"), read_dicom),
    "XML of a thousand million words": (laughs, drawn),
    "JSON of a million brackets": (lambda: b"[" * 1_000_000, load_json),
    "a manifest of a million brackets": (lambda: b"[" * 1_000_000, load_manifest),
    "labels of a million brackets": (lambda: b'{"a":' * 1_000_000, lambda path: load_pseudo_labels(path, MANIFEST)),
    "a number of a million digits": (lambda: b'{"a": ' + b"1" * 1_000_000 + b"}", load_manifest),
    "a manifest of 100,000 x 100,000 px": (lambda: manifest_of(width_px=100_000, height_px=100_000), load_manifest),
    "weights of 200 MB in 1 MB": (lambda: weights(compression=zipfile.ZIP_DEFLATED), read_weights),
    "weights that ask for a gibibyte": (lambda: weights(GIBIBYTE), read_weights),
    "old weights that ask for a gibibyte": (lambda: GIBIBYTE, read_weights),
}  # fmt: skip


def outcome(read, path):
    """Read a file in a process of its own; return how that ended and how many MiB it took."""

    def child(pipe):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (size + 2**31, resource.RLIM_INFINITY))
        try:
            read(path)
            code, said = READ, ""
        except ValueError as error:
            code, said = REFUSED, str(error)
        except BaseException as error:  # noqa: BLE001  (told to the test)
            code, said = OTHER, repr(error)
        pipe.send((code, said[:500], (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024))
        pipe.close()
        os._exit(0)

    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=child, args=(theirs,))
    process.start()
    theirs.close()
    try:
        return ours.recv()
    finally:
        process.join()


def refused_packed(path):
    assert read_packed(path) is None


on_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of a process from /proc")


@on_linux
@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_in_little_memory(tmp_path, name):
    write, read = BOMBS[name]
    if "DICOM" in name:
        pytest.importorskip("pydicom", reason="the extra `dicom` is not installed")
    bomb = tmp_path / ("bomb.nii.gz" if "NIfTI" in name else "bomb.tif")
    bomb.write_bytes(write())
    code, said, taken_mib = outcome(read, bomb)
    assert (code, taken_mib < MEMORY_MAX_MIB) == (REFUSED, True), f"{said} after {taken_mib:.0f} MiB"
    assert bomb.name in said or "photograph 'made/a'" in said


@on_linux
@pytest.mark.parametrize("compression", [1, 8])
def test_strips_that_are_all_the_same_bytes_are_not_read(tmp_path, compression):
    """Two thousand times 21 MB, packed, or 2,000 x 7 rows of a picture of 13,000; the file is left to Pillow."""
    packed = zlib.compress(bytes(21_125_000), 1)
    strips = one_bit_tiff(13_000, 13_000, 2_000, packed, compression)
    (tmp_path / "bomb.tif").write_bytes(strips)
    assert len(strips) < 200_000
    code, said, taken_mib = outcome(refused_packed, tmp_path / "bomb.tif")
    assert (code, taken_mib < MEMORY_MAX_MIB) == (READ, True), f"{said} after {taken_mib:.0f} MiB"


@on_linux
def test_what_takes_memory_is_seen(tmp_path):
    code, _, taken_mib = outcome(lambda path: np.ones(2**28, np.uint8), tmp_path)
    assert (code, taken_mib > 200) == (READ, True)
    assert outcome(lambda path: np.ones(2**33, np.uint8), tmp_path)[0] == OTHER


@on_linux
def test_xml_of_a_hundred_thousand_elements_deep_is_read(tmp_path):
    """Nesting alone takes memory in proportion to the file, and no stack."""
    deep = b"<a>" * 100_000 + b"</a>" * 100_000
    (tmp_path / "deep.xml").write_bytes(b"<imgannotooldata>" + deep + b"</imgannotooldata>")
    code, said, taken_mib = outcome(drawn, tmp_path / "deep.xml")
    assert (code, taken_mib < MEMORY_MAX_MIB) == (READ, True), said


def test_pillow_limits_are_those_that_the_readers_rely_on():
    assert 2 * Image.MAX_IMAGE_PIXELS == 178_956_970
    assert PngImagePlugin.MAX_TEXT_MEMORY <= 2**26
