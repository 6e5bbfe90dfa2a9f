"""Alignment: the mean squared distance of partners, over whatever is present."""

import pytest
import torch
from modalign import Embeddings
from modalign.losses import Alignment, InfoNCE
from torch.nn.functional import normalize

torch.set_num_threads(1)
NAMES = ("image", "text", "audio")


def vectors(n, seed=0):
    g = torch.Generator().manual_seed(seed)
    return {m: normalize(torch.randn(n, 5, generator=g), dim=1) for m in NAMES}


def test_is_the_mean_squared_distance():
    v = vectors(7)
    pairs = [("image", "text"), ("image", "audio"), ("text", "audio")]
    want = torch.stack([((v[a] - v[b]) ** 2).sum(1).mean() for a, b in pairs])
    torch.testing.assert_close(Alignment()(Embeddings(v)), want.mean())
    torch.testing.assert_close(Alignment(pairs=[["text", "audio"]])(Embeddings(v)), want[2])
    torch.testing.assert_close(Alignment()(Embeddings(v, pairs=(("image", "text"),))), want[0])


def test_equal_modalities_cost_nothing_and_opposite_ones_four():
    x = vectors(6)["image"]
    assert Alignment()(Embeddings({"image": x, "text": x})).item() == 0
    assert Alignment()(Embeddings({"image": x, "text": -x})).item() == pytest.approx(4, rel=1e-5)


def test_absent_rows_are_not_read():
    v = vectors(6)
    present = {"audio": torch.tensor([True, True, False, False, False, False])}
    want = Alignment(pairs=[["image", "audio"]])(Embeddings({k: x[:2] for k, x in v.items()}))
    v["audio"][2:] = torch.nan
    z = Embeddings({k: x.requires_grad_() for k, x in v.items()}, present=present)
    got = Alignment(pairs=[["image", "audio"]])(z)
    torch.testing.assert_close(got, want)
    got.backward()
    assert all(bool(x.grad.isfinite().all()) for x in v.values())


def test_the_gap_between_modalities_closes():
    """Two cones apart: beside InfoNCE, alignment brings their means together."""
    g = torch.Generator().manual_seed(0)
    gap = {}
    for weight in (0.0, 1.0):
        x, y = torch.randn(64, 8, generator=g), torch.randn(64, 8, generator=g)
        x, y = ((a + shift * torch.eye(8)[0]).requires_grad_() for a, shift in ((x, 4), (y, -4)))
        optimizer = torch.optim.Adam([x, y], lr=0.01)
        for _ in range(60):
            z = Embeddings({"image": normalize(x, dim=1), "text": normalize(y, dim=1)}, scale=20.0)
            (InfoNCE()(z) + weight * Alignment()(z)).backward()
            optimizer.step()
            optimizer.zero_grad()
        gap[weight] = (normalize(x, dim=1).mean(0) - normalize(y, dim=1).mean(0)).norm().item()
    assert gap[1.0] < gap[0.0]
