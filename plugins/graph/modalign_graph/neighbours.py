"""Draws some of the nodes around a node, hop by hop."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .big_graph import BigGraph


def sample(
    graph: BigGraph, node: int, neighbours: Sequence[int], seed: int
) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Nodes around a node, edges ``(E, 2)`` between their places, and those edges' numbers in the graph."""
    draw = np.random.default_rng((seed, node))
    starts, ends, numbers = graph.adjacency
    place, edges, front = {node: 0}, {}, [node]
    for most in neighbours:
        fresh = []
        for v in front:
            near = np.arange(starts[v], starts[v + 1])
            if len(near) > most:
                near = draw.choice(near, most, replace=False)
            for i in near:
                u = int(ends[i])
                if u not in place:
                    place[u] = len(place)
                    fresh.append(u)
                edges[int(numbers[i])] = (place[v], place[u])
        front = fresh
    return (
        list(place),
        np.array(list(edges.values()), np.int64).reshape(-1, 2),
        np.array(list(edges), np.int64),
    )
