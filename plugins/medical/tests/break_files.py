"""Run in a process of its own: damages files in 500 ways, reads each, and prints what came of it.

python break_files.py FOLDER
"""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import resource
import signal
import struct
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
import files
from modalign import BadSample
from modalign_medical.ecg import Ecg
from modalign_medical.labs import Labs
from modalign_medical.report import ClinicalReport
from modalign_medical.scan import Scan
from pydicom.uid import JPEG2000Lossless, RLELossless

COUNT, LONGEST, ROOM = 500, 10, 1 << 30  # files, seconds of one, bytes of memory beyond what imports take
LEADS = {"II": files.BEAT, "V1": -files.BEAT}
UNICODE = ["ünïcødé", "心电图", "сердце", "a b'c\"", "\N{GRINNING FACE}", "x" * 200]


def big_png(side: int) -> bytes:
    png = files.picture(np.zeros((8, 8), np.uint8))
    head = b"IHDR" + struct.pack(">II", side, side) + png[24:29]
    return png[:12] + head + struct.pack(">I", zlib.crc32(head)) + png[33:]


def deflated(size: int) -> bytes:
    body = _zeros(zlib.compressobj(9, wbits=-15), size)
    return files.with_syntax(files.dicom(), "1.2.840.10008.1.2.1.99", lambda content: body)


def _zeros(packer: Any, size: int) -> bytes:
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
        files.with_syntax(files.dicom(), "1.2.840.10008.1.2.1.99", lambda c: _deflate(_body(c))),
    ]
    if _can_compress():
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
        _nested(3000),
    ]
    return good, absurd


def _can_compress() -> bool:
    try:
        files.dicom(files.GREY.astype(np.uint16), syntax=JPEG2000Lossless)
    except RuntimeError:  # no encoder of JPEG 2000 is installed
        return False
    return True


def _body(content: bytes) -> bytes:
    import pydicom

    file = io.BytesIO(content)
    pydicom.filereader.read_preamble(file, False)
    pydicom.filereader.read_dataset(file, False, True, stop_when=lambda tag, vr, length: tag >> 16 != 2)
    return content[file.tell() :]


