"""WFDB records and EDF or BDF files as recordings."""

from __future__ import annotations

import io
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from modalign import BadSample

from .ecg_recording import RATES, Recording
from .files import MOST_BYTES, content, file_of

_MOST_HEADER, _MOST_LINE = 1 << 16, 500  # bytes
_MOST_LEADS = 256
_FORMATS = {"8", "16", "24", "32", "61", "80", "160", "212", "310", "311", "508", "516", "524"}
_PER_MV = {"MV": 1.0, "UV": 1000.0, "ΜV": 1000.0, "V": 0.001, "NV": 1e6}


def is_edf(data: bytes) -> bool:
    """Whether it starts as an EDF or BDF file does."""
    return data[:8] in (b"0       ", b"\xffBIOSEMI")


def read_wfdb(path: Path, start: float, seconds: float, units_per_mv: float | None) -> Recording:
    """A stretch of a record: ``path`` is its header, its signal file, or the name both begin with.

    Nothing is read but the header and the signal files beside it.

    Raises:
        BadSample: if a file is missing, damaged, of several segments, or promises too much.
    """
    import wfdb

    name = path.with_suffix("") if path.suffix in (".hea", ".dat", ".mat") else path
    header = content(Path(f"{name}.hea"), _MOST_HEADER).decode("ascii", "ignore")
    lines = [line.strip() for line in header.splitlines() if line.strip() and line.strip()[0] != "#"]
    if not lines or max(map(len, lines)) > _MOST_LINE or len(lines) > _MOST_LEADS + 1:
        raise BadSample("its WFDB header is empty or too long")
    if re.match(r"\S+/\d", lines[0]):
        raise BadSample("a record of several segments; save the part you need as one")
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            about = wfdb.rdheader(str(name))
            rate = _check_header(about, path.parent)
            first = round(start * rate)
            stop = first + max(1, round(seconds * rate))
            if about.sig_len is not None:
                if first >= about.sig_len:
                    raise BadSample(f"is shorter than start, {start:g} seconds")
                stop = min(stop, about.sig_len)
            record = wfdb.rdrecord(str(name), sampfrom=first, sampto=stop, return_res=32)
            signal = np.asarray(record.p_signal, np.float64).T  # (C, L)
    except BadSample:
        raise
    except Exception as error:  # its words hold paths and header values
        raise BadSample(f"not a readable WFDB record ({type(error).__name__})") from None
    scale = [_per_mv(units, units_per_mv) for units in record.units]
    return Recording(signal / np.array(scale)[:, None], float(rate), tuple(map(str, record.sig_name)))


def _check_header(about: Any, folder: Path) -> float:
    """The rate of a record whose header promises nothing absurd."""
    count, rate = getattr(about, "n_sig", 0) or 0, float(getattr(about, "fs", 0) or 0)
    files = getattr(about, "file_name", None)
    if not files or not 1 <= count <= _MOST_LEADS or len(files) != count:
        raise BadSample("its WFDB header names no signals")
    if not RATES[0] <= rate <= RATES[1]:
        raise BadSample(f"a rate of {rate:g} samples per second")
    for name in set(files):
        if name is None or "/" in name or "\\" in name:
            raise BadSample("its WFDB header names a file in another folder")
        file_of(folder / name)
    largest = {"samps_per_frame": 64, "skew": 10_000, "byte_offset": MOST_BYTES}
    for field, most in largest.items():
        if any(value is not None and not 0 <= value <= most for value in getattr(about, field)):
            raise BadSample("its WFDB header promises too much")
    if any(fmt not in _FORMATS for fmt in about.fmt):
        raise BadSample("its WFDB header names an unknown format")
    if not all(np.isfinite(g) and g for g in about.adc_gain):
        raise BadSample("its WFDB header has no usable gain")
    return rate


def read_edf(data: bytes, start: float, seconds: float, units_per_mv: float | None) -> Recording:
    """A stretch of an EDF, EDF+ or BDF file, its leads brought to the rate of the fastest.

    Raises:
        BadSample: if it is damaged or has no signal.
    """
    import edfio

    read = edfio.read_bdf if data[:1] == b"\xff" else edfio.read_edf
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            signals = read(io.BytesIO(data), header_encoding="latin-1").signals
            read_now = (_signal(s, start, seconds) for s in signals)
            found = [f for f in read_now if f is not None]
    except Exception as error:  # its words hold header values
        raise BadSample(f"not a readable EDF file ({type(error).__name__})") from None
    if not found:
        raise BadSample("has no signal there")
    if len(found) > _MOST_LEADS:
        raise BadSample(f"{len(found)} signals; the limit is {_MOST_LEADS}")
    rate = max(f[1] for f in found)
    length = max(1, round(max(len(f[0]) / f[1] for f in found) * rate))
    at = np.arange(length) / rate
    signal = np.stack(
        [
            (values if own == rate and len(values) == length else _resampled(values, own, at))
            / _per_mv(units, units_per_mv)
            for values, own, _, units in found
        ]
    )  # (C, L)
    return Recording(signal, rate, tuple(f[2] for f in found))


def _signal(signal: Any, start: float, seconds: float) -> tuple[np.ndarray, float, str, str] | None:
    rate = float(signal.sampling_frequency)
    if not RATES[0] <= rate <= RATES[1]:
        return None
    first = round(start * rate)
    values = np.asarray(signal.data[first : first + max(1, round(seconds * rate))], np.float64)
    if not len(values):
        return None
    return values, rate, str(signal.label), str(signal.physical_dimension)


def _resampled(values: np.ndarray, rate: float, at: np.ndarray) -> np.ndarray:
    return np.interp(at, np.arange(len(values)) / rate, values, right=np.nan)


def _per_mv(units: object, given: float | None) -> float:
    """How many of a file's units are one millivolt: what it says, else what the plan says, else 1."""
    known = _PER_MV.get(str(units).strip().upper().replace("µ", "U"))
    return known if known is not None else given if given is not None else 1.0
