"""Checkpoints in pieces: each process writes the rows that it holds; any number of processes reads them.

A folder of one safetensors file per process, and a manifest with the rest of the state and every file's
size and SHA-256. PyTorch's own distributed checkpoints keep such a list as a pickle, which a file from
elsewhere could use to run code.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from .agree import everyone
from .checkpoint_file import read_file, write_file
from .whole import is_sharded, share

if TYPE_CHECKING:
    from lightning_fabric import Fabric

MANIFEST = "manifest"
PIECES = "pieces of"
"""Stands in the manifest's state where a tensor in pieces was."""


@dataclass(frozen=True)
class Pieces:
    """A saved tensor of which ``files`` hold the rows in order; read when it is asked for rows.

    Inputs:
        rows: how many each file holds.
    """

    folder: Path
    name: str
    shape: tuple[int, ...]
    dtype: torch.dtype
    files: tuple[str, ...]
    rows: tuple[int, ...]

    def __getitem__(self, wanted: slice) -> Tensor:
        start, stop, _ = wanted.indices(self.shape[0])
        found, first = [torch.empty(0, *self.shape[1:], dtype=self.dtype)], 0
        for file, count in zip(self.files, self.rows, strict=True):
            a, b = max(start, first), min(stop, first + count)
            if a < b:
                with safe_open(self.folder / file, "pt") as opened:
                    found.append(opened.get_slice(self.name)[a - first : b - first])
            first += count
        return torch.cat(found)


def write_pieces(fabric: Fabric, folder: Path, state: Any) -> None:
    """Write a state into a folder that must not exist; every process takes part.

    It has its name only when all of it is there.
    """
    part = folder.with_suffix(".part")
    if fabric.is_global_zero:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
    fabric.barrier()
    mine: dict[str, Tensor] = {}
    tree = _take_pieces(state, mine, fabric.world_size)
    file = part / f"{fabric.global_rank:05d}.safetensors"
    save_file({name: t.contiguous() for name, t in mine.items()}, file)
    with file.open("rb") as written:
        os.fsync(written.fileno())
    files = dict(everyone(fabric, (file.name, _about(file))))
    if fabric.is_global_zero:
        write_file(part / MANIFEST, {"state": tree, "files": files})
        os.replace(part, folder)
    fabric.barrier()


def read_pieces(folder: Path, verify: bool = True) -> dict[str, Any]:
    """The state, with ``Pieces`` for the tensors that were in pieces.

    Raises:
        ValueError: if something is not what was written.
    """
    manifest = read_file(folder / MANIFEST)
    for name, about in manifest["files"].items() if verify else ():
        if _about(folder / name) != about:
            raise ValueError(f"size or checksum of {name} differs")
    state: dict[str, Any] = _with_pieces(manifest["state"], folder, tuple(manifest["files"]))
    return state


def whole_saved(value: Any) -> Tensor:
    """A saved tensor, read if it lies in pieces."""
    return value[:] if isinstance(value, Pieces) else value


def _take_pieces(state: Any, mine: dict[str, Tensor], world: int) -> Any:
    """The state without tensors in pieces, of which this process's rows go into ``mine``."""
    if is_sharded(state):
        name, rows = f"{len(mine):06d}", len(state)
        mine[name] = state.detach().to_local().cpu()
        held = [range(rows)[share(rows, rank, world)] for rank in range(world)]
        return {
            PIECES: name,
            "shape": list(state.shape),
            "dtype": str(state.dtype).removeprefix("torch."),
            "rows": [len(r) for r in held],
        }
    if isinstance(state, dict):
        return {key: _take_pieces(value, mine, world) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(_take_pieces(value, mine, world) for value in state)
    return state


def _with_pieces(state: Any, folder: Path, files: tuple[str, ...]) -> Any:
    if isinstance(state, dict):
        if PIECES in state:
            dtype = getattr(torch, state["dtype"])
            return Pieces(folder, state[PIECES], tuple(state["shape"]), dtype, files, tuple(state["rows"]))
        return {key: _with_pieces(value, folder, files) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(_with_pieces(value, folder, files) for value in state)
    return state


def _about(file: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    with file.open("rb") as opened:
        while block := opened.read(1 << 20):
            digest.update(block)
    return {"size": file.stat().st_size, "sha256": digest.hexdigest()}
