"""Checkpoints: written atomically, verified when read, the last few kept."""

from __future__ import annotations

import os
import re
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .checkpoint_file import read_file, write_file
from .sharded_checkpoint import read_pieces, write_pieces
from .whole import whole_state

if TYPE_CHECKING:
    from lightning_fabric import Fabric

FILE, FOLDER = ".ckpt", ".shards"
NAME = re.compile(r"step-(\d+)(?:-(\d+))?(?:\.ckpt|\.shards)")


def save_checkpoint(folder: Path, step: int, state: dict[str, Any], keep: int) -> Path:
    """Write one checkpoint, a file; every tensor of the state must be whole."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"step-{step:09d}{FILE}"
    write_file(path, state)
    _tidy(folder, path, keep)
    return path


def save_together(
    fabric: Fabric, folder: Path, step: int, state: dict[str, Any], keep: int, *, sharded: bool
) -> None:
    """Write one checkpoint of several processes, which all wait until it is written.

    Inputs:
        sharded: each process writes the rows it holds, into a folder; else the first one all, into a file.
    """
    if not sharded:
        gathered = whole_state(state, keep=fabric.is_global_zero)
        if fabric.is_global_zero:
            save_checkpoint(folder, step, gathered, keep)
        fabric.barrier()
        return
    # A folder cannot take another's place, so that of the same step gets the next number.
    numbers = [number for path in checkpoints(folder) for at, number in [_order(path)] if at == step]
    path = fabric.broadcast(folder / f"step-{step:09d}-{max(numbers, default=0) + 1}{FOLDER}")
    write_pieces(fabric, path, state)
    if fabric.is_global_zero:
        _tidy(folder, path, keep)


def checkpoints(folder: Path) -> list[Path]:
    """All checkpoints, newest first."""
    return sorted((p for p in folder.glob("step-*") if NAME.fullmatch(p.name)), key=_order, reverse=True)


def read_checkpoint(path: Path, verify: bool = True) -> dict[str, Any]:
    """One checkpoint's state; what lies in pieces is read when it is asked for.

    Inputs:
        verify: compare the checksums of pieces, too.

    Raises:
        ValueError: if it is not what was written.
    """
    return read_pieces(path, verify) if path.suffix == FOLDER else read_file(path)


def latest_checkpoint(folder: Path, fabric: Fabric | None = None) -> dict[str, Any] | None:
    """The newest intact state; a damaged one is named in a warning and the one before it taken.

    Inputs:
        fabric: of several processes, the first looks for all.
    """
    if fabric is None or fabric.world_size == 1:
        return _newest(folder)[1]
    path, state = _newest(folder) if fabric.is_global_zero else (None, None)
    path = fabric.broadcast(path)
    return read_checkpoint(path, verify=False) if path and state is None else state


def _newest(folder: Path) -> tuple[Path | None, dict[str, Any] | None]:
    for path in checkpoints(folder):
        try:
            return path, read_checkpoint(path)
        except (OSError, ValueError, KeyError, TypeError) as error:
            warnings.warn(f"{path.name} is damaged ({error}); using the checkpoint before it")
            damaged = path.with_suffix(".damaged")  # or it would count among those to keep
            shutil.rmtree(damaged, ignore_errors=True)
            os.replace(path, damaged)
    return None, None


def _order(path: Path) -> tuple[int, int]:
    found = NAME.fullmatch(path.name)
    return (int(found[1]), int(found[2] or 0)) if found else (-1, 0)


def _tidy(folder: Path, newest: Path, keep: int) -> None:
    """Remove all but the last few, and others of the newest one's step, which it replaces."""
    every = [newest, *(p for p in checkpoints(folder) if p != newest)]
    kept = [p for p in every if p == newest or _order(p)[0] != _order(newest)[0]][:keep]
    left = [p for p in folder.glob("step-*.part") if p.name != newest.name]
    for old in [*(p for p in every if p not in kept), *left]:
        shutil.rmtree(old) if old.is_dir() else old.unlink(missing_ok=True)
