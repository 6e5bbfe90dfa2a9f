"""The streamed sums: brute force in float64, gradients, extreme ranges, and what memory they touch."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign.losses.primitives import streaming
from modalign.losses.primitives.kernel_mean import kernel_mean
from modalign.losses.primitives.streaming import cross_entropy, log_sum_exp
from modalign.losses.primitives.streaming_sigmoid import sum_softplus
from torch.autograd import gradcheck
from torch.nn.functional import logsigmoid, normalize
from torch.utils._python_dispatch import TorchDispatchMode

torch.set_num_threads(1)


def leaf(n, d=4, seed=0, dtype=torch.float64, unit=True):
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (normalize(x, dim=1) if unit else x).to(dtype).requires_grad_()


def number(x, dtype=torch.float64):
    return torch.tensor(x, dtype=dtype, requires_grad=True)


def left_out(n, k, own, partner, keys):
    """(N, K) True where an entry is no negative, and where it is a positive."""
    i, j = torch.arange(n).unsqueeze(1), torch.arange(k)
    positive = torch.zeros(n, k, dtype=torch.bool)
    if partner is not None:
        positive = (j - i).abs() == partner if own else j - i == partner
    out = positive | ((i == j) & own)
    for left, right in keys:
        out = out | ((left.unsqueeze(1) == right) & (left.unsqueeze(1) >= 0))
    return out, positive


def brute(a, b, scale, partner, keys):
    """The definition, on the whole matrix."""
    other = a if b is None else b
    scores = scale * a @ other.T
    out, positive = left_out(len(a), len(other), b is None, partner, keys)
    negatives = scores.masked_fill(out, -math.inf)
    return negatives.logsumexp(1), negatives.logsumexp(0), (scores * positive).sum(1)


def total(parts):
    """A scalar that weighs every finite output differently."""
    found = 0.0
    for k, part in enumerate(p for p in parts if p is not None):
        weight = torch.arange(1, len(part) + 1, dtype=part.dtype).cos() + k
        found = found + (part.where(part.isfinite(), 0) * weight).sum()
    return found


def shapes(own):
    """Sizes and a partner that fits them."""
    if own:
        return st.integers(1, 6).flatmap(
            lambda h: st.tuples(st.just(2 * h), st.just(2 * h), st.sampled_from([h, None]))
        )
    return st.tuples(st.integers(1, 9), st.integers(0, 4)).flatmap(
        lambda t: st.tuples(st.just(t[0]), st.just(t[0] + t[1]), st.none() | st.integers(0, t[1]))
    )


@settings(max_examples=150, deadline=None)
@given(
    own=st.booleans(),
    scale=st.sampled_from([1e-3, 1.0, 14.3, 100.0, 700.0, 1e4]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    unit=st.booleans(),
    tile=st.integers(1, 14),
    keep=st.booleans(),
    columns=st.booleans(),
    data=st.data(),
)
def test_value_and_gradients_equal_brute_force(own, scale, dtype, unit, tile, keep, columns, data):
    n, k, partner = data.draw(shapes(own))
    columns = columns and not own
    keys = tuple(
        (
            torch.tensor(data.draw(st.lists(st.integers(-1, 2), min_size=n, max_size=n))),
            torch.tensor(data.draw(st.lists(st.integers(-1, 2), min_size=k, max_size=k))),
        )
        for _ in range(data.draw(st.integers(0, 2)))
    )
    if own:
        keys = tuple((left, left) for left, _ in keys)
    a, b, s = (
        leaf(n, seed=1, dtype=dtype, unit=unit),
        leaf(k, seed=2, dtype=dtype, unit=unit),
        number(scale, dtype),
    )
    wide = [x.detach().double().requires_grad_() for x in (a, b, s)]
    limit, streaming.KEEP = streaming.KEEP, 10**6 if keep else 0
    try:
        got = log_sum_exp(a, None if own else b, s, partner=partner, keys=keys, columns=columns, tile=tile)
        total(got).backward()
    finally:
        streaming.KEEP = limit
    rows, cols, positive = brute(wide[0], None if own else wide[1], wide[2], partner, keys)
    want = (rows, cols if columns else None, positive if partner is not None else None)
    total(want).backward()
    rounding = 1e-5 if dtype == torch.float32 else 1e-10
    for mine, its in zip(got, want, strict=True):
        assert (mine is None) == (its is None)
        if mine is not None:
            torch.testing.assert_close(mine.double(), its, rtol=rounding, atol=rounding * max(1.0, scale) / 4)
    # Rounding of a score moves its probability by as much, so gradients lose digits with the scale.
    size = max(1.0, max(float(x.grad.abs().max()) for x in wide if x.grad is not None))
    loose = {"rtol": rounding * max(1.0, scale / 10), "atol": rounding * size * max(1.0, scale / 10)}
    for mine, its in zip((a, b, s), wide, strict=True):
        assert (mine.grad is None) == (its.grad is None)
        if its.grad is not None:
            torch.testing.assert_close(mine.grad.double(), its.grad, **loose)


@pytest.mark.parametrize("scale", [2.0, 900.0, 3000.0])  # one exponential, shifted, running maximum
@pytest.mark.parametrize(("own", "partner"), [(False, 0), (False, None), (True, 3), (True, None)])
@pytest.mark.parametrize("keep", [True, False])
def test_gradcheck(scale, own, partner, keep, monkeypatch):
    if not keep:
        monkeypatch.setattr(streaming, "KEEP", 0)
    codes = torch.tensor([0, -1, 0, 1, -1, 1])
    tensors = [leaf(6, 3), leaf(6 if own else 7, 3, 1), number(scale)]

    def run(a, b, s):
        other = codes if own else torch.cat([codes, codes[:1]])
        found = log_sum_exp(a, None if own else b, s, partner=partner, keys=((codes, other),), tile=4)
        return tuple(x.where(x.isfinite(), 0) for x in found if x is not None)

    assert gradcheck(run, tensors, eps=1e-7, atol=1e-3 * scale, rtol=1e-3)


@pytest.mark.parametrize("rows_only", [True, False])
def test_gradients_of_one_output_at_a_time(rows_only):
    a, b = leaf(5, seed=1), leaf(5, seed=2)
    got = log_sum_exp(a, b, 3.0, tile=2)[0 if rows_only else 1]
    want = brute(a, b, 3.0, 0, ())[0 if rows_only else 1]
    mine, its = (torch.autograd.grad(x.sum(), (a, b)) for x in (got, want))
    torch.testing.assert_close(mine, its)


def test_a_frozen_side_gets_no_gradient_and_changes_nothing():
    a, b, s = leaf(6, seed=1), leaf(6, seed=2), number(5.0)
    full = torch.autograd.grad(total(log_sum_exp(a, b, s, tile=4)), (a, b, s))
    only_b = torch.autograd.grad(total(log_sum_exp(a.detach(), b, s, tile=4)), (b, s))
    only_a = torch.autograd.grad(total(log_sum_exp(a, b.detach(), 5.0, tile=4)), a)
    torch.testing.assert_close((*only_a, *only_b), full)


def test_backward_twice_gives_the_same_gradient():
    a, b = leaf(6, seed=1, dtype=torch.float32), leaf(6, seed=2, dtype=torch.float32)
    loss = total(log_sum_exp(a, b, 5.0)) + sum_softplus(a, b, 5.0, -1.0)
    first, second = (torch.autograd.grad(loss, (a, b), retain_graph=True) for _ in range(2))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


@pytest.mark.parametrize("which", ["softmax", "sigmoid", "kernel"])
def test_double_backward_says_that_it_cannot(which):
    a, b = leaf(4, seed=1), leaf(4, seed=2)
    loss = {
        "softmax": lambda: cross_entropy(a, b, 3.0)[0].sum(),
        "sigmoid": lambda: sum_softplus(a, b, 3.0, 0.0),
        "kernel": lambda: (kernel_mean(b.detach(), a, 0.5) ** 2).sum(),
    }[which]()
    with pytest.raises(RuntimeError, match="twice"):
        torch.autograd.grad(loss, a, create_graph=True)


@settings(max_examples=25, deadline=None)
@given(st.sampled_from([1.0, 30.0, 100.0, 149.0]), st.integers(2, 40), st.integers(0, 5))
def test_cross_entropy_is_accurate_near_zero(scale, n, seed):
    """Trained embeddings: the loss is tiny, and none of it may drown in the size of the scores."""
    a = leaf(n, 64, seed, torch.float32)
    b = normalize(a.detach() + 1e-2 * leaf(n, 64, seed + 1, torch.float32, unit=False).detach(), dim=1)
    scores = scale * a.detach().double() @ b.double().T
    rest = (
        (scores - scores.diagonal().unsqueeze(1)).exp().fill_diagonal_(0),
        (scores - scores.diagonal()).exp().fill_diagonal_(0),
    )
    want = torch.stack([rest[0].sum(1), rest[1].sum(0)]).log1p()
    got = torch.stack(cross_entropy(a, b, scale)).detach()
    torch.testing.assert_close(got.double(), want, rtol=1e-5 * max(1, scale / 5), atol=1e-30)


@pytest.mark.parametrize("kind", ["opposite", "zeros", "huge"])
def test_rows_far_below_the_others_are_not_lost(kind):
    """One row's scores are so low that a shared exponential would round them to nothing."""
    a, b = leaf(5, seed=1, dtype=torch.float32), leaf(5, seed=2, dtype=torch.float32)
    with torch.no_grad():
        b[:] = b[:1]
        a[:] = b
        a[2] = {"opposite": -b[2], "zeros": 0 * b[2], "huge": -1e6 * b[2]}[kind]
    rows, columns, _ = log_sum_exp(a, b, 120.0)
    want = brute(a.double(), b.double(), 120.0, 0, ())
    torch.testing.assert_close(rows.double(), want[0], rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(columns.double(), want[1], rtol=1e-5, atol=1e-4)
    rows.sum().backward()
    assert a.grad.isfinite().all()


def test_an_empty_row_is_minus_infinity_without_gradient():
    a, b = leaf(1), leaf(1, seed=1)
    rows, columns, positive = log_sum_exp(a, b, 3.0)
    assert rows.item() == columns.item() == -math.inf
    loss = cross_entropy(a, b, 3.0)
    assert [x.item() for x in loss] == [0, 0]
    sum(loss).sum().backward()
    assert not a.grad.any()
    assert positive.item() == pytest.approx(3 * (a * b).sum().item())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_single_under_autocast_too(dtype):
    a, b = leaf(40, 16, 1, dtype), leaf(40, 16, 2, dtype)
    with torch.autocast("cpu", torch.bfloat16):
        got = cross_entropy(a, b, 50.0, tile=16)
        assert got[0].dtype == torch.float32
        sum(x.sum() for x in got).backward()
    x, y = (v.detach().float().requires_grad_() for v in (a, b))
    want = cross_entropy(x, y, 50.0)
    sum(v.sum() for v in want).backward()
    torch.testing.assert_close(got, want)
    assert a.grad.dtype == dtype
    torch.testing.assert_close(a.grad, x.grad.to(dtype))


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("which", ["softmax", "running", "sigmoid", "kernel"])
def test_autocast_changes_nothing_forward_or_backward(which, keep, monkeypatch):
    if not keep:
        monkeypatch.setattr(streaming, "KEEP", 0)
    found = []
    for enabled in (False, True):
        a, b = leaf(40, 16, 1, torch.float32), leaf(40, 16, 2, torch.float32)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            loss = (
                {
                    "softmax": lambda a, b: sum(cross_entropy(a, b, 50.0, tile=16)),
                    "running": lambda a, b: sum(cross_entropy(a, b, 500.0, tile=16)),
                    "sigmoid": lambda a, b: sum_softplus(a, b, 50.0, -10.0, tile=16),
                    "kernel": lambda a, b: kernel_mean(b.detach(), a, 0.1, tile=16),
                }[which](a, b)
                .cos()
                .sum()
            )
            loss.backward()
        found.append((loss.detach(), a.grad, b.grad))
    torch.testing.assert_close(*found)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 8),
    scale=st.sampled_from([0.1, 10.0, 100.0]),
    bias=st.sampled_from([-10.0, 0.0, 90.0]),
    flip=st.booleans(),
    tile=st.integers(1, 9),
    data=st.data(),
)
def test_sum_of_softplus_equals_brute_force(n, scale, bias, flip, tile, data):
    codes = torch.tensor(data.draw(st.lists(st.integers(-1, 2), min_size=n, max_size=n)))
    a, b, s, c = leaf(n, seed=1), leaf(n, seed=2), number(scale), number(bias)
    out, positive = left_out(n, n, False, 0, ((codes, codes),))
    x = s * a @ b.T + c
    same = out & ~positive
    terms = -logsigmoid(torch.where(same & flip, x, -x))
    want = terms.masked_fill(positive | (same & (not flip)), 0).sum()
    got = sum_softplus(a, b, s, c, keys=((codes, codes),), flip=flip, tile=tile)
    torch.testing.assert_close(got, want)
    mine, its = (torch.autograd.grad(2 * v, (a, b, s, c)) for v in (got, want))
    torch.testing.assert_close(mine, its)


