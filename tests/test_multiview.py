"""Multiview: sums of InfoNCE over the core view and the full graph, weighted, with gaps."""

import math
from dataclasses import replace
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign import Embeddings
from modalign.losses import InfoNCE, Multiview
from modalign.plugin import loader
from modalign.testing.loss import CHECKS
from torch.nn.functional import normalize

torch.set_num_threads(1)
NAMES = ("image", "text", "audio", "score")


def batch(n=7, modalities=3, d=6, seed=0, gaps=True, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    names = NAMES[:modalities]
    return Embeddings(
        {
            m: normalize(torch.randn(n, d, generator=g, dtype=torch.float64), dim=1)
            .to(dtype)
            .requires_grad_()
            for m in names
        },
        scale=torch.tensor(5.0, dtype=dtype, requires_grad=True),
        present={m: torch.rand(n, generator=g) < 0.7 for m in names} if gaps else {},
        ids={m: torch.randint(0, n, (n,), generator=g) for m in names[:2]} if gaps else {},
    )


def oracle(z, pairs, weights):
    """Dense logits in float64, pair by pair."""
    total = 0.0
    for a, b in pairs:
        rows = (z.present[a] & z.present[b]).nonzero()[:, 0]
        if not len(rows):
            continue
        x, y = (z.vectors[m].detach().double()[rows] for m in (a, b))
        logits = float(z.scale.detach()) * x @ y.T
        for m in (a, b):
            if m in z.ids:
                ids = z.ids[m][rows]
                same = (ids[:, None] == ids) & ~torch.eye(len(rows), dtype=torch.bool)
                logits = logits.masked_fill(same, -math.inf)
        both = [side.logsumexp(1) - side.diagonal() for side in (logits, logits.T)]
        total += weights.get(frozenset((a, b)), 1.0) * float(sum(both).mean()) / 2
    return total


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 7),
    modalities=st.integers(2, 4),
    anchor=st.none() | st.integers(0, 1),
    weight=st.none() | st.floats(0, 3),
    seed=st.integers(0, 99),
)
def test_equals_the_oracle(n, modalities, anchor, weight, seed):
    z = batch(n, modalities, seed=seed)
    weights = {} if weight is None else {frozenset(("text", "image")): weight}
    every = list(combinations(z.modalities, 2))
    asked = None if weight is None else [["text", "image", weight]]
    center = z.modalities[anchor or 0]
    core = Multiview("core", None if anchor is None else center, weights=asked)(z)
    want = oracle(z, [p for p in every if center in p], weights)
    assert core.dtype == torch.float32
    assert core.item() == pytest.approx(want, rel=2e-5, abs=2e-5)
    assert Multiview(weights=asked)(z).item() == pytest.approx(oracle(z, every, weights), rel=2e-5, abs=2e-5)


@pytest.mark.parametrize(
    "make", [Multiview, lambda: Multiview("core", duplicates="positive", label_smoothing=0.1)]
)
@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
def test_keeps_the_contract(make, check):
    check(make)


@pytest.mark.parametrize("view", ["core", "full"])
def test_two_modalities_are_infonce(view):
    z = batch(modalities=2)
    got, want = Multiview(view)(z), InfoNCE()(z)
    torch.testing.assert_close(got, want)
    leaves = [*z.vectors.values(), z.scale]
    torch.testing.assert_close(torch.autograd.grad(got, leaves), torch.autograd.grad(want, leaves))


@pytest.mark.parametrize("modalities", [2, 3, 4])
def test_the_number_of_terms(modalities):
    """With all embeddings equal each term is log N."""
    x = normalize(torch.ones(5, 4), dim=1)
    z = Embeddings(dict.fromkeys(NAMES[:modalities], x))
    full = modalities * (modalities - 1) / 2
    assert Multiview("full")(z).item() == pytest.approx(full * math.log(5), rel=1e-5)
    assert Multiview("core")(z).item() == pytest.approx((modalities - 1) * math.log(5), rel=1e-5)
    assert Multiview("full", reduction="mean")(z).item() == pytest.approx(math.log(5), rel=1e-5)


def test_the_order_of_modalities_matters_to_the_core_view_alone():
    z = batch(8)
    turned = replace(z, vectors=dict(reversed(z.vectors.items())))
    torch.testing.assert_close(Multiview()(turned), Multiview()(z))
    assert not torch.isclose(Multiview("core")(turned), Multiview("core")(z))
    torch.testing.assert_close(Multiview("core", "image")(turned), Multiview("core", "image")(z))


def test_the_core_view_does_not_compare_the_others():
    """Without the batch's images the loss of text and audio with the image anchor is zero."""
    z = batch(6, gaps=False)
    gone = replace(z, present={"image": torch.zeros(6, dtype=torch.bool)})
    assert Multiview("core", "image")(gone).item() == 0
    assert Multiview("full")(gone).item() > 0


def test_the_batch_s_pairings_bound_the_graph():
    z = batch(8)
    some = replace(z, pairs=(("text", "image"), ("audio", "text")))
    torch.testing.assert_close(Multiview()(some), InfoNCE(reduction="sum")(some))
    torch.testing.assert_close(Multiview("core", "image")(some), InfoNCE(pairs=[["image", "text"]])(z))


def test_weights_scale_terms_and_gradients():
    z = batch(8)
    each = {p: InfoNCE(pairs=[p])(z) for p in combinations(z.modalities, 2)}
    want = 2 * each["image", "text"] + 0.5 * each["text", "audio"]
    got = Multiview(weights=[["text", "image", 2], ["text", "audio", 0.5], ["image", "audio", 0]])(z)
    torch.testing.assert_close(got, want)
    leaves = [*z.vectors.values(), z.scale]
    torch.testing.assert_close(torch.autograd.grad(got, leaves), torch.autograd.grad(want, leaves))


def test_gradients_by_finite_differences():
    z = batch(4, d=3, dtype=torch.float64)
    loss = Multiview("core", weights=[["image", "text", 2.0]], label_smoothing=0.1)

    def run(*leaves):
        return loss(replace(z, vectors=dict(zip(NAMES, leaves[:3], strict=False)), scale=leaves[3]))

    assert torch.autograd.gradcheck(run, (*z.vectors.values(), z.scale))


@pytest.mark.parametrize(
    "kwargs",
    [
        {"view": "ring"},
        {"anchor": "image"},
        {"weights": [["image", "text"]]},
        {"weights": [["image", "text", -1.0]]},
        {"weights": [["image", "image", 1.0]]},
        {"weights": [["image", "text", 1.0], ["text", "image", 2.0]]},
        {"temperature": 0.0},
        {"reduction": "none"},
        {"duplicates": "drop"},
        {"label_smoothing": 1.0},
    ],
)
def test_wrong_options_are_named(kwargs):
    with pytest.raises(
        ValueError, match="pair" if kwargs.get("weights") == [["image"] * 2 + [1.0]] else next(iter(kwargs))
    ):
        Multiview(**kwargs)


def test_what_the_batch_does_not_have_is_named():
    z = batch(gaps=False)
    with pytest.raises(ValueError, match=r"'txt'.*text"):
        Multiview("core", "txt")(z)
    with pytest.raises(ValueError, match=r"\['audio', 'text'\].*core.*\[image, text\]"):
        Multiview("core", "image", weights=[["text", "audio", 2.0]])(z)
    assert loader.load("losses", "multiview") is Multiview
