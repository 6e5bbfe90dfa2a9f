"""Momentum contrast: an oracle, MoCo and InfoNCE as cases, the queue, the slow tower, exact resume."""

import copy
import json
import math
from dataclasses import replace
from pathlib import Path

import modalign
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign import Embeddings, Features
from modalign.losses import InfoNCE, Momentum
from modalign.losses.primitives.hardest import hardest_log_sum_exp
from modalign.losses.primitives.queue import Queue
from modalign.space import Space, SpaceModality
from modalign.spec import Spec
from modalign.testing.loss import CHECKS
from modalign.training.checkpoint import latest_checkpoint
from modalign.training.content import Loaded
from modalign.training.job import RunFailed
from modalign.training.key_tower import KeyTower, build_key_tower
from modalign.training.stage import StageModel, Trained
from torch.nn.functional import cross_entropy, normalize

torch.set_num_threads(1)
NAMES = ("image", "text", "audio")


def batch(n, modalities=2, d=5, seed=0, gaps=False, dtype=torch.float32, first_id=0, ids=True):
    """Queries with a gradient, and keys; every row's content its own unless there are gaps."""
    g = torch.Generator().manual_seed(seed)
    names = NAMES[:modalities]

    def unit():
        return normalize(torch.randn(n, d, generator=g, dtype=torch.float64), dim=1).to(dtype)

    same = {m: torch.randint(0, 2 * n, (n,), generator=g) for m in names}
    alone = dict.fromkeys(names, torch.arange(n) + first_id)
    return Embeddings(
        {m: unit().requires_grad_() for m in names},
        present={m: torch.rand(n, generator=g) < 0.8 for m in names} if gaps else {},
        ids=(same if gaps else alone) if ids else {},
        extra={"momentum": {m: unit().requires_grad_() for m in names}},
    )


def cosine(a, b):
    return float(a.detach().double() @ b.detach().double())


def oracle(batches, size, scale, weights, hardest, in_batch, mask):
    """The loss of the last of some batches, in plain Python floats."""
    queues = {m: [] for m in batches[0].modalities}
    for z in batches:
        names = z.modalities
        losses = []
        for a, b in [(a, b) for i, a in enumerate(names) for b in names[i + 1 :]]:
            rows = [i for i in range(len(z)) if z.present[a][i] and z.present[b][i]]
            total = 0.0
            for query, other, weight in ((a, b, weights[0]), (b, a, weights[1])):
                for i in rows:
                    q, keys = z.vectors[query][i], z.extra["momentum"][other]
                    held = [{m: int(z.ids[m][j]) for m in (a, b)} if z.ids else {} for j in range(len(z))]

                    def apart(row, mine=held[i]):
                        return not mask or not any(m in row and row[m] == mine[m] for m in mine)

                    wrong = [cosine(q, keys[j]) for j in rows if j != i and in_batch and apart(held[j])]
                    stored = [cosine(q, k) for k, row in queues[other] if apart(row)]
                    count = math.ceil(hardest * len(queues[other]) - 1e-9)
                    wrong += sorted(stored, reverse=True)[:count]
                    logits = [scale * c for c in (cosine(q, keys[i]), *wrong)]
                    top = max(logits)
                    lse = top + math.log(sum(math.exp(v - top) for v in logits))
                    total += weight * (lse - logits[0]) / len(rows)
            if rows:
                losses.append(total)
        for m in names:
            for i in range(len(z)):
                if z.present[m][i]:
                    held = {k: int(z.ids[k][i]) for k in names if z.present[k][i]} if z.ids else {}
                    queues[m].append((z.extra["momentum"][m][i], held))
            queues[m] = queues[m][-size:]
        value = sum(losses) / len(losses) if losses else 0.0
    return value


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    modalities=st.integers(2, 3),
    queue=st.integers(1, 12),
    scale=st.sampled_from([1.0, 5.0, 100.0]),
    weights=st.sampled_from([(0.5, 0.5), (1.0, 0.0), (0.3, 2.0)]),
    hardest=st.sampled_from([1.0, 0.5, 0.01]),
    in_batch=st.booleans(),
    ids=st.booleans(),
    duplicates=st.sampled_from(["mask", "negative"]),
)
def test_equals_the_oracle(sizes, modalities, queue, scale, weights, hardest, in_batch, ids, duplicates):
    batches = [batch(n, modalities, seed=i, gaps=True, ids=ids) for i, n in enumerate(sizes)]
    loss = Momentum(
        queue, 0.9, 1 / scale, *weights, hardest=hardest, in_batch=in_batch, duplicates=duplicates
    )
    got = [loss(z) for z in batches][-1]
    want = oracle(batches, queue, scale, weights, hardest, in_batch, duplicates == "mask")
    assert got.dtype == torch.float32
    assert got.shape == ()
    assert got.item() == pytest.approx(want, rel=2e-5, abs=2e-5)


