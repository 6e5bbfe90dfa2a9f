"""Embeddings of all devices together, with gradients: every loss sees the global batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .content import Loaded, Outputs

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def per_process(total: int, world: int) -> int:
    """The rows of the process that holds most of a batch of ``total``."""
    return -(-total // world)


def gather_batch(
    fabric: Fabric, outputs: Outputs, local: Mapping[str, Loaded], total: int, tokens: bool
) -> tuple[Outputs, dict[str, Loaded]]:
    """What every process made of its rows, and which they are: the whole batch.

    Inputs:
        total: its rows.
        tokens: whether they are wanted, beside vectors.
    """
    kept = {
        m: {k: v for k, v in out.items() if tokens or k not in ("tokens", "masks")}
        for m, out in outputs.items()
    }
    if tokens:
        kept = pad_tokens(fabric, kept)
    gathered = {m: {k: gather_rows(fabric, v, total) for k, v in out.items()} for m, out in kept.items()}
    return gathered, {
        m: Loaded(None, gather_rows(fabric, x.present, total), gather_rows(fabric, x.ids, total))
        for m, x in local.items()
    }


def gather_rows(fabric: Fabric, local: Tensor, total: int) -> Tensor:
    """Rows ``(n_r, ...)`` of every rank -> ``(N, ...)`` interleaved as they were dealt out.

    Rank ``r`` of ``W`` holds rows ``r, r + W, ...`` of the global batch; the result has the global
    order, so that a loss is the same on any number of devices. Ranks may differ by one row.
    Gradients flow back to each rank's own rows.

    Inputs:
        total: ``N``.
    """
    if fabric.world_size == 1:
        return local
    kind = local.dtype
    padded = local.new_zeros(per_process(total, fabric.world_size), *local.shape[1:])
    padded[: len(local)] = local
    moved = padded.to(torch.uint8) if kind == torch.bool else padded
    every = _all(fabric, moved, sync_grads=moved.requires_grad)  # (W, n_0, ...)
    rows = every.transpose(0, 1).reshape(-1, *local.shape[1:])  # row i of rank r at i * W + r
    return rows[:total].to(kind)


def pad_tokens(fabric: Fabric, outputs: Outputs) -> Outputs:
    """Give the tokens of every rank the same length, so that they can be gathered."""
    for out in outputs.values():
        length = torch.tensor([out["tokens"].shape[1]], device=out["tokens"].device)
        more = int(_all(fabric, length).max()) - out["tokens"].shape[1]
        out["tokens"] = nn.functional.pad(out["tokens"], (0, 0, 0, more))
        out["masks"] = nn.functional.pad(out["masks"], (0, more))
    return outputs


def _all(fabric: Fabric, local: Tensor, sync_grads: bool = False) -> Tensor:
    """``(n, ...)`` of every rank -> ``(W, n, ...)``."""
    every = fabric.all_gather(local, sync_grads=sync_grads)
    assert isinstance(every, Tensor)
    return every
