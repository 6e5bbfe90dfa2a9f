"""The mlp projection: masked mean first, padding ignored."""

import pytest
import torch
from modalign.projections import MLP

torch.set_num_threads(1)


def inputs(n=4, t=6, width=12):
    g = torch.Generator().manual_seed(1)
    mask = torch.arange(t) < torch.tensor([[1], [6], [3], [2]])[:n]
    return torch.randn(n, t, width, generator=g), mask


def test_pooled_is_the_map_of_the_mean():
    p = MLP(7, width=12).eval()
    x, mask = inputs()
    pooled, tokens = p(x, mask, "image")
    assert pooled.shape == (4, 7)
    assert tokens.shape == (4, 6, 7)
    for i in range(4):
        real = x[i, mask[i]]
        f = getattr(p, "map", None) or p.layers
        torch.testing.assert_close(pooled[i], f(real.mean(0)))
        torch.testing.assert_close(tokens[i, mask[i]], f(real))


@pytest.mark.parametrize("junk", [1e6, float("nan")])
def test_padding_and_neighbours_change_nothing(junk):
    p = MLP(7, width=12).eval()
    x, mask = inputs()
    pooled, _ = p(x, mask, "image")
    dirty = x.clone()
    dirty[~mask] = junk
    torch.testing.assert_close(p(dirty, mask, "image")[0], pooled)
    torch.testing.assert_close(p(x[2:3, :3], mask[2:3, :3], "text")[0], pooled[2:3])


def test_an_empty_row_is_finite():
    p = MLP(7, width=12)
    x, mask = inputs()
    mask[1] = False
    pooled, _ = p(x, mask, "image")
    pooled.sum().backward()
    assert pooled.isfinite().all()
    assert all(q.grad.isfinite().all() for q in p.parameters())


def test_width_defaults_to_dim():
    assert MLP(dim=9).width == 9
    assert MLP(9, width=4).dim == 9


def test_dropout_acts_in_training_only():
    p = MLP(7, width=12, hidden=50, dropout=0.5)
    x, mask = inputs()
    assert p.layers[0].out_features == 50
    assert not torch.equal(p(x, mask, "image")[0], p(x, mask, "image")[0])
    p.eval()
    assert torch.equal(p(x, mask, "image")[0], p(x, mask, "image")[0])
