"""Retrieval: brute force over ties, several positives, missing items; streaming; classes."""

import itertools
import math
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign.contracts import Items
from modalign.errors import UserError
from modalign.tasks import bootstrap, chance, rank_metrics, ranking, retrieval
from modalign.tasks.class_recall import class_chance, class_hits
from modalign.tasks.rank_metrics import scores_of
from modalign.tasks.retrieval import Retrieval, retrieval_metrics
from sklearn.metrics import ndcg_score
from torch.nn.functional import normalize

from .splits import Table

torch.set_num_threads(1)
quick = settings(max_examples=80, deadline=None)


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


def brute_every(queries, candidates, positives, ks):
    """nDCG@k and mAP@R by their definitions, tied wrong ones half above; positives in a row."""
    ndcg, average = {k: [] for k in ks}, []
    for q, right in zip(queries.double().numpy(), positives, strict=True):
        if not right:
            continue
        scores = candidates.double().numpy() @ q
        wrong = np.array([scores[j] for j in range(len(scores)) if j not in right])
        own = sorted((scores[j] for j in right), reverse=True)
        ranks = [i + (wrong > s).sum() + (wrong == s).sum() / 2 for i, s in enumerate(own, 1)]
        for k in ks:
            best = sum(1 / np.log2(1 + i) for i in range(1, min(k, len(own)) + 1))
            ndcg[k].append(sum(1 / np.log2(1 + r) for r in ranks if r <= k) / best)
        average.append(sum(i / r for i, r in enumerate(ranks, 1) if r <= len(own)) / len(own))
    return {f"nDCG@{k}": np.mean(v) for k, v in ndcg.items()} | {"mAP@R": np.mean(average)}


@quick
@given(cases(), st.booleans())
def test_every_positive_equals_brute_force(case, sort):
    queries, candidates, positives = case
    if not any(positives):
        return
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "FEW", 0 if sort else 16)
        got = retrieval_metrics(queries, candidates, positives, ks=(1, 2, 5), every=True)
    want = retrieval_metrics(queries, candidates, positives, ks=(1, 2, 5))
    assert got == pytest.approx(want | brute_every(queries, candidates, positives, (2, 5)))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([1, 3, 40]))
def test_every_positive_equals_scikit_learn(seed, k):
    """Without ties; mAP@R of a query with one positive is its R@1."""
    rng = np.random.default_rng(seed)
    scores = rng.permuted(np.tile(np.arange(40.0), (9, 1)), axis=1)
    relevant = rng.random((9, 40)) < rng.choice([0.05, 0.6])
    relevant[:, 0] = True
    pairs = torch.tensor(np.argwhere(relevant))
    # Row i of the identity asks for column i of the candidates, which are thus the scores.
    got = retrieval_metrics(torch.eye(9), torch.tensor(scores.T).float(), pairs, ks=(k,), every=True)
    if k > 1:
        assert got[f"nDCG@{k}"] == pytest.approx(ndcg_score(relevant, scores, k=k))
    single = retrieval_metrics(torch.eye(9), torch.tensor(scores.T).float(), pairs[:1], every=True)
    assert single["mAP@R"] == single["R@1"]


def test_map_at_r_by_hand():
    """Musgrave et al.'s example: ten right ones, ranked 1 to 5, or 6 to 10; a full list."""
    ten = torch.stack([torch.zeros(10).long(), torch.arange(10)], 1)
    late = [11.0, 12, 13, 14, 15]
    first, second = ([*range(1, 6), *late], [*range(6, 11), *late])
    by = [float(scores_of(torch.tensor(r, dtype=torch.float64), ten, [1])["mAP@R"]) for r in (first, second)]
    assert by == pytest.approx([0.5, sum(i / (i + 5) for i in range(1, 6)) / 10])


def test_blocks_change_nothing_for_every_positive():
    g = torch.Generator().manual_seed(0)
    q, c = (normalize(torch.randn(n, 8, generator=g), dim=1) for n in (33, 41))
    pairs = torch.randint(0, 33, (400, 2), generator=g).unique(dim=0)
    whole = ranking.every_rank(q, c, pairs)
    for block in (1, 100, 1000):
        torch.testing.assert_close(ranking.every_rank(q, c, pairs, block), whole)
    query, first = np.unique(pairs[:, 0], return_index=True)
    torch.testing.assert_close(ranking.best_ranks(q, c, pairs)[query], whole[first])
    assert bool((whole.diff()[pairs[:, 0].diff() == 0] > 0).all())


def test_nan_and_a_collapsed_space_score_nothing():
    x = normalize(torch.randn(60, 4), dim=1)
    pairs = torch.stack([torch.arange(60).repeat_interleave(3), torch.randint(0, 60, (180,))], 1)
    for bad in (torch.full_like(x, math.nan), x[:1].repeat(60, 1)):
        got = retrieval_metrics(bad, bad, pairs, every=True)
        assert got["nDCG@10"] == got["mAP@R"] == 0