@pytest.mark.parametrize("make", [Momentum, lambda: Momentum(hardest=0.3, temperature=None)])
@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__)
def test_keeps_the_contract(make, check):
    check(make)


def test_one_direction_without_the_batch_is_moco():
    """q·k₊ and q·queue as the logits of one softmax, the answer first."""
    loss = Momentum(64, temperature=0.2, query_weight=1, key_weight=0, in_batch=False)
    loss(batch(30, seed=1))
    z = batch(8, first_id=100)
    q, keys = z.vectors["image"], z.extra["momentum"]["text"].detach()
    stored = batch(30, seed=1).extra["momentum"]["text"].detach()
    logits = torch.cat([(q * keys).sum(1, keepdim=True), q @ stored.T], 1) / 0.2
    want = cross_entropy(logits, torch.zeros(8, dtype=torch.long))
    got = loss(z)
    torch.testing.assert_close(got, want)
    (found,) = torch.autograd.grad(got, q)
    torch.testing.assert_close(found, torch.autograd.grad(want, q)[0])


@pytest.mark.parametrize("in_batch", [True, False])
def test_the_batch_s_own_keys_are_one_direction_of_infonce(in_batch):
    """``m`` = 0: keys are the vectors. The others come from the batch, or from a queue that holds it."""
    z = replace(batch(9), extra={})
    loss = Momentum(99, 0.0, query_weight=1, key_weight=0, in_batch=in_batch)
    if not in_batch:
        loss(z)
    got = loss(z)
    fixed = {"image": z.vectors["image"], "text": z.vectors["text"].detach()}
    want = InfoNCE(0.2, symmetric=False)(replace(z, vectors=fixed))
    torch.testing.assert_close(got, want)
    q = z.vectors["image"]
    torch.testing.assert_close(torch.autograd.grad(got, q), torch.autograd.grad(want, q))


def test_no_gradient_reaches_keys_or_queue():
    loss = Momentum()
    first, second = batch(6), batch(6, seed=1, first_id=50)
    loss(first)
    loss(second).backward()
    keys = [*first.extra["momentum"].values(), *second.extra["momentum"].values()]
    assert all(k.grad is None for k in keys)
    assert all(not b.requires_grad for b in loss.buffers())
    assert not list(loss.parameters())
    assert all(v.grad.any() for v in second.vectors.values())
    assert all(v.grad is None for v in first.vectors.values())


@settings(max_examples=20, deadline=None)
@given(size=st.integers(1, 12), counts=st.lists(st.integers(0, 15), max_size=5))
def test_the_queue_is_first_in_first_out(size, counts):
    queue, want = Queue(size), []
    for count in counts:
        new = torch.arange(len(want), len(want) + count)
        queue.push({"number": new, "vectors": new.float().unsqueeze(1).expand(-1, 3)})
        want += new.tolist()
    if counts:
        assert queue["number"].tolist() == want[-size:]
        torch.testing.assert_close(queue["vectors"][:, 1], torch.tensor(want[-size:]).float())
    assert len(queue) == min(size, len(want))


def test_a_name_that_comes_late_or_stops_is_zero_elsewhere():
    queue = Queue(4)
    queue.push({"a": torch.ones(2)})
    queue.push({"a": torch.ones(1), "known": torch.ones(1, dtype=torch.bool)})
    queue.push({"a": torch.ones(2)})
    assert queue["a"].tolist() == [1] * 4
    assert queue["known"].tolist() == [False, True, False, False]


