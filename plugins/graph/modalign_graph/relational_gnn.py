"""relational-gnn: message passing over triples, trained from scratch on a CPU."""

from __future__ import annotations

from typing import ClassVar

import torch
from modalign import Encoder, Features
from modalign.contracts import Batch
from torch import nn
from torch_geometric.nn import TransformerConv

from .name_grams import NameGrams
from .padding import flat_edges, unflat


class RelationalGNN(Encoder):
    """Attention over a knowledge graph whose edges carry relations: a token per thing and per triple.

    Names are hashed character n-grams, so things and relations never seen before have a place too.
    Messages pass along every triple in both directions, the relation's name being the edge's feature
    (graph transformer; Shi et al., 2021, arXiv 2009.03509). A triple's token is a perceptron of its
    subject, relation and object after the last layer.

    Prefer ``linearised`` where a language model knows the names; this one needs none.

    Inputs:
        width: ``W``, a multiple of ``heads``.
        layers, heads: of the attention.
        buckets: rows of the table of n-grams.
        dropout: after each layer.

    Raises:
        ValueError: if a size is below 1, or ``width`` no multiple of ``heads``.
    """

    modality: ClassVar[str] = "knowledge-graph"

    def __init__(
        self, width: int = 128, layers: int = 2, heads: int = 4, buckets: int = 1 << 15, dropout: float = 0.1
    ) -> None:
        super().__init__()
        if min(width, layers, heads, buckets) < 1 or width % heads:
            raise ValueError(
                f"width {width}, layers {layers}, heads {heads}, buckets {buckets}: 1 and more, fitting"
            )
        self.width = width
        self.grams = NameGrams(width, buckets)
        self.named = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))
        self.ways = nn.Parameter(torch.randn(2, width) * 0.1)
        self.convs = nn.ModuleList(
            TransformerConv(width, width // heads, heads, edge_dim=width) for _ in range(layers)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(layers))
        self.triple = nn.Sequential(nn.Linear(3 * width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.dropout = nn.Dropout(dropout)
        self.last = nn.LayerNorm(width)

    def forward(self, batch: Batch) -> Features:
        """``names (N, M, L)``, ``triples (N, E, 3)`` and their masks -> tokens ``(N, M + E, W)``."""
        real, things, alive = (
            batch["name_mask"],
            batch["thing_mask"],
            batch["triple_mask"],
        )  # (N, M) x 2, (N, E)
        used = _used(batch) & things  # (N, M): a thing whose triples were left out is no token
        h = self.named(self.grams(batch["names"][real]))  # (R, W)
        s, p, o = (
            flat_edges(batch["triples"][..., [i, i]], alive, real)[0] for i in range(3)
        )  # (E',) each: subjects, relations, objects among the real names
        relations = h[p]  # (E', W)
        edges = torch.stack([torch.cat([s, o]), torch.cat([o, s])])  # (2, 2E')
        kinds = torch.cat([relations + self.ways[0], relations + self.ways[1]])  # (2E', W)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            h = h + self.dropout(conv(norm(h), edges, kinds))  # (R, W)
        facts = self.triple(torch.cat([h[s], relations, h[o]], 1))  # (E', W)
        tokens = torch.cat([unflat(h, real), unflat(facts, alive)], 1)  # (N, M + E, W)
        return Features(self.last(tokens), torch.cat([used, alive], 1))


def _used(batch: Batch) -> torch.Tensor:
    """``(N, M)``: names that a real triple mentions."""
    alive = batch["triple_mask"].unsqueeze(-1).expand_as(batch["triples"]).flatten(1).float()  # (N, 3E)
    seen = torch.zeros(batch["name_mask"].shape, device=alive.device)  # (N, M)
    return seen.scatter_add(1, batch["triples"].flatten(1), alive) > 0
