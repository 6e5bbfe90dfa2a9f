"""Embeddings of all devices together, with gradients: every loss sees the global batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def gather_rows(fabric: Fabric, local: Tensor) -> Tensor:
    """Rows ``(n_r, ...)`` of every rank -> ``(N, ...)`` interleaved as they were dealt out.

    Rank ``r`` of ``W`` holds rows ``r, r + W, ...`` of the global batch; the result has the global
    order, so that a loss is the same on any number of devices. Ranks may differ by one row.
    Gradients flow back to each rank's own rows.
    """
    if fabric.world_size == 1:
        return local
    sizes = _all(fabric, torch.tensor([len(local)], device=local.device)).flatten().tolist()
    longest = max(sizes)
    kind = local.dtype
    padded = local.new_zeros(longest, *local.shape[1:])
    padded[: len(local)] = local
    moved = padded.to(torch.uint8) if kind == torch.bool else padded
    every = _all(fabric, moved, sync_grads=moved.requires_grad)  # (W, longest, ...)
    rows = every.transpose(0, 1).reshape(-1, *local.shape[1:])  # row i of rank r at i * W + r
    keep = torch.tensor([i < size for i in range(longest) for size in sizes], device=local.device)
    return rows[keep].to(kind)


def pad_tokens(fabric: Fabric, outputs: dict[str, dict[str, Tensor]]) -> dict[str, dict[str, Tensor]]:
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