def test_what_enters_the_queue():
    """Present rows of named modalities, finite ones, in order, after the loss; in training mode alone."""
    z = batch(5, 3)
    keys = {m: k.detach().clone() for m, k in z.extra["momentum"].items()}
    keys["text"][3] = math.nan
    z = replace(
        z,
        present={"image": torch.tensor([True, False, True, True, True]), "text": torch.arange(5) != 0},
        extra={"momentum": keys},
    )
    loss = Momentum(4, pairs=[["image", "text"]], in_batch=False)
    assert loss.eval()(batch(5)).item() == 0
    assert all(not len(q) for q in loss.queues.values())
    loss.train()(replace(z, present={"image": z.present["image"], "text": torch.arange(5) == 2}))
    torch.testing.assert_close(loss.queues["image"]["vectors"], keys["image"][[0, 2, 3, 4]])
    torch.testing.assert_close(loss.queues["text"]["vectors"], keys["text"][2:3])
    loss(replace(z, extra={"momentum": keys}, present={"image": torch.arange(5) < 2}))
    torch.testing.assert_close(loss.queues["image"]["vectors"], keys["image"][[3, 4, 0, 1]])
    torch.testing.assert_close(loss.queues["text"]["vectors"], keys["text"][[0, 1, 2, 4]])
    assert "audio" not in loss.queues
    assert all(q["vectors"].norm(dim=1).allclose(torch.ones(4)) for q in loss.queues.values())


def test_content_in_the_queue_is_no_negative_in_either_modality():
    loss = Momentum(in_batch=False, query_weight=1, key_weight=0)
    loss(replace(batch(3), ids={"image": torch.tensor([1, 2, 3]), "text": torch.tensor([7, 8, 9])}))
    z = replace(batch(1, seed=1), ids={"image": torch.tensor([2]), "text": torch.tensor([7])})
    stored = loss.queues["text"]["vectors"][2]
    q, key = z.vectors["image"][0], z.extra["momentum"]["text"][0]
    want = torch.stack([q @ key, q @ stored]).mul(5).log_softmax(0)[0].neg()
    torch.testing.assert_close(loss.eval()(z), want)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 99))
def test_the_loss_grows_with_the_share_of_the_queue(seed):
    z = batch(4, seed=seed, first_id=100)
    losses = []
    for r in (1e-9, 0.2, 0.5, 0.8, 1.0):
        loss = Momentum(30, hardest=r, in_batch=False)
        loss(batch(30, seed=seed + 1))
        losses.append(loss(z).item())
    assert losses == sorted(losses)
    stored = batch(30, seed=seed + 1).extra["momentum"]
    nearest = 0.0  # the least share keeps the nearest key
    for a, b in (NAMES[:2], NAMES[1::-1]):
        q, k = z.vectors[a].detach(), z.extra["momentum"][b].detach()
        logits = torch.stack([(q * k).sum(1), (q @ stored[b].T).amax(1)], 1) * 5
        nearest += cross_entropy(logits, torch.zeros(4, dtype=torch.long)).item() / 2
    assert losses[0] == pytest.approx(nearest, rel=1e-5)


def test_hardest_by_tiles(monkeypatch):
    g = torch.Generator().manual_seed(0)
    a, b = (torch.randn(n, 3, generator=g, dtype=torch.float64, requires_grad=True) for n in (7, 9))
    s = torch.tensor(2.0, dtype=torch.float64, requires_grad=True)
    keys = ((torch.tensor([0, 1, -1, 1, 0, 5, 2]), torch.tensor([1, 0, -1, 5, 5, 5, 1, 2, 2])),)
    scores = (s * a @ b.T).masked_fill((keys[0][0][:, None] == keys[0][1]) & (keys[0][1] >= 0), -torch.inf)
    want = scores.sort(1).values[:, -4:].logsumexp(1)
    for side in (1, 4, 100):
        monkeypatch.setattr("modalign.losses.primitives.hardest.tile_size", lambda *_, side=side: side)
        got = hardest_log_sum_exp(a, b, s, 4, keys)
        torch.testing.assert_close(got, want)
        torch.testing.assert_close(
            torch.autograd.grad(got.sin().sum(), (a, b, s)),
            torch.autograd.grad(want.sin().sum(), (a, b, s), retain_graph=True),
        )


