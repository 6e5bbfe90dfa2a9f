"""Run in a process of its own: damages files in 500 ways, reads each, and prints what came of it.

python break_files.py FOLDER
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
import absurd_files
import files
from modalign import BadSample
from modalign_medical.ecg import Ecg
from modalign_medical.labs import Labs
from modalign_medical.report import ClinicalReport
from modalign_medical.scan import Scan

COUNT, LONGEST, ROOM = 500, 10, 1 << 30  # files, seconds of one, bytes of memory beyond what imports take
LEADS = absurd_files.LEADS
UNICODE = ["ünïcødé", "心电图", "сердце", "a b'c\"", "\N{GRINNING FACE}", "x" * 200]


READERS: dict[str, tuple[Any, Any, int]] = {  # name: files, what reads them, dimensions of an item
    "dicom": (absurd_files.dicoms, Scan(16), 3),
    "nifti": (absurd_files.niftis, Scan(16), 3),
    "picture": (absurd_files.pictures, Scan(16), 3),
    "edf": (absurd_files.edfs, Ecg(leads=2, rate=100), 2),
    "table": (absurd_files.tables, Ecg(leads=2, rate=100), 2),
    "wfdb": (None, Ecg(leads=2, rate=100), 2),
    "labs": (
        absurd_files.labs,
        Labs({"sodium": [120, 140, 160], "potassium": [2, 4, 7], "lactate": [0, 1, 15]}),
        1,
    ),
    "report": (absurd_files.reports, ClinicalReport(sections=["findings", "impression"]), 0),
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
    found["megabytes"] = peak_mb()
    return found


def peak_mb() -> int:
    """This process's own peak; what getrusage says may be its parent's, from before it was replaced."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024


if __name__ == "__main__":
    main(Path(sys.argv[1]))
