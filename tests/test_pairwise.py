"""What every loss of the pairwise family must satisfy, whatever it computes."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign import Embeddings
from modalign.losses import CWCL, DCL, InfoNCE, NTXent, SigLIP, SupCon
from modalign.losses.primitives import streaming
from modalign.losses.primitives.groups import duplicate_codes, sum_over_same
from modalign.plugin import loader
from modalign.testing.loss import CHECKS
from torch.nn.functional import normalize
from torch.utils._python_dispatch import TorchDispatchMode

torch.set_num_threads(1)
NAMES = ("image", "text", "audio")
FAMILY = {
    "infonce": InfoNCE,
    "infonce-positive": lambda **k: InfoNCE(duplicates="positive", label_smoothing=0.1, **k),
    "infonce-smooth": lambda **k: InfoNCE(label_smoothing=0.1, symmetric=False, **k),
    "nt_xent": NTXent,
    "siglip": lambda **k: SigLIP(scale=None, bias=-3.0, **k),
    "siglip-positive": lambda **k: SigLIP(duplicates="positive", **k),
    "dcl": DCL,
    "dcl-weighted": lambda **k: DCL(weighted=True, **k),
    "supcon": SupCon,
    "cwcl": CWCL,
    "cwcl-exp": lambda **k: CWCL(width=0.2, **k),
}
every = pytest.mark.parametrize("make", FAMILY.values(), ids=FAMILY)
PAIRED = {k: v for k, v in FAMILY.items() if k != "supcon"}
every_paired = pytest.mark.parametrize("make", PAIRED.values(), ids=PAIRED)


def batch(n, modalities=3, d=6, seed=0, scale=5.0, gaps=True, dtype=torch.float32):
    """Embeddings with gaps, duplicates, labels and teacher features."""
    g = torch.Generator().manual_seed(seed)
    names = NAMES[:modalities]

    def unit(width):
        return normalize(torch.randn(n, width, generator=g, dtype=torch.float64), dim=1).to(dtype)

    return Embeddings(
        {m: unit(d).requires_grad_() for m in names},
        scale=torch.tensor(scale, dtype=dtype, requires_grad=True),
        present={m: torch.rand(n, generator=g) < 0.8 for m in names} if gaps else {},
        ids={m: torch.randint(0, max(2, n), (n,), generator=g) for m in names[:2]},
        labels=torch.randint(-1, 3, (n,), generator=g),
        teacher={m: torch.randn(n, 4, generator=g) for m in names},
    )


def value_and_gradients(loss, z):
    value = loss(z)
    leaves = [*z.vectors.values(), z.scale]
    return value.detach(), torch.autograd.grad(value, leaves, allow_unused=True, materialize_grads=True)


@every
@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
def test_keeps_the_contract(make, check):
    check(make)


@every
@settings(max_examples=8, deadline=None)
@given(n=st.integers(1, 9), seed=st.integers(0, 99), tile=st.integers(1, 9), keep=st.booleans())
def test_the_tile_never_changes_value_or_gradients(make, n, seed, tile, keep):
    z = batch(n, seed=seed)
    limit, streaming.KEEP = streaming.KEEP, 10**6 if keep else 0
    try:
        got = value_and_gradients(make(tile=tile), z)
    finally:
        streaming.KEEP = limit
    torch.testing.assert_close(got, value_and_gradients(make(), z), rtol=1e-5, atol=1e-5)


@every
@settings(max_examples=8, deadline=None)
@given(n=st.integers(2, 9), seed=st.integers(0, 99))
def test_row_order_does_not_matter(make, n, seed):
    z = batch(n, seed=seed)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    moved = replace(
        z,
        labels=z.labels[order],
        **{
            k: {m: x[order] for m, x in getattr(z, k).items()}
            for k in ("vectors", "present", "ids", "teacher")
        },
    )
    torch.testing.assert_close(make()(moved), make()(z), rtol=1e-5, atol=1e-5)


@every
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("kind", ["one", "zeros", "copies", "opposite", "same ids"])
def test_finite_whatever_comes(make, scale, kind):
    z = batch(1 if kind == "one" else 5, scale=scale, gaps=False)
    with torch.no_grad():
        for m, v in z.vectors.items():
            if kind == "zeros":
                v.zero_()
                z.teacher[m].zero_()
            elif kind == "copies":
                v[:] = v[:1]
            elif kind == "opposite" and m == "text":
                v[:] = -z.vectors["image"]
    if kind == "same ids":
        z = replace(z, ids={m: torch.zeros(5, dtype=torch.long) for m in NAMES})
    value, gradients = value_and_gradients(make(), z)
    assert value.isfinite()
    assert all(g.isfinite().all() for g in gradients)


@every
def test_gradients_by_finite_differences(make):
    z = batch(4, d=3, dtype=torch.float64)
    z = replace(z, teacher={m: t.double() for m, t in z.teacher.items()})

    def run(*leaves):
        return make(tile=3)(replace(z, vectors=dict(zip(NAMES, leaves[:3], strict=True)), scale=leaves[3]))

    weighted = make(tile=3)
    if isinstance(weighted, DCL) and weighted.weighted:
        pytest.skip("its weights carry no gradient by definition")
    assert torch.autograd.gradcheck(run, (*z.vectors.values(), z.scale))


@every
def test_half_precision_is_computed_in_single(make):
    z = batch(20)
    half = replace(z, vectors={m: v.detach().bfloat16() for m, v in z.vectors.items()})
    want = make()(replace(half, vectors={m: v.float() for m, v in half.vectors.items()}))
    with torch.autocast("cpu", torch.bfloat16):
        got = make()(half)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, want)


@every
def test_a_frozen_modality_changes_nothing_for_the_others(make):
    z = batch(8)
    value, gradients = value_and_gradients(make(), z)
    vectors = {**z.vectors, "text": z.vectors["text"].detach()}
    frozen = make()(replace(z, vectors=vectors))
    leaves = (z.vectors["image"], z.vectors["audio"])
    torch.testing.assert_close(frozen.detach(), value)
    torch.testing.assert_close(torch.autograd.grad(frozen, leaves), (gradients[0], gradients[2]))


@every_paired
def test_reductions_and_a_pair_without_rows(make):
    z = batch(8, gaps=False)
    each = [
        make()(replace(z, pairs=(pair,)))
        for pair in (("image", "text"), ("image", "audio"), ("text", "audio"))
    ]
    torch.testing.assert_close(make(reduction="sum")(z), sum(each))
    torch.testing.assert_close(make()(z), sum(each) / 3)
    gone = replace(z, present={**z.present, "audio": torch.zeros(8, dtype=torch.bool)})
    torch.testing.assert_close(make()(gone), each[0])


@every
def test_nothing_present_is_a_connected_zero(make):
    z = batch(4)
    vectors = {m: torch.full((4, 6), math.nan, requires_grad=True) for m in NAMES}
    empty = replace(z, vectors=vectors, present={m: torch.zeros(4, dtype=torch.bool) for m in NAMES})
    loss = make()(empty)
    assert loss.item() == 0
    loss.backward()
    assert all(not v.grad.any() for v in vectors.values())


class Largest(TorchDispatchMode):
    """Remembers the largest tensor any operation returned."""

    numel = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for x in out if isinstance(out, tuple | list) else [out]:
            if isinstance(x, torch.Tensor):
                self.numel = max(self.numel, x.numel())
        return out


@every
def test_no_tensor_is_as_large_as_the_scores(make, monkeypatch):
    monkeypatch.setattr(streaming, "KEEP", 0)
    n = 128
    z = batch(n, modalities=2, d=4, gaps=False)
    with Largest() as seen:
        make(tile=16)(z).backward()
    assert 0 < seen.numel < n * n / 4


def test_every_loss_is_a_component_by_its_name():
    for name, cls in {
        "infonce": InfoNCE,
        "nt_xent": NTXent,
        "siglip": SigLIP,
        "dcl": DCL,
        "supcon": SupCon,
        "cwcl": CWCL,
    }.items():
        assert loader.load("losses", name) is cls


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 9), data=st.data())
def test_sums_over_equal_content(n, data):
    """Against the comparison of all pairs, for one key, two, and none."""
    ids = {
        m: torch.tensor(data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)))
        for m in data.draw(st.sets(st.sampled_from(NAMES[:2])))
    }
    z = Embeddings({m: torch.zeros(n, 2) for m in NAMES[:2]}, ids=ids)
    values = torch.randn(n, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    same = torch.eye(n, dtype=torch.bool)
    for i in ids.values():
        same = same | (i.unsqueeze(1) == i)
    got = sum_over_same(values, duplicate_codes(z, NAMES[:2], torch.arange(n)))
    torch.testing.assert_close(got, same.double() @ values)


@pytest.mark.parametrize(
    ("cls", "kwargs"),
    [
        (NTXent, {"duplicates": "positive"}),
        (NTXent, {"temperature": -1.0}),
        (DCL, {"sigma": 0.0}),
        (DCL, {"reduction": "none"}),
        (SupCon, {"temperature": 0.0}),
        (SigLIP, {"scale": 0.0}),
        (SigLIP, {"duplicates": "drop"}),
        (CWCL, {"width": 0.0}),
        (CWCL, {"pairs": [["image"]]}),
    ],
)
def test_wrong_options_are_named(cls, kwargs):
    with pytest.raises(ValueError, match=next(iter(kwargs)).rstrip("s")):
        cls(**kwargs)