@pytest.mark.parametrize("hardest", [1.0, 0.4])
def test_gradients_by_finite_differences(hardest):
    loss = Momentum(temperature=None, hardest=hardest)
    loss(batch(6, 3, d=3, dtype=torch.float64, gaps=True))
    z = batch(4, 3, d=3, seed=3, dtype=torch.float64, gaps=True)
    loss.eval()

    def run(*leaves):
        return loss(replace(z, vectors=dict(zip(NAMES, leaves[:3], strict=True)), scale=leaves[3]))

    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(run, (*z.vectors.values(), scale))


@pytest.mark.parametrize("hardest", [1.0, 0.5])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("kind", ["one", "zeros", "copies", "same ids"])
def test_finite_whatever_comes(kind, scale, hardest):
    z = batch(1 if kind == "one" else 5)
    if kind in ("zeros", "copies"):
        with torch.no_grad():
            for x in (*z.vectors.values(), *z.extra["momentum"].values()):
                x[:] = 0 if kind == "zeros" else x[:1]
    if kind == "same ids":
        z = replace(z, ids=torch.zeros(5, dtype=torch.long))
    loss = Momentum(temperature=1 / scale, hardest=hardest)
    loss(z)
    value = loss(z)
    value.backward()
    assert value.isfinite()
    assert all(v.grad.isfinite().all() for v in z.vectors.values())
    if kind in ("one", "same ids"):
        assert value == 0


def test_pairs_and_reduction():
    z = batch(6, 3)
    each = [Momentum(pairs=[p])(z) for p in (["image", "text"], ["image", "audio"], ["text", "audio"])]
    torch.testing.assert_close(Momentum(reduction="sum")(z), sum(each))
    torch.testing.assert_close(Momentum()(z), sum(each) / 3)


def test_a_loaded_loss_goes_on_as_the_saved_one():
    """Names and lengths of the queues come from the state, whatever the new loss held."""
    loss, other = Momentum(7), Momentum(7)
    other(batch(2, 3, seed=9))
    loss(batch(4))
    loss(batch(5, seed=1, first_id=3))
    other.load_state_dict(copy.deepcopy(loss.state_dict()))
    assert other.queues.keys() == loss.queues.keys() == {"image", "text"}
    for seed in (2, 3):
        z = batch(3, seed=seed, gaps=True)
        assert other(z) == loss(z)
    assert other.state_dict().keys() == loss.state_dict().keys()
    other.load_state_dict(Momentum().state_dict())
    assert not len(other.queues)


@pytest.mark.parametrize(
    "kwargs",
    [
        {"queue": 0},
        {"momentum": 1.5},
        {"temperature": 0.0},
        {"hardest": 0.0},
        {"query_weight": -1.0},
        {"query_weight": 0.0, "key_weight": 0.0},
        {"duplicates": "positive"},
        {"reduction": "none"},
    ],
)
def test_wrong_options_are_named(kwargs):
    with pytest.raises(ValueError, match=next(iter(kwargs))):
        Momentum(**kwargs)


# --- the slow tower ------------------------------------------------------------------------------


def stage_model():
    torch.manual_seed(0)
    space = Space(6, Spec("mlp", {"width": 8}), dropout=0.5)
    for name in ("a", "b"):
        space.add(name, SpaceModality(Spec("x"), Spec("y"), width=4), None, founder=True)
    return StageModel(space, Trained(frozenset({"b"})), 100.0).train()


def loaded(n=7, seed=0):
    g = torch.Generator().manual_seed(seed)
    found = {}
    for m, hole in (("a", 3), ("b", 4)):
        present = torch.arange(n) % hole != 1
        features = Features.from_vectors(torch.randn(int(present.sum()), 4, generator=g))
        found[m] = Loaded(features, present, torch.arange(n))
    return found


