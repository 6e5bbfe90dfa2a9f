"""gin: message passing over atoms and bonds, trained from scratch on a CPU."""

from __future__ import annotations

from typing import ClassVar

import torch
from modalign import Encoder, Features
from modalign.contracts import Batch
from torch import Tensor, nn
from torch_geometric.nn import GINEConv

from .atoms import ATOM_SIZES, BOND_SIZES
from .padding import flat_edges, unflat


class GIN(Encoder):
    """Graph isomorphism network with bond features: a token per atom, after one for the whole molecule.

    GIN (Xu et al., 2019, arXiv 1810.00826) with the edges of Hu et al. (2020, arXiv 1905.12265):
    ``h_i += MLP((1 + eps) h_i + sum_j relu(h_j + e_ij))``, layer norm in place of batch norm so that
    rows stay independent. The first token reads the sum over atoms, which knows how many there are.

    Prefer ``fingerprint`` with little data.

    Inputs:
        width: ``W``.
        layers: bonds a message travels.
        dropout: after each layer.

    Raises:
        ValueError: if a size is below 1.
    """

    modality: ClassVar[str] = "molecule"

    def __init__(self, width: int = 128, layers: int = 4, dropout: float = 0.1) -> None:
        super().__init__()
        if width < 1 or layers < 1:
            raise ValueError(f"width {width} and layers {layers} must be 1 and more")
        self.width = width
        self.atoms = _Table(ATOM_SIZES, width)
        self.bonds = nn.ModuleList(_Table(BOND_SIZES, width) for _ in range(layers))
        self.convs = nn.ModuleList(GINEConv(_perceptron(width), train_eps=True) for _ in range(layers))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.dropout = nn.Dropout(dropout)
        self.whole = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        self.last = nn.LayerNorm(width)

    def forward(self, batch: Batch) -> Features:
        """``atoms (N, A, 9)``, ``ends (N, B, 2)``, ``bonds (N, B, 4)``, masks -> tokens ``(N, 1 + A, W)``."""
        mask, real = batch["mask"], batch["bond_mask"]  # (N, A), (N, B)
        one_way = flat_edges(batch["ends"], real, mask)  # (2, E)
        edges = torch.cat([one_way, one_way.flip(0)], 1)  # (2, 2E)
        h = self.atoms(batch["atoms"][mask])  # (R, W)
        for table, conv, norm in zip(self.bonds, self.convs, self.norms, strict=True):
            kinds = table(batch["bonds"][real]).repeat(2, 1)  # (2E, W)
            h = h + self.dropout(conv(norm(h), edges, kinds))  # (R, W)
        atoms = unflat(h, mask)  # (N, A, W)
        whole = self.whole(atoms.sum(1, keepdim=True) / 16)  # (N, 1, W)
        tokens = self.last(torch.cat([whole, atoms], 1))  # (N, 1 + A, W)
        return Features(tokens, torch.cat([mask.new_ones(len(mask), 1), mask], 1))


class _Table(nn.Module):
    """Sum of one embedding for each column of small integers."""

    def __init__(self, sizes: tuple[int, ...], width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(sum(sizes), width)
        starts = torch.tensor((0, *sizes[:-1])).cumsum(0)
        self.register_buffer("starts", starts, persistent=False)

    def forward(self, columns: Tensor) -> Tensor:
        """``(R, columns)`` -> ``(R, W)``."""
        starts: Tensor = self.starts  # type: ignore[assignment]
        return self.table(columns.long() + starts).sum(1)  # (R, W)


def _perceptron(width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
