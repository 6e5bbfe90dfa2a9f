"""For each reader whole files, and files that promise, nest or unpack to too much."""

from __future__ import annotations

import gzip
import io
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
import files
from pydicom.uid import JPEG2000Lossless, RLELossless

LEADS = {"II": files.BEAT, "V1": -files.BEAT}


def big_png(side: int) -> bytes:
    png = files.picture(np.zeros((8, 8), np.uint8))
    head = b"IHDR" + struct.pack(">II", side, side) + png[24:29]
    return png[:12] + head + struct.pack(">I", zlib.crc32(head)) + png[33:]


def deflated(size: int) -> bytes:
    body = zeros(zlib.compressobj(9, wbits=-15), size)
    return files.with_syntax(files.dicom(), "1.2.840.10008.1.2.1.99", lambda content: body)


def zeros(packer: Any, size: int) -> bytes:
    chunk = bytes(1 << 20)
    return b"".join(packer.compress(chunk) for _ in range(size >> 20)) + packer.flush()


def run_length(size: int) -> bytes:
    """A frame whose runs unpack to far more than the picture."""
    whole = files.dicom(syntax=RLELossless)
    at = whole.rfind(b"\xfe\xff\x00\xe0")
    body = struct.pack("<16I", 1, 64, *[0] * 14) + b"\x81\x00" * (size // 2)
    end = b"\xfe\xff\xdd\xe0\0\0\0\0"
    return whole[: at + 4] + struct.pack("<I", len(body)) + body + end


def dicoms() -> tuple[list[Any], list[Any]]:
    frames = np.stack([files.GREY] * 3)
    colour = np.zeros((8, 8, 3), np.uint8)
    good = [
        files.dicom(WindowCenter=[40, 400], WindowWidth=[80, 2000], RescaleSlope=1, RescaleIntercept=-1024),
        files.dicom(frames, PixelSpacing=[1, 2], ImageOrientationPatient=[-1, 0, 0, 0, 1, 0]),
        files.dicom(colour, SamplesPerPixel=3),
        files.dicom(syntax=RLELossless),
        files.dicom(files.GREY.astype(np.uint8), PhotometricInterpretation="MONOCHROME1"),
        files.with_syntax(files.dicom(), "1.2.840.10008.1.2.1.99", lambda c: deflate(body(c))),
    ]
    if can_compress():
        good.append(files.dicom(files.GREY.astype(np.uint16), syntax=JPEG2000Lossless))
    absurd = [
        files.dicom(Rows=65535, Columns=65535),
        files.dicom(NumberOfFrames=2**31 - 1),
        files.dicom(Rows=0),
        files.dicom(BitsAllocated=64, BitsStored=64),
        files.dicom(WindowCenter=1, WindowWidth=-5),
        files.dicom(RescaleSlope="9" * 16),
        files.dicom(PixelSpacing=[0, 1e9]),
        deflated(300 << 20),
        run_length(64 << 20),
        run_length(6 << 20),
        b"\0" * 128 + b"DICM",
        b"\0" * 128 + b"DICM" + b"\xff" * 5000,
        nested(3000),
    ]
    return good, absurd


def can_compress() -> bool:
    try:
        files.dicom(files.GREY.astype(np.uint16), syntax=JPEG2000Lossless)
    except RuntimeError:  # no encoder of JPEG 2000 is installed
        return False
    return True


def body(content: bytes) -> bytes:
    import pydicom

    file = io.BytesIO(content)
    pydicom.filereader.read_preamble(file, False)
    pydicom.filereader.read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
    return content[file.tell() :]


def deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(body) + packer.flush()


def nested(depth: int) -> bytes:
    """Functional groups in functional groups."""
    open_, item = b"\x00\x52\x29\x92SQ\0\0\xff\xff\xff\xff", b"\xfe\xff\x00\xe0\xff\xff\xff\xff"
    return files.dicom()[:-2000] + (open_ + item) * depth


def niftis() -> tuple[list[Any], list[Any]]:
    volume = (np.arange(6 * 7 * 8).reshape(6, 7, 8) % 97).astype(np.int16)
    good = [files.nifti(volume), files.nifti(volume.astype(np.float32), packed=True)]
    good += [files.nifti(np.stack([volume] * 2, -1), np.diag([-2.0, 3, 1, 1]), packed=True)]
    huge = bytearray(files.nifti(volume))
    huge[40:56] = struct.pack("<8h", 3, 32767, 32767, 32767, 1, 1, 1, 1)
    negative = bytearray(files.nifti(volume))
    negative[40:56] = struct.pack("<8h", 3, -5, 6, 0, 1, 1, 1, 1)
    bomb = gzip.compress(files.nifti(volume)) + zeros(zlib.compressobj(9, wbits=31), 300 << 20)
    far = bytearray(files.nifti(volume))
    far[108:112] = struct.pack("<f", 1e30)
    absurd = [bytes(huge), gzip.compress(bytes(huge)), bytes(negative), bomb, bytes(far)]
    absurd += [
        zeros(zlib.compressobj(9, wbits=31), 8 << 20),
        b"\x1f\x8b",
        b"\x1f\x8b\x08\x00" + b"\xff" * 100,
    ]
    absurd += [files.nifti(np.full((4, 4, 4), np.nan, np.float32)), files.nifti(volume.astype(np.complex64))]
    return good, absurd


def pictures() -> tuple[list[Any], list[Any]]:
    grey = (files.GREY % 255).astype(np.uint8)
    colour = np.stack([grey, grey.T[:24, :24].repeat(2, 1)[:, :32], grey], 2)
    good = [files.picture(grey), files.picture(colour, "JPEG"), files.picture(files.GREY.astype(np.uint16))]
    good += [files.picture(grey, "TIFF"), files.picture(files.GREY.astype(np.float32), "TIFF")]
    absurd = [
        big_png(9000),
        big_png(60_000),
        b"\x89PNG\r\n\x1a\n",
        b"GIF89a" + bytes(20),
        b"%!PS-Adobe-3.0 EPSF",
    ]
    return good, [*absurd, files.picture(np.full((9, 9), np.nan, np.float32), "TIFF")]


def edfs() -> tuple[list[Any], list[Any]]:
    good = [files.edf(LEADS), files.edf(LEADS, unit="uV"), files.edf(LEADS, bdf=True)]
    many, long, slow = (bytearray(good[0]) for _ in range(3))
    many[252:256] = b"9999"
    long[236:244] = b"99999999"
    slow[244:252] = b"1e-300  "
    return good, [
        bytes(many),
        bytes(long),
        bytes(slow),
        b"0       ",
        b"0       " + b" " * 248,
        b"\xffBIOSEMI",
    ]


def tables() -> tuple[list[Any], list[Any]]:
    gap = files.BEAT.copy()
    gap[40:60] = np.nan
    good = [
        files.csv({"time": np.arange(500) / 250, **LEADS}),
        files.csv({"II": gap, "V1": gap}, header=False),
    ]
    good += [files.npy(np.stack([gap, gap])), files.npy(np.arange(1000, dtype=np.int16).reshape(500, 2))]
    absurd = [
        b"1" * (20 << 20),
        b"," * (1 << 20),
        b"a,b\n" + b'"' * 1000,
        b"1,2\n1,2,3\n",
        "Ω,ß\n1,2\n".encode(),
    ]
    absurd += [b"1e400,2\n3,4\n", b"x\n" * 100_000, files.npy(np.array([{"a": 1}], dtype=object))]
    absurd += [
        files.npy(np.zeros((0, 2))),
        files.npy(np.array(["a"])),
        b"\x93NUMPY",
        b"\x93NUMPY\x01\x00\xff\xff{",
    ]
    head = b"{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999, 99), }"
    absurd += [b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head]
    return good, [
        *absurd,
        [[1.0, 2.0], [3.0]],
        [["a"]],
        [[]],
        [None],
        [[[[1.0]]]],
        [[1e300, -1e300]],
        [True],
        7,
    ]


def labs() -> tuple[list[Any], list[Any]]:
    good = ['{"sodium": 140, "potassium": 4.1, "lactate": null}', "[140, 4.1, null]", '{"lactate": "<0.5"}']
    absurd: list[Any] = [
        "[" * 100_000,
        '{"sodium": 1e999}',
        "9" * 2_000_000,
        "{}",
        "[]",
        "null",
        "NaN",
        b"\xff\xfe",
    ]
    absurd += [
        {"sodium": True},
        {"sodium": "high"},
        {"sodium": 10**400},
        {"sodium": [1]},
        [1],
        3,
        {"sodium": "<"},
    ]
    absurd += [{"心": 1}, {"sodium": float("inf")}, '{"sodium": "' + "<" * 100_000 + '"}']
    return good, absurd


def reports() -> tuple[list[Any], list[Any]]:
    good = [
        "EXAM: chest. FINDINGS: Clear lungs.\nIMPRESSION: Normal.",
        "Findings: ünïcødé 心\nHistory: " + files.SECRET,
    ]
    absurd: list[Any] = [
        "",
        " \n",
        "\ud800",
        b"\xff\xfe",
        b"\0" * 100,
        "FINDINGS:" * 100_000,
        "A" * (5 << 20),
        5,
        None,
    ]
    return good, [*absurd, "HISTORY: none", "\n" * 1_000_000 + "x", "follow-up " * 100_000, b"\xef\xbb\xbf"]
