"""Rank variance: brute force over rows and languages, chance by simulation, hand-worked ranks."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign.contracts import Items
from modalign.errors import UserError
from modalign.tasks.rank_variance import RankVariance
from torch.nn.functional import normalize

from .splits import Table

torch.set_num_threads(1)


def unit(n, d=4, seed=0):
    return normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=1)


def diagonal(vectors):
    return Items(vectors, torch.arange(len(vectors)).unsqueeze(1).expand(-1, 2))


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([2, 3]))
def test_equals_brute_force(seed, languages):
    rng = np.random.default_rng(seed)
    rows, sides = 7, {}
    for i, name in enumerate([*["a", "b", "c"][:languages], "to"]):
        links = {(int(rng.integers(0, 6)), int(rng.integers(0, rows))) for _ in range(9)}
        links |= {(j, int(rng.integers(0, rows))) for j in range(6)}
        sides[name] = Items(unit(6, seed=seed + i), torch.tensor([*sorted(links), min(links)]))
    answer = sides["to"]
    of = {m: [{j for j, r in s.links.tolist() if r == row} for row in range(rows)] for m, s in sides.items()}

    def rank(side, i):
        right = {j for row in range(rows) if i in of[side][row] for j in of["to"][row]}
        scores = answer.vectors.double().numpy() @ sides[side].vectors[i].double().numpy()
        best = max(scores[j] for j in right)
        return 1 + sum(scores[j] > best for j in range(6) if j not in right)

    names = list(sides)[:-1]
    whole = [row for row in range(rows) if all(of[m][row] for m in sides)]
    task = RankVariance(names, "to")
    if not whole:
        with pytest.raises(UserError, match="no row"):
            task.run(None, Table(sides, rows))
        return
    table = np.array([[np.mean([rank(m, i) for i in of[m][row]]) for m in names] for row in whole])
    report = task.run(None, Table(sides, rows))
    assert report.metrics == pytest.approx(
        {"MRV": table.var(1).mean(), "rank_std": table.std(1).mean(), "mean_rank": table.mean()}
    )
    assert [r["mean_rank"] for r in report.tables["languages"]] == pytest.approx(table.mean(0).tolist())
    assert report.tables["sizes"][0]["rows"] == len(whole)


def test_by_hand():
    """Language b swaps the first two answers: ranks 1, 1, 1 and 2, 2, 1."""
    to = diagonal(torch.tensor([[1.0, 0.1, 0], [0.1, 1.0, 0], [0, 0, 1]]))
    data = Table({"a": to, "b": Items(to.vectors[[1, 0, 2]], to.links), "to": to}, 3)
    report = RankVariance(["a", "b"], "to").run(None, data)
    assert report.metrics["MRV"] == pytest.approx((0.25 + 0.25 + 0) / 3)
    assert report.metrics["rank_std"] == pytest.approx((0.5 + 0.5 + 0) / 3)
    assert report.tables["languages"][1]["R@1"] == pytest.approx(1 / 3)
    assert report.tables["languages"][1]["off_the_mean"] == pytest.approx((0.5 + 0.5 + 0) / 3)


def test_equal_languages_have_none_and_their_order_does_not_matter():
    a, b, to = (diagonal(unit(30, seed=s)) for s in range(3))
    data = Table({"a": a, "same": a, "b": b, "to": to}, 30)
    assert RankVariance(["a", "same"], "to").run(None, data).metrics["MRV"] == 0
    one, other = (RankVariance(o, "to").run(None, data).metrics for o in (["a", "b"], ["b", "a"]))
    assert one == pytest.approx(other)
    assert one["MRV"] > 0


def test_chance_is_what_random_vectors_give():
    found = []
    for seed in range(20):
        sides = {m: diagonal(unit(25, 16, seed=4 * seed + i)) for i, m in enumerate(["a", "b", "c", "to"])}
        report = RankVariance(["a", "b", "c"], "to").run(None, Table(sides, 25))
        found.append([report.metrics["MRV"], report.metrics["mean_rank"]])
    assert np.mean(found, 0) == pytest.approx([report.chance["MRV"], report.chance["mean_rank"]], rel=0.1)


def test_no_chance_is_told_where_a_query_has_several_right_ones():
    to = Items(unit(4), torch.tensor([[0, 0], [1, 0], [2, 1], [3, 2]]))
    data = Table({"a": diagonal(unit(3, seed=1)), "b": diagonal(unit(3, seed=2)), "to": to}, 3)
    assert RankVariance(["a", "b"], "to").run(None, data).chance == {}


@pytest.mark.parametrize("arguments", [(["a"], "b"), (["a", "b"], "a"), ([], "a")])
def test_senseless_questions_are_refused(arguments):
    with pytest.raises(UserError):
        RankVariance(*arguments)
