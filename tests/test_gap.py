"""Gap: centres, alignment, uniformity and spectra against numpy and the losses; what they mean."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign.contracts import Embeddings, Items
from modalign.errors import UserError
from modalign.losses import Alignment
from modalign.tasks import ranking
from modalign.tasks.gap import Gap, closeness, linearised, sides_interval
from modalign.tasks.spectrum import effective_rank, singular_values
from torch.nn.functional import normalize

from .splits import Table

torch.set_num_threads(1)


def unit(n, d=6, seed=0):
    return normalize(torch.randn(n, d, generator=torch.Generator().manual_seed(seed)), dim=1)


def diagonal(vectors):
    return Items(vectors, torch.arange(len(vectors)).unsqueeze(1).expand(-1, 2))


def measured(a, b, **arguments):
    return Gap(["first", "second"], **arguments).run(None, Table({"first": a, "second": b}, 99))


def rank_of(values):
    share = values[values > 0] / values.sum()
    return np.exp(-(share * np.log(share)).sum())


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.5, 2.0]))
def test_equals_numpy(seed, t):
    rng = np.random.default_rng(seed)
    sizes, sides = (7, 9), []
    for i, k in enumerate(sizes):
        links = [[int(rng.integers(0, k)), int(rng.integers(0, 8))] for _ in range(12)]
        sides.append(Items(unit(k, seed=seed + i), torch.tensor(links + [[j, j % 8] for j in range(k)])))
    x, y = (s.vectors.double().numpy() for s in sides)
    pairs = sorted({(i, j) for i, r in sides[0].links.tolist() for j, q in sides[1].links.tolist() if r == q})
    report = measured(*sides, t=t)
    got = report.metrics
    left, right = (np.array(p) for p in zip(*pairs, strict=True))
    assert got["alignment"] == pytest.approx(((x[left] - y[right]) ** 2).sum(1).mean(), rel=1e-5)
    assert got["gap"] == pytest.approx(np.linalg.norm(x.mean(0) - y.mean(0)), rel=1e-5)
    apart = [((v[:, None] - v[None]) ** 2).sum(2)[np.triu_indices(len(v), 1)] for v in (x, y)]
    assert got["uniformity"] == pytest.approx(
        np.mean([np.log(np.exp(-t * a).mean()) for a in apart]), rel=1e-4
    )
    ranks = [rank_of(np.linalg.svd(v - v.mean(0), compute_uv=False)) for v in (x, y)]
    assert got["effective_rank"] == pytest.approx(np.mean(ranks), rel=1e-4)
    cross = (x[left] - x[left].mean(0)).T @ (y[right] - y[right].mean(0)) / len(left)
    spectrum = np.linalg.svd(cross, compute_uv=False)
    assert got["cross_effective_rank"] == pytest.approx(rank_of(spectrum), rel=1e-4)
    assert [r["singular_value"] for r in report.tables["spectrum"]] == pytest.approx(
        spectrum.tolist(), abs=1e-6
    )
    everything = ((x[:, None] - y[None]) ** 2).sum(2).mean()
    assert report.chance["alignment"] == pytest.approx(everything, rel=1e-5)
    for name, (low, high) in report.intervals.items():
        assert low <= got[name] <= high, name


def test_alignment_is_the_loss():
    a, b = unit(20), unit(20, seed=1)
    got = measured(diagonal(a), diagonal(b)).metrics["alignment"]
    assert got == pytest.approx(float(Alignment()(Embeddings({"first": a, "second": b}))), rel=1e-5)


def test_a_shift_of_one_modality_is_the_gap_alone():
    x = unit(200, 8)
    shift = torch.zeros(8)
    shift[0] = 0.5
    here, there = (measured(diagonal(x), diagonal(x + s)).metrics for s in (0 * shift, shift))
    assert here["gap"] == pytest.approx(0, abs=1e-6)
    assert here["alignment"] == 0
    assert there["gap"] == pytest.approx(0.5, rel=1e-5)
    assert there["alignment"] == pytest.approx(0.25, rel=1e-5)
    for name in ("uniformity", "effective_rank", "cross_effective_rank"):
        assert there[name] == pytest.approx(here[name], rel=1e-4)


def test_a_collapsed_modality():
    one = unit(1).repeat(30, 1)
    report = measured(diagonal(one), diagonal(one))
    assert report.metrics["uniformity"] == pytest.approx(0, abs=1e-5)
    assert report.metrics["effective_rank"] < 1.5
    assert all(np.isfinite(v) for v in report.metrics.values())


def test_one_item_has_no_uniformity():
    report = measured(diagonal(unit(1)), diagonal(unit(1, seed=1)))
    assert "uniformity" not in report.metrics
    assert report.tables["modalities"][0]["uniformity"] is None
    assert report.metrics["effective_rank"] == 0


def test_the_effective_rank_counts_equal_directions():
    assert effective_rank(torch.tensor([1.0, 1, 1, 0])) == pytest.approx(3)
    axes = torch.cat([torch.eye(5)[:3], -torch.eye(5)[:3]])
    assert effective_rank(singular_values(axes)) == pytest.approx(3)


def test_blocks_change_nothing(monkeypatch):
    whole = closeness(unit(50), 2)
    monkeypatch.setattr(ranking, "BLOCK", 120)
    torch.testing.assert_close(closeness(unit(50), 2), whole)


def test_the_interval_of_uniformity_is_as_wide_as_the_number_varies():
    """Against the spread over many fresh samples; without both ends it would be half as wide."""
    samples = [closeness(unit(80, 4, seed=s), 2) for s in range(200)]
    spread = torch.stack([s.mean().log() for s in samples]).std()
    told = linearised(samples[0]).std() / 80**0.5
    assert 0.7 < float(told / spread) < 1.4


def test_the_interval_of_two_means_is_as_wide_as_both_make_it():
    g = torch.Generator().manual_seed(0)
    first, second = torch.randn(400, generator=g).double(), 3 * torch.randn(100, generator=g).double() + 1
    low, high = sides_interval(first, second, (1, -1))
    middle = float(first.mean() - second.mean())
    half = 1.96 * float(first.var() / 400 + second.var() / 100) ** 0.5
    assert [low, high] == pytest.approx([middle - half, middle + half], abs=0.1 * half)


def test_the_figure_shows_every_singular_value():
    drawn = measured(diagonal(unit(20)), diagonal(unit(20, seed=1))).figures["spectrum"]
    (line,) = drawn.axes[0].lines
    assert len(line.get_xdata()) == 6


def test_what_cannot_be_measured_is_named():
    for between in (["first"], ["first", "first"], ["a", "b", "c"]):
        with pytest.raises(UserError):
            Gap(between)
    with pytest.raises(UserError, match="t 0"):
        Gap(["first", "second"], t=0)
    apart = Items(unit(2), torch.tensor([[0, 5], [1, 6]]))
    with pytest.raises(UserError, match="both first and second"):
        measured(diagonal(unit(2)), apart)
