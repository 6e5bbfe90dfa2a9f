"""Blind pairs: enumeration of every pair, streaming, thresholds, shared items."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign.contracts import Items
from modalign.errors import UserError
from modalign.tasks import ranking
from modalign.tasks.blind_pairs import BlindPairs, quantile
from torch.nn.functional import normalize

from .splits import Table

torch.set_num_threads(1)


def unit(n, d=3, seed=0):
    return normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=1)


def diagonal(vectors):
    return Items(vectors, torch.arange(len(vectors)).unsqueeze(1).expand(-1, 2))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([7, 1000]))
def test_equals_enumeration(seed, block):
    rng = np.random.default_rng(seed)
    sides = []
    for i in range(2):
        links = {(int(rng.integers(0, 7)), int(rng.integers(0, 9))) for _ in range(12)}
        sides.append(Items(unit(7, seed=seed + i), torch.tensor(sorted(links | {(j, j) for j in range(7)}))))
    pairs = sorted({(a, b) for a, i in sides[0].links.tolist() for b, j in sides[1].links.tolist() if i == j})
    x, y = (s.vectors.double().numpy() for s in sides)
    near, blind, far, possible, worst = 0, 0, 0, 0, []
    for (a, b), (c, d) in itertools.combinations(pairs, 2):
        if a == c:
            continue
        possible += 1
        close, apart = x[a] @ x[c] >= 0.5, y[b] @ y[d] <= 0.1
        near, blind, far = near + close, blind + (close and apart), far + apart
        if close:
            worst.append(x[a] @ x[c] - y[b] @ y[d])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranking, "BLOCK", block)
        report = BlindPairs("a", "b", above=0.5, below=0.1, show=3).run(
            None, Table(dict(zip("ab", sides, strict=True)), 9)
        )
    assert report.metrics == {"blind": pytest.approx(blind / near if near else 0), "near_pairs": near}
    assert report.chance["blind"] == pytest.approx(far / possible)
    counts = report.tables["counts"][0]
    assert (counts["blind_pairs"], counts["pairs"]) == (blind, possible)
    got = [r["a"] - r["b"] for r in report.tables["worst"]]
    assert got == pytest.approx(sorted(worst, reverse=True)[:3], abs=1e-6)


def test_the_worst_pair_is_named_by_rows_and_classes():
    near, far = unit(20, 8), unit(20, 8, seed=1)
    near[7] = near[3]
    far[7] = -far[3]
    data = Table({"a": diagonal(near), "b": diagonal(far)}, 20, torch.arange(20) % 4, tuple("wxyz"))
    row, *_ = BlindPairs("a", "b").run(None, data).tables["worst"]
    assert row == {
        "row": 3, "other_row": 7, "a": pytest.approx(1), "b": pytest.approx(-1), "blind": True,
        "class": "z", "other_class": "z",
    }  # fmt: skip


def test_modalities_that_agree_have_none_and_strangers_are_at_chance():
    x = unit(120, 8)
    agree = BlindPairs("a", "b").run(None, Table({"a": diagonal(x), "b": diagonal(x)}, 120))
    assert agree.metrics["blind"] == 0
    assert agree.metrics["near_pairs"] == pytest.approx(0.01 * 120 * 119 / 2, rel=0.05)
    strangers = BlindPairs("a", "b").run(
        None, Table({"a": diagonal(x), "b": diagonal(unit(120, 8, seed=1))}, 120)
    )
    assert strangers.chance["blind"] == pytest.approx(0.5, abs=0.01)
    low, high = strangers.intervals["blind"]
    assert low < 0.5 < high


def test_nothing_near_is_nothing_blind():
    report = BlindPairs("a", "b", above=1.5).run(
        None, Table({"a": diagonal(unit(9)), "b": diagonal(unit(9))}, 9)
    )
    assert report.metrics == {"blind": 0, "near_pairs": 0}
    assert report.tables["worst"] == []
    assert report.intervals == {}


def test_quantiles_of_a_sample(monkeypatch):
    x = unit(200, 6)
    whole = quantile(x, 0.9)
    i, j = torch.triu_indices(200, 200, 1)
    assert whole == pytest.approx(float((x @ x.T)[i, j].quantile(0.9)), abs=1e-6)
    monkeypatch.setattr("modalign.tasks.blind_pairs.SAMPLE", 8000)
    assert quantile(x, 0.9) == pytest.approx(whole, abs=0.03)


def test_what_cannot_be_measured_is_named():
    for arguments in ({"near": "a", "far": "a"}, {"near": "a", "far": "b", "show": 0}):
        with pytest.raises(UserError):
            BlindPairs(**arguments)
    one = Items(unit(1), torch.tensor([[0, 0], [0, 1]]))
    with pytest.raises(UserError, match="two rows"):
        BlindPairs("a", "b").run(None, Table({"a": one, "b": diagonal(unit(2))}, 2))
