"""Retrieval: brute force over ties, several positives, missing items; streaming; classes."""

import math
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign.contracts import Items
from modalign.errors import UserError
from modalign.tasks import ranking
from modalign.tasks.retrieval import Retrieval, retrieval_metrics
from torch.nn.functional import normalize

torch.set_num_threads(1)
quick = settings(max_examples=80, deadline=None)


@dataclass
class Table:
    """A split whose items are given."""

    items: dict
    rows: int
    labels: torch.Tensor | None = None
    classes: tuple[str, ...] = ()
    name: str = "test"
    asked: list = field(default_factory=list)

    def embed(self, space, modality):
        self.asked.append(modality)
        return self.items[modality]


def items(vectors, links):
    vectors = torch.as_tensor(vectors, dtype=torch.float32)
    return Items(vectors, torch.tensor(links, dtype=torch.long).reshape(-1, 2))


def diagonal(vectors):
    return items(vectors, [[i, i] for i in range(len(vectors))])


def brute(queries, candidates, positives, ks=(1, 5, 10)):
    """Ranks by counting, in numpy."""
    ranks = []
    for q, right in zip(queries.double().numpy(), positives, strict=True):
        if not right:
            continue
        scores = candidates.double().numpy() @ q
        best = max(scores[j] for j in right)
        wrong = [scores[j] for j in range(len(scores)) if j not in right]
        ranks.append(1 + sum(s > best + 1e-9 for s in wrong) + sum(abs(s - best) <= 1e-9 for s in wrong) / 2)
    ranks = np.array(ranks)
    found = {f"R@{k}": (ranks <= k).mean() for k in ks}
    return {**found, "MRR": (1 / ranks).mean(), "median_rank": np.median(ranks)}


@st.composite
def cases(draw):
    """Few directions, so that ties and equal rows abound; integers, so that ties are exact."""
    n, k, d = draw(st.integers(1, 8)), draw(st.integers(1, 12)), draw(st.integers(1, 3))
    numbers = st.integers(-2, 2)
    q = torch.tensor(draw(st.lists(st.lists(numbers, min_size=d, max_size=d), min_size=n, max_size=n)))
    c = torch.tensor(draw(st.lists(st.lists(numbers, min_size=d, max_size=d), min_size=k, max_size=k)))
    some = st.sets(st.integers(0, k - 1), max_size=4)
    positives = [sorted(s) for s in draw(st.lists(some, min_size=n, max_size=n))]
    return q.float(), c.float(), positives


@quick
@given(cases(), st.booleans())
def test_equals_brute_force(case, as_tensor):
    queries, candidates, positives = case
    given_as = positives
    if as_tensor:
        given_as = torch.tensor([(i, j) for i, s in enumerate(positives) for j in s] * 2, dtype=torch.long)
    if not any(positives):
        with pytest.raises(ValueError, match="positive"):
            retrieval_metrics(queries, candidates, given_as)
        return
    got = retrieval_metrics(queries, candidates, given_as)
    left_out = sum(not s for s in positives)
    assert got.pop("left_out", 0) == left_out
    assert got == pytest.approx(brute(queries, candidates, positives))


def test_the_keys_are_the_documented_ones():
    x = normalize(torch.randn(20, 4), dim=1)
    assert set(retrieval_metrics(x, x)) == {"R@1", "R@5", "R@10", "MRR", "median_rank"}
    assert set(retrieval_metrics(x, x, ks=[2])) == {"R@2", "MRR", "median_rank"}


def test_rows_match_by_default_and_distractors_are_allowed():
    torch.manual_seed(0)
    q, c = (normalize(torch.randn(n, 6), dim=1) for n in (30, 50))
    got = retrieval_metrics(q, c)
    assert got == pytest.approx(brute(q, c, [[i] for i in range(30)]))
    assert retrieval_metrics(c, c)["R@1"] == 1


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 99), st.sampled_from([1, 7, 64, 1000]))
def test_blocks_change_nothing(seed, block):
    g = torch.Generator().manual_seed(seed)
    q, c = (normalize(torch.randn(n, 8, generator=g), dim=1) for n in (33, 21))
    pairs = torch.randint(0, 21, (60, 2), generator=g).unique(dim=0)
    whole = ranking.best_ranks(q, c, pairs)
    torch.testing.assert_close(ranking.best_ranks(q, c, pairs, block), whole, equal_nan=True)


def test_no_block_is_larger_than_asked():
    x = torch.randn(100, 4)
    shapes = [s.shape for _, s, _ in ranking.score_blocks(x, x, 1000)]
    assert len(shapes) == 10
    assert set(shapes) == {(10, 100)}


@quick
@given(cases(), st.randoms())
def test_the_order_of_queries_and_candidates_does_not_matter(case, random):
    queries, candidates, positives = case
    if not any(positives):
        return
    rows = random.sample(range(len(queries)), len(queries))
    columns = random.sample(range(len(candidates)), len(candidates))
    moved = [[columns.index(j) for j in positives[i]] for i in rows]
    want = retrieval_metrics(queries, candidates, positives)
    assert retrieval_metrics(queries[rows], candidates[columns], moved) == pytest.approx(want)


@pytest.mark.parametrize("d", [3, 384])
def test_a_collapsed_space_does_not_score(d):
    """Rounding may break exact ties by place; it must not look like skill."""
    x = normalize(torch.randn(1, d), dim=1).repeat(301, 1)
    got = retrieval_metrics(x, x)
    assert got["R@10"] == 0
    assert got["median_rank"] == 151


