"""Reductions of any score by tiles: those of the whole matrix, and so are all derivatives."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign.losses.primitives.two_way import two_way

torch.set_num_threads(1)


def score(rows, columns):
    return rows[0] @ columns[0].T + rows[1].unsqueeze(1) * columns[1]


def tensors(n, seed=0):
    g = torch.Generator().manual_seed(seed)
    shapes = [(n, 3), (n,)]
    return [torch.randn(s, generator=g, dtype=torch.float64, requires_grad=True) for s in shapes]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 7), st.integers(1, 7), st.integers(1, 60))
def test_tiles_change_nothing(n, k, tile):
    rows, columns = tensors(n), tensors(k, 1)
    whole = score(rows, columns)
    want = [whole.logsumexp(1), whole.logsumexp(0), whole.mean(1), whole.mean(0)]
    got = two_way(score, rows, columns, tile)
    torch.testing.assert_close(list(got), want)
    leaves = [*rows, *columns]
    a, b = (torch.autograd.grad(torch.cat(x).sin().sum(), leaves) for x in (list(got), want))
    torch.testing.assert_close(a, b)


def test_derivatives_of_any_order():
    rows, columns = tensors(5), tensors(4, 1)

    def f(*x):
        return two_way(score, x[:2], x[2:], tile=8)

    assert torch.autograd.gradcheck(f, (*rows, *columns))
    assert torch.autograd.gradgradcheck(f, (*rows, *columns))


def test_no_tile_is_larger_than_asked():
    seen = []

    def spy(rows, columns):
        seen.append((len(rows[0]), len(columns[0])))
        return score(rows, columns)

    sum(x.sum() for x in two_way(spy, tensors(10), tensors(6), tile=20)).backward()
    assert set(seen) == {(3, 6), (1, 6)}
    assert len(seen) == 8, "every tile once forwards, once backwards"


@pytest.mark.parametrize("tile", [None, 4])
def test_left_out_scores_have_no_gradient(tile):
    rows, columns = tensors(4), tensors(4, 1)

    def apart(r, c):
        return score(r, c).masked_fill(torch.eye(4, dtype=torch.bool)[: len(r[0])], -torch.inf)

    two_way(apart, rows, columns, tile or 99).row_lse.sum().backward()
    assert all(bool(x.grad.isfinite().all()) for x in (*rows, *columns))
