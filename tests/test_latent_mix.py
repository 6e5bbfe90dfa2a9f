"""Latent mixtures: pairs stay pairs, holes stay holes, equal mixtures stay equal."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import modalign
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign.cli.main import main
from modalign.contracts import Features
from modalign.projections.pooling import masked_mean
from modalign.training.content import Loaded
from modalign.training.latent_mix import mix

Plan = dict[str, Any]


def loaded(n: int, seed: int = 0, tokens: int = 1, missing: float = 0.0, kinds: int = 10**6) -> Loaded:
    """``2n`` rows; of several tokens, each row has its own number of them."""
    g = torch.Generator().manual_seed(seed)
    present = torch.rand(2 * n, generator=g) >= missing
    m = int(present.sum())
    ids = torch.randint(1, kinds + 1, (2 * n,), generator=g) * present
    if not m:
        return Loaded(None, present, ids)
    lengths = torch.randint(1, tokens + 1, (m, 1), generator=g)
    features = Features(torch.randn(m, tokens, 5, generator=g), torch.arange(tokens) < lengths)
    return Loaded(features, present, ids)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 6), st.integers(0, 99), st.integers(1, 4), st.floats(0, 1), st.floats(0, 0.9))
def test_the_row_that_weighs_all_is_left_as_it_is(n, seed, tokens, share, missing):
    one = loaded(n, seed, tokens, missing)
    first, second = mix({"a": one}, 1.0)["a"], mix({"a": one}, 0.0)["a"]
    both = one.present[:n] & one.present[n:]
    for mixed, half in ((first, slice(0, n)), (second, slice(n, None))):
        assert torch.equal(mixed.present, both)
        if not both.any():
            assert mixed.content is None
            continue
        place = (one.present.long().cumsum(0) - 1)[half][both]
        assert torch.equal(mixed.content.mask, one.content.mask[place])
        expected = masked_mean(one.content.tokens[place], one.content.mask[place])
        torch.testing.assert_close(masked_mean(mixed.content.tokens, mixed.content.mask), expected)


@settings(deadline=None, max_examples=20)
@given(st.integers(1, 6), st.integers(0, 99), st.floats(0, 1))
def test_it_commutes_with_a_linear_map(n, seed, share):
    one, layer = loaded(n, seed), torch.nn.Linear(5, 3)
    mixed = layer(mix({"a": one}, share)["a"].content.tokens)
    mapped = Loaded(Features(layer(one.content.tokens), one.content.mask), one.present, one.ids)
    torch.testing.assert_close(mixed, mix({"a": mapped}, share)["a"].content.tokens)


def test_modalities_are_mixed_alike():
    """What is equal before is equal afterwards: partners stay partners."""
    one = loaded(4)
    mixed = mix({"a": one, "b": copy.deepcopy(one)}, 0.3)
    assert torch.equal(mixed["a"].content.tokens, mixed["b"].content.tokens)


def test_equal_mixtures_have_equal_ids_and_others_do_not():
    one = loaded(50, kinds=3)
    ids = mix({"a": one}, 0.3)["a"].ids
    pairs = list(zip(one.ids[:50].tolist(), one.ids[50:].tolist(), strict=True))
    named = dict(zip(pairs, ids.tolist(), strict=True))
    assert [named[pair] for pair in pairs] == ids.tolist()
    assert len(set(named.values())) == len(named) == 9
    assert all(named[i, i] == i for i in (1, 2, 3))


# In a plan ----------------------------------------------------------------------------------------


@pytest.fixture
def mixing(plan: Plan, in_tmp: Path) -> Plan:
    for modality in plan["modalities"].values():
        modality.pop("trainable", None)
    plan["space"]["projection"] |= {"dropout": 0.0}
    plan["space"]["dropout"] = 0.0
    for stage in plan["stages"]:
        stage |= {"latent_mix": 1.0, "epochs": 4}
    return plan


def losses(folder: str) -> list[float]:
    lines = Path(folder, "metrics.jsonl").read_text().splitlines()
    return [r["metrics"]["loss"] for r in map(json.loads, lines) if "lr" in r["metrics"]]


def test_it_trains_and_goes_on_exactly(mixing: Plan) -> None:
    mixing["stages"][0]["losses"] = {"infonce": 1.0, "supcon": 0.5}  # labels are mixed too
    mixing["checkpoint"] = {"every_steps": 3, "keep": 99}
    modalign.align(mixing, out="whole")
    modalign.align(mixing, out="broken")
    steps = sorted(Path("broken/checkpoints").glob("*.ckpt"))
    for path in steps[len(steps) // 2 :]:
        path.unlink()
    modalign.align(mixing, out="broken", resume=True)
    assert losses("whole") == losses("broken")
    whole, broken = (Path(out, "space/model.safetensors").read_bytes() for out in ("whole", "broken"))
    assert whole == broken
    for stage in mixing["stages"]:
        stage.pop("latent_mix")
    modalign.align(mixing, out="plain")
    assert losses("plain") != losses("whole")


def test_two_processes_equal_one(mixing: Plan, write_plan: Callable[..., Path]) -> None:
    for stage in mixing["stages"]:
        stage |= {"batch_size": 9, "epochs": 1}
    file = str(write_plan(mixing))
    for out, more in (("one", []), ("two", ["fabric.devices=2", "fabric.strategy=ddp"])):
        command = [sys.executable, "-m", "modalign.cli", "align", file, "--out", out, *more]
        subprocess.run(command, check=True, timeout=240)
    assert losses("two") == pytest.approx(losses("one"), rel=2e-3, abs=1e-5)


BAD: dict[str, tuple[Callable[[Plan], Any], list[str]]] = {
    "no cache": (lambda p: p.update(cache=False), ["stages.0.latent_mix", "cache"]),
    "trained": (lambda p: p["modalities"]["image"].update(trainable=True), ["image's is trained here"]),
    "augmented": (lambda p: p["modalities"]["audio"].update(augment=True), ["stages.1", "{views: 8}"]),
    "no share": (lambda p: p["stages"][0].update(latent_mix=0), ["latent_mix", "greater than 0"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_plans(
    case: str, mixing: Plan, write_plan: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    edit, words = BAD[case]
    edit(mixing)
    assert main(["align", str(write_plan(mixing))]) == 2
    told = capsys.readouterr().err
    assert all(word in told for word in words), told
