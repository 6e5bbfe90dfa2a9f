"""SigLIP: open_clip's, the card's number, duplicates, and its own scale and bias."""

import importlib.util
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign import Embeddings
from modalign.losses import SigLIP
from torch.nn.functional import logsigmoid, normalize

torch.set_num_threads(1)


def peer(*args):
    """One file of an installed peer; the test is skipped where it is missing."""
    file = Path(__file__).parents[1] / "benchmarks" / "peers.py"
    spec = importlib.util.spec_from_file_location("peers", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    try:
        return module.peer(*args)
    except ModuleNotFoundError as error:
        pytest.skip(str(error))


def vectors(n, names=("image", "text"), d=5, seed=0, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    return {
        m: normalize(torch.randn(n, d, generator=g, dtype=torch.float64), dim=1).to(dtype).requires_grad_()
        for m in names
    }


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 7),
    scale=st.sampled_from([1.0, 10.0, 100.0]),
    bias=st.sampled_from([-10.0, 0.0, 5.0]),
    duplicates=st.sampled_from(["mask", "positive", "negative"]),
    data=st.data(),
)
def test_equals_the_definition(n, scale, bias, duplicates, data):
    v = vectors(n)
    ids = {
        m: torch.tensor(data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)))
        for m in data.draw(st.sets(st.sampled_from(list(v))))
    }
    scores = scale * v["image"].double() @ v["text"].double().T + bias
    match, kept = torch.eye(n, dtype=torch.bool), torch.ones(n, n, dtype=torch.bool)
    for i in ids.values():
        same = i.unsqueeze(1) == i
        if duplicates == "mask":
            kept &= ~same | torch.eye(n, dtype=torch.bool)
        if duplicates == "positive":
            match |= same
    want = -(logsigmoid(torch.where(match, scores, -scores)) * kept).sum() / n
    got = SigLIP(scale, bias, duplicates=duplicates)(Embeddings(v, ids=ids))
    assert got.item() == pytest.approx(want.item(), rel=1e-5, abs=1e-6)


@pytest.mark.parametrize(("scale", "bias"), [(10.0, -10.0), (10.0, -2.71), (100.0, 1.0)])
def test_equals_open_clip(scale, bias):
    theirs = peer("open_clip", "loss.py").SigLipLoss()
    v, w = vectors(32), vectors(32)
    loss = SigLIP(scale, bias)
    t, b = torch.tensor(math.log(scale), requires_grad=True), torch.tensor(bias, requires_grad=True)
    mine, want = loss(Embeddings(v)), theirs(*w.values(), t.exp(), b)
    torch.testing.assert_close(mine, want, rtol=1e-5, atol=0)
    mine.backward()
    want.backward()
    for m in v:
        torch.testing.assert_close(v[m].grad, w[m].grad, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(loss.log_scale.grad, t.grad, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(loss.bias.grad, b.grad, rtol=1e-5, atol=1e-6)


def test_the_card_s_number():
    """All cosines 0 at the usual start, N = 512."""
    zeros = torch.zeros(512, 3)
    loss = SigLIP(10.0, -10.0)(Embeddings({"image": zeros, "text": zeros}))
    assert loss.item() == pytest.approx(10.023, abs=1e-3)


def test_one_row_still_learns():
    v = vectors(1)
    loss = SigLIP(bias=0.0)(Embeddings(v))
    assert loss.item() == pytest.approx(
        math.log1p(math.exp(-10 * (v["image"] * v["text"]).sum().item())), rel=1e-5
    )
    loss.backward()
    assert v["image"].grad.any()


def test_swapping_the_sides_changes_nothing():
    v = vectors(8)
    torch.testing.assert_close(SigLIP()(Embeddings(dict(reversed(v.items())))), SigLIP()(Embeddings(v)))


def test_scale_and_bias_are_learnt_fixed_or_the_batch_s():
    z = Embeddings(vectors(6), scale=torch.tensor(3.0, requires_grad=True))
    learnt, fixed, given_ = SigLIP(3.0), SigLIP(3.0, learn=False), SigLIP(None)
    values = [loss(z) for loss in (learnt, fixed, given_)]
    torch.testing.assert_close(values[0], values[1])
    torch.testing.assert_close(values[0], values[2])
    for value in values:
        value.backward()
    assert learnt.log_scale.grad
    assert learnt.bias.grad
    assert fixed.bias.grad is None
    assert fixed.log_scale.grad is None
    assert z.scale.grad  # of the third alone
    assert {name for name, _ in given_.named_parameters()} == {"bias"}
