"""How strongly the parts of a graph hold together, for views that respect them."""

from __future__ import annotations

import numpy as np

CAP = 3.0
"""The largest weight: nothing is left out much more often than the rest."""


def keep_weights(
    nodes: int, edges: np.ndarray, node: np.ndarray, word: np.ndarray, value: np.ndarray, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """Weights of leaving out edges ``(E,)`` and features ``(F,)``, about 1 on average, at most ``CAP``.

    Community strength as in CSGCL (Chen et al., 2023, arXiv 2305.04658): the strength of a community is
    its share of modularity; an edge inside counts that of its community, one between two the negative
    sum of theirs; a feature the strengths of the nodes that have it. The weaker, the sooner left out.

    Inputs:
        edges: ``(E, 2)``.
        node, word, value: the features that are not zero, as coordinates.
    """
    community = louvain(nodes, edges)  # (V,)
    strength = strengths(community, edges)  # (C,)
    a, b = community[edges].T  # (E,) each
    of_edge = np.where(a == b, strength[a], -(strength[a] + strength[b]))  # (E,)
    of_word = np.bincount(word, value * strength[community[node]], minlength=width)  # (F,)
    return _chances(of_edge), _chances(of_word)


def louvain(nodes: int, edges: np.ndarray) -> np.ndarray:
    """``(V,)``: the number of each node's community (Blondel et al., 2008, by networkx, seeded)."""
    import networkx

    graph = networkx.Graph()
    graph.add_nodes_from(range(nodes))
    graph.add_edges_from(edges.tolist())
    community = np.zeros(nodes, np.int64)
    for number, members in enumerate(networkx.community.louvain_communities(graph, seed=0)):
        community[list(members)] = number
    return community


def strengths(community: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """``(C,)``: ``inside / E - (degrees / 2 E) ** 2``; they add up to the modularity."""
    count = int(community.max()) + 1
    if not len(edges):
        return np.zeros(count)
    a, b = community[edges].T  # (E,) each
    inside = np.bincount(a[a == b], minlength=count) / len(edges)
    degrees = np.bincount(np.concatenate([a, b]), minlength=count) / (2 * len(edges))
    return inside - degrees**2


def _chances(weight: np.ndarray) -> np.ndarray:
    """High for what is weak: ``(max - w) / (max - mean)``, capped."""
    if not len(weight):
        return np.ones(0, np.float32)
    spread = weight.max() - weight.mean()
    if spread <= 1e-12:
        return np.ones(len(weight), np.float32)
    return np.minimum((weight.max() - weight) / spread, CAP).astype(np.float32)
