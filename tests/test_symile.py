"""Symile: the package of its authors, float64 brute force, missing modalities, shuffles, extremes."""

import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign import Embeddings
from modalign.errors import UserError
from modalign.losses import InfoNCE, Symile
from modalign.losses import symile as module
from modalign.losses.primitives import shuffles as shuffling
from modalign.losses.primitives.shuffles import derangement, shuffles
from modalign.losses.primitives.tuples import largest_score, mip, tuple_lse
from torch.nn.functional import normalize

torch.set_num_threads(1)
NAMES = ("image", "text", "audio", "score")
quick = settings(max_examples=30, deadline=None)


def vectors(n, m=3, d=5, seed=0, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)
    return {
        k: normalize(torch.randn(n, d, generator=g, dtype=torch.float64), dim=1).to(dtype) for k in NAMES[:m]
    }


def leaves(v):
    return {k: x.detach().clone().requires_grad_() for k, x in v.items()}


def brute(pools, places, scale):
    """The loss of each row by enumeration: ``pools`` M of (K_m, D), ``places`` M of (R,)."""
    scores = torch.zeros([len(p) for p in pools], dtype=torch.float64)
    for index in product(*(range(len(p)) for p in pools)):
        term = torch.ones_like(pools[0][0])
        for p, i in zip(pools, index, strict=True):
            term = term * p[i]
        scores[index] = scale * term.sum()
    rows = []
    for own in zip(*(p.tolist() for p in places), strict=True):
        terms = [scores.select(m, i).logsumexp(tuple(range(len(pools) - 1))) for m, i in enumerate(own)]
        rows.append(sum(terms) / len(terms) - scores[own])
    return torch.stack(rows) if rows else torch.zeros(0, dtype=torch.float64)


def oracle(z, missing, scale):
    """What ``negatives: all`` means, in float64."""
    v = {k: x.double() for k, x in z.vectors.items()}
    names, n = z.modalities, len(z)
    has = {k: p.tolist() for k, p in z.present.items()}
    if missing == "learned":
        d = v[names[0]].shape[1]
        stand_in = torch.full((d,), d**-0.5, dtype=torch.float64)
        rows = [i for i in range(n) if any(has[m][i] for m in names)]
        pools = [torch.stack([v[m][i] if has[m][i] else stand_in for i in rows] or [stand_in]) for m in names]
        losses = brute(pools, [torch.arange(len(rows))] * len(names), scale)
    else:
        losses = []
        for i in range(n):
            some = [m for m in names if has[m][i]]
            if len(some) < 2 or (missing == "drop" and len(some) < len(names)):
                continue
            with_all = [r for r in range(n) if all(has[m][r] for m in names)]
            pools = [with_all if missing == "drop" else [r for r in range(n) if has[m][r]] for m in some]
            place = [torch.tensor([p.index(i)]) for p in pools]
            losses.append(brute([v[m][p] for m, p in zip(some, pools, strict=True)], place, scale))
        losses = torch.cat(losses) if losses else torch.zeros(0)
    return losses.mean().item() if len(losses) else 0.0


# --- against others ----------------------------------------------------------------------------------


def compare(ours, theirs, scale=14.3, n=12, m=3, d=16):
    mine, other = leaves(vectors(n, m, d)), leaves(vectors(n, m, d))
    s, t = (torch.tensor(scale, requires_grad=True) for _ in range(2))
    a, b = ours(Embeddings(mine, scale=s)), theirs(list(other.values()), t)
    torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6 + 1e-7 * scale)
    a.backward()
    b.backward()
    for x, y in [(s, t), *((mine[k], other[k]) for k in mine)]:
        near = 1e-5 * max(1.0, float(y.grad.abs().max()))
        torch.testing.assert_close(x.grad, y.grad, rtol=1e-5, atol=near)


@pytest.mark.parametrize("scale", [1.0, 14.3, 100.0])
@pytest.mark.parametrize(("n", "m"), [(1, 3), (2, 3), (12, 3), (5, 4)])
def test_all_negatives_equal_the_authors_package(n, m, scale):
    package = pytest.importorskip("symile", reason="pip install --no-deps symile")
    compare(Symile(), package.Symile("n_squared"), scale, n, m)


