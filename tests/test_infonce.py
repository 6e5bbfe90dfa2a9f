"""InfoNCE: an oracle in float64, CLIP's formula, missing modalities, duplicates, extremes."""

import importlib.util
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign import Embeddings
from modalign.losses import InfoNCE
from torch.nn.functional import cross_entropy, normalize

torch.set_num_threads(1)


def soft_cross_entropy(logits, targets, left_out=None, smoothing=0.0):
    """``-Σ_j T_ij log softmax(L_i)_j`` per row, over the candidates that are not left out.

    Inputs:
        logits: ``(N, K)``.
        targets: ``(N, K)`` non-negative, rows summing to 1, zero where left out.
        left_out: ``(N, K)`` bool; every row keeps a candidate.
        smoothing: share of the target spread evenly over the row's candidates.
    """
    if left_out is not None:
        logits = logits.masked_fill(left_out, -math.inf)  # (N, K)
    if smoothing:
        kept = targets.new_ones(targets.shape) if left_out is None else (~left_out).to(targets.dtype)
        targets = (1 - smoothing) * targets + smoothing * kept / kept.sum(1, keepdim=True)  # (N, K)
    log_p = logits.log_softmax(1)  # (N, K)
    # 0 · -inf would be NaN: what has no target mass is dropped, not multiplied.
    return -(targets * log_p.masked_fill(targets == 0, 0)).sum(1)  # (N,)


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


NAMES = ("image", "text", "audio", "score")
quick = settings(max_examples=40, deadline=None)


def vectors(n, names=NAMES[:2], d=5, seed=0, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    return {m: normalize(torch.randn(n, d, generator=g, dtype=torch.float64), dim=1).to(dtype) for m in names}


def oracle(z, pairs, reduction, symmetric, duplicates, smoothing, scale):
    """One logit at a time, in plain Python floats."""
    losses = []
    for a, b in pairs:
        rows = [i for i in range(len(z)) if z.present[a][i] and z.present[b][i]]
        if not rows:
            continue
        x, y = z.vectors[a].double().numpy(), z.vectors[b].double().numpy()

        def same(i, j, a=a, b=b):
            return i != j and any(m in z.ids and z.ids[m][i] == z.ids[m][j] for m in (a, b))

        directions = [(x, y), (y, x)][: 2 if symmetric else 1]
        total = 0.0
        for p, q in directions:
            for i in rows:
                kept = [j for j in rows if duplicates != "mask" or not same(i, j)]
                good = [j for j in kept if j == i or (duplicates == "positive" and same(i, j))]
                logits = {j: scale * float(np.dot(p[i], q[j])) for j in kept}
                top = max(logits.values())
                lse = top + math.log(sum(math.exp(v - top) for v in logits.values()))
                for j in kept:
                    target = (1 - smoothing) * (j in good) / len(good) + smoothing / len(kept)
                    total -= target * (logits[j] - lse)
        losses.append(total / len(rows) / len(directions))
    if not losses:
        return 0.0
    return sum(losses) / (len(losses) if reduction == "mean" else 1)


@settings(max_examples=120, deadline=None)
@given(
    n=st.integers(1, 9),
    m=st.integers(2, 4),
    reduction=st.sampled_from(["mean", "sum"]),
    symmetric=st.booleans(),
    duplicates=st.sampled_from(["mask", "positive", "negative"]),
    smoothing=st.sampled_from([0.0, 0.2]),
    scale=st.sampled_from([1.0, 14.3, 100.0]),
    fixed=st.booleans(),
    data=st.data(),
)
def test_equals_the_oracle(n, m, reduction, symmetric, duplicates, smoothing, scale, fixed, data):
    names = NAMES[:m]
    present = {
        k: torch.tensor(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
        for k in data.draw(st.sets(st.sampled_from(names)))
    }
    ids = {
        k: torch.tensor(data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)))
        for k in data.draw(st.sets(st.sampled_from(names)))
    }
    every = [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]
    pairs = data.draw(st.none() | st.lists(st.sampled_from(every), min_size=1, unique=True))
    where = data.draw(st.sampled_from(["loss", "batch"]))
    z = Embeddings(
        vectors(n, names, seed=data.draw(st.integers(0, 99))),
        scale=1.0 if fixed else torch.tensor(scale),
        present=present,
        ids=ids,
        pairs=tuple(pairs) if pairs and where == "batch" else None,
    )
    loss = InfoNCE(
        1 / scale if fixed else None,
        [list(p) for p in pairs] if pairs and where == "loss" else None,
        reduction,
        symmetric,
        duplicates,
        smoothing,
    )
    got = loss(z)
    want = oracle(z, pairs or every, reduction, symmetric, duplicates, smoothing, scale)
    assert got.dtype == torch.float32
    assert got.shape == ()
    assert got.item() == pytest.approx(want, rel=2e-5, abs=2e-5)