def test_gradcheck_of_the_other_sums():
    codes = torch.tensor([0, -1, 0, 1, 1])
    tensors = [leaf(5), leaf(5, seed=1), number(3.0), number(-1.0)]
    for flip in (True, False):
        assert gradcheck(lambda *t, f=flip: sum_softplus(*t, keys=((codes, codes),), flip=f, tile=2), tensors)
    features = leaf(5, 3, 2).detach()
    assert gradcheck(lambda v: kernel_mean(features, v, 0.5, tile=2), [leaf(5, unit=False)])


def test_kernel_mean_is_the_weighted_mean():
    features, values = leaf(7, 3).detach(), leaf(7, seed=1, unit=False)
    weights = ((features @ features.T - 1) / 0.3).exp()
    want = weights @ values / weights.sum(1, keepdim=True)
    torch.testing.assert_close(kernel_mean(features, values, 0.3, tile=3), want)


class Largest(TorchDispatchMode):
    """Remembers the largest tensor any operation returned."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, tuple | list) else [out]:
            if isinstance(x, torch.Tensor):
                self.numel = max(self.numel, x.numel())
        return out


@pytest.mark.parametrize("which", ["softmax", "own", "running", "sigmoid", "kernel"])
def test_no_tensor_is_as_large_as_the_scores(which, monkeypatch):
    monkeypatch.setattr(streaming, "KEEP", 0)
    n, tile = 96, 16
    a, b = leaf(n, dtype=torch.float32), leaf(n, seed=1, dtype=torch.float32)
    codes = torch.arange(n) % 7
    keys = ((codes, codes),)
    with Largest() as seen:
        {
            "softmax": lambda: sum(cross_entropy(a, b, 9.0, keys=keys, tile=tile)),
            "own": lambda: cross_entropy(a, None, 9.0, partner=n // 2, keys=keys, tile=tile)[0],
            "running": lambda: sum(cross_entropy(a, b, 1e4, keys=keys, tile=tile)),
            "sigmoid": lambda: sum_softplus(a, b, 9.0, -9.0, keys=keys, tile=tile),
            "kernel": lambda: kernel_mean(b.detach(), a, 0.1, tile=tile),
        }[which]().sum().backward()
    assert 0 < seen.numel <= max(n * 4, tile * tile)


@pytest.mark.parametrize("kwargs", [{"tile": 0}, {"partner": 3}, {"partner": -1}])
def test_what_does_not_fit_is_named(kwargs):
    with pytest.raises(ValueError, match=next(iter(kwargs))):
        log_sum_exp(leaf(5), leaf(6), 1.0, **kwargs)