@pytest.mark.parametrize("m", [3, 4])
def test_shuffles_equal_the_authors_package(m, monkeypatch):
    package = pytest.importorskip("symile", reason="pip install --no-deps symile")
    n, g = 12, torch.Generator().manual_seed(3)
    drawn = [[torch.randperm(n, generator=g) for _ in range(m - 1)] for _ in range(m)]
    ours, theirs = iter(drawn), iter([p for group in drawn for p in group])
    monkeypatch.setattr(shuffling, "shuffles", lambda *_: torch.stack(next(ours)))

    def run(reps, scale):
        with monkeypatch.context() as patch:
            patch.setattr(torch, "randperm", lambda _: next(theirs))
            return package.Symile("n")(reps, scale)

    compare(Symile("n"), run, n=n, m=m)


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 6),
    m=st.integers(2, 4),
    missing=st.sampled_from(["learned", "subset", "drop"]),
    scale=st.sampled_from([1e-3, 1.0, 14.3, 300.0]),
    fixed=st.booleans(),
    data=st.data(),
)
def test_equals_brute_force_whatever_is_missing(n, m, missing, scale, fixed, data):
    names = NAMES[:m]
    present = {
        k: torch.tensor(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
        for k in data.draw(st.sets(st.sampled_from(names)))
    }
    v = vectors(n, m, seed=data.draw(st.integers(0, 99)))
    dirty = {
        k: x.masked_fill(~present.get(k, torch.ones(n) > 0).unsqueeze(1), math.nan) for k, x in v.items()
    }
    dirty = leaves(dirty)
    z = Embeddings(dirty, scale=1.0 if fixed else torch.tensor(scale), present=present)
    loss = Symile(missing=missing, temperature=1 / scale if fixed else None)
    got = loss(z)
    assert got.dtype == torch.float32
    assert got.shape == ()
    assert got.item() == pytest.approx(oracle(z, missing, scale), rel=2e-5, abs=2e-5)
    got.backward()
    assert all(x.grad is not None and bool(x.grad.isfinite().all()) for x in dirty.values())


# --- the streamed log-sum-exp ------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1.0, 40.0])
@pytest.mark.parametrize("sizes", [(4, 3), (3, 4, 2), (2, 3, 2, 3), (2, 1, 2, 2, 2)])
def test_gradients_are_those_of_the_formula(sizes, size):
    g = torch.Generator().manual_seed(0)
    v = [
        (size ** (1 / len(sizes)) * torch.randn(n, 3, generator=g, dtype=torch.float64)).requires_grad_()
        for n in sizes
    ]
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    assert (largest_score(v, scale) > 60) == (size > 1)  # both ways of computing are tried
    assert torch.autograd.gradcheck(lambda s, *x: tuple_lse(x, s, tile=5), (scale, *v))


@pytest.mark.parametrize("needed", list(product([True, False], repeat=4))[:-1])
def test_gradients_where_only_some_are_needed(needed):
    v = list(vectors(5, 3, dtype=torch.float64).values())
    v = [x.clone().requires_grad_(n) for x, n in zip(v, needed, strict=False)]
    scale = torch.tensor(9.0, dtype=torch.float64, requires_grad=needed[3])
    assert torch.autograd.gradcheck(lambda s, *x: tuple_lse(x, s, tile=30), (scale, *v))


@quick
@given(st.integers(1, 7), st.integers(2, 4), st.integers(1, 400), st.sampled_from([1.0, 300.0]))
def test_the_tile_changes_nothing(n, m, tile, scale):
    v = [x.requires_grad_() for x in vectors(n, m, dtype=torch.float64).values()]
    whole, tiled = tuple_lse(v, scale), tuple_lse(v, scale, tile=tile)
    torch.testing.assert_close(tiled, whole)
    a, b = (torch.autograd.grad(torch.cat(x).sin().sum(), v) for x in (whole, tiled))
    torch.testing.assert_close(a, b)


def test_a_second_derivative_is_refused():
    v = [x.requires_grad_() for x in vectors(4).values()]
    with pytest.raises(RuntimeError, match="differentiated twice"):
        torch.autograd.grad(torch.cat(tuple_lse(v, 2.0)).sum(), v, create_graph=True)


@quick
@given(st.integers(1, 5), st.integers(2, 4), st.integers(0, 99))
def test_the_bound_holds(n, m, seed):
    v = [x * 3 for x in vectors(n, m, seed=seed).values()]
    most = max(
        abs(float(mip([x[i] for x, i in zip(v, t, strict=True)]))) for t in product(range(n), repeat=m)
    )
    assert most <= largest_score(v, 1.0) * (1 + 1e-6)
    assert largest_score([x * 0 for x in v], 5.0) == 0


# --- what the card says ------------------------------------------------------------------------------


def test_two_modalities_are_infonce():
    v = vectors(9, 2)
    for negatives in ("all", "n", 3):
        torch.testing.assert_close(
            Symile(negatives)(Embeddings(v, scale=7.0)), InfoNCE()(Embeddings(v, scale=7.0))
        )
    torch.testing.assert_close(mip(list(v.values())), (v["image"] * v["text"]).sum(1))


def test_a_third_modality_of_ones_adds_log_n():
    v = vectors(8, 2)
    ones = {**v, "audio": torch.ones(8, 5)}
    scores = 6.0 * v["image"] @ v["text"].T
    rows = scores.logsumexp(1).mean() + math.log(8) - scores.diagonal().mean()
    columns = scores.logsumexp(0).mean() + math.log(8) - scores.diagonal().mean()
    third = scores.flatten().logsumexp(0) - scores.diagonal().mean()
    torch.testing.assert_close(Symile(temperature=1 / 6)(Embeddings(ones)), (rows + columns + third) / 3)


def test_signs():
    v = vectors(8)
    flipped = {"image": -v["image"], "text": -v["text"], "audio": v["audio"]}
    one = {**v, "image": -v["image"]}
    want = Symile()(Embeddings(v, scale=5.0))
    torch.testing.assert_close(Symile()(Embeddings(flipped, scale=5.0)), want)
    torch.testing.assert_close(mip(list(one.values())), -mip(list(v.values())))
    assert Symile()(Embeddings(one, scale=5.0)) != want


@pytest.mark.parametrize(("negatives", "candidates"), [("all", 49), ("n", 7), (2, 13)])
def test_a_modality_of_zeros_gives_the_log_of_the_candidates(negatives, candidates):
    v = leaves(vectors(7) | {"text": torch.zeros(7, 5)})
    loss = Symile(negatives)(Embeddings(v, scale=9.0))
    assert loss.item() == pytest.approx(math.log(candidates), rel=1e-5)
    loss.backward()
    assert bool(v["text"].grad.any())


def test_one_row_costs_nothing():
    for negatives in ("all", "n", 4):
        v = leaves(vectors(1))
        loss = Symile(negatives)(Embeddings(v, scale=50.0))
        assert loss.item() == 0
        loss.backward()
        assert not any(bool(x.grad.any()) for x in v.values())


@quick
@given(st.integers(2, 8), st.sampled_from(["learned", "subset", "drop"]), st.randoms())
def test_row_order_does_not_matter(n, missing, random):
    order = torch.tensor(random.sample(range(n), n))
    v = vectors(n)
    present = {k: torch.tensor([random.random() < 0.7 for _ in range(n)]) for k in v}
    a = Symile(missing=missing)(Embeddings(v, scale=8.0, present=present))
    moved = [{k: x[order] for k, x in g.items()} for g in (v, present)]
    torch.testing.assert_close(a, Symile(missing=missing)(Embeddings(moved[0], scale=8.0, present=moved[1])))


def test_synergy_is_seen_where_no_pair_shows_it():
    g = torch.Generator().manual_seed(0)
    a, b = ((torch.randint(0, 2, (64, 1), generator=g) * 2 - 1).float() for _ in range(2))
    z = Embeddings({"image": a, "text": b, "audio": a * b}, scale=5.0)
    broken = Embeddings({"image": a, "text": b, "audio": (a * b).roll(1, 0)}, scale=5.0)
    assert Symile()(z) < Symile()(broken) - 1
    assert Symile()(z) < math.log(64 * 64)
    assert InfoNCE()(z) > math.log(64)  # pairs are independent: worse than knowing nothing


# --- shuffles ----------------------------------------------------------------------------------------


@quick
@given(st.integers(2, 30), st.integers(2, 4), st.integers(0, 1000))
def test_no_shuffled_column_is_a_true_tuple(n, modalities, seed):
    drawn = shuffles(n, modalities, torch.Generator().manual_seed(seed))
    assert drawn.shape == (modalities, n)
    assert bool((drawn.sort(1).values == torch.arange(n)).all())
    assert not bool((drawn == drawn[0]).all(0).any())


def test_derangements_are_uniform():
    g = torch.Generator().manual_seed(0)
    found = [tuple(derangement(4, g).tolist()) for _ in range(1800)]
    counts = {p: found.count(p) for p in set(found)}
    assert len(counts) == 9
    assert all(130 < c < 270 for c in counts.values())
    with pytest.raises(ValueError, match="moves every"):
        derangement(1, g)


@pytest.mark.parametrize("rounds", ["n", 3])
def test_shuffles_follow_the_seed_and_the_step_alone(rounds):
    z = Embeddings(vectors(16), scale=9.0)
    torch.manual_seed(1)
    a = Symile(rounds)
    first = [a(z).item() for _ in range(3)]
    torch.manual_seed(2)
    b = Symile(rounds)
    assert [b(z).item() for _ in range(3)] == first
    assert len(set(first)) == 3
    c = Symile(rounds, modalities=a.stand_ins, dim=5)
    c.load_state_dict(a.state_dict())
    assert c(z).item() == a(z).item()
    assert Symile(rounds, seed=1)(z).item() != first[0]
    a.eval()
    assert a(z).item() == a(z).item()


def test_many_shuffles_approach_all_of_them():
    z = Embeddings(vectors(12), scale=4.0)
    rounds = 200
    sampled = Symile(rounds)(z) - math.log(1 + rounds * 11)
    torch.testing.assert_close(sampled, Symile()(z) - math.log(144), rtol=0, atol=0.02)


@pytest.mark.parametrize("missing", ["learned", "subset", "drop"])
def test_shuffles_with_missing_modalities(missing):
    v = leaves(vectors(10))
    present = {"text": torch.arange(10) > 3, "audio": torch.arange(10) != 9}
    loss = Symile("n", missing=missing)(Embeddings(v, scale=9.0, present=present))
    loss.backward()
    assert all(bool(x.grad.isfinite().all()) and bool(x.grad.any()) for x in v.values())
    used = (v["image"].grad != 0).any(1)
    assert used.tolist() == [missing != "drop" or bool(4 <= i < 9) for i in range(10)]


# --- missing modalities ------------------------------------------------------------------------------


@pytest.mark.parametrize("missing", ["learned", "subset"])
def test_no_row_is_ignored(missing):
    """Every present vector gets a gradient, also where a row shares its pattern with no other."""
    v = leaves(vectors(5))
    present = {
        "image": torch.tensor([True, True, False, True, True]),
        "text": torch.tensor([True, True, True, False, True]),
        "audio": torch.tensor([True, False, True, True, True]),
    }
    Symile(missing=missing)(Embeddings(v, scale=6.0, present=present)).backward()
    for k in v:
        assert torch.equal((v[k].grad != 0).any(1), present[k])


def test_a_lone_modality_still_counts_as_a_candidate():
    v = leaves(vectors(4))
    alone = {"text": torch.arange(4) > 0, "audio": torch.arange(4) > 0}
    Symile(missing="subset")(Embeddings(v, scale=6.0, present=alone)).backward()
    assert bool(v["image"].grad[0].any())


def test_stand_ins_are_learnt_and_start_neutral():
    v = vectors(6)
    gone = {"audio": torch.zeros(6, dtype=torch.bool)}
    loss = Symile()
    got = loss(Embeddings(v, scale=5.0, present=gone))
    two = {k: v[k] for k in ("image", "text")}
    as_ones = Symile()(Embeddings({**two, "audio": torch.full((6, 5), 5**-0.5)}, scale=5.0))
    torch.testing.assert_close(got, as_ones)
    got.backward()
    assert bool(loss.stand_ins["audio"].grad.any())
    assert loss.stand_ins["image"].grad is None


def test_parameters_exist_before_the_optimiser_where_they_can():
    class FakeSpace:
        modalities, dim = NAMES[:3], 5

    bound = Symile(normalize="layernorm")
    assert not list(bound.parameters())
    bound.bind(FakeSpace())
    made = Symile(normalize="layernorm", modalities=NAMES[:3], dim=5)
    assert bound.state_dict().keys() == made.state_dict().keys()
    assert len(list(made.parameters())) == 9
    before = [id(p) for p in bound.parameters()]
    bound(Embeddings(vectors(4), present={"text": torch.arange(4) > 1}))
    assert [id(p) for p in bound.parameters()] == before


# --- normalisation, scale, options -------------------------------------------------------------------


@pytest.mark.parametrize("m", [2, 3, 4])
@pytest.mark.parametrize("how", ["l2", "layernorm"])
def test_rescaled_random_vectors_have_unit_variance(how, m, monkeypatch):
    g = torch.Generator().manual_seed(0)
    raw = {k: 3 + 7 * torch.randn(3000, 64, generator=g) for k in NAMES[:m]}
    if how == "l2":
        raw = {k: (x - 3) for k, x in raw.items()}
    seen = []
    monkeypatch.setattr(module, "tuple_lse", lambda v, s: seen.append(s * mip(v)) or [x[:, 0] for x in v])
    Symile(normalize=how, rescale=True, most=math.inf)(Embeddings(raw))
    assert seen[0].std().item() == pytest.approx(1, rel=0.1)


def test_normalize_l2_ignores_length():
    v = vectors(6)
    long = {k: x * 7 for k, x in v.items()}
    a, b = (Symile(normalize="l2")(Embeddings(x, scale=5.0)) for x in (v, long))
    torch.testing.assert_close(a, b)
    zero = leaves(dict.fromkeys(v, torch.zeros(6, 5)))
    loss = Symile(normalize="l2")(Embeddings(zero, scale=5.0))
    loss.backward()
    assert all(bool(x.grad.isfinite().all()) for x in zero.values())


def test_only_the_named_modalities_are_compared():
    v = vectors(6, 4)
    some = Symile(modalities=["score", "image"])(Embeddings(v, scale=3.0))
    torch.testing.assert_close(some, Symile()(Embeddings({k: v[k] for k in ("image", "score")}, scale=3.0)))


def test_low_precision_is_widened():
    v = vectors(16, d=64)
    half = {k: x.bfloat16() for k, x in v.items()}
    wide = {k: x.float() for k, x in half.items()}
    with torch.autocast("cpu", torch.bfloat16):
        for negatives in ("all", "n"):
            a, b = (Symile(negatives)(Embeddings(x, scale=20.0)) for x in (half, wide))
            assert a.dtype == torch.float32
            torch.testing.assert_close(a, b, rtol=1e-6, atol=0)


@pytest.mark.parametrize("scale", [1e4, 1e-8])
def test_extreme_scales_are_finite(scale):
    for negatives in ("all", "n"):
        v = leaves(vectors(6))
        s = torch.tensor(scale, requires_grad=True)
        loss = Symile(negatives)(Embeddings(v, scale=s))
        loss.backward()
        assert all(bool(x.isfinite()) for x in (loss, s.grad))
        assert all(bool(x.grad.isfinite().all()) for x in v.values())


def test_an_absurd_cost_is_refused_with_a_way_out():
    z = Embeddings(vectors(50))
    with pytest.raises(UserError, match=r"N = 50 .* M = 3 .*1\.2e\+05 scores(.|\n)*negatives: n"):
        Symile(most=1e5)(z)
    assert Symile("n", most=1e5)(z).isfinite()
    with pytest.raises(UserError, match="scores"):
        Symile()(Embeddings(vectors(400, 4)))


@pytest.mark.parametrize(
    "wrong",
    [
        {"negatives": "n_squared"},
        {"negatives": 0},
        {"negatives": True},
        {"missing": "skip"},
        {"normalize": "L2"},
        {"temperature": 0.0},
        {"modalities": ["image"]},
        {"modalities": ["image", "image"]},
    ],
)
def test_unknown_options_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Symile(**wrong)


def test_a_batch_without_the_modality_is_refused():
    with pytest.raises(ValueError, match="'video'"):
        Symile(modalities=["image", "video"])(Embeddings(vectors(3)))
    with pytest.raises(ValueError, match="fewer than two"):
        Symile()(Embeddings(vectors(3, 1)))