def test_the_loss_s_own_pairs_win():
    z = Embeddings(vectors(6, NAMES[:3]), pairs=(("image", "text"),))
    only = Embeddings({k: z.vectors[k] for k in ("text", "audio")})
    assert InfoNCE(pairs=[["text", "audio"]])(z) == InfoNCE()(only)
    assert InfoNCE(pairs=[["text", "audio"]])(z) != InfoNCE()(z)


@pytest.mark.parametrize("scale", [1.0, 1 / 0.07, 100.0])
def test_equals_clip_s_formula(scale):
    v = {k: x.requires_grad_() for k, x in vectors(16).items()}
    w = {k: x.detach().clone().requires_grad_() for k, x in v.items()}
    loss = InfoNCE()(Embeddings(v, scale=scale))
    logits, answer = scale * w["image"] @ w["text"].T, torch.arange(16)
    clip = (cross_entropy(logits, answer) + cross_entropy(logits.T, answer)) / 2
    torch.testing.assert_close(loss, clip)
    loss.backward()
    clip.backward()
    for k in v:
        torch.testing.assert_close(v[k].grad, w[k].grad)


def test_smoothing_is_torch_s():
    v = vectors(16)
    logits = 5 * v["image"] @ v["text"].T
    want = cross_entropy(logits, torch.arange(16), label_smoothing=0.1)
    torch.testing.assert_close(InfoNCE(0.2, symmetric=False, label_smoothing=0.1)(Embeddings(v)), want)


@pytest.mark.parametrize("n", [2, 1100])
def test_equals_open_clip(n):
    theirs = peer("open_clip", "loss.py").ClipLoss()
    v, w = vectors(n, d=16), vectors(n, d=16)
    s, t = (torch.tensor(14.3, requires_grad=True) for _ in range(2))
    for x in (*v.values(), *w.values()):
        x.requires_grad_()
    loss, want = InfoNCE()(Embeddings(v, scale=s)), theirs(w["image"], w["text"], t)
    torch.testing.assert_close(loss, want, rtol=1e-5, atol=0)
    loss.backward()
    want.backward()
    for k in v:
        assert (v[k].grad - w[k].grad).norm() <= 1e-5 * w[k].grad.norm()
    torch.testing.assert_close(s.grad, t.grad, rtol=1e-5, atol=1e-6)


@quick
@given(st.integers(2, 12), st.sampled_from(["mask", "positive", "negative"]), st.randoms())
def test_row_order_and_sides_do_not_matter(n, duplicates, random):
    order = torch.tensor(random.sample(range(n), n))
    v = vectors(n, NAMES[:3])
    ids = {"text": torch.tensor([random.randrange(3) for _ in range(n)])}
    present = {"audio": torch.tensor([random.random() < 0.7 for _ in range(n)])}
    loss = InfoNCE(0.1, duplicates=duplicates)
    want = loss(Embeddings(v, present=present, ids=ids))
    moved = [{k: x[order] for k, x in group.items()} for group in (v, present, ids)]
    torch.testing.assert_close(loss(Embeddings(moved[0], present=moved[1], ids=moved[2])), want)
    turned = dict(reversed(v.items()))
    torch.testing.assert_close(loss(Embeddings(turned, present=present, ids=ids)), want)


