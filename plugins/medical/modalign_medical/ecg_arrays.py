"""Arrays, CSV and NumPy files as recordings."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from modalign import BadSample

from .ecg_recording import Recording

_MOST_VALUES = 20_000_000
_TIMES = {"TIME", "T", "SECONDS", "TIMES", "TIMESTAMP", "SAMPLE", "SAMPLES", "INDEX", "MS", "TIMEMS"}


def is_npy(data: bytes) -> bool:
    return data[:6] == b"\x93NUMPY"


def read_array(value: Any, rate: float, units_per_mv: float, names: Sequence[str] | None = None) -> Recording:
    """Numbers by lead and time, nested lists or an array; one list is one lead. None and NaN are gaps.

    The longer side is time: leads first where both are equal.

    Raises:
        BadSample: if leads differ in length, or something is no number.
    """
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError, RecursionError):
        raise BadSample("expected numbers by lead and time, all leads of one length") from None
    array = np.atleast_2d(array)
    if array.ndim != 2 or not array.size:
        raise BadSample(
            f"expected numbers by lead and time, got {array.ndim} dimensions of {array.size} values"
        )
    if array.size > _MOST_VALUES:
        raise BadSample(f"{array.size} values; the limit is {_MOST_VALUES}")
    array = array.T if array.shape[0] > array.shape[1] else array  # (C, L)
    named = tuple(names) if names is not None and len(names) == len(array) else None
    return Recording(array / units_per_mv, rate, named)


def read_npy(data: bytes, rate: float, units_per_mv: float, names: Sequence[str] | None = None) -> Recording:
    """A ``.npy`` file of numbers; nothing in it is run.

    Raises:
        BadSample: if it is damaged, or its header promises other than it holds.
    """
    file = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, by_columns, kind = read(file)
    except Exception as error:  # what NumPy evaluates may fail in any way
        raise BadSample(f"not a readable .npy file ({type(error).__name__})") from None
    if kind.kind not in "iuf":
        raise BadSample("a .npy file of something else than numbers")
    count = 1
    for n in shape:
        count *= int(n)
    if not 0 < count <= _MOST_VALUES or count * kind.itemsize != len(data) - file.tell():
        raise BadSample("a .npy file of another length than its header says")
    values = np.frombuffer(data, kind, count, file.tell()).reshape(shape, order="F" if by_columns else "C")
    return read_array(values, rate, units_per_mv, names)


def read_csv(data: bytes, rate: float | None, fallback: float, units_per_mv: float, names: Any) -> Recording:
    """A table of numbers, a row per sample and a column per lead; a first row of names is optional.

    A first column of times is left out; if it counts seconds it gives the rate, unless ``rate`` does.

    Raises:
        BadSample: if it is no such table.
    """
    import pyarrow as pa
    import pyarrow.csv

    try:
        first = data[: 1 << 16].decode("utf-8-sig").splitlines()[0]
    except (UnicodeDecodeError, IndexError):
        raise BadSample("neither WFDB, EDF, .npy nor a table of numbers") from None
    delimiter = max(",;\t ", key=first.count)
    fields = [field.strip().strip('"') for field in first.split(delimiter)]
    headless = all(_is_number(field) for field in fields)
    try:
        table = pa.csv.read_csv(
            io.BytesIO(data),
            read_options=pa.csv.ReadOptions(autogenerate_column_names=headless, use_threads=False),
            parse_options=pa.csv.ParseOptions(delimiter=delimiter),
            convert_options=pa.csv.ConvertOptions(null_values=["", "NaN", "nan", "NA", "-", "null"]),
        )
        columns = [np.asarray(column.cast(pa.float64()).to_numpy(), np.float64) for column in table.columns]
    except (pa.ArrowException, ValueError, TypeError, OverflowError):
        raise BadSample("not a table of numbers, a row per sample and a column per lead") from None
    if not columns or not len(columns[0]):
        raise BadSample("a table without a row of numbers")
    labels = None if headless else list(table.column_names)
    if labels and len(columns) > 1:
        bare = "".join(c for c in labels[0].upper() if c.isalnum())
        if bare in _TIMES:
            rate = rate or (_rate_of(columns[0]) if bare in ("TIME", "T", "SECONDS", "TIMES") else None)
            columns, labels = columns[1:], labels[1:]
    signal = np.stack(columns) / units_per_mv  # (C, L)
    if signal.size > _MOST_VALUES:
        raise BadSample(f"{signal.size} values; the limit is {_MOST_VALUES}")
    given = (
        tuple(labels) if labels else tuple(names) if names is not None and len(names) == len(signal) else None
    )
    return Recording(signal, rate or fallback, given)


def _is_number(text: str) -> bool:
    try:
        float(text or "nan")
    except ValueError:
        return False
    return True


def _rate_of(times: np.ndarray) -> float | None:
    """Samples per second of evenly rising seconds; None if they are not."""
    steps = np.diff(times)
    if len(steps) < 1 or not np.isfinite(steps).all() or steps.min() <= 0:
        return None
    step = float(np.median(steps))
    return round(1 / step, 3) if abs(steps - step).max() < 0.1 * step else None
