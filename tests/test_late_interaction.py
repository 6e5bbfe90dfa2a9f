"""Late interaction: an oracle token by token, CLIP's value, padding that is not there, memory."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign import Embeddings
from modalign.losses import InfoNCE, LateInteraction
from modalign.losses.primitives.token_scores import late_interaction, token_cross_entropy
from modalign.plugin import loader
from modalign.testing.loss import CHECKS
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode

torch.set_num_threads(1)
NAMES = ("image", "text", "audio")


def batch(n, sizes=(4, 3, 2), d=5, seed=0, scale=5.0, gaps=True, dtype=torch.float32):
    """Tokens of random number, some rows missing, some content twice."""
    g = torch.Generator().manual_seed(seed)
    names = NAMES[: len(sizes)]
    tokens, masks = {}, {}
    for m, t in zip(names, sizes, strict=True):
        x = normalize(torch.randn(n, t, d, generator=g, dtype=torch.float64), dim=2).to(dtype)
        tokens[m] = x.requires_grad_()
        masks[m] = torch.rand(n, t, generator=g) < 0.6
        masks[m][torch.arange(n), torch.randint(0, t, (n,), generator=g)] = True
    return Embeddings(
        {m: torch.zeros(n, d, dtype=dtype, requires_grad=True) for m in names},
        scale=torch.tensor(scale, dtype=dtype, requires_grad=True),
        tokens=tokens,
        masks=masks,
        present={m: torch.rand(n, generator=g) < 0.8 for m in names} if gaps else {},
        ids={m: torch.randint(0, max(2, n), (n,), generator=g) for m in names[:2]},
    )


def oracle(z, pairs, duplicates="mask"):
    """One dot product at a time, in plain Python floats."""
    losses = []
    for a, b in pairs:
        rows = [i for i in range(len(z)) if z.present[a][i] and z.present[b][i]]

        def real(m, i):
            return [
                t.detach().double()
                for t, is_real in zip(z.tokens[m][i], z.masks[m][i], strict=True)
                if is_real
            ]

        def score(p, i, q, j):
            best = [max(float(u @ v) for v in real(q, j)) for u in real(p, i)]
            return float(z.scale.detach()) * sum(best) / len(best)

        total = 0.0
        for p, q in ((a, b), (b, a)):
            for i in rows:
                kept = [
                    j
                    for j in rows
                    if i == j
                    or duplicates == "negative"
                    or not any(m in z.ids and z.ids[m][i] == z.ids[m][j] for m in (a, b))
                ]
                logits = [score(p, i, q, j) for j in kept]
                top = max(logits)
                total += top + math.log(sum(math.exp(v - top) for v in logits)) - score(p, i, q, i)
        if rows:
            losses.append(total / len(rows) / 2)
    return sum(losses) / len(losses) if losses else 0.0


def value_and_gradients(loss, z):
    value = loss(z)
    leaves = [*z.tokens.values(), z.scale]
    return value.detach(), torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True)


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(1, 6),
    sizes=st.lists(st.integers(1, 4), min_size=2, max_size=3),
    duplicates=st.sampled_from(["mask", "negative"]),
    scale=st.sampled_from([1.0, 100.0]),
    seed=st.integers(0, 999),
)
def test_equals_the_oracle(n, sizes, duplicates, scale, seed):
    z = batch(n, sizes, seed=seed, scale=scale)
    names = NAMES[: len(sizes)]
    every = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    got = LateInteraction(duplicates=duplicates)(z)
    assert got.dtype == torch.float32
    assert got.item() == pytest.approx(oracle(z, every, duplicates), rel=2e-5, abs=2e-5)


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
def test_keeps_the_contract(check):
    check(LateInteraction)


@settings(max_examples=12, deadline=None)
@given(n=st.integers(1, 9), seed=st.integers(0, 99), tile=st.integers(1, 20))
def test_the_tile_never_changes_value_or_gradients(n, seed, tile):
    z = batch(n, seed=seed)
    got = value_and_gradients(LateInteraction(tile=tile), z)
    torch.testing.assert_close(got, value_and_gradients(LateInteraction(), z), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("tile", [4, 100])
def test_gradients_by_finite_differences(tile):
    z = batch(3, (2, 2, 1), d=2, dtype=torch.float64, gaps=False)

    def run(*leaves):
        tokens = dict(zip(NAMES, leaves[:3], strict=True))
        return LateInteraction(tile=tile)(replace(z, tokens=tokens, scale=leaves[3], ids={}))

    leaves = (*z.tokens.values(), z.scale)
    assert torch.autograd.gradcheck(run, leaves)
    assert torch.autograd.gradgradcheck(run, leaves)


def test_one_token_a_side_is_infonce():
    z = batch(9, (1, 1, 1))
    vectors = {m: t[:, 0] for m, t in z.tokens.items()}
    got, want = LateInteraction()(z), InfoNCE()(replace(z, vectors=vectors))
    torch.testing.assert_close(got, want)
    leaves = [*z.tokens.values(), z.scale]
    torch.testing.assert_close(torch.autograd.grad(got, leaves), torch.autograd.grad(want, leaves))


def test_the_order_of_tokens_does_not_matter():
    z = batch(6)
    order = torch.tensor([2, 0, 3, 1])
    moved = replace(
        z,
        tokens={**z.tokens, "image": z.tokens["image"][:, order]},
        masks={**z.masks, "image": z.masks["image"][:, order]},
    )
    value, gradients = value_and_gradients(LateInteraction(), z)
    moved_value, moved_gradients = value_and_gradients(LateInteraction(), moved)
    torch.testing.assert_close(moved_value, value)
    torch.testing.assert_close(moved_gradients[0], gradients[0][:, order])


@pytest.mark.parametrize("value", [0.0, 1e4, math.nan])
def test_masked_tokens_are_not_there(value):
    z = batch(6)
    longer = {m: torch.cat([t, torch.full((6, 2, 5), value)], 1) for m, t in z.tokens.items()}
    no = torch.zeros(6, 2, dtype=torch.bool)
    padded = replace(z, tokens=longer, masks={m: torch.cat([k, no], 1) for m, k in z.masks.items()})
    dirty = {
        m: torch.where(z.masks[m].unsqueeze(2), t, torch.tensor(value)).detach().requires_grad_()
        for m, t in z.tokens.items()
    }
    want = value_and_gradients(LateInteraction(), z)
    torch.testing.assert_close(LateInteraction()(padded).detach(), want[0])
    got = value_and_gradients(LateInteraction(), replace(z, tokens=dirty))
    torch.testing.assert_close(got, want)


def test_a_repeated_token_leaves_the_other_side_s_score_alone():
    z = batch(5, (3, 3))
    x, y = z.tokens["image"], z.tokens["text"]
    x_mask, y_mask = z.masks["image"], torch.ones(5, 3, dtype=torch.bool)
    of_x, of_y = late_interaction(x, x_mask, y, y_mask)
    twice = torch.cat([y, y[:, :1]], 1)
    again, moved = late_interaction(x, x_mask, twice, torch.ones(5, 4, dtype=torch.bool))
    torch.testing.assert_close(again, of_x)
    assert not torch.allclose(moved, of_y)
    assert not torch.allclose(of_x, of_y)


@settings(max_examples=12, deadline=None)
@given(n=st.integers(2, 8), seed=st.integers(0, 99))
def test_row_order_does_not_matter(n, seed):
    z = batch(n, seed=seed)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    groups = ("vectors", "tokens", "masks", "present", "ids")
    moved = replace(z, **{k: {m: x[order] for m, x in getattr(z, k).items()} for k in groups})
    torch.testing.assert_close(LateInteraction()(moved), LateInteraction()(z), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("kind", ["one", "zeros", "copies", "opposite", "same ids", "no real token"])
@pytest.mark.parametrize("tile", [1, 1000])
def test_finite_whatever_comes(scale, kind, tile):
    z = batch(1 if kind == "one" else 5, (3, 3), scale=scale, gaps=False)
    with torch.no_grad():
        for m, t in z.tokens.items():
            if kind == "zeros":
                t.zero_()
            elif kind == "copies":
                t[:] = t[:1, :1]
            elif kind == "opposite" and m == "text":
                t[:] = -z.tokens["image"]
            elif kind == "no real token":
                z.masks[m][2] = False
    if kind == "same ids":
        z = replace(z, ids={m: torch.zeros(5, dtype=torch.long) for m in NAMES[:2]})
    value, gradients = value_and_gradients(LateInteraction(tile=tile), z)
    assert value.isfinite()
    assert all(g.isfinite().all() for g in gradients)
    if kind in ("one", "same ids"):
        assert value == 0


def test_equal_scores_give_the_log_of_the_candidates():
    t = normalize(torch.randn(1, 1, 4), dim=2).expand(7, 3, 4)
    z = Embeddings(dict.fromkeys(NAMES[:2], t[:, 0]), scale=50.0, tokens=dict.fromkeys(NAMES[:2], t))
    assert LateInteraction()(z).item() == pytest.approx(math.log(7), rel=1e-5)


def test_a_tiny_loss_keeps_its_digits():
    t = torch.eye(4).unsqueeze(1)
    z = Embeddings(dict.fromkeys(NAMES[:2], t[:, 0]), scale=12.0, tokens=dict.fromkeys(NAMES[:2], t))
    assert LateInteraction()(z).item() == pytest.approx(math.log1p(3 * math.exp(-12)), rel=1e-2)


def test_nothing_present_is_a_connected_zero():
    z = batch(4)
    nowhere = {m: torch.zeros(4, dtype=torch.bool) for m in NAMES}
    nan = {m: torch.full_like(t, math.nan).requires_grad_() for m, t in z.tokens.items()}
    loss = LateInteraction()(replace(z, tokens=nan, present=nowhere))
    loss.backward()
    assert loss.item() == 0
    assert all(not t.grad.any() for t in (*nan.values(), *z.vectors.values()))


def test_half_precision_is_computed_in_single():
    z = batch(20)
    half = replace(z, tokens={m: t.detach().bfloat16() for m, t in z.tokens.items()})
    want = LateInteraction()(replace(half, tokens={m: t.float() for m, t in half.tokens.items()}))
    with torch.autocast("cpu", torch.bfloat16):
        got = LateInteraction()(half)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, want)


class Largest(TorchDispatchMode):
    """Remembers the largest tensor any operation returned."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, tuple | list) else [out]:
            if isinstance(x, torch.Tensor):
                self.numel = max(self.numel, x.numel())
        return out


