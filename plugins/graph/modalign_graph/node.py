"""The node modality: a node of one big graph, with some of its neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import torch
from modalign import BadSample, Modality, UserError
from modalign.contracts import Batch
from torch import Generator

from .big_graph import BigGraph, digest, load_graph
from .neighbours import sample
from .padding import padded


@dataclass(frozen=True)
class Read:
    """A node and its surroundings, itself first.

    ``nodes (V,)`` numbers in the big graph; ``starts (V + 1,)``, ``words``, ``values``: their features in
    compressed rows; ``edges (E, 2)`` places among ``nodes``; ``edge_weight (E,)``, ``word_weight``: how
    likely a view leaves them out.
    """

    nodes: np.ndarray
    starts: np.ndarray
    words: np.ndarray
    values: np.ndarray
    edges: np.ndarray
    edge_weight: np.ndarray
    word_weight: np.ndarray


class Node(Modality):
    """A node of one big graph: its features and those of sampled neighbours (GraphSAGE, arXiv 1706.02216).

    A cell holds the node's number. Neighbours are drawn once for each node and ``seed``.

    Inputs:
        graph: an npz file: ``features (V, F)``, or ``indptr``, ``indices``, ``shape`` (and ``data``) of a
            sparse matrix; and ``edges (E, 2)``, taken as undirected.
        neighbours: how many of each node's neighbours are drawn, hop by hop; ``[]``: the node alone.
        seed: of that draw.
        drop_edges, drop_features: shares that ``augment`` leaves out.
        communities: ``augment`` spares what holds communities together (CSGCL).

    Raises:
        ValueError: if an argument is out of range.
    """

    name: ClassVar[str] = "node"
    literal: ClassVar[bool] = True

    def __init__(
        self,
        graph: str | None = None,
        neighbours: Sequence[int] = (10, 10),
        seed: int = 0,
        drop_edges: float = 0.3,
        drop_features: float = 0.3,
        communities: bool = False,
    ) -> None:
        if any(k < 1 or k > 1000 for k in neighbours) or np.prod([1.0, *neighbours]) > 100_000:
            raise ValueError(f"neighbours {list(neighbours)}: from 1 to 1000 for each hop, 100,000 in all")
        if not 0 <= drop_edges < 1 or not 0 <= drop_features < 1:
            raise ValueError(f"drop_edges {drop_edges} and drop_features {drop_features} must be in [0, 1)")
        self.graph, self.neighbours, self.seed = graph, tuple(neighbours), seed
        self.drop_edges, self.drop_features, self.communities = drop_edges, drop_features, communities

    def fingerprint(self) -> str:
        """Of the graph's file."""
        return digest(self.graph) if self.graph else ""

    def read(self, value: Any) -> Read:
        """A node's number.

        Raises:
            BadSample: if it is no number, or the graph has no such node.
            UserError: if no graph was named, or its file is damaged.
        """
        node = _number(value)
        if self.graph is None:
            raise UserError("node: name the graph, as in read: {graph: cora.npz}")
        graph = load_graph(self.graph)
        if node >= len(graph):
            raise BadSample(f"node {node}; the graph has nodes 0 to {len(graph) - 1}")
        return self._around(graph, node)

    def collate(self, items: Sequence[Read]) -> Batch:
        """``N`` nodes with their surroundings; place 0 in each is the node itself.

        ``words (N, V, K)`` int64 and ``values (N, V, K)`` float32: features, value 0 = padding;
        ``mask (N, V)``; ``edges (N, E, 2)`` int64 places, each edge once; ``edge_mask (N, E)``. With
        ``communities``: ``edge_weight (N, E)`` and ``word_weight (N, V, K)``.
        """
        most = max(1, *(int(np.diff(item.starts).max()) for item in items))
        batch: Batch = {}
        batch["words"], batch["mask"] = padded([_rows(i.starts, i.words, most) for i in items], most)
        batch["values"] = padded([_rows(i.starts, i.values, most) for i in items], most)[0]
        batch["edges"], batch["edge_mask"] = padded([i.edges for i in items], 2)
        if self.communities:
            batch["edge_weight"] = padded([i.edge_weight[:, None] for i in items], 1)[0].squeeze(-1)
            batch["word_weight"] = padded([_rows(i.starts, i.word_weight, most) for i in items], most)[0]
        return batch

    def example(self, n: int, seed: int = 0) -> list[Read]:
        """``n`` nodes of a graph of two communities (of its own, whatever ``graph`` is)."""
        draw = np.random.default_rng(seed)
        return [self._around(_demonstration(), int(node)) for node in draw.integers(0, 60, n)]

    def augment(self, batch: Batch, generator: Generator) -> Batch:
        """Edges left out, and features in all nodes of a row alike (GRACE; Zhu et al., arXiv 2006.04131)."""
        words, edge_mask = batch["words"], batch["edge_mask"]  # (N, V, K), (N, E)
        place = generator.device
        luck = torch.rand(edge_mask.shape, generator=generator, device=place).to(words.device)  # (N, E)
        chance = self.drop_edges * batch.get("edge_weight", torch.ones_like(luck))  # (N, E)
        columns = int(words.max()) + 1
        luck_of_word = torch.rand(len(words), columns, generator=generator, device=place).to(
            words.device
        )  # (N, F)
        drawn = luck_of_word.gather(1, words.flatten(1)).view(words.shape)  # (N, V, K)
        weight = batch.get("word_weight", torch.ones_like(drawn))  # (N, V, K)
        values = batch["values"] * (drawn >= (self.drop_features * weight).clamp(max=0.9))  # (N, V, K)
        return {**batch, "edge_mask": edge_mask & (luck >= chance.clamp(max=0.9)), "values": values}

    def preview(self, item: Read) -> tuple[str, bytes]:
        """Its number, its features, and the neighbours drawn."""
        own = item.words[: item.starts[1]].tolist()
        lines = [f"node {item.nodes[0]}", f"features {own[:40]}", f"neighbours {item.nodes[1:41].tolist()}"]
        return "text/plain", "\n".join(lines).encode()

    def _around(self, graph: BigGraph, node: int) -> Read:
        nodes, edges, numbers = sample(graph, node, self.neighbours, self.seed)
        rows = [slice(graph.starts[v], graph.starts[v + 1]) for v in nodes]
        words = np.concatenate([graph.words[r] for r in rows])
        edge_weight, word_weight = np.zeros(0, np.float32), np.zeros(0, np.float32)
        if self.communities:
            of_edge, of_word = graph.community_weights
            edge_weight, word_weight = of_edge[numbers], of_word[words]
        starts = np.cumsum([0, *(r.stop - r.start for r in rows)])
        values = np.concatenate([graph.values[r] for r in rows])
        return Read(np.array(nodes), starts, words, values, edges, edge_weight, word_weight)