def test_nan_is_the_worst_score():
    x = normalize(torch.randn(9, 4), dim=1)
    bad = x.clone()
    bad[3] = math.nan
    assert retrieval_metrics(x, torch.full_like(x, math.nan))["R@1"] == 0
    assert retrieval_metrics(x, bad)["R@1"] == pytest.approx(8 / 9)
    assert all(math.isfinite(v) for v in retrieval_metrics(bad, bad).values())


@pytest.mark.parametrize("positives", [[[0], [9]], [[0], [-1]], [[0]], torch.tensor([[5, 0]])])
def test_positives_that_do_not_exist_are_refused(positives):
    x = torch.eye(2)
    with pytest.raises(ValueError, match="queries"):
        retrieval_metrics(x, x, positives)


def test_more_queries_than_candidates_needs_positives():
    with pytest.raises(ValueError, match="3 queries but 2 candidates"):
        retrieval_metrics(torch.randn(3, 2), torch.randn(2, 2))


@quick
@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 6))),
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 6))),
)
def test_join_is_a_relational_join(left, right):
    want = sorted({(a, b) for a, i in left for b, j in right if i == j})
    tensors = [torch.tensor(x, dtype=torch.long).reshape(-1, 2) for x in (left, right)]
    assert [tuple(p) for p in ranking.join(*tensors).tolist()] == want


@quick
@given(st.integers(1, 9), st.integers(1, 12), st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_chance_is_the_hypergeometric(k, total, positives):
    positives = [min(p, total) for p in positives]
    drawn = min(k, total)
    want = np.mean([1 - math.comb(total - p, drawn) / math.comb(total, drawn) for p in positives])
    assert ranking.chance_at(k, torch.tensor(positives), total) == pytest.approx(want)


def test_items_and_rows_are_linked_many_to_many():
    """Audio 0 is in rows 0 and 1; row 1 has two images; row 3 has no image, image 3 no audio."""
    audio = items(torch.eye(4)[:3], [[0, 0], [0, 1], [1, 2], [2, 3]])
    image = items(torch.eye(4)[[1, 3, 0, 2]], [[0, 0], [1, 1], [2, 1], [3, 4]])
    image = Items(image.vectors, torch.cat([image.links, torch.tensor([[0, 2]])]))
    report = Retrieval("audio", "image", ks=[2]).run(None, Table({"audio": audio, "image": image}, rows=5))
    # audio 0 -> images {0, 1, 2}, and image 2 equals it; audio 1 -> image 0, equal; audio 2: left out
    assert report.metrics["R@1"] == report.metrics["R@2"] == 1
    assert report.metrics["chance_R@1"] == pytest.approx((3 / 4 + 1 / 4) / 2)
    assert report.tables["sizes"][0] | {"positives_per_query": 2} == {
        "queries": 2, "left_out": 1, "candidates": 4, "positives_per_query": 2,
    }  # fmt: skip
    assert "class_R@1" not in report.metrics


def test_the_task_is_the_function():
    torch.manual_seed(0)
    q, c = (normalize(torch.randn(40, 5), dim=1) for _ in range(2))
    task = Retrieval(from_="audio", to="image")
    assert (task.about, task.modalities) == ("audio->image", ("audio", "image"))
    got = task.run(None, Table({"audio": diagonal(q), "image": diagonal(c)}, 40)).metrics
    assert got.pop("chance_R@1") == pytest.approx(1 / 40)
    assert got == retrieval_metrics(q, c)


@quick
@given(st.integers(0, 999), st.booleans())
def test_class_recall_equals_brute_force(seed, ties):
    rng = np.random.default_rng(seed)
    rows, n, k = 8, 5, 6
    labels = rng.integers(-1, 3, rows)
    sides = []
    for size in (n, k):
        links = np.stack([rng.integers(0, size, 10), rng.integers(0, rows, 10)], 1).tolist()
        links += [[i, int(rng.integers(0, rows))] for i in range(size)]
        vectors = rng.integers(-1, 2, (size, 2)) if ties else rng.normal(size=(size, 4))
        sides.append(items(vectors, links))
    a, b = sides
    table = Table({"a": a, "b": b}, rows, torch.tensor(labels))
    if not len(ranking.join(a.links, b.links)):
        return
    got = Retrieval("a", "b").run(None, table).metrics

    def known(side, i):
        return {int(labels[r]) for item, r in side.links.tolist() if item == i} - {-1}

    hits = []
    for i in range(n):
        scores = b.vectors.double().numpy() @ a.vectors[i].double().numpy()
        if known(a, i):
            top = [j for j in range(k) if scores[j] >= scores.max() - 1e-9]
            hits.append(all(known(a, i) & known(b, j) for j in top))
    assert got.get("class_R@1") == (pytest.approx(np.mean(hits)) if hits else None)


@pytest.mark.parametrize("empty", ["audio", "image"])
def test_a_modality_without_items_is_named(empty):
    full = diagonal(torch.eye(3))
    none = items(torch.zeros(0, 3), [])
    table = Table({"audio": full, "image": full} | {empty: none}, 3)
    with pytest.raises(UserError, match=f"'test'.*{empty}"):
        Retrieval("audio", "image").run(None, table)


def test_modalities_that_never_meet_are_named():
    a, b = items(torch.eye(2), [[0, 0], [1, 1]]), items(torch.eye(2), [[0, 2], [1, 3]])
    with pytest.raises(UserError, match="both audio and image"):
        Retrieval("audio", "image").run(None, Table({"audio": a, "image": b}, 4))


@pytest.mark.parametrize("kwargs", [{"from_": "a", "to": "a"}, {"from_": "a", "to": "b", "ks": [0]}])
def test_senseless_questions_are_refused(kwargs):
    with pytest.raises(UserError):
        Retrieval(**kwargs)
