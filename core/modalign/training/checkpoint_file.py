"""A file of tensors and plain values that says whether it is what was written."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from pathlib import Path
from pickletools import genops
from typing import Any

import torch

from modalign.errors import short

MOST_NAME = 200


def write_file(path: Path, state: dict[str, Any]) -> None:
    """Write a line with size and SHA-256, then the state.

    A process killed at any moment leaves either the whole file or none of that name.
    """
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getbuffer()
    head = json.dumps({"size": len(payload), "sha256": hashlib.sha256(payload).hexdigest()})
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        file.write(head.encode() + b"\n")
        file.write(payload)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def read_file(path: Path) -> dict[str, Any]:
    """The state; nothing but tensors and plain values is ever unpickled.

    Raises:
        ValueError: if the file is not what was written.
    """
    head, _, payload = path.read_bytes().partition(b"\n")
    try:
        expected = json.loads(head)
        size, digest = expected["size"], expected["sha256"]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError("it has no size and checksum") from None
    if len(payload) != size or hashlib.sha256(payload).hexdigest() != digest:
        raise ValueError("size or checksum differs")
    try:
        _check_names(payload)
        state = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except Exception as error:  # a forged one: PyTorch raises whatever comes up
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"it holds no plain state: {short(reason)}") from None
    if not isinstance(state, dict):
        raise ValueError("it holds no state")
    return state


def _check_names(payload: bytes) -> None:
    """Look at the names that a forged file asks for: over long ones PyTorch searches for minutes."""
    with zipfile.ZipFile(io.BytesIO(payload)) as archive:
        for about in archive.infolist():
            if not about.filename.endswith(".pkl"):
                continue
            if about.file_size > len(payload):
                raise ValueError(f"{about.filename} is larger than the file")
            for code, argument, _ in genops(archive.read(about)):
                if code.name in ("GLOBAL", "INST") and len(str(argument)) > MOST_NAME:
                    raise ValueError("it asks for a class by a name that goes on for ever")
