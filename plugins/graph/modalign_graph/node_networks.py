"""gat and graph-conv: what a node and its neighbours are about."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import torch
from modalign import Encoder, Features
from modalign.contracts import Batch
from torch import Tensor, nn
from torch.nn import functional as F
from torch_geometric.nn import GATv2Conv, SimpleConv

from .padding import flat_edges, unflat


class _NodeNetwork(Encoder):
    """Features summed from an embedding table, then layers of messages; one token, the node's own.

    Inputs:
        width: ``W``.
        layers: hops a message travels; 0: a perceptron of the node's own features.
        features: rows of the table; feature ``i`` has row ``i mod features``.
        dropout: of every layer.

    Raises:
        ValueError: if a size is too small.
    """

    modality: ClassVar[str] = "node"

    def __init__(
        self, width: int, layers: int, features: int, dropout: float, layer: Callable[[], nn.Module]
    ) -> None:
        super().__init__()
        if min(width, features) < 1 or layers < 0:
            raise ValueError(f"width {width}, features {features}: 1 and more; layers {layers}: 0 and more")
        self.width = width
        self.table = nn.Embedding(features, width)
        nn.init.normal_(self.table.weight, std=features**-0.5)  # as a linear layer of so many inputs
        self.own = nn.ModuleList([nn.Linear(width, width)] if layers == 0 else [])
        self.convs = nn.ModuleList(layer() for _ in range(layers))
        self.dropout = nn.Dropout(dropout)
        self.last = nn.LayerNorm(width)
        for name, parameter in self.named_parameters():
            if name.startswith(("own", "convs")) and name.endswith("bias"):
                nn.init.zeros_(parameter)  # else biases outweigh what the table's small rows say

    def forward(self, batch: Batch) -> Features:
        """``words``, ``values (N, V, K)``, ``edges (N, E, 2)`` and masks -> tokens ``(N, 1, W)``."""
        mask = batch["mask"]  # (N, V)
        words, values = batch["words"][mask], batch["values"][mask]  # (R, K) each
        values = values / values.norm(dim=1, keepdim=True).clamp_min(1e-6)  # (R, K)
        rows = words % self.table.num_embeddings
        h = F.embedding_bag(rows, self.table.weight, mode="sum", per_sample_weights=values)  # (R, W)
        one_way = flat_edges(batch["edges"], batch["edge_mask"], mask)  # (2, E')
        edges = torch.cat([one_way, one_way.flip(0)], 1)  # (2, 2E')
        for linear in self.own:
            h = self.dropout(F.gelu(linear(h)))  # (R, W)
        for conv in self.convs:
            h = self.dropout(F.gelu(conv(h, edges)))  # (R, W)
        return Features.from_vectors(self.last(unflat(h, mask)[:, 0]))  # (N, W)


class GraphConv(_NodeNetwork):
    """The mean of a node and its neighbours, then a linear map (GCN; Kipf and Welling, arXiv 1609.02907).

    The mean of each row, ``D^-1 (A + I) H W``, needs no degrees beyond those that were drawn. Prefer it to
    ``gat`` where neighbours are alike, as papers that cite each other are.

    Inputs: as above.
    """

    def __init__(self, width: int = 128, layers: int = 2, features: int = 2048, dropout: float = 0.3) -> None:
        super().__init__(width, layers, features, dropout, lambda: _Mean(width))


class GAT(_NodeNetwork):
    """Attention over a node and its neighbours (GATv2; Brody et al., 2022, arXiv 2105.14491).

    Prefer it to ``graph-conv`` where some neighbours matter and others do not.

    Inputs: as above; ``heads`` of the attention, a divisor of ``width``.

    Raises:
        ValueError: as above, or if ``heads`` does not divide ``width``.
    """

    def __init__(
        self, width: int = 128, layers: int = 2, features: int = 2048, dropout: float = 0.3, heads: int = 4
    ) -> None:
        if heads < 1 or width % heads:
            raise ValueError(f"width {width} must be a multiple of heads {heads}")
        super().__init__(width, layers, features, dropout, lambda: GATv2Conv(width, width // heads, heads))


class _Mean(nn.Module):
    """``D^-1 (A + I) H W + b``."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mean = SimpleConv(aggr="mean", combine_root="self_loop")
        self.linear = nn.Linear(width, width)

    def forward(self, h: Tensor, edges: Tensor) -> Tensor:
        """``(R, W)`` and ``(2, E)`` -> ``(R, W)``."""
        return self.linear(self.mean(h, edges))  # (R, W)