def test_a_nan_query_with_fewer_positives_than_others_is_in_the_middle():
    queries = torch.eye(3).repeat(2, 1)
    queries[4] = math.nan
    pairs = torch.tensor([[0, 0], [0, 1], [0, 2], [4, 5]])
    ranks = ranking.every_rank(queries, torch.eye(3).repeat(7, 1), pairs)
    assert float(ranks[-1]) == 1 + 20 / 2


@pytest.mark.parametrize("every", [False, True])
def test_one_item(every):
    got = retrieval_metrics(torch.eye(1), torch.eye(1), every=every)
    assert set(got.values()) == {1.0}


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


@pytest.mark.parametrize(("right", "total"), [(1, 1), (1, 6), (2, 6), (5, 6), (6, 6)])
def test_chance_is_the_mean_over_all_orders(right, total):
    orders = list(itertools.combinations(range(1, total + 1), right))
    pairs = torch.stack(
        [torch.arange(len(orders)).repeat_interleave(right), torch.zeros(len(orders) * right).long()], 1
    )
    found = scores_of(torch.tensor(orders, dtype=torch.float64).flatten(), pairs, [1, 3, 9])
    positives = torch.full((4,), right)
    assert chance.chance_mrr(positives, total) == pytest.approx(float(found["MRR"].mean()))
    assert chance.chance_map(positives, total) == pytest.approx(float(found["mAP@R"].mean()))
    for k in (3, 9):
        assert chance.chance_ndcg(k, positives, total) == pytest.approx(float(found[f"nDCG@{k}"].mean()))


def test_chance_is_a_mean_over_queries():
    both = torch.tensor([1, 4, 4])
    for guess in (chance.chance_mrr, chance.chance_map, lambda p, k: chance.chance_ndcg(5, p, k)):
        one, four = guess(both[:1], 9), guess(both[1:], 9)
        assert guess(both, 9) == pytest.approx((one + 2 * four) / 3)


def test_class_chance_by_hand():
    """Query 0 has classes 0 and 1, query 1 none; candidates: 0, 1 and 2, 2, unknown."""
    labels = torch.tensor([0, 1, -1, 0, 1, 2, 2, -1])
    queries = items(torch.eye(2), [[0, 0], [0, 1], [1, 2]])
    candidates = items(torch.eye(4), [[0, 3], [1, 4], [1, 5], [2, 6], [3, 7]])
    assert class_chance(queries, candidates, labels) == pytest.approx(2 / 4)
    more = items(torch.eye(4), [[0, 0], [0, 1], [1, 2], [2, 5], [3, 6]])
    assert class_chance(more, candidates, labels) == pytest.approx((2 + 2 + 2) / 3 / 4)
    more = items(torch.eye(4), [[0, 0], [1, 3], [2, 5], [3, 2]])
    assert class_chance(more, candidates, labels) == pytest.approx((1 + 1 + 2) / 3 / 4)


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
    report = task.run(None, Table({"audio": diagonal(q), "image": diagonal(c)}, 40))
    got = report.metrics
    assert got.pop("chance_R@1") == pytest.approx(1 / 40)
    assert got == retrieval_metrics(q, c, every=True)
    assert {k: v for k, v in got.items() if k in retrieval_metrics(q, c)} == retrieval_metrics(q, c)
    assert set(report.intervals) == set(got)
    assert all(low <= got[name] <= high for name, (low, high) in report.intervals.items())
    assert set(report.chance) == set(got) - {"median_rank"}


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
    got = class_hits(a, b, torch.tensor(labels)).double()

    def known(side, i):
        return {int(labels[r]) for item, r in side.links.tolist() if item == i} - {-1}

    hits = []
    for i in range(n):
        scores = b.vectors.double().numpy() @ a.vectors[i].double().numpy()
        if known(a, i):
            top = [j for j in range(k) if scores[j] >= scores.max() - 1e-9]
            hits.append(all(known(a, i) & known(b, j) for j in top))
    assert got.tolist() == hits
    offered = set().union(*(known(b, j) for j in range(k)))
    answerable = [bool(known(a, i) & offered) for i in range(n) if known(a, i)]
    hits = [hit for hit, can in zip(hits, answerable, strict=True) if can]
    if hits and len(ranking.join(a.links, b.links)):
        table = Table({"a": a, "b": b}, rows, torch.tensor(labels))
        with pytest.MonkeyPatch.context() as patch:
            for module in (retrieval, rank_metrics):
                patch.setattr(module, "interval", partial(bootstrap.interval, draws=2))
            report = Retrieval("a", "b").run(None, table)
        assert report.metrics["class_R@1"] == pytest.approx(np.mean(hits))


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
