"""NT-Xent: the definition, lightly and pytorch-metric-learning, and its kin."""

import importlib.util
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign import Embeddings
from modalign.losses import NTXent, SupCon
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


def oracle(x, y, scale, same):
    """Every score written out."""
    views = torch.cat([x, y]).detach().double().numpy()
    n, total = len(x), 0.0
    for i in range(2 * n):
        partner = (i + n) % (2 * n)
        kept = [k for k in range(2 * n) if k == partner or (k % n != i % n and not same(i % n, k % n))]
        exps = {k: math.exp(scale * float(views[i] @ views[k])) for k in kept}
        total -= math.log(exps[partner] / sum(exps.values()))
    return total / (2 * n)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 7),
    scale=st.sampled_from([1.0, 10.0, 100.0]),
    duplicates=st.sampled_from(["mask", "negative"]),
    data=st.data(),
)
def test_equals_the_definition(n, scale, duplicates, data):
    v = vectors(n, seed=data.draw(st.integers(0, 99)))
    ids = {
        m: torch.tensor(data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)))
        for m in data.draw(st.sets(st.sampled_from(list(v))))
    }

    def same(i, j):
        return duplicates == "mask" and any(x[i] == x[j] for x in ids.values())

    got = NTXent(1 / scale, duplicates=duplicates)(Embeddings(v, ids=ids))
    assert got.item() == pytest.approx(oracle(v["image"], v["text"], scale, same), rel=2e-5, abs=1e-5)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_equals_lightly(temperature):
    theirs = peer("lightly", "loss/ntx_ent_loss.py", {"torchvision.ops": "StochasticDepth"})
    v, w = vectors(24), vectors(24)
    mine = NTXent(temperature)(Embeddings(v))
    want = theirs.NTXentLoss(temperature)(*w.values())
    torch.testing.assert_close(mine, want, rtol=1e-5, atol=0)
    mine.backward()
    want.backward()
    for m in v:  # lightly normalises once more, so it lacks the gradient along the vector
        along = (v[m].grad * v[m]).sum(1, keepdim=True) * v[m]
        torch.testing.assert_close(v[m].grad - along, w[m].grad, rtol=1e-5, atol=1e-7)


def test_equals_pytorch_metric_learning():
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    v, w = vectors(12, dtype=torch.float64), vectors(12, dtype=torch.float64)
    mine = NTXent(0.1)(Embeddings(v))
    want = losses.NTXentLoss(0.1)(torch.cat(list(w.values())), torch.arange(12).repeat(2))
    torch.testing.assert_close(mine, want, rtol=1e-5, atol=0)


def test_equals_supcon_with_labels_all_different():
    v = vectors(9)
    labels = torch.randperm(9)
    torch.testing.assert_close(NTXent(0.1)(Embeddings(v)), SupCon(0.1)(Embeddings(v, labels=labels)))


@pytest.mark.parametrize("n", [1, 2, 30])
def test_equal_scores_give_the_log_of_the_candidates(n):
    x = vectors(1)["image"].detach().expand(n, -1)
    loss = NTXent(0.1)(Embeddings({"image": x, "text": x}))
    assert loss.item() == pytest.approx(math.log(2 * n - 1), abs=1e-5)


def test_an_item_is_no_candidate_of_itself():
    """Making one modality's vectors longer would raise the score with itself, were it counted."""
    x = torch.eye(6)
    near = NTXent(1.0)(Embeddings({"image": x, "text": x}))
    assert near.item() == pytest.approx(math.log(math.e + 10) - 1, rel=1e-5)


def test_both_modalities_spread_out():
    """Unlike InfoNCE, it costs something if the texts are near each other, whatever the pictures."""
    image = torch.eye(8)[:4]
    apart, together = torch.eye(8)[4:], torch.eye(8)[4:5].expand(4, -1)
    spread, packed = (NTXent(0.1)(Embeddings({"image": image, "text": t})) for t in (apart, together))
    assert packed > spread + 1


def test_swapping_the_sides_changes_nothing():
    v = vectors(8)
    torch.testing.assert_close(NTXent(0.1)(Embeddings(dict(reversed(v.items())))), NTXent(0.1)(Embeddings(v)))
