"""GradCache: the gradient of the whole batch, whatever the chunks, with dropout on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import modalign
import pytest
import torch
from lightning_fabric import Fabric
from modalign import Embeddings, Features
from modalign.losses import InfoNCE
from modalign.space import Space, SpaceModality
from modalign.spec import Spec
from modalign.training.content import Loaded
from modalign.training.grad_cache import cached_backward, join, split
from modalign.training.stage import StageModel, Trained, embeddings

Plan = dict[str, Any]


def model(dropout: float) -> StageModel:
    torch.manual_seed(0)
    args = {"width": 16, "heads": 2, "hidden": 32, "dropout": dropout}
    space = Space(12, Spec("universal", args), dropout=dropout)
    for name in ("a", "b"):
        space.add(name, SpaceModality(Spec("x"), Spec("y"), width=6), None, founder=True)
    stage = StageModel(space, Trained(frozenset({"projection", "temperature", "a", "b"})), 100.0)
    return stage.train()


def batch(n: int) -> dict[str, Loaded]:
    generator = torch.Generator().manual_seed(1)
    loaded = {}
    for name, hole in (("a", 3), ("b", 4)):
        present = torch.arange(n) % hole != 1
        lengths = torch.arange(int(present.sum())) % 4 + 1
        tokens = torch.randn(len(lengths), 4, 6, generator=generator)
        mask = torch.arange(4) < lengths[:, None]
        loaded[name] = Loaded(Features(tokens, mask), present, torch.arange(n))
    return loaded


def gradients(stage: StageModel) -> list[torch.Tensor]:
    found = [p.grad.clone() for p in stage.parameters() if p.grad is not None]
    stage.zero_grad()
    return found


@pytest.mark.parametrize("n", [1, 7, 16])
@pytest.mark.parametrize("size", [1, 3, 5, 100])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_gradients_equal_those_of_the_whole_batch(n: int, size: int, dropout: float) -> None:
    stage, loaded = model(dropout), batch(n)
    fabric = Fabric(accelerator="cpu")
    wrapped = fabric.setup(stage)
    loss = InfoNCE()

    def loss_of(outputs: Any, scale: torch.Tensor) -> tuple[torch.Tensor, None]:
        return loss(embeddings(outputs, loaded, scale, (("a", "b"),), None)), None

    torch.manual_seed(5)
    parts = [wrapped(chunk) for chunk in split(loaded, size)]  # the same masks, all held at once
    expected, _ = loss_of(join([out for out, _ in parts]), parts[0][1])
    if expected.requires_grad:
        fabric.backward(expected * 0.5)
    wanted = gradients(stage)
    torch.manual_seed(5)
    value, _ = cached_backward(fabric, wrapped, loaded, size, loss_of, 0.5, last=True)
    assert value == pytest.approx(float(expected.detach()), rel=1e-6, abs=1e-7)
    found = gradients(stage)
    assert len(found) == len(wanted)
    for a, b in zip(found, wanted, strict=True):
        assert torch.allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_loss_that_is_not_finite_leaves_no_gradient() -> None:
    stage, loaded = model(0.0), batch(6)
    fabric = Fabric(accelerator="cpu")
    wrapped = fabric.setup(stage)

    def nan(outputs: Any, scale: torch.Tensor) -> tuple[torch.Tensor, None]:
        z = Embeddings({m: out["vectors"] for m, out in outputs.items()}, scale=scale)
        return InfoNCE()(z) * float("nan"), None

    cached_backward(fabric, wrapped, loaded, 2, nan, 1.0, last=True)
    assert gradients(stage) == []


def test_chunk_size_in_a_plan(plan: Plan, in_tmp: Path) -> None:
    """Without dropout a run in chunks is the run at once, to rounding."""
    plan["space"] |= {"dropout": 0.0}
    plan["space"]["projection"]["dropout"] = 0.0
    plan["modalities"]["audio"]["encoder"] |= {"dropout": 0.0, "blank": 0.0}
    runs = []
    for size in (None, 5):
        for stage in plan["stages"]:
            stage["chunk_size"] = size
        plan["stages"][1]["accumulate"] = 2
        modalign.align(plan, out=f"c{size}")
        lines = Path(f"c{size}/metrics.jsonl").read_text().splitlines()
        runs.append([json.loads(line)["metrics"] for line in lines if '"lr"' in line])
    assert len(runs[0]) == len(runs[1])
    for a, b in zip(*runs, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-3)
        assert b["grad_norm"] == pytest.approx(a["grad_norm"], rel=1e-2)