def test_no_tensor_is_as_large_as_the_scores():
    n = 64
    z = batch(n, (4, 4), d=4, gaps=False)
    with Largest() as seen:
        LateInteraction(tile=16)(z).backward()
    assert 0 < seen.numel < n * n / 2, "scores of rows alone are 4,096, of tokens 65,536"


def test_missing_tokens_are_named():
    z = batch(3)
    with pytest.raises(ValueError, match=r"tokens of text.*image"):
        LateInteraction()(replace(z, tokens={"image": z.tokens["image"]}, present={}))


def test_options():
    z = batch(6, (2, 2), gaps=False)
    torch.testing.assert_close(LateInteraction(0.2)(z), LateInteraction()(replace(z, scale=5.0)))
    assert loader.load("losses", "late_interaction") is LateInteraction
    three = batch(6, gaps=False)
    each = [
        LateInteraction(pairs=[p])(three) for p in (["image", "text"], ["image", "audio"], ["text", "audio"])
    ]
    torch.testing.assert_close(LateInteraction(reduction="sum")(three), sum(each))
    torch.testing.assert_close(LateInteraction()(three), sum(each) / 3)


@pytest.mark.parametrize(
    "kwargs",
    [{"temperature": 0.0}, {"reduction": "none"}, {"duplicates": "positive"}, {"pairs": [["image"]]}],
)
def test_wrong_options_are_named(kwargs):
    with pytest.raises(ValueError, match=next(iter(kwargs)).rstrip("s")):
        LateInteraction(**kwargs)


def test_the_better_match_has_the_lower_cross_entropy():
    z = batch(8, (3, 3), d=16, gaps=False)
    x, k = z.tokens["image"].detach(), z.masks["image"]
    noisy = normalize(x + 0.1 * torch.randn_like(x), dim=2)
    true = torch.cat(token_cross_entropy(x, k, noisy, k, 10.0)).mean()
    assert true < torch.cat(token_cross_entropy(x, k, noisy.roll(1, 0), k.roll(1, 0), 10.0)).mean()
