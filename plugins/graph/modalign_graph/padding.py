"""Between padded batches and the flat graphs that message passing wants."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor


def padded(rows: Sequence[np.ndarray | None], columns: int) -> tuple[Tensor, Tensor]:
    """Arrays ``(L_i, columns)`` of one type -> ``(N, L, columns)``, zero-padded, and mask ``(N, L)``.

    ``L`` is at least 1, so that graphs without edges make a batch too.
    """
    arrays = [np.zeros((0, columns)) if row is None else row for row in rows]
    lengths = torch.tensor([len(a) for a in arrays])  # (N,)
    longest = max(int(lengths.max()), 1)
    table = np.zeros((len(arrays), longest, columns), dtype=arrays[0].dtype)
    for row, a in zip(table, arrays, strict=True):
        row[: len(a)] = a
    return torch.from_numpy(table), torch.arange(longest) < lengths.unsqueeze(1)


def flat_edges(ends: Tensor, edge_mask: Tensor, node_mask: Tensor) -> Tensor:
    """Real edges ``(2, E)`` between the real nodes of a batch, numbered as ``x[node_mask]`` lists them.

    Inputs:
        ends: ``(N, B, 2)`` node numbers within each graph.
        edge_mask: ``(N, B)``. An edge to a node that is not real must not be marked.
        node_mask: ``(N, A)``.
    """
    number = node_mask.flatten().cumsum(0).view_as(node_mask) - 1  # (N, A)
    row = torch.arange(len(ends), device=ends.device).view(-1, 1, 1).expand_as(ends)  # (N, B, 2)
    return number[row[edge_mask], ends[edge_mask]].T  # (2, E)


def unflat(flat: Tensor, mask: Tensor) -> Tensor:
    """Rows ``(R, W)`` of real nodes -> ``(N, A, W)``, zero elsewhere."""
    return flat.new_zeros(*mask.shape, flat.shape[1]).masked_scatter(mask.unsqueeze(-1), flat)  # (N, A, W)
