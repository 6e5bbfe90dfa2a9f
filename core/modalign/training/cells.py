"""What a table's cell holds: the alternatives of one modality in one row, not yet read."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from modalign.contracts.modality import BadSample, file_bytes
from modalign.errors import UserError


@dataclass(frozen=True)
class Cell:
    """One alternative of one modality in one row, not yet read."""

    value: Any
    """bytes, a ``Path`` or a literal: what ``Modality.read`` takes."""

    @cached_property
    def key(self) -> bytes:
        """16 bytes that are equal where the content is equal."""
        value = self.value
        if isinstance(value, Path):
            try:
                value = file_bytes(value)
            except BadSample:  # reading it gives the reason
                value = str(value).encode(errors="surrogatepass")
        elif isinstance(value, str):
            value = b"s" + value.encode(errors="surrogatepass")
        elif not isinstance(value, bytes):
            value = _array_bytes(value) or b"j" + json.dumps(value, sort_keys=True, default=str).encode()
        return hashlib.blake2b(value, digest_size=16).digest()

    @property
    def size(self) -> int:
        """A rough size in bytes, to read like beside like."""
        value = self.value
        if isinstance(value, Path):
            try:
                return value.stat().st_size if value.is_file() else 0
            except (OSError, ValueError):  # a name that no file can have
                return 0
        return len(value) if isinstance(value, str | bytes | list) else 8


def values_of(value: Any, literal: bool, root: Path) -> list[Any]:
    """The alternatives that a table's value stands for; none where it is empty.

    Inputs:
        literal: whether strings are the item itself rather than a path.
        root: the folder that paths are relative to.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return []
    if isinstance(value, list) and not _numeric(value):
        return [one for v in value for one in values_of(v, literal, root)]
    if isinstance(value, dict) and value.keys() <= {"bytes", "path"}:
        if value.get("bytes") is not None:
            return [value["bytes"]]
        value, literal = value.get("path"), False
    if isinstance(value, str) and not literal:
        return [root / value] if value else []
    return [] if value is None else [value]


def filled(values: pa.ChunkedArray | pa.Array, literal: bool) -> np.ndarray:
    """By value: whether it holds anything at all ``(n,)`` bool, without reading it."""
    if _is_array(values.type) and not pc.list_flatten(values).null_count:
        return np.asarray(pc.fill_null(pc.greater(pc.list_value_length(values), 0), False), dtype=bool)
    if pa.types.is_nested(values.type):
        return np.array([bool(values_of(v.as_py(), literal, Path())) for v in values], dtype=bool)
    has = pc.is_valid(values)
    if pa.types.is_floating(values.type):
        has = pc.and_(has, pc.invert(pc.is_nan(values)))
    elif is_text(values.type) and not literal:
        has = pc.and_(has, pc.not_equal(values.cast(pa.large_string()), ""))
    return np.asarray(pc.fill_null(has, False).to_numpy(zero_copy_only=False), dtype=bool)


def is_text(kind: pa.DataType) -> bool:
    """Whether a column's values are strings, in any of Arrow's forms."""
    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def label_of(value: Any, column: str | None, what: str = "label") -> str | None:
    """A label as text: 1, 1.0 and "1" are one class. None where there is none.

    Inputs:
        what: the column holds, for messages.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, list | dict):
        raise UserError(f"the {what} column '{column}' holds {type(value).__name__}s; a row has one {what}")
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _numeric(value: Any) -> bool:
    """Whether a list is an array (of any depth, with holes) rather than a list of alternatives."""
    for one in value:
        if isinstance(one, list):
            return _numeric(one)
        if one is not None:
            return isinstance(one, int | float)
    return False


def _is_array(kind: pa.DataType) -> bool:
    """Whether a column's values are flat lists of numbers."""
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return lists and (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type))


def _array_bytes(value: Any) -> bytes | None:
    """What a list of numbers holds, without writing them out one by one; None if it is anything else."""
    if not isinstance(value, list):
        return None
    try:
        array = np.asarray(value)
    except (ValueError, OverflowError):  # of lists of several lengths
        return None
    if array.dtype.kind not in "if":
        return None
    return f"n{array.dtype.str}{array.shape}".encode() + array.tobytes()