def test_the_tower_averages_what_is_trained_and_shares_the_rest():
    model = stage_model()
    tower = KeyTower(model, 0.9)
    ours = {id(p) for p in model.parameters()}
    copied = [p for p in tower.model.parameters() if id(p) not in ours]
    assert len(copied) == len(list(model.space.layers["b"].parameters())) > 0
    start = [p.detach().clone() for p in copied]
    with torch.no_grad():
        for p in model.space.layers["b"].parameters():
            p += 1
    for step in (1, 2):
        tower.update(model)
        for p, first in zip(copied, start, strict=True):
            torch.testing.assert_close(p.detach(), first + 1 - 0.9**step)
    assert not any(p.requires_grad for p in tower.model.parameters())
    assert all(p.requires_grad for p in model.space.layers["b"].parameters())
    assert model.space.layers["b"].training
    again = KeyTower(model, 0.9)
    again.restore(copy.deepcopy(tower.state()))
    for a, b in zip(again.state().values(), tower.state().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("size", [None, 1, 3])
def test_keys_of_the_tower(size):
    model, inputs = stage_model(), loaded()
    tower = KeyTower(model, 0.5)
    outputs, _ = model(inputs)
    keys = tower.with_keys(inputs, outputs, size)
    assert all(keys[m]["vectors"] is outputs[m]["vectors"] for m in "ab")
    assert not any(keys[m]["momentum"].requires_grad for m in "ab")
    assert torch.equal(keys["a"]["momentum"], outputs["a"]["vectors"]), "frozen: its own vectors"
    want = model.eval()(inputs)[0]["b"]["vectors"].detach()
    torch.testing.assert_close(keys["b"]["momentum"], want, msg="embedded without dropout")
    assert not torch.allclose(keys["b"]["momentum"], outputs["b"]["vectors"])
    with torch.no_grad():
        model.space.layers["b"].layers[0].weight.add_(1)
    torch.testing.assert_close(tower.with_keys(inputs, outputs, size)["b"]["momentum"], want)
    empty = {m: Loaded(None, torch.zeros(7, dtype=torch.bool), x.ids) for m, x in inputs.items()}
    nothing = tower.with_keys(empty, model(empty)[0], size)
    assert all(nothing[m]["momentum"].shape == (7, 6) and not nothing[m]["momentum"].any() for m in "ab")


def test_one_tower_for_all_losses():
    model = stage_model()
    assert build_key_tower(model, [InfoNCE()]) is None
    assert build_key_tower(model, [InfoNCE(), Momentum(momentum=0.3), Momentum(momentum=0.3)]).rate == 0.3
    with pytest.raises(RunFailed, match=r"0\.3.*0\.4"):
        build_key_tower(model, [Momentum(momentum=0.3), Momentum(momentum=0.4)])


@pytest.mark.parametrize("chunk", [None, 5])
def test_a_run_goes_on_exactly(plan, in_tmp, chunk, monkeypatch):
    """Interrupted in the second stage, with slow weights and queues under way, to the same bytes."""
    from modalign.training import loop

    for stage in plan["stages"]:
        stage |= {"losses": {"momentum": {"queue": 50, "momentum": 0.5}}, "chunk_size": chunk, "epochs": 1}
    plan["space"]["dropout"] = 0.2
    plan["checkpoint"] = {"every_steps": 1}
    modalign.align(plan, out="whole")
    step = loop.Trainer._step

    def dying(self, group):
        if self.job.stage.name == "add-audio" and self.job.position.stage_step == 3:
            raise KeyboardInterrupt
        return step(self, group)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Trainer, "_step", dying)
        with pytest.raises(KeyboardInterrupt):
            modalign.align(plan, out="cut")
    state = latest_checkpoint(Path("cut/checkpoints"))
    found = json.dumps(sorted(_keys(state)))
    assert "momentum.queues.audio.vectors" in found
    assert "audio/" in found
    assert "projection/" not in found, "frozen in this stage: no slow copy"
    modalign.align(plan, out="cut", resume=True)
    whole, cut = (Path(f, "space", "model.safetensors").read_bytes() for f in ("whole", "cut"))
    assert whole == cut
    if chunk:
        return
    plan["stages"][0]["losses"]["momentum"]["momentum"] = 0.99
    modalign.align(plan, out="other")
    assert Path("other", "space", "model.safetensors").read_bytes() != whole, "the rate has no effect"


def _keys(state):
    for key, value in state.items():
        yield str(key)
        if isinstance(value, dict):
            yield from _keys(value)
