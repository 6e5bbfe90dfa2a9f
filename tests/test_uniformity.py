"""Uniformity: brute force in float64, its limits, tiles, missing modalities."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign import Embeddings
from modalign.losses import Uniformity
from torch.nn.functional import normalize

torch.set_num_threads(1)
NAMES = ("image", "text", "audio")


def vectors(n, seed=0, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    return {m: normalize(torch.randn(n, 5, generator=g, dtype=torch.float64), dim=1).to(dtype) for m in NAMES}


def brute(v, present, t, within, across):
    rows = {m: present[m].nonzero().squeeze(1).tolist() for m in v}
    terms = [[], []]
    for m in v:
        d = [math.exp(-t * float((v[m][j] - v[m][k]).square().sum())) for j in rows[m] for k in rows[m]]
        terms[0] += [math.log(sum(d) / len(d))] if d else []
    for i, a in enumerate(v):
        for b in list(v)[i + 1 :]:
            both = [r for r in rows[a] if r in rows[b]]
            d = [
                math.exp(-t * float((v[a][j] - v[b][k]).square().sum())) for j in both for k in both if j != k
            ]
            terms[1] += [math.log(sum(d) / len(d))] if d else []
    taken = [x for x, wanted in zip(terms, (within, across), strict=True) if wanted and x]
    return sum(sum(x) / len(x) for x in taken)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 6),
    st.sampled_from([0.5, 2.0, 50.0]),
    st.sampled_from([(True, True), (True, False), (False, True)]),
    st.data(),
)
def test_equals_brute_force(n, t, which, data):
    v = vectors(n, dtype=torch.float64)
    present = {m: torch.tensor(data.draw(st.lists(st.booleans(), min_size=n, max_size=n))) for m in v}
    dirty = {m: x.masked_fill(~present[m].unsqueeze(1), math.nan).requires_grad_() for m, x in v.items()}
    got = Uniformity(t, *which)(Embeddings(dirty, present=present))
    assert got.item() == pytest.approx(brute(v, present, t, *which), rel=1e-9, abs=1e-9)
    got.backward()
    assert all(bool(x.grad.isfinite().all()) for x in dirty.values())


def test_limits():
    point = normalize(torch.ones(9, 5), dim=1)
    collapsed = Embeddings({"image": point, "text": point})
    assert Uniformity()(collapsed).item() == pytest.approx(0, abs=1e-6)
    spread = Embeddings({"image": torch.eye(9), "text": torch.eye(9)})
    assert Uniformity()(spread) < 0
    own = Uniformity(t=1e3, across=False)(spread).item()
    assert own == pytest.approx(-math.log(9), rel=1e-5), "an item is near itself: never below -log N"


def test_two_modalities_weigh_half_each():
    v = vectors(8)
    two = {m: v[m] for m in ("image", "text")}
    alone = [Uniformity(pairs=[[m, "audio"]], across=False) for m in two]
    each = [
        math.log(float(torch.exp(-2 * torch.cdist(x.double(), x.double()).square()).mean()))
        for x in two.values()
    ]
    assert Uniformity(across=False)(Embeddings(two)).item() == pytest.approx(sum(each) / 2, rel=1e-5)
    assert all(a(Embeddings(v)).isfinite() for a in alone)


def test_tiles_change_nothing_and_gradients_are_right(monkeypatch):
    v = {m: x.requires_grad_() for m, x in vectors(5, dtype=torch.float64).items()}
    whole = Uniformity()(Embeddings(v))
    monkeypatch.setattr("modalign.losses.primitives.two_way.TILE", 7)
    torch.testing.assert_close(Uniformity()(Embeddings(v)), whole)

    def f(*x):
        return Uniformity()(Embeddings(dict(zip(v, x, strict=True))))

    assert torch.autograd.gradcheck(f, tuple(v.values()))
    assert torch.autograd.gradgradcheck(f, tuple(v.values()))


@pytest.mark.parametrize("wrong", [{"t": 0.0}, {"within": False, "across": False}])
def test_senseless_options_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Uniformity(**wrong)
