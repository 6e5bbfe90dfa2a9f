"""The linear projection: masked mean first, padding ignored."""

import pytest
import torch
from modalign.projections import Linear

torch.set_num_threads(1)


def inputs(n=4, t=6, width=12):
    g = torch.Generator().manual_seed(1)
    mask = torch.arange(t) < torch.tensor([[1], [6], [3], [2]])[:n]
    return torch.randn(n, t, width, generator=g), mask


def test_pooled_is_the_map_of_the_mean():
    p = Linear(7, width=12).eval()
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
    p = Linear(7, width=12).eval()
    x, mask = inputs()
    pooled, _ = p(x, mask, "image")
    dirty = x.clone()
    dirty[~mask] = junk
    torch.testing.assert_close(p(dirty, mask, "image")[0], pooled)
    torch.testing.assert_close(p(x[2:3, :3], mask[2:3, :3], "text")[0], pooled[2:3])


def test_an_empty_row_is_finite():
    p = Linear(7, width=12)
    x, mask = inputs()
    mask[1] = False
    pooled, _ = p(x, mask, "image")
    pooled.sum().backward()
    assert pooled.isfinite().all()
    assert all(q.grad.isfinite().all() for q in p.parameters())


def test_width_defaults_to_dim():
    assert Linear(dim=9).width == 9
    assert Linear(9, width=4).dim == 9


def test_pooling_and_mapping_commute():
    p = Linear(7, width=12, bias=True)
    x, mask = inputs()
    pooled, tokens = p(x, mask, "image")
    for i in range(4):
        torch.testing.assert_close(pooled[i], tokens[i, mask[i]].mean(0))
