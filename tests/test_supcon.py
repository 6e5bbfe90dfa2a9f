"""SupCon: the definition, pytorch-metric-learning, labels unknown and alone."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign import Embeddings
from modalign.losses import SupCon
from torch.nn.functional import normalize

torch.set_num_threads(1)


def vectors(n, names=("image", "text"), d=5, seed=0, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    return {
        m: normalize(torch.randn(n, d, generator=g, dtype=torch.float64), dim=1).to(dtype).requires_grad_()
        for m in names
    }


def oracle(z, scale):
    """One anchor and one positive at a time."""
    views = [
        (z.vectors[m][i].detach().double(), int(z.labels[i]), i)
        for m in z.modalities
        for i in range(len(z))
        if z.present[m][i]
    ]
    total = 0.0
    for a, (x, label, row) in enumerate(views):
        scores = {b: scale * float(x @ y) for b, (y, *_) in enumerate(views) if b != a}
        positives = [b for b in scores if (views[b][1] == label if label >= 0 else views[b][2] == row)]
        if positives:
            lse = math.log(sum(math.exp(s) for s in scores.values()))
            total += sum(lse - scores[b] for b in positives) / len(positives)
    return total / len(views) if views else 0.0


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 6), m=st.integers(1, 3), scale=st.sampled_from([1.0, 10.0, 100.0]), data=st.data())
def test_equals_the_definition(n, m, scale, data):
    names = ("image", "text", "audio")[:m]
    lists = st.lists(st.booleans(), min_size=n, max_size=n)
    z = Embeddings(
        vectors(n, names),
        labels=torch.tensor(data.draw(st.lists(st.integers(-1, 2), min_size=n, max_size=n))),
        present={k: torch.tensor(data.draw(lists)) for k in data.draw(st.sets(st.sampled_from(names)))},
    )
    assert SupCon(1 / scale)(z).item() == pytest.approx(oracle(z, scale), rel=2e-5, abs=2e-5)


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_equals_pytorch_metric_learning(temperature):
    losses = pytest.importorskip("pytorch_metric_learning.losses")
    v, w = vectors(30), vectors(30)
    labels = torch.arange(30) % 4
    mine = SupCon(temperature)(Embeddings(v, labels=labels))
    want = losses.SupConLoss(temperature)(torch.cat(list(w.values())), labels.repeat(2))
    torch.testing.assert_close(mine, want, rtol=1e-5, atol=0)
    mine.backward()
    want.backward()
    for m in v:  # theirs normalises once more, so it lacks the gradient along the vector
        along = (v[m].grad * v[m]).sum(1, keepdim=True) * v[m]
        torch.testing.assert_close(v[m].grad - along, w[m].grad, rtol=1e-5, atol=1e-6)


def test_the_names_of_classes_do_not_matter():
    z = Embeddings(vectors(9), labels=torch.arange(9) % 3)
    other = Embeddings(z.vectors, labels=torch.tensor([70, 5, 9])[z.labels])
    torch.testing.assert_close(SupCon(0.1)(other), SupCon(0.1)(z))


def test_without_any_positive_it_is_zero_and_connected():
    v = vectors(3, ("image",))
    loss = SupCon(0.1)(Embeddings(v, labels=torch.tensor([0, 1, -1])))
    assert loss.item() == 0
    loss.backward()
    assert not v["image"].grad.any()


def test_one_class_pulls_one_modality_together():
    near = Embeddings({"image": torch.eye(4)[[0, 0, 1, 1]]}, labels=torch.tensor([0, 0, 1, 1]))
    mixed = Embeddings(near.vectors, labels=torch.tensor([0, 1, 0, 1]))
    assert SupCon(0.1)(near) < 0.01 < 5 < SupCon(0.1)(mixed)


def test_only_the_paired_modalities_are_views():
    v = vectors(6, ("image", "text", "audio"))
    labels = torch.arange(6) % 2
    some = Embeddings(v, labels=labels, pairs=(("image", "text"),))
    alone = Embeddings({m: v[m] for m in ("image", "text")}, labels=labels)
    torch.testing.assert_close(SupCon(0.1)(some), SupCon(0.1)(alone))


def test_missing_labels_are_named():
    with pytest.raises(ValueError, match="labels"):
        SupCon()(Embeddings(vectors(3)))
