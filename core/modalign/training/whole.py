"""Tensors that lie in pieces on several processes, and how they become whole."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def is_sharded(tensor: Any) -> bool:
    """Whether a tensor lies in pieces, cut along its first dimension (a DTensor of FSDP's)."""
    return hasattr(tensor, "to_local")


def whole(tensor: Any) -> Tensor:
    """The whole of a tensor; if it is in pieces, every process must ask."""
    full: Tensor = tensor.full_tensor() if is_sharded(tensor) else tensor
    return full.detach()


def whole_state(state: Any, keep: bool) -> Any:
    """A tree of plain values and tensors with every tensor whole and on the CPU.

    Inputs:
        keep: whether this process wants it; the others only lend their pieces.
    """
    if isinstance(state, Tensor):
        full = whole(state) if keep or is_sharded(state) else None
        return full.cpu() if full is not None and keep else None
    if isinstance(state, dict):
        return {key: whole_state(value, keep) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(whole_state(value, keep) for value in state)
    return state


def share(rows: int, rank: int, world: int) -> slice:
    """The rows of a tensor that FSDP gives to a process."""
    each = -(-rows // world)
    return slice(min(rank * each, rows), min((rank + 1) * each, rows))


@torch.no_grad()
def fill(target: Any, saved: Any) -> None:
    """Copy a saved tensor into one of a run: the whole, or the rows that this process holds.

    Inputs:
        saved: a tensor, or anything that gives rows by a slice as one does.
    """
    if is_sharded(target):
        local, mesh = target.to_local(), target.device_mesh
        local.copy_(saved[share(len(target), mesh.get_local_rank(), mesh.size())])
    else:
        target.copy_(saved[:] if target.ndim else saved)
