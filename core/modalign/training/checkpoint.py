"""Checkpoints: written atomically, verified when read, the last few kept."""

from __future__ import annotations

import hashlib
import io
import json
import os
import warnings
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

SUFFIX = ".ckpt"


def save_checkpoint(folder: Path, step: int, state: dict[str, Any], keep: int) -> Path:
    """Write one checkpoint: a line with size and SHA-256, then tensors and plain values.

    A process killed at any moment leaves either the whole file or none of that name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getbuffer()
    head = json.dumps({"size": len(payload), "sha256": hashlib.sha256(payload).hexdigest()})
    path = folder / f"step-{step:09d}{SUFFIX}"
    part = path.with_suffix(".part")
    with part.open("wb") as file:
        file.write(head.encode() + b"\n")
        file.write(payload)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)
    for old in checkpoints(folder)[keep:]:
        old.unlink(missing_ok=True)
    return path


def checkpoints(folder: Path) -> list[Path]:
    """All checkpoints, newest first."""
    return sorted(folder.glob(f"step-*{SUFFIX}"), reverse=True)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """One checkpoint's state; nothing but tensors and plain values is ever unpickled.

    Raises:
        ValueError: if the file is not what was written.
    """
    head, _, payload = path.read_bytes().partition(b"\n")
    expected = json.loads(head)
    if len(payload) != expected["size"] or hashlib.sha256(payload).hexdigest() != expected["sha256"]:
        raise ValueError("size or checksum differs")
    state: dict[str, Any] = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    return state


def latest_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The newest intact state; a damaged one is named in a warning and the one before it taken."""
    for path in checkpoints(folder):
        try:
            return read_checkpoint(path)
        except (OSError, ValueError, KeyError, TypeError, RuntimeError, UnpicklingError) as error:
            warnings.warn(f"{path.name} is damaged ({error}); using the checkpoint before it")
            os.replace(path, path.with_suffix(".damaged"))  # or it would count among those to keep
    return None
