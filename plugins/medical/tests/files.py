"""Real files of every kind the readers know, written by the field's own libraries."""

from __future__ import annotations

import gzip
import io
from pathlib import Path
from typing import Any

import edfio
import nibabel
import numpy as np
import pydicom
import wfdb
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

SECRET = "Mustermann^Erika"  # in every header that has a place for it
GREY = (np.add.outer(np.arange(24) * 40, np.arange(32) * 60) % 2000).astype(np.int16)  # (24, 32)
RATE = 250
BEAT = 0.8 * np.sin(2 * np.pi * 5 * np.arange(2 * RATE) / RATE) ** 9  # (500,), millivolts


def dicom(pixels: np.ndarray = GREY, syntax: str = ExplicitVRLittleEndian, **header: Any) -> bytes:
    """A DICOM file; three dimensions are frames, unless SamplesPerPixel says colours."""
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = CTImageStorage
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = generate_uid(entropy_srcs=["a"])
    data.PatientName, data.PatientID, data.StudyDate = SECRET, SECRET, "20200229"
    data.InstitutionName = data.ImageComments = SECRET
    samples = header.get("SamplesPerPixel", 1)
    data.Rows, data.Columns = pixels.shape[-3:-1] if samples == 3 else pixels.shape[-2:]
    data.SamplesPerPixel, data.PhotometricInterpretation = samples, "MONOCHROME2"
    if samples == 3:
        data.PhotometricInterpretation, data.PlanarConfiguration = "RGB", 0
    elif pixels.ndim == 3:
        data.NumberOfFrames = len(pixels)
    data.BitsAllocated = data.BitsStored = 8 * pixels.itemsize
    data.HighBit = data.BitsStored - 1
    data.PixelRepresentation = int(pixels.dtype.kind == "i")
    data.PixelData = pixels.tobytes()
    for keyword, value in header.items():
        setattr(data, keyword, value)
    if syntax != ExplicitVRLittleEndian:
        data.compress(syntax, generate_instance_uid=False)
    file = io.BytesIO()
    data.save_as(file, enforce_file_format=True)
    return file.getvalue()


def with_syntax(content: bytes, syntax: str, body: Any) -> bytes:
    """A DICOM file of another transfer syntax, whose data set ``body`` writes from the old one."""
    old = pydicom.dcmread(io.BytesIO(content))
    meta = FileMetaDataset()
    for key in ("MediaStorageSOPClassUID", "MediaStorageSOPInstanceUID"):
        setattr(meta, key, getattr(old.file_meta, key))
    meta.TransferSyntaxUID = syntax
    meta.FileMetaInformationVersion = b"\0\1"
    file = io.BytesIO(b"\0" * 128 + b"DICM")
    file.seek(0, 2)
    pydicom.filewriter.write_file_meta_info(file, meta, enforce_standard=False)
    return file.getvalue() + body(content)


def nifti(volume: np.ndarray, affine: np.ndarray | None = None, packed: bool = False, **header: Any) -> bytes:
    image = nibabel.Nifti1Image(volume, np.eye(4) if affine is None else affine)
    image.header["descrip"] = SECRET.encode()
    for key, value in header.items():
        image.header[key] = value
    content = image.to_bytes()
    return gzip.compress(content) if packed else content


def picture(pixels: np.ndarray, form: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **options)
    return file.getvalue()


def edf(leads: dict[str, np.ndarray], rate: float = RATE, unit: str = "mV", bdf: bool = False) -> bytes:
    kind, whole = (edfio.BdfSignal, edfio.Bdf) if bdf else (edfio.EdfSignal, edfio.Edf)
    signals = [kind(v, rate, label=k, physical_dimension=unit) for k, v in leads.items()]
    file = io.BytesIO()
    whole(signals, patient=edfio.Patient(name="Mustermann_Erika")).write(file)
    return file.getvalue()


def wfdb_record(
    folder: Path, name: str, leads: dict[str, np.ndarray], fmt: str = "16", **options: Any
) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    signal = np.stack(list(leads.values()), 1)
    wfdb.wrsamp(
        name,
        fs=options.pop("fs", RATE),
        units=[options.pop("units", "mV")] * len(leads),
        sig_name=list(leads),
        p_signal=signal,
        fmt=[fmt] * len(leads),
        comments=[SECRET],
        write_dir=str(folder),
        **options,
    )
    return folder / f"{name}.hea"


def npy(values: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def csv(leads: dict[str, np.ndarray], header: bool = True) -> bytes:
    rows = [",".join(leads)] if header else []
    rows += [
        ",".join("" if np.isnan(v) else f"{v:.4f}" for v in row) for row in zip(*leads.values(), strict=True)
    ]
    return "\n".join(rows).encode()
