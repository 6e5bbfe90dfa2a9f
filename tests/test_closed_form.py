"""Closed-form maps: against scikit-learn, scipy and what their algebra promises."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign.closed_form import METHODS, Moments, align_pairs, identity, onto
from modalign.closed_form.canonical import oas
from torch.nn.functional import normalize


def pair(n=400, p=6, q=4, shared=3, noise=0.3, seed=0):
    """Two views of one latent, with means far from zero."""
    g = torch.Generator().manual_seed(seed)
    z = torch.randn(n, shared, generator=g, dtype=torch.float64)

    def view(width):
        mix = torch.randn(shared, width, generator=g, dtype=torch.float64)
        other = torch.randn(n, width, generator=g, dtype=torch.float64)
        return z @ mix + noise * other + 5

    return view(p), view(q)


def moments(x, y, chunk=None, weight=1.0):
    made = Moments(x.shape[1], y.shape[1])
    chunk = chunk or max(1, len(x))
    for i in range(0, len(x), chunk):
        made.add(x[i : i + chunk], y[i : i + chunk], weight)
    return made


def solve(method, x, y, dim, regularisation=None):
    maps, left = align_pairs(method, {("a", "b"): [moments(x, y)]}, dim, regularisation)
    return maps["a"](x), maps["b"](y), left


def found(a, b):
    """The share of rows whose partner is the nearest by cosine."""
    nearest = (normalize(a, dim=1) @ normalize(b, dim=1).T).argmax(1)
    return (nearest == torch.arange(len(a))).double().mean().item()


# Moments -----------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=25)
@given(st.integers(1, 40), st.integers(1, 5), st.integers(1, 5), st.integers(1, 41), st.floats(0.1, 10))
def test_streamed_equals_whole(n, p, q, chunk, weight):
    g = torch.Generator().manual_seed(n * 41 + chunk)
    x, y = torch.randn(n, p, generator=g) + 100, torch.randn(n, q, generator=g)
    made = moments(x, y, chunk, weight)
    both = torch.cat([x, y], 1).double()
    expected = (both - both.mean(0)).T @ (both - both.mean(0)) / n
    xx, xy, yy = made.covariances()
    torch.testing.assert_close(torch.cat(made.mean()), both.mean(0), rtol=1e-6, atol=1e-5)
    torch.testing.assert_close(torch.cat([xx, xy], 1), expected[:p], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(yy, expected[p:, p:], rtol=1e-4, atol=1e-4)
    assert made.weight == pytest.approx(weight * n)


def test_parts_add_up_to_the_whole():
    x, y = pair()
    parts = [moments(x[i::3], y[i::3]) for i in range(3)]
    whole = Moments.sum([*parts, Moments(6, 4)])
    for made, expected in zip(whole.covariances(), moments(x, y).covariances(), strict=True):
        torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-5)


def test_swapped():
    x, y = pair()
    for made, expected in zip(
        moments(x, y).swapped().covariances(), moments(y, x).covariances(), strict=True
    ):
        torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-5)


# Against the field's own ---------------------------------------------------------------------------


def test_ridge_equals_scikit_learn():
    from sklearn.linear_model import Ridge

    x, y = pair()
    xx = moments(x, y).covariances()[0]
    share = 0.1
    alpha = float(share * xx.diagonal().mean() * len(x))
    made, left = onto("ridge", moments(x, y), identity(4), share)
    oracle = Ridge(alpha=alpha).fit(x.numpy(), y.numpy())
    np.testing.assert_allclose(made.weight, oracle.coef_, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(made.bias, oracle.intercept_, rtol=1e-4, atol=1e-4)
    residual = (y - made(x)).square().sum() / (y - y.mean(0)).square().sum()
    assert left == pytest.approx(float(residual), rel=1e-3)


def test_cross_validation_picks_what_leaving_one_out_would():
    from sklearn.linear_model import RidgeCV

    x, y = pair(n=30, p=20, noise=2.0)
    m = moments(x, y)
    shares = torch.logspace(-6, 2, 60, dtype=torch.float64)
    alphas = (shares * m.covariances()[0].diagonal().mean() * len(x)).numpy()
    oracle = RidgeCV(alphas=alphas).fit(x.numpy(), y.numpy())
    made, _ = onto("ridge", m, identity(4))
    chosen = RidgeCV(alphas=[oracle.alpha_]).fit(x.numpy(), y.numpy())
    difference = (made(x) - torch.from_numpy(chosen.predict(x.numpy()))).square().mean()
    assert difference < 0.05 * y.var()


def test_procrustes_equals_scipy():
    from scipy.linalg import orthogonal_procrustes

    x, y = pair(p=4)
    made, _ = onto("procrustes", moments(x, y), identity(4))
    rotation, _ = orthogonal_procrustes((x - x.mean(0)).numpy(), (y - y.mean(0)).numpy())
    np.testing.assert_allclose(made.weight.T, rotation, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(made.weight @ made.weight.T, torch.eye(4, dtype=torch.float64))


def test_cca_finds_scikit_learns_correlations():
    from sklearn.cross_decomposition import CCA

    x, y = pair(noise=1.0)
    a, b, left = solve("cca", x, y, 3, 1e-9)
    u, v = CCA(3, max_iter=5000, tol=1e-10).fit_transform(x.numpy(), y.numpy())
    expected = [np.corrcoef(u[:, i], v[:, i])[0, 1] for i in range(3)]
    made = [np.corrcoef(a[:, i], b[:, i])[0, 1] for i in range(3)]
    np.testing.assert_allclose(made, expected, atol=1e-4)
    assert left == pytest.approx(1 - np.mean(expected), abs=1e-4)


def test_shrinkage_equals_scikit_learn():
    from sklearn.covariance import OAS

    x, _ = pair(n=100, p=300, noise=1.0)
    share = oas(moments(x, x).covariances()[0], len(x))
    oracle = OAS().fit(x.numpy())  # which leaves out the terms 2 / p
    assert share / (1 + share) == pytest.approx(oracle.shrinkage_, rel=0.02)


# What the algebra promises -------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_rotated_copy_is_found_again(method):
    x, _ = pair(n=200, p=5, shared=5)
    rotation = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64))[0]
    a, b, left = solve(method, x, x @ rotation + 1, 5, 1e-9)
    assert found(a, b) == 1
    assert left == pytest.approx(0, abs=1e-4)


def test_strangers_share_nothing():
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(20_000, 6, generator=g), torch.randn(20_000, 4, generator=g)
    for method in METHODS:
        *_, left = solve(method, x, y, 6)
        assert left > 0.95, method


def test_cca_does_not_care_for_an_invertible_map():
    x, y = pair()
    mix = torch.randn(6, 6, dtype=torch.float64) + 3 * torch.eye(6, dtype=torch.float64)
    a, _, left = solve("cca", x, y, 3, 0.0)
    c, _, again = solve("cca", x @ mix, y, 3, 0.0)
    assert left == pytest.approx(again, abs=1e-4)
    signs = torch.sign((a * c).sum(0))
    torch.testing.assert_close(a, c * signs, rtol=1e-2, atol=1e-2)


def test_csa_weighs_each_direction_by_its_correlation():
    x, y = pair(noise=1.0)
    a, b, _ = solve("cca", x, y, 4, 1e-3)
    c, _, _ = solve("csa", x, y, 4, 1e-3)
    ratio = (c.std(0) / a.std(0)).square()
    made = [np.corrcoef(a[:, i], b[:, i])[0, 1] for i in range(4)]
    np.testing.assert_allclose(ratio, made, atol=0.01)
    assert list(ratio) == sorted(ratio, reverse=True)


def test_few_rows_of_strangers_do_not_deceive_csa():
    """With sixty rows, directions that share nothing correlate too; held-out rows tell them apart."""
    x, y = pair(n=460, p=20, q=15, shared=3, noise=0.4)

    def recall(parts):
        dealt = [moments(x[:60][i::parts], y[:60][i::parts]) for i in range(parts)]
        maps, _ = align_pairs("csa", {("a", "b"): dealt}, 15, 0.01)
        return found(maps["a"](x[60:]), maps["b"](y[60:]))

    assert recall(4) > 2 * recall(1)


def test_a_wide_anchor_is_cut_to_its_principal_directions():
    x, y = pair(p=6, q=4)
    maps, _ = align_pairs("ridge", {("a", "b"): [moments(x, y)]}, 3)
    kept = maps["a"](x)
    centred = x - x.mean(0)
    values = torch.linalg.svdvals(centred)[:3] / len(x) ** 0.5
    torch.testing.assert_close(kept.mean(0), torch.zeros(3, dtype=torch.float64), atol=1e-4, rtol=0)
    torch.testing.assert_close(kept.std(0, correction=0), values, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_three_modalities_meet(method):
    g = torch.Generator().manual_seed(1)
    z = torch.randn(300, 4, generator=g, dtype=torch.float64)
    views = {m: z @ torch.randn(4, 9, generator=g, dtype=torch.float64) for m in "abc"}
    if method == "procrustes":  # which only turns
        views = {m: z @ torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64))[0] for m in "abc"}
    pairs = {p: [moments(views[p[0]], views[p[1]])] for p in [("a", "b"), ("a", "c"), ("b", "c")]}
    maps, _ = align_pairs(method, pairs, 4, 1e-9)
    for p in pairs:
        assert found(maps[p[0]](views[p[0]]), maps[p[1]](views[p[1]])) == 1


def test_missing_rows_are_in_no_sum():
    """A third modality seen with the first alone is aligned with the second all the same."""
    g = torch.Generator().manual_seed(1)
    z = torch.randn(600, 4, generator=g, dtype=torch.float64)
    views = {m: z @ torch.randn(4, 5, generator=g, dtype=torch.float64) for m in "abc"}
    first, second = slice(0, 300), slice(300, 500)
    pairs = {
        ("a", "b"): [moments(views["a"][first], views["b"][first])],
        ("a", "c"): [moments(views["a"][second], views["c"][second])],
    }
    maps, _ = align_pairs("ridge", pairs, 5, 1e-6)
    assert found(maps["b"](views["b"][500:]), maps["c"](views["c"][500:])) == 1


# Edges ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n", [0, 1, 2])
def test_hardly_any_row_still_gives_finite_maps(method, n):
    x, y = pair(n=n)
    maps, left = align_pairs(method, {("a", "b"): [moments(x, y)]}, 6)
    assert all(torch.isfinite(m.weight).all() and torch.isfinite(m.bias).all() for m in maps.values())
    assert np.isfinite(left)


def test_a_constant_dimension_does_no_harm():
    x, y = pair()
    x[:, 2] = 7
    for method in METHODS:
        a, b, _ = solve(method, x, y, 6, 0.0)
        assert torch.isfinite(a).all()
        assert torch.isfinite(b).all()


def test_what_cannot_be_is_said():
    x, y = pair(p=6, q=4)
    with pytest.raises(ValueError, match=r"6 dimensions into 4.*ridge"):
        onto("procrustes", moments(x, y), identity(4))
    with pytest.raises(ValueError, match="no pair has c with it"):
        align_pairs("ridge", {("a", "b"): [moments(x, y)], ("b", "c"): [moments(y, x)]}, 6)