def _number(value: Any) -> int:
    if isinstance(value, str):
        if not (value.strip().isascii() and value.strip().isdigit() and len(value) < 19):
            raise BadSample("a node is a whole number from 0" if value.strip() else "empty node number")
        return int(value)
    if isinstance(value, float | np.floating) and float(value).is_integer() and abs(value) < 1e15:
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise BadSample(f"a node is a whole number, not {type(value).__name__}")
    if value < 0:
        raise BadSample("a node is a whole number from 0")
    return int(value)


def _rows(starts: np.ndarray, flat: np.ndarray, columns: int) -> np.ndarray:
    """Compressed rows as a table ``(V, columns)``, zero-padded."""
    lengths = np.diff(starts)
    table = np.zeros((len(lengths), columns), flat.dtype)
    table[np.arange(columns) < lengths[:, None]] = flat
    return table


@lru_cache(maxsize=1)
def _demonstration() -> BigGraph:
    """Sixty nodes in two communities, each with words of its own."""
    draw = np.random.default_rng(0)
    side = np.arange(60) % 2
    linked = draw.random((60, 60)) < np.where(side[:, None] == side, 0.15, 0.01)
    edges = np.argwhere(np.triu(linked, 1))
    has = draw.random((60, 40)) < np.where((np.arange(40) % 2)[None] == side[:, None], 0.3, 0.05)
    has[:, 0] = True
    rows, words = np.nonzero(has)
    return BigGraph(np.searchsorted(rows, np.arange(61)), words, np.ones(len(words), np.float32), 40, edges)
