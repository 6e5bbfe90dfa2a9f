"""The nearest of many vectors by inner product: exact, HNSW or IVF-PQ (faiss)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from modalign.errors import UserError, suggest

KINDS = ("flat", "hnsw", "ivfpq")
FLAT, HNSW = 100_000, 2_000_000
"""Up to so many vectors, what "auto" takes; above, IVF-PQ."""
LEAST = 1_000
"""Vectors that IVF-PQ needs to learn its codes from."""


def faiss() -> Any:
    """The library.

    Raises:
        UserError: with what to type, where it is not installed.
    """
    try:
        import faiss
    except ImportError:
        raise UserError("searching needs faiss. Run: pip install 'modalign[search]'") from None
    return faiss


def choose(count: int, kind: str = "auto") -> str:
    """The kind of index for so many vectors: "auto" goes by their number; too few for IVF-PQ are "flat".

    Raises:
        UserError: if there is no such kind.
    """
    if kind == "auto":
        return "flat" if count <= FLAT else "hnsw" if count <= HNSW else "ivfpq"
    if kind not in KINDS:
        known = ("auto", *KINDS)
        raise UserError(f"no kind of index '{kind}'{suggest(kind, known)} (known: {', '.join(known)})")
    return "flat" if kind == "ivfpq" and count < LEAST else kind


class Nearest:
    """Finds, for each query, the ``k`` vectors of largest inner product.

    "flat" compares with all: exact. "hnsw" walks a graph (arXiv 1603.09320): fast, with all vectors in
    memory once more. "ivfpq" compares short codes (10.1109/TPAMI.2010.57) in the nearest cells, then the
    best of them exactly, with vectors that may stay on disk: for millions.

    Inputs:
        vectors: ``(N, D)`` float32; memory-mapped will do.
        kind: one of ``KINDS``, or "auto".
        graph: what faiss has built of the first of them; None builds it anew.
    """

    def __init__(self, vectors: np.ndarray, kind: str = "flat", graph: Any = None) -> None:
        self.vectors, self.kind = vectors, choose(len(vectors), kind)
        self.graph: Any = None if self.kind == "flat" or not len(vectors) else self._built(graph)

    def _built(self, graph: Any) -> Any:
        n, dim = self.vectors.shape
        if graph is None or (self.kind == "ivfpq" and n > 2 * graph.ntotal):  # its cells would be stale
            graph = self._empty(n, dim)
        for start in range(graph.ntotal, n, 65536):
            graph.add(np.ascontiguousarray(self.vectors[start : start + 65536]))
        return graph

    def _empty(self, n: int, dim: int) -> Any:
        library = faiss()
        if self.kind == "hnsw":
            graph = library.IndexHNSWFlat(dim, 32, library.METRIC_INNER_PRODUCT)
            graph.hnsw.efConstruction = 100
            return graph
        cells = max(1, min(int(4 * n**0.5), n // 39))
        pieces = max(m for m in range(1, 65) if dim % m == 0 and (dim >= 4 * m or m == 1))
        bits = 8 if n >= 39 * 256 else 4
        graph = library.index_factory(dim, f"IVF{cells},PQ{pieces}x{bits}", library.METRIC_INNER_PRODUCT)
        graph.cp.niter = graph.pq.cp.niter = 10  # of k-means; the vectors themselves decide in the end
        sample = np.random.default_rng(0).choice(n, min(n, 64 * max(cells, 256)), replace=False)
        graph.train(np.ascontiguousarray(self.vectors[np.sort(sample)]))
        return graph

    def search(self, queries: np.ndarray, k: int) -> list[list[tuple[float, int]]]:
        """For each query ``(Q, D)`` up to ``k`` pairs of inner product and row, best first; ties by row."""
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        n = len(self.vectors)
        k = min(k, n)
        if not k:
            return [[] for _ in queries]
        if self.kind == "flat":
            library = faiss()
            scores, rows = library.knn(
                queries, np.ascontiguousarray(self.vectors), k, library.METRIC_INNER_PRODUCT
            )
        elif self.kind == "hnsw":
            width = faiss().SearchParametersHNSW(efSearch=max(128, 2 * k))
            scores, rows = self.graph.search(queries, k, params=width)
        else:
            width = faiss().SearchParametersIVF(nprobe=max(8, self.graph.nlist // 16))
            _, rows = self.graph.search(queries, min(n, max(200, 20 * k)), params=width)
            scores = self._exact(queries, rows)
        return [_best(s, r, k) for s, r in zip(scores, rows, strict=True)]

    def _exact(self, queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Inner products ``(Q, C)`` of queries ``(Q, D)`` with their own candidates ``(Q, C)``."""
        return np.stack([self.vectors[r] @ q for q, r in zip(queries, rows, strict=True)])

    def write(self, file: Path) -> None:
        """What faiss has built, if anything."""
        if self.graph is not None:
            faiss().write_index(self.graph, str(file))


def read_graph(file: Path) -> Any:
    """What ``Nearest.write`` wrote; None if it wrote nothing.

    Raises:
        ValueError: if faiss cannot read it.
    """
    if not file.is_file():
        return None
    library, size = faiss(), file.stat().st_size
    limits = (
        "vector_byte_limit",
        "loop_limit",
    )  # newer versions have them: no part claims more than there is
    kept = {
        n: getattr(library, f"get_deserialization_{n}")()
        for n in limits
        if hasattr(library, f"get_deserialization_{n}")
    }
    try:
        for name in kept:
            getattr(library, f"set_deserialization_{name}")(size)
        return library.read_index(str(file))
    except (RuntimeError, MemoryError) as error:
        raise ValueError(f"{file.name}: {(str(error) or 'it claims too much').splitlines()[0]}") from None
    finally:
        for name, limit in kept.items():
            getattr(library, f"set_deserialization_{name}")(limit)


def _best(scores: np.ndarray, rows: np.ndarray, k: int) -> list[tuple[float, int]]:
    pairs = [(float(s), int(r)) for s, r in zip(scores, rows, strict=True) if r >= 0]  # -1: found fewer
    return sorted(pairs, key=lambda pair: (-pair[0], pair[1]))[:k]