def _deflate(body: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(body) + packer.flush()


def _nested(depth: int) -> bytes:
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
    bomb = gzip.compress(files.nifti(volume)) + _zeros(zlib.compressobj(9, wbits=31), 300 << 20)
    far = bytearray(files.nifti(volume))
    far[108:112] = struct.pack("<f", 1e30)
    absurd = [bytes(huge), gzip.compress(bytes(huge)), bytes(negative), bomb, bytes(far)]
    absurd += [
        _zeros(zlib.compressobj(9, wbits=31), 8 << 20),
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


READERS: dict[str, tuple[Any, Any, int]] = {  # name: files, what reads them, dimensions of an item
    "dicom": (dicoms, Scan(16), 3),
    "nifti": (niftis, Scan(16), 3),
    "picture": (pictures, Scan(16), 3),
    "edf": (edfs, Ecg(leads=2, rate=100), 2),
    "table": (tables, Ecg(leads=2, rate=100), 2),
    "wfdb": (None, Ecg(leads=2, rate=100), 2),
    "labs": (labs, Labs({"sodium": [120, 140, 160], "potassium": [2, 4, 7], "lactate": [0, 1, 15]}), 1),
    "report": (reports, ClinicalReport(sections=["findings", "impression"]), 0),
}


def damaged(content: bytes, draw: random.Random) -> bytes:
    """A cut, flipped bits, a stretch of one byte, bytes in or out; often within the header."""
    data = bytearray(content)
    for _ in range(draw.choice([1, 1, 2, 5, 20])):
        span = len(data) if draw.random() < 0.5 else min(len(data), 600)
        at = draw.randrange(max(1, span))
        way = draw.randrange(5)
        if way == 0 and data:
            data[at] ^= 1 << draw.randrange(8)
        elif way == 1 and data:
            data[at] = draw.choice([0, 255, 32, 57, 127, draw.randrange(256)])
        elif way == 2:
            data[at : at + draw.randrange(1, 9)] = bytes([draw.choice([0, 255, 57])]) * draw.randrange(1, 9)
        elif way == 3:
            del data[at : at + draw.randrange(1, 40)]
        elif draw.random() < 0.3:
            del data[at:]
    return bytes(data)


def cells(reader: str, folder: Path, draw: random.Random) -> Any:
    if reader == "wfdb":
        yield from records(folder, draw)
        return
    good, absurd = READERS[reader][0]()
    yield from absurd
    yield from (b"", Path("no") / SECRET_NAME, folder, Path("/dev/zero"), None, object(), 7.5, {"a": 1}, "\0")
    yield from (
        files.dicom(),
        files.nifti(np.zeros((4, 4, 4))),
        files.edf(LEADS),
        files.csv(LEADS),
        b"PK\3\4" * 9,
    )
    for i in range(COUNT):
        content = good[i % len(good)]
        broken = damaged(content.encode() if isinstance(content, str) else content, draw)
        if i % 10:
            yield (
                broken
                if not isinstance(content, str)
                else broken.decode("utf-8", draw.choice(["ignore", "replace"]))
            )
        else:
            path = folder / f"{draw.choice(UNICODE)}{i}"
            path.write_bytes(broken)
            yield path if reader not in ("edf", "table") else path.rename(path.with_name(path.name + ".csv"))


SECRET_NAME = "Mustermann.bin"


def _pair(header: Path) -> tuple[Path, Path]:
    return header, header.with_suffix(".dat")


def records(folder: Path, draw: random.Random) -> Any:
    """Headers and signal files damaged side by side, each in a folder of its own."""
    whole = [files.wfdb_record(folder / "whole", f"r{f}", LEADS, f) for f in ("16", "212", "80", "24", "516")]
    for i in range(COUNT):
        place = folder / f"{draw.choice(UNICODE[:5])}{i}"
        place.mkdir()
        header, signals = (place / p.name for p in _pair(whole[i % len(whole)]))
        broken = draw.choice([[header], [signals], [header, signals]])
        for path in (header, signals):
            content = (folder / "whole" / path.name).read_bytes()
            path.write_bytes(damaged(content, draw) if path in broken else content)
        yield draw.choice([header, signals, header.with_suffix("")])
    lines = [
        "r 2 250 99999999999",
        "r 2 250",
        "r 99999 250 10",
        "r/9999 2 250 10",
        "r 2 1e9 10",
        "r 2 0 10",
        "9" * 400,
        "r 2 250 500\nr.dat 16x999999999 200 16 0 0 0 0 a\nr.dat 16 200 16 0 0 0 0 b",
        "r 1 250 500\n../../etc/passwd 16 200 16 0 0 0 0 a",
        "r 1 250 500\nr.dat 16:999999999 200 16 0 0 0 0 a",
        "r 1 250 500\nr.dat 16+999999999999 200 16 0 0 0 0 a",
        "r 1 250 500\nr.dat 7777 200 16 0 0 0 0 a",
        "r 1 250 500\nr.dat 16 0/mV 16 0 0 0 0 a",
        "r 1 250 500\nr.dat 516 200 16 0 0 0 0 a",
        "",
        "#" * 1000,
        "r 1 250 500\n~ 0 200 16 0 0 0 0 a",
        "r 1 250 500\nr.hea 16 200 16 0 0 0 0 a",
    ]
    for i, text in enumerate(lines):
        place = folder / f"line{i}"
        place.mkdir()
        (place / "r.hea").write_text(text)
        (place / "r.dat").write_bytes(bytes(2000))
        yield place / "r.hea"
    os.mkfifo(folder / "pipe.hea")
    yield folder / "pipe.hea"


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    for reader in READERS:
        (folder / reader).mkdir()
        print(json.dumps({"reader": reader, **all_of(reader, folder / reader)}), flush=True)


def all_of(reader: str, folder: Path) -> dict[str, Any]:
    modality, dimensions = READERS[reader][1:]
    cells_ = list(cells(reader, folder, random.Random(0)))
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    found: dict[str, Any] = {"read": 0, "items": 0, "bad": 0, "slowest": 0.0, "leaks": [], "wrong": []}
    for cell in cells_:
        resource.setrlimit(resource.RLIMIT_AS, (size + ROOM, resource.RLIM_INFINITY))
        start = time.perf_counter()
        signal.alarm(LONGEST)
        try:
            item = modality.read(cell)
        except BadSample as bad:
            found["bad"] += 1
            if any(word in str(bad) for word in ("Mustermann", "Erika", "20200229", str(folder))) or not str(
                bad
            ):
                found["leaks"].append(str(bad))
        except Exception as error:
            found["wrong"].append(f"{type(error).__name__}: {error} {str(cell)[:80]}")
        else:
            found["items"] += 1
            if isinstance(item, torch.Tensor) and (item.ndim != dimensions or not item.numel()):
                found["wrong"].append(f"an item of {tuple(item.shape)}")
            modality.collate([item])
        signal.alarm(0)
        found["read"] += 1
        found["slowest"] = max(found["slowest"], time.perf_counter() - start)
    found["megabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
