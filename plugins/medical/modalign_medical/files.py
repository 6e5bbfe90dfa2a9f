"""The content of a file cell, within a limit, and errors that name nobody."""

from __future__ import annotations

import stat
import zlib
from pathlib import Path
from typing import Any

from modalign import BadSample

MOST_BYTES = 512 * 2**20
"""Files larger than this are refused unread."""


def file_of(value: Any, most: int = MOST_BYTES) -> bytes | Path:
    """A file cell as ``bytes``, or as the ``Path`` of a regular file; neither empty nor above ``most`` bytes.

    File names of hospitals hold names and numbers of patients: no message repeats one.

    Raises:
        BadSample: if it is none of these.
    """
    if isinstance(value, dict):  # how Hugging Face datasets store a file
        value = value.get("bytes") or value.get("path")
    if isinstance(value, str):
        value = Path(value)
    if isinstance(value, Path):
        try:
            about = value.stat()
        except (OSError, ValueError) as error:
            raise BadSample(
                f"cannot read the file: {getattr(error, 'strerror', None) or 'bad name'}"
            ) from None
        if not stat.S_ISREG(about.st_mode):
            raise BadSample("cannot read the file: it is no regular file")
        size = about.st_size
    elif isinstance(value, bytes | bytearray | memoryview):
        value = bytes(value)
        size = len(value)
    else:
        raise BadSample(f"expected a path or bytes, got {type(value).__name__}")
    if not size:
        raise BadSample("empty file")
    if size > most:
        raise BadSample(f"{size} bytes; the limit is {most}")
    return value


def content(value: Any, most: int = MOST_BYTES) -> bytes:
    """The bytes of a file cell, at most ``most`` of them.

    Raises:
        BadSample: if there is no such file, it cannot be read, is empty or too large.
    """
    value = file_of(value, most)
    if isinstance(value, bytes):
        return value
    try:
        with value.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise BadSample(f"cannot read the file: {error.strerror or type(error).__name__}") from None
    if not data or len(data) > most:
        raise BadSample("the file changed while it was read")
    return data


def unpacks_to_more(data: bytes, most: int) -> bool:
    """Whether a raw deflate stream holds more than ``most`` bytes; keeps none of them.

    Raises:
        BadSample: if it is damaged.
    """
    stream, count = zlib.decompressobj(-15), 0
    while data and count <= most and not stream.eof:
        try:
            count += len(stream.decompress(data, 1 << 20))
        except zlib.error:
            raise BadSample("its compressed content is damaged") from None
        data = stream.unconsumed_tail
    return count > most


def unpacked(data: bytes, most: int) -> bytes:
    """The content of a gzip file, never more than its first ``most`` bytes.

    Raises:
        BadSample: if it is damaged or cut short.
    """
    parts, left = [], most
    while data and left > 0:  # gzip files may be several streams, one after another
        stream = zlib.decompressobj(31)
        try:
            part = stream.decompress(data, left)
        except zlib.error:
            raise BadSample("its compressed content is damaged") from None
        parts.append(part)
        left -= len(part)
        if left > 0 and not stream.eof:
            raise BadSample("its compressed content is cut short")
        data = stream.unused_data
        if not data.startswith(b"\x1f\x8b"):  # padding after the last stream
            break
    return b"".join(parts)
