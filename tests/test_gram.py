"""GRAM: volumes by determinants in float64, its formula for pairs, its blind spots, missing modalities."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign import Embeddings
from modalign.losses import GRAM
from modalign.losses.gram import determinant
from torch.nn.functional import cross_entropy, normalize

torch.set_num_threads(1)
NAMES = ("image", "text", "audio", "score")


def vectors(n, m=3, d=6, seed=0, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    return {
        k: normalize(torch.randn(n, d, generator=g, dtype=torch.float64), dim=1).to(dtype) for k in NAMES[:m]
    }


def volumes(v):
    """``(N, N)`` by ``torch.linalg.det``: anchor ``i`` with the others of row ``j``."""
    anchor, *others = (x.double() for x in v.values())
    n = len(anchor)
    out = torch.zeros(n, n, dtype=torch.float64)
    for i in range(n):
        for j in range(n):
            rows = torch.stack([anchor[i], *(o[j] for o in others)])
            out[i, j] = torch.linalg.det(rows @ rows.T).clamp(min=1e-6).sqrt()
    return out


def formula(v, scale, smoothing=0.1):
    logits, answer = -scale * volumes(v), torch.arange(len(next(iter(v.values()))))
    directions = (logits, logits.T)
    return sum(cross_entropy(x, answer, label_smoothing=smoothing) for x in directions).item() / 2


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 7),
    st.integers(2, 4),
    st.sampled_from([0.0, 0.1]),
    st.sampled_from([1.0, 14.3, 300.0]),
    st.integers(0, 99),
)
def test_equals_determinants(n, m, smoothing, scale, seed):
    v = vectors(n, m, seed=seed)
    got = GRAM(label_smoothing=smoothing)(Embeddings(v, scale=scale))
    assert got.dtype == torch.float32
    assert got.item() == pytest.approx(formula(v, scale, smoothing), rel=1e-4, abs=1e-4)
    assert GRAM(1 / scale, smoothing)(Embeddings(v)).item() == pytest.approx(got.item())


@pytest.mark.parametrize("m", [2, 3, 4])
def test_gradients(m):
    v = vectors(4, m, dtype=torch.float64)
    scale = torch.tensor(5.0, dtype=torch.float64, requires_grad=True)

    def f(s, *x):
        return GRAM()(Embeddings(dict(zip(v, x, strict=True)), scale=s))

    leaves = [x.requires_grad_() for x in v.values()]
    assert torch.autograd.gradcheck(f, (scale, *leaves))


def test_tiles_change_nothing(monkeypatch):
    z = Embeddings(vectors(9), scale=5.0)
    whole = GRAM()(z)
    monkeypatch.setattr("modalign.losses.primitives.two_way.TILE", 20)
    torch.testing.assert_close(GRAM()(z), whole)


@pytest.mark.parametrize("n", [0, 1, 2, 3, 4, 5])
def test_determinants(n):
    g = torch.randn(n, n, 3, dtype=torch.float64)
    torch.testing.assert_close(determinant(g), torch.linalg.det(g.permute(2, 0, 1)))


def test_two_modalities_are_the_sine():
    v = vectors(8, 2)
    sine = (1 - (v["image"] @ v["text"].T).square()).sqrt()
    want = cross_entropy(-4 * sine, torch.arange(8)) + cross_entropy(-4 * sine.T, torch.arange(8))
    torch.testing.assert_close(GRAM(0.25, label_smoothing=0)(Embeddings(v)), want / 2, rtol=1e-4, atol=1e-5)


def test_blind_to_signs():
    v = vectors(8)
    for m in v:
        flipped = {**v, m: -v[m]}
        torch.testing.assert_close(GRAM(0.1)(Embeddings(flipped)), GRAM(0.1)(Embeddings(v)))


def test_two_equal_modalities_hide_the_third():
    v = vectors(8)
    hidden = {**v, "audio": v["text"]}
    other = {**hidden, "image": vectors(8, seed=5)["image"]}
    a, b = (GRAM(0.1)(Embeddings(x)) for x in (hidden, other))
    assert a.item() == pytest.approx(math.log(8), rel=1e-3)
    assert b.item() == pytest.approx(a.item(), rel=1e-3)


def test_finite_where_all_vectors_are_equal_or_zero():
    for fill in (normalize(torch.ones(5, 6), dim=1), torch.zeros(5, 6)):
        v = {m: fill.clone().requires_grad_() for m in NAMES[:3]}
        loss = GRAM()(Embeddings(v, scale=100.0))
        loss.backward()
        assert loss.item() == pytest.approx(math.log(5), rel=1e-3)
        assert all(bool(x.grad.isfinite().all()) for x in v.values())


def test_a_row_is_compared_by_what_it_has():
    """Row 0 lacks the anchor: text takes its place. Row 1 has text alone: not compared."""
    v = {k: x.requires_grad_() for k, x in vectors(6).items()}
    gone = {"image": torch.tensor([0, 1]), "audio": torch.tensor([1])}
    present = {m: torch.ones(6, dtype=torch.bool).index_fill(0, rows, False) for m, rows in gone.items()}
    got = GRAM(0.2, label_smoothing=0)(Embeddings(v, present=present))
    full = -5 * volumes({k: x[2:].detach() for k, x in v.items()})
    pair = -5 * volumes({k: v[k][[0, 2, 3, 4, 5]].detach() for k in ("text", "audio")})
    losses = [(x.logsumexp(0) + x.logsumexp(1)) / 2 - x.diagonal() for x in (full, pair)]
    assert got.item() == pytest.approx((losses[0].sum() + losses[1][0]).item() / 5, rel=1e-4)
    got.backward()
    assert (v["text"].grad != 0).any(1).tolist() == [True, False, True, True, True, True]


def test_the_anchor_is_the_first():
    v = vectors(6)
    turned = {k: v[k] for k in ("audio", "image", "text")}
    a = GRAM(0.1)(Embeddings(turned))
    torch.testing.assert_close(GRAM(0.1, modalities=["audio", "image", "text"])(Embeddings(v)), a)
    assert GRAM(0.1)(Embeddings(v)) != a


@pytest.mark.parametrize(
    "wrong", [{"temperature": -1.0}, {"label_smoothing": 1.0}, {"eps": 0.0}, {"modalities": ["a"]}]
)
def test_values_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        GRAM(**wrong)
    with pytest.raises(ValueError, match="'video'"):
        GRAM(modalities=["video", "text"])(Embeddings(vectors(3)))
