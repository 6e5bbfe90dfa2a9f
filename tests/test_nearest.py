"""Nearest vectors: flat is brute force, HNSW and IVF-PQ find nearly all of it, growing changes nothing."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign import UserError
from modalign.search import nearest
from modalign.search.nearest import Nearest, choose

pytest.importorskip("faiss")


def unit(n: int, dim: int, seed: int, clusters: int = 0) -> np.ndarray:
    """Rows on the sphere; in clusters, as embeddings are."""
    random = np.random.default_rng(seed)
    rows = random.standard_normal((n, dim))
    if clusters:
        rows = 0.5 * rows + 1.5 * random.standard_normal((clusters, dim))[random.integers(clusters, size=n)]
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def brute(vectors: np.ndarray, query: np.ndarray, k: int) -> list[int]:
    return np.argsort(-(vectors @ query), kind="stable")[:k].tolist()


def recall(index: Nearest, vectors: np.ndarray, queries: np.ndarray, k: int = 10) -> float:
    found = index.search(queries, k)
    shared = [
        len({row for _, row in f} & set(brute(vectors, q, k))) for f, q in zip(found, queries, strict=True)
    ]
    return sum(shared) / (k * len(queries))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 40), st.integers(1, 9), st.integers(1, 12), st.integers(0, 9))
def test_flat_is_brute_force(n, dim, k, seed):
    vectors, queries = unit(n, dim, seed), unit(3, dim, seed + 1)
    for query, found in zip(queries, Nearest(vectors).search(queries, k), strict=True):
        assert len(found) == min(n, k)
        rows = [row for _, row in found]
        assert len(set(rows)) == len(rows)
        np.testing.assert_allclose([s for s, _ in found], vectors[rows] @ query, atol=1e-6)
        np.testing.assert_allclose(
            [s for s, _ in found], (vectors @ query)[brute(vectors, query, k)], atol=1e-6
        )


@pytest.mark.parametrize("kind", ["flat", "hnsw"])
def test_ties_come_in_order_of_rows(kind):
    vectors = np.repeat(unit(4, 8, 0), 5, axis=0)
    (found,) = Nearest(vectors, kind).search(vectors[:1], 8)
    assert [row for _, row in found[:5]] == [0, 1, 2, 3, 4]
    scores = [score for score, _ in found]
    assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("kind", ["flat", "hnsw", "ivfpq"])
@pytest.mark.parametrize("n", [0, 1, 2])
def test_few_items(kind, n):
    (found,) = Nearest(unit(n, 8, 0), kind).search(unit(1, 8, 0), 10)
    assert sorted(row for _, row in found) == list(range(n))


@pytest.mark.parametrize(
    ("kind", "n", "dim", "bound"),
    [
        ("hnsw", 12_000, 32, 0.97),
        ("ivfpq", 3_000, 30, 0.9),
        pytest.param("ivfpq", 10_000, 16, 0.9, marks=pytest.mark.slow),
    ],  # codes of 4, of 8 bits
)
def test_approximate_kinds_find_nearly_all(kind, n, dim, bound):
    vectors, queries = unit(n, dim, 0, clusters=50), unit(40, dim, 1)
    queries[:20] = unit(20, dim, 2) * 0.3 + vectors[:20]
    index = Nearest(vectors, kind)
    assert recall(index, vectors, queries) >= bound
    (found,) = index.search(vectors[7:8], 1)
    assert found[0][1] == 7
    np.testing.assert_allclose(found[0][0], 1, atol=1e-5)  # exact, not as coded


@pytest.mark.parametrize("kind", ["hnsw", "ivfpq"])
def test_what_was_built_grows(kind, tmp_path, monkeypatch):
    vectors = unit(3_000, 16, 0, clusters=20)
    Nearest(vectors[:2_000], kind).write(tmp_path / "graph")
    made = []
    monkeypatch.setattr(Nearest, "_empty", lambda self, *size: made.append(size))
    index = Nearest(vectors, kind, nearest.read_graph(tmp_path / "graph"))
    assert not made
    assert index.graph.ntotal == 3_000
    assert recall(index, vectors, vectors[2_900:]) >= 0.9


def test_ivfpq_learns_anew_when_it_has_doubled():
    vectors = unit(2_500, 16, 0)
    small = Nearest(vectors[:1_000], "ivfpq").graph
    assert Nearest(vectors[:1_900], "ivfpq", small).graph is small
    assert Nearest(vectors, "ivfpq", Nearest(vectors[:1_000], "ivfpq").graph).graph.ntotal == 2_500


def test_the_kind_goes_by_the_number():
    assert [choose(n) for n in (0, nearest.FLAT, nearest.FLAT + 1, nearest.HNSW + 1)] == [
        "flat", "flat", "hnsw", "ivfpq",
    ]  # fmt: skip
    assert choose(10, "hnsw") == "hnsw"
    assert choose(10, "ivfpq") == "flat"  # nothing to learn codes from
    with pytest.raises(UserError, match="did you mean 'hnsw'"):
        choose(10, "hnws")
