"""Random variants of molecules: GraphCL's four changes, and fewer counts."""

from __future__ import annotations

import torch
from modalign.contracts import Batch
from torch import Generator, Tensor

from .atoms import MASKED


def graph_variant(batch: Batch, share: float, generator: Generator) -> Batch:
    """Each molecule after one change drawn for it (GraphCL; You et al., 2020, arXiv 2010.13902).

    Atoms dropped; bonds dropped or one end of them moved; atoms' attributes masked; or the part around
    one atom kept. About ``share`` of the molecule changes, and one atom at least stays.

    Inputs:
        batch: ``atoms (N, A, 9)``, ``mask (N, A)``, ``ends (N, B, 2)``, ``bonds``, ``bond_mask (N, B)``.
    """
    mask, ends, bond_mask = batch["mask"], batch["ends"], batch["bond_mask"]
    n, a = mask.shape
    kind = _uniform((n, 1), mask, generator) * 4  # (N, 1)
    drop, move, hide, part = ((kind >= i) & (kind < i + 1) for i in range(4))  # (N, 1) each

    noise = _uniform((n, a), mask, generator).masked_fill(~mask, 2.0)  # (N, A)
    chosen = (noise < share) & mask  # (N, A)
    around = _distance(mask, ends, bond_mask, noise) + noise  # (N, A): near atoms first
    rank = around.masked_fill(~mask, float("inf")).argsort(1).argsort(1)  # (N, A)
    near = rank < (mask.sum(1, keepdim=True) * (1 - share)).ceil()  # (N, A)
    kept = mask & ~(drop & chosen) & (near | ~part)  # (N, A)
    kept = kept | ((noise == noise.amin(1, keepdim=True)) & mask & ~kept.any(1, keepdim=True))  # (N, A)

    luck = _uniform(bond_mask.shape, mask, generator)  # (N, B)
    touched = move & (luck < share)  # (N, B)
    moved = touched & (luck < share / 2)
    goal = (_uniform(bond_mask.shape, mask, generator) * mask.sum(1, keepdim=True)).long()  # (N, B)
    ends = torch.stack([ends[..., 0], torch.where(moved, goal, ends[..., 1])], -1)  # (N, B, 2)
    alive = kept.gather(1, ends.flatten(1)).view_as(ends).all(-1)  # (N, B)
    bond_mask = bond_mask & alive & (moved | ~touched)  # (N, B)

    hidden = torch.zeros_like(batch["atoms"][0, 0])  # (9,)
    hidden[0] = MASKED
    atoms = torch.where((hide & chosen).unsqueeze(-1), hidden, batch["atoms"])  # (N, A, 9)
    return {**batch, "atoms": atoms, "mask": kept, "ends": ends, "bond_mask": bond_mask}


def fewer_counts(batch: Batch, share: float, generator: Generator) -> Batch:
    """``counts (N, F)`` with a ``share`` of them at zero."""
    counts = batch["counts"]
    return {**batch, "counts": counts * (_uniform(counts.shape, counts, generator) >= share)}


def _uniform(shape: tuple[int, ...], like: Tensor, generator: Generator) -> Tensor:
    return torch.rand(shape, generator=generator, device=generator.device).to(like.device)


def _distance(mask: Tensor, ends: Tensor, bond_mask: Tensor, noise: Tensor, hops: int = 32) -> Tensor:
    """``(N, A)``: bonds from each molecule's atom of lowest noise; ``hops`` where it is further, or apart."""
    reached = (noise == noise.amin(1, keepdim=True)) & mask  # (N, A)
    far = torch.full(mask.shape, float(hops), device=mask.device).masked_fill(reached, 0.0)  # (N, A)
    for hop in range(1, hops):
        at = reached.gather(1, ends.flatten(1)).view_as(ends) & bond_mask.unsqueeze(-1)  # (N, B, 2)
        count = torch.zeros_like(far).scatter_add(
            1, ends.flatten(1), at.flip(-1).flatten(1).float()
        )  # (N, A)
        fresh = (count > 0) & ~reached
        if not fresh.any():
            break
        far = far.masked_fill(fresh, float(hop))
        reached = reached | fresh
    return far
