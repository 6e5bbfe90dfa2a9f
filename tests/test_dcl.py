"""DCL: the definition, lightly's, and its relation to NT-Xent."""

import importlib.util
import math
from pathlib import Path

import pytest
import torch
from modalign import Embeddings
from modalign.losses import DCL, NTXent
from modalign.losses.primitives.streaming import cross_entropy, log_sum_exp
from torch.nn.functional import normalize

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


def brute(x, y, temperature, weighted=False, sigma=0.5):
    """From the definition, one anchor at a time, in float64."""
    x, y = x.detach().double(), y.detach().double()
    n = len(x)
    total = 0.0
    for a, b in ((x, y), (y, x)):
        weights = 2 - n * ((a * b).sum(1) / sigma).softmax(0) if weighted else torch.ones(n)
        for i in range(n):
            others = [k for k in range(n) if k != i]
            scores = torch.cat([a[others] @ a[i], b[others] @ a[i]]) / temperature
            total += -weights[i] * (a[i] @ b[i]) / temperature + (scores.logsumexp(0) if others else 0)
    return total / (2 * n)


@pytest.mark.parametrize("weighted", [True, False])
@pytest.mark.parametrize("temperature", [0.01, 0.1, 1.0])
@pytest.mark.parametrize("n", [1, 2, 9])
def test_equals_the_definition(n, temperature, weighted):
    v = vectors(n)
    got = DCL(temperature, weighted, sigma=0.3)(Embeddings(v))
    want = brute(v["image"], v["text"], temperature, weighted, 0.3)
    assert got.item() == pytest.approx(want.item(), rel=1e-5, abs=1e-5)


@pytest.mark.parametrize("weighted", [True, False])
def test_equals_lightly(weighted):
    theirs = peer("lightly", "loss/dcl_loss.py")
    v, w = vectors(24), vectors(24)
    mine = DCL(0.1, weighted)(Embeddings(v))
    want = (theirs.DCLWLoss if weighted else theirs.DCLLoss)(0.1)(*w.values())
    torch.testing.assert_close(mine, want, rtol=1e-5, atol=0)
    mine.backward()
    want.backward()
    for m in v:  # lightly normalises once more, so it lacks the gradient along the vector
        along = (v[m].grad * v[m]).sum(1, keepdim=True) * v[m]
        torch.testing.assert_close(v[m].grad - along, w[m].grad, rtol=1e-5, atol=1e-6)


def test_nt_xent_is_larger_by_what_the_positive_adds():
    v = vectors(8)
    views = torch.cat(list(v.values()))
    negatives, _, positive = log_sum_exp(views, None, 10.0, partner=8)
    (each,) = cross_entropy(views, None, 10.0, partner=8)
    gap = torch.log1p((positive - negatives).exp())
    assert (gap > 0).all()
    torch.testing.assert_close(each - (negatives - positive), gap, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(NTXent(0.1)(Embeddings(v)) - DCL(0.1)(Embeddings(v)), gap.mean())


def test_weights_are_one_on_average_and_larger_for_hard_positives():
    v = {m: x.detach() for m, x in vectors(12).items()}
    seen = {}
    loss = DCL(0.1, weighted=True)
    compute = loss.weights
    loss.weights = lambda pair: seen.setdefault("w", compute(pair))
    loss(Embeddings(v))
    assert seen["w"].mean().item() == pytest.approx(1, abs=1e-5)
    cosines = (v["image"] * v["text"]).sum(1)
    assert seen["w"][:12].argsort().tolist() == cosines.argsort(descending=True).tolist()


def test_one_row_has_its_positive_alone():
    v = vectors(1)
    loss = DCL(0.1)(Embeddings(v))
    assert loss.item() == pytest.approx(-10 * (v["image"] * v["text"]).sum().item(), rel=1e-5)
    loss.backward()
    assert v["image"].grad.any()


def test_duplicates_are_no_negatives():
    """With every row the same content, nothing pushes."""
    v = vectors(4)
    z = Embeddings(v, ids=torch.zeros(4, dtype=torch.long))
    want = -10 * (v["image"] * v["text"]).sum(1).mean()
    torch.testing.assert_close(DCL(0.1)(z), want)
    assert DCL(0.1, duplicates="negative")(z) > want + 1


def test_may_be_negative():
    x = torch.eye(4)
    loss = DCL(0.1)(Embeddings({"image": x, "text": x}))
    assert loss.item() == pytest.approx(math.log(6) - 10, rel=1e-5)
