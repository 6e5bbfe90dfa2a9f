"""How many files a second each medical reader reads, beside the bare library call.

    python benchmarks/read_medical.py

Files are written in memory (WFDB: in a temporary folder). The ratio is what windows, orientation,
resizing, resampling, gaps and checks cost beyond decoding.
"""

from __future__ import annotations

import io
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "plugins" / "medical" / "tests"))

import edfio
import files
import nibabel
import numpy as np
import pydicom
import torch
import wfdb
from modalign_medical.ecg import Ecg
from modalign_medical.labs import Labs
from modalign_medical.report import ClinicalReport
from modalign_medical.scan import Scan
from PIL import Image

torch.set_num_threads(1)
rng = np.random.default_rng(0)


def rate(call: Callable[[], Any], seconds: float = 1.5) -> float:
    """Calls per second, the best of three stretches."""
    call()
    best = 0.0
    for _ in range(3):
        count, start = 0, time.perf_counter()
        while (spent := time.perf_counter() - start) < seconds / 3:
            call()
            count += 1
        best = max(best, count / spent)
    return best


def cases(folder: Path) -> list[tuple[str, Callable[[], Any], Callable[[], Any]]]:
    slice_ = rng.integers(-1000, 1000, (512, 512)).astype(np.int16)
    volume = rng.integers(0, 1000, (128, 128, 64)).astype(np.int16)
    dicom = files.dicom(slice_, RescaleSlope=1, RescaleIntercept=0, WindowCenter=40, WindowWidth=400)
    plain, packed = files.nifti(volume), files.nifti(volume, packed=True)
    png = files.picture((slice_ % 255).astype(np.uint8))
    leads = {name: np.cumsum(rng.standard_normal(5000)) / 50 for name in ("I", "II", "V1", "V2", "V3", "V4")}
    array = np.stack(list(leads.values()))
    record = files.wfdb_record(folder, "r", leads)
    edf, csv, npy = files.edf(leads), files.csv(leads), files.npy(array)
    scan, ecg = Scan(224), Ecg(250, leads=6, source_rate=250, seconds=20)
    labs = Labs({str(i): list(range(101)) for i in range(50)})
    values = {str(i): float(i) for i in range(50)}
    report, text = ClinicalReport(sections=["findings"]), "HISTORY: cough.\nFINDINGS: " + "Clear lungs. " * 40
    return [
        ("DICOM 512x512", lambda: scan.read(dicom), lambda: pydicom.dcmread(io.BytesIO(dicom)).pixel_array),
        ("PNG 512x512", lambda: scan.read(png), lambda: Image.open(io.BytesIO(png)).load()),
        ("NIfTI 128x128x64", lambda: scan.read(plain), lambda: nibabel.Nifti1Image.from_bytes(plain).get_fdata()),
        ("NIfTI, gzip", lambda: scan.read(packed), lambda: _packed(packed)),
        ("WFDB 6 x 20 s", lambda: ecg.read(record), lambda: wfdb.rdrecord(str(record.with_suffix("")))),
        ("EDF 6 x 20 s", lambda: ecg.read(edf), lambda: [s.data for s in edfio.read_edf(edf).signals]),
        ("CSV 6 x 20 s", lambda: ecg.read(csv), lambda: np.genfromtxt(io.BytesIO(csv), delimiter=",", names=True)),
        ("npy 6 x 20 s", lambda: ecg.read(npy), lambda: np.load(io.BytesIO(npy))),
        ("labs, 50 analytes", lambda: labs.read(values), lambda: torch.tensor(list(values.values()))),
        ("report, 0.5 kB", lambda: report.read(text), lambda: text.split("FINDINGS:")[1]),
    ]  # fmt: skip


def _packed(data: bytes) -> Any:
    import gzip

    return nibabel.Nifti1Image.from_bytes(gzip.decompress(data)).get_fdata()


def main() -> None:
    print(f"{'file':20}{'read / s':>12}{'library / s':>14}{'ratio':>8}")
    with tempfile.TemporaryDirectory() as folder:
        for name, ours, theirs in cases(Path(folder)):
            a, b = rate(ours), rate(theirs)
            print(f"{name:20}{a:12.0f}{b:14.0f}{a / b:8.2f}")


if __name__ == "__main__":
    main()
