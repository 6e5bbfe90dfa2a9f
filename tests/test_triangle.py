"""TRIANGLE: areas by the cross product, symmetry, its blind spot, missing modalities."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign import Embeddings
from modalign.losses import Triangle
from torch.nn.functional import cross_entropy, normalize

torch.set_num_threads(1)
NAMES = ("image", "text", "audio")


def vectors(n, d=3, seed=0, dtype=torch.float32, names=NAMES):
    g = torch.Generator().manual_seed(seed)
    return {m: normalize(torch.randn(n, d, generator=g, dtype=torch.float64), dim=1).to(dtype) for m in names}


def areas(v):
    """``(N, N)``: twice the squared area of (a_i, b_j, c_j), in space by the cross product."""
    a, b, c = (x.double() for x in v.values())
    u, w = a.unsqueeze(1) - b, a.unsqueeze(1) - c
    return 2 * (torch.linalg.cross(u, w, dim=2).norm(dim=2) / 2).square()


@settings(max_examples=30, deadline=None)
@given(
    st.integers(1, 8), st.sampled_from([0.0, 0.1]), st.sampled_from([1.0, 14.3, 300.0]), st.integers(0, 99)
)
def test_equals_the_cross_product(n, smoothing, scale, seed):
    v = vectors(n, seed=seed)
    logits, answer = -scale * areas(v), torch.arange(n)
    want = sum(cross_entropy(x, answer, label_smoothing=smoothing) for x in (logits, logits.T)) / 2
    got = Triangle(label_smoothing=smoothing)(Embeddings(v, scale=scale))
    assert got.dtype == torch.float32
    assert got.item() == pytest.approx(want.item(), rel=2e-5, abs=1e-4)


def test_gradients():
    v = vectors(4, d=5, dtype=torch.float64)
    scale = torch.tensor(5.0, dtype=torch.float64, requires_grad=True)
    leaves = [x.requires_grad_() for x in v.values()]

    def f(s, *x):
        return Triangle()(Embeddings(dict(zip(v, x, strict=True)), scale=s))

    assert torch.autograd.gradcheck(f, (scale, *leaves))


def test_the_area_is_symmetric_in_the_three():
    v = vectors(6)
    own = areas(v).diagonal()
    for order in (("text", "audio", "image"), ("audio", "image", "text"), ("text", "image", "audio")):
        torch.testing.assert_close(areas({m: v[m] for m in order}).diagonal(), own)


@pytest.mark.parametrize("equal", [("image", "text"), ("text", "audio")])
def test_two_that_coincide_hide_the_third(equal):
    """Every true triangle is flat, wherever the third vertex lies."""
    v = vectors(8)
    v[equal[1]] = v[equal[0]]
    torch.testing.assert_close(areas(v).diagonal(), torch.zeros(8, dtype=torch.float64))
    if equal == ("text", "audio"):  # then false ones are flat too, and the loss knows nothing
        got = Triangle(0.1)(Embeddings(v)).item()
        assert got == pytest.approx(math.log(8), rel=1e-3)


def test_signs_are_seen():
    v = vectors(8)
    assert Triangle(0.1)(Embeddings({**v, "text": -v["text"]})) != Triangle(0.1)(Embeddings(v))


def test_a_side_stands_for_the_area_where_one_is_missing():
    v = {k: x.requires_grad_() for k, x in vectors(6).items()}
    present = {"audio": torch.zeros(6, dtype=torch.bool)}
    got = Triangle(0.2, label_smoothing=0)(Embeddings(v, present=present))
    logits = -5 * torch.cdist(v["image"].double(), v["text"].double()).square()
    want = sum(cross_entropy(x, torch.arange(6)) for x in (logits, logits.T)) / 2
    assert got.item() == pytest.approx(want.item(), rel=1e-4)
    got.backward()
    assert not bool(v["audio"].grad.any())
    pairs = {m: x.detach() for m, x in v.items() if m != "audio"}
    assert Triangle(0.2, label_smoothing=0)(Embeddings(pairs)).item() == pytest.approx(got.item())


def test_tiles_change_nothing(monkeypatch):
    z = Embeddings(vectors(9), scale=5.0)
    whole = Triangle()(z)
    monkeypatch.setattr("modalign.losses.primitives.two_way.TILE", 20)
    torch.testing.assert_close(Triangle()(z), whole)


def test_finite_where_all_vectors_are_equal_or_zero():
    for fill in (normalize(torch.ones(5, 3), dim=1), torch.zeros(5, 3)):
        v = {m: fill.clone().requires_grad_() for m in NAMES}
        loss = Triangle()(Embeddings(v, scale=100.0))
        loss.backward()
        assert loss.item() == pytest.approx(math.log(5), rel=1e-3)
        assert all(bool(x.grad.isfinite().all()) for x in v.values())


def test_three_modalities_at_most():
    v = vectors(4, names=(*NAMES, "score"))
    with pytest.raises(ValueError, match="three"):
        Triangle()(Embeddings(v))
    some = {m: v[m] for m in NAMES}
    assert Triangle(modalities=NAMES)(Embeddings(v)) == Triangle()(Embeddings(some))