@quick
@given(st.integers(1, 12), st.sampled_from([1.0, 100.0, 1e4]))
def test_equal_logits_give_the_log_of_the_candidates(n, scale):
    x = vectors(1)["image"].expand(n, -1)
    loss = InfoNCE()(Embeddings({"image": x, "text": x}, scale=scale))
    assert loss.item() == pytest.approx(math.log(n), abs=1e-3)


@quick
@given(st.floats(-1e3, 1e3))
def test_a_constant_added_to_a_row_changes_nothing(constant):
    logits = torch.randn(4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    targets, left_out = torch.eye(4, 6, dtype=torch.float64), torch.zeros(4, 6, dtype=torch.bool)
    left_out[0, 1:4] = True
    moved = logits.clone()
    moved[1] += constant
    want = soft_cross_entropy(logits, targets, left_out, 0.1)
    torch.testing.assert_close(soft_cross_entropy(moved, targets, left_out, 0.1), want)


@pytest.mark.parametrize("duplicates", ["mask", "positive", "negative"])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("kind", ["one", "zeros", "copies", "opposite"])
def test_finite_whatever_comes(duplicates, scale, kind):
    v = vectors(1 if kind == "one" else 5)
    if kind == "zeros":
        v = {k: torch.zeros_like(x) for k, x in v.items()}
    elif kind == "copies":
        v = {k: x[:1].repeat(5, 1) for k, x in v.items()}
    elif kind == "opposite":
        v["text"] = -v["image"]
    v = {k: x.requires_grad_() for k, x in v.items()}
    s = torch.tensor(scale, requires_grad=True)
    loss = InfoNCE(duplicates=duplicates)(
        Embeddings(v, scale=s, ids=torch.zeros(len(v["text"]), dtype=torch.long))
    )
    loss.backward()
    assert loss.isfinite()
    assert all(x.grad.isfinite().all() for x in (*v.values(), s))
    if kind == "one" or duplicates == "mask":  # every other row is a duplicate
        assert loss.item() == 0


@pytest.mark.parametrize("modalities", [1, 2, 3])
def test_nothing_to_compare_is_a_connected_zero(modalities):
    v = {k: torch.full_like(x, math.nan).requires_grad_() for k, x in vectors(4, NAMES[:modalities]).items()}
    scale = torch.tensor(3.0, requires_grad=True)
    nowhere = {k: torch.zeros(4, dtype=torch.bool) for k in v}
    loss = InfoNCE()(Embeddings(v, scale=scale, present=nowhere))
    loss.backward()
    assert loss.item() == 0
    assert loss.dtype == torch.float32
    assert all(not x.grad.any() for x in (*v.values(), scale))


def test_absent_rows_are_not_read():
    v = vectors(8, NAMES[:3])
    present = {"audio": torch.arange(8) < 3, "text": torch.arange(8) > 1}
    clean = InfoNCE(0.1)(Embeddings(v, present=present))
    dirty = {k: x.clone() for k, x in v.items()}
    for k, here in present.items():
        dirty[k][~here] = math.nan
        dirty[k].requires_grad_()
    loss = InfoNCE(0.1)(Embeddings(dirty, present=present))
    torch.testing.assert_close(loss, clean)
    loss.backward()
    for k, here in present.items():
        assert dirty[k].grad.isfinite().all()
        assert not dirty[k].grad[~here].any()
        assert dirty[k].grad[here].any()


def test_a_pair_without_rows_does_not_dilute_the_mean():
    v = vectors(6, NAMES[:3])
    gone = {"audio": torch.zeros(6, dtype=torch.bool)}
    want = InfoNCE(0.1)(Embeddings({k: v[k] for k in ("image", "text")}))
    torch.testing.assert_close(InfoNCE(0.1)(Embeddings(v, present=gone)), want)


def test_masking_a_duplicate_is_leaving_it_out():
    """Row 3 repeats row 0's text: for image 0 and text 0 the batch might as well lack it."""
    v = vectors(4)
    v["text"][3] = v["text"][0]
    ids = {"text": torch.tensor([7, 1, 2, 7])}
    logits = (v["image"] @ v["text"].T * 10).double()
    want = 0.0
    for side in (logits, logits.T):
        for i, rows in enumerate(([0, 1, 2], [0, 1, 2, 3], [0, 1, 2, 3], [1, 2, 3])):
            want += (side[i, rows].logsumexp(0) - side[i, i]).item() / 8
    assert InfoNCE()(Embeddings(v, scale=10, ids=ids)).item() == pytest.approx(want, rel=1e-5)


def test_few_candidates_left_of_many_are_counted_exactly():
    """Row 0 shares its content with all but row 1; smoothing spreads over the two that remain."""
    v = {k: normalize(x + 2 * x[:1], dim=1) for k, x in vectors(2000, d=16).items()}  # sums add up
    ids = torch.zeros(2000, dtype=torch.long)
    ids[1] = 1
    z = Embeddings(v, scale=100, ids=ids)
    wide = Embeddings({k: x.double() for k, x in v.items()}, scale=100, ids=ids)
    loss = InfoNCE(label_smoothing=0.5)
    torch.testing.assert_close(loss(z).double(), loss(wide), rtol=1e-6, atol=0)


def test_positives_share_the_target():
    """With answers of equal weight the optimum is the entropy of the targets, log 2 here."""
    x = torch.eye(2)[torch.tensor([0, 0, 1, 1])]
    z = Embeddings({"image": x, "text": x}, scale=100, ids=torch.tensor([0, 0, 1, 1]))
    assert InfoNCE(duplicates="positive")(z).item() == pytest.approx(math.log(2), rel=1e-4)


@pytest.mark.parametrize("symmetric", [True, False])
def test_better_pairs_mean_a_lower_loss(symmetric):
    x = vectors(16)["image"]
    loss = InfoNCE(0.1, symmetric=symmetric)
    true = loss(Embeddings({"image": x, "text": x}))
    assert true < loss(Embeddings({"image": x, "text": x.roll(1, 0)}))


def test_one_direction_looks_from_the_first_of_the_pair():
    v = vectors(8)
    loss = InfoNCE(0.1, [["text", "image"]], symmetric=False)
    want = cross_entropy(10 * v["text"] @ v["image"].T, torch.arange(8))
    torch.testing.assert_close(loss(Embeddings(v)), want)


def test_half_precision_is_computed_in_single():
    v = {k: x.bfloat16() for k, x in vectors(64).items()}
    want = InfoNCE(0.01)(Embeddings({k: x.double() for k, x in v.items()}))
    with torch.autocast("cpu", torch.bfloat16):
        got = InfoNCE(0.01)(Embeddings(v))
    assert got.dtype == torch.float32
    assert got.item() == pytest.approx(want.item(), rel=1e-5)


@pytest.mark.parametrize("duplicates", ["mask", "positive", "negative"])
def test_gradients_by_finite_differences(duplicates):
    v = vectors(5, NAMES[:3], dtype=torch.float64)
    present = {"audio": torch.tensor([True, False, True, True, True])}
    ids = {"text": torch.tensor([0, 1, 0, 2, 3])}
    loss = InfoNCE(duplicates=duplicates, label_smoothing=0.1)

    def run(a, b, c, s):
        return loss(Embeddings(dict(zip(NAMES, (a, b, c), strict=False)), scale=s, present=present, ids=ids))

    leaves = [x.requires_grad_() for x in v.values()]
    assert torch.autograd.gradcheck(
        run, (*leaves, torch.tensor(3.0, dtype=torch.float64, requires_grad=True))
    )


@pytest.mark.parametrize(
    "kwargs",
    [
        {"temperature": 0.0},
        {"reduction": "none"},
        {"duplicates": "drop"},
        {"label_smoothing": 1.0},
        {"pairs": [["image", "image"]]},
        {"pairs": [["image", "text", "audio"]]},
        {"pairs": ["image"]},
    ],
)
def test_wrong_options_are_named(kwargs):
    with pytest.raises(ValueError, match=next(iter(kwargs)).rstrip("s")):
        InfoNCE(**kwargs)


def test_an_unknown_modality_in_a_pair_is_named():
    with pytest.raises(ValueError, match=r"'txt'.*image.*text"):
        InfoNCE(pairs=[["image", "txt"]])(Embeddings(vectors(3)))
