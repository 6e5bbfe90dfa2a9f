"""Lines of text as padded patches of characters, and random variants of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from modalign.contracts import Batch
from torch import Generator, Tensor

PATCH = 64
"""Characters in a patch, as in CLaMP."""

MASKED = 1
"""The character that stands for one that is hidden."""


def split(lines: Sequence[str], limit: int) -> Iterator[str]:
    """Lines of any length as at most ``limit`` patches; a long line goes on in the next patch."""
    count = 0
    for line in lines:
        for start in range(0, max(len(line), 1), PATCH):
            if count == limit:
                return
            count += 1
            yield line[start : start + PATCH]


def collate(items: Sequence[Sequence[str]], limit: int) -> Batch:
    """``N`` lists of lines -> ``patches (N, T, 64)`` uint8, 0 after a patch's end, and ``mask (N, T)``.

    Inputs:
        limit: most patches of an item.
    """
    rows = [[p.encode("ascii", "replace").ljust(PATCH, b"\0") for p in split(item, limit)] for item in items]
    lengths = torch.tensor([len(row) for row in rows])  # (N,)
    longest = int(lengths.max())
    content = b"".join(b"".join(row).ljust(longest * PATCH, b"\0") for row in rows)
    patches = torch.frombuffer(bytearray(content), dtype=torch.uint8).view(len(rows), longest, PATCH)
    return {"patches": patches, "mask": torch.arange(longest) < lengths[:, None]}


def vary(batch: Batch, generator: Generator, crop: float, hide: float) -> Batch:
    """A random stretch of each item, some of its patches hidden.

    Inputs:
        crop: share of the patches that may be cut off, both ends together.
        hide: share of the remaining patches whose characters are all hidden.
    """
    patches, mask = batch["patches"], batch["mask"]
    n, t = mask.shape
    u = torch.rand(2, n, generator=generator, device=generator.device).to(patches.device)  # (2, N)
    lengths = mask.sum(1)  # (N,)
    cut = (u[0] * crop * lengths).long()  # (N,)
    start = (u[1] * (cut + 1)).long()  # (N,)
    at = start[:, None] + torch.arange(t, device=patches.device)  # (N, T)
    mask = at < (lengths - cut + start)[:, None]  # (N, T)
    at = at.clamp(max=t - 1)
    patches = patches.gather(1, at[..., None].expand_as(patches)) * mask[..., None]  # (N, T, 64)
    chosen = torch.rand(n, t, generator=generator, device=generator.device).to(patches.device) < hide
    return {**batch, "patches": hidden(patches, chosen), "mask": mask}


def hidden(patches: Tensor, chosen: Tensor) -> Tensor:
    """``patches (N, T, 64)`` with every character of the ``chosen (N, T)`` replaced by ``MASKED``."""
    return torch.where(chosen[..., None] & (patches > 0), MASKED, patches)
