"""Compiled, mixed precision, TF32, activations computed again: each beside the plain run."""

from __future__ import annotations

import copy
import json
import logging
from pathlib import Path
from typing import Any

import modalign
import pytest
import torch
from modalign.contracts import Features
from modalign.errors import UserError
from modalign.space import Space, SpaceModality
from modalign.spec import Spec
from modalign.training.content import Loaded
from modalign.training.grad_cache import cached_backward
from modalign.training.live_memory import LiveMemory
from modalign.training.plan import Compile
from modalign.training.speed import Speed
from modalign.training.stage import StageModel, Trained
from modalign_image.small_vit import SmallViT
from safetensors.torch import load_file
from torch import Tensor, nn

Plan = dict[str, Any]


def weights(run: str) -> dict[str, Tensor]:
    return load_file(f"{run}/space/model.safetensors")


def losses(run: str) -> list[float]:
    return [s["loss"] for s in json.loads(Path(run, "report.json").read_text())["stages"]]


def with_keys(plan: Plan, *, stage: Plan | None = None, **more: Any) -> Plan:
    changed = {**copy.deepcopy(plan), **more}
    for one in changed["stages"]:
        one |= stage or {}
    return changed


# Activation checkpointing -------------------------------------------------------------------


@pytest.mark.parametrize("more", [{}, {"chunk_size": 12}], ids=["whole", "chunks"])
def test_a_run_that_computes_activations_again_is_the_same_to_the_bit(
    plan: Plan, in_tmp: Path, more: Plan
) -> None:
    plan["modalities"]["image"]["encoder"]["dropout"] = 0.2
    modalign.align(with_keys(plan, stage=more), out="plain")
    modalign.align(with_keys(plan, stage={**more, "activation_checkpointing": True}), out="again")
    assert losses("plain") == losses("again")
    plain, again = weights("plain"), weights("again")
    assert plain.keys() == again.keys()
    assert all(torch.equal(plain[key], again[key]) for key in plain)


def tower() -> tuple[StageModel, dict[str, Loaded]]:
    """A picture tower of six layers with dropout, all of it trained, and a batch for it."""
    torch.manual_seed(0)
    encoder = SmallViT(size=16, patch=4, width=32, layers=6, heads=2, dropout=0.3)
    space = Space(32, Spec("universal", {"width": 32, "heads": 2, "hidden": 64, "layers": 3}), dropout=0.3)
    entry = SpaceModality(Spec("image"), Spec("small-vit"), width=32, carried=True)
    space.add("image", entry, encoder, founder=True)
    model = StageModel(space, Trained(frozenset({"projection", "image", "encoder:image"})), 100.0).train()
    pixels = torch.rand(24, 3, 16, 16)
    return model, {"image": Loaded({"pixels": pixels}, torch.ones(24, dtype=torch.bool), torch.arange(24))}


def gradients(model: StageModel, loaded: dict[str, Loaded]) -> tuple[float, list[Tensor], int]:
    """Loss, gradients, and the bytes that the forward pass kept."""
    torch.manual_seed(1)
    model.zero_grad()
    with LiveMemory() as memory:
        outputs, _ = model(loaded)
        loss = (outputs["image"]["vectors"] ** 3).sum()
        kept = memory.now
        loss.backward()
    return float(loss.detach()), [p.grad.clone() for p in model.parameters() if p.grad is not None], kept


def test_gradients_are_the_same_with_dropout_and_less_is_kept() -> None:
    model, loaded = tower()
    plain = gradients(model, loaded)
    model.speed = Speed([model.space.layers["image"], model.space.projection, model.space.encoder("image")])
    again = gradients(model, loaded)
    assert again[0] == pytest.approx(plain[0], rel=1e-6)
    assert len(again[1]) == len(plain[1]) > 50
    for a, b in zip(again[1], plain[1], strict=True):
        assert torch.allclose(a, b, rtol=1e-6, atol=1e-7)
    assert again[2] < plain[2] / 3
    assert not any("forward" in m.__dict__ for m in model.modules())  # as it was


class Frozen(nn.Module):
    """A layer whose checkpointing transformers itself would switch."""

    def __init__(self) -> None:
        super().__init__()
        self.gradient_checkpointing = False

    def forward(self, x: Tensor) -> Tensor:
        self.seen = self.gradient_checkpointing
        return x


def test_models_that_know_how_are_told_and_put_back() -> None:
    layer = Frozen()
    with Speed([nn.Sequential(layer)]).applied():
        layer(torch.ones(1))
    assert layer.seen
    assert not layer.gradient_checkpointing
    assert not hasattr(layer, "_gradient_checkpointing_func")


@pytest.mark.parametrize("family", ["bert", "gpt"])
def test_transformers_keep_less_too(family: str) -> None:
    """GPT's key-value cache must not be filled twice."""
    import transformers as hf

    torch.manual_seed(0)
    network: Any
    if family == "bert":
        sizes = {"hidden_size": 32, "num_hidden_layers": 5, "num_attention_heads": 2, "intermediate_size": 64}
        network = hf.BertModel(hf.BertConfig(vocab_size=50, **sizes), add_pooling_layer=False)
    else:
        network = hf.GPT2Model(hf.GPT2Config(vocab_size=50, n_embd=32, n_layer=5, n_head=2, n_positions=32))
    network.train()
    ids = torch.randint(50, (8, 20))

    def run(speed: Speed) -> tuple[float, list[Tensor], int]:
        torch.manual_seed(1)
        network.zero_grad()
        with LiveMemory() as memory:
            with speed.applied():
                loss = (network(input_ids=ids).last_hidden_state ** 3).mean()
            kept = memory.now
            loss.backward()
        return float(loss.detach()), [p.grad.clone() for p in network.parameters()], kept

    plain, again = run(Speed()), run(Speed([network]))
    assert again[0] == pytest.approx(plain[0], rel=1e-6)
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in zip(again[1], plain[1], strict=True))
    assert again[2] < plain[2] / 2


def test_a_closed_form_has_no_activations(plan: Plan, in_tmp: Path) -> None:
    stage = {"name": "first", "align": ["image", "text"], "closed_form": "ridge"}
    plan["stages"] = [{**stage, "activation_checkpointing": True}]
    with pytest.raises(UserError, match="no use for activation_checkpointing"):
        modalign.align(plan)


# torch.compile ------------------------------------------------------------------------------


def small() -> tuple[nn.Module, Tensor]:
    torch.manual_seed(0)
    return nn.Sequential(nn.GELU(), nn.Dropout(0.3), nn.Linear(8, 4)), torch.randn(6, 8)


def loss_and_gradient(module: nn.Module, x: Tensor, speed: Speed) -> list[Tensor]:
    torch.manual_seed(1)
    module.zero_grad()
    with speed.applied():
        loss = module(x).square().sum()
    loss.backward()
    return [loss.detach(), *(p.grad.clone() for p in module.parameters() if p.grad is not None)]


@pytest.mark.slow
def test_a_compiled_module_gives_the_same_dropout_included() -> None:
    """The real compiler: a C++ compiler is needed."""
    module, x = small()
    names = list(module.state_dict())
    plain = loss_and_gradient(module, x, Speed())
    speed = Speed(compiled={"it": module}, options=Compile())
    torch._dynamo.utils.counters.clear()
    compiled = loss_and_gradient(module, x, speed)
    assert not speed.failed
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    assert torch._dynamo.utils.counters["inductor"]
    assert len(compiled) == len(plain) == 3
    assert all(torch.allclose(a, b, rtol=1e-5, atol=1e-6) for a, b in zip(plain, compiled, strict=True))
    assert list(module.state_dict()) == names
    assert module._compiled_call_impl is None  # outside, the module is as it was
    assert not copy.deepcopy(speed)._compiled


def test_without_a_compiler_the_stage_goes_on_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import torch._inductor.config

    module, x = small()
    other = nn.Linear(8, 3)
    plain = loss_and_gradient(module, x, Speed())
    torch._dynamo.reset()
    speed = Speed(compiled={"the projection": module, "another": other}, options=Compile())
    with (
        torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",), "force_disable_caches": True}),
        caplog.at_level(logging.WARNING, "modalign"),
    ):
        found = loss_and_gradient(module, x, speed)
        with speed.applied():
            other(x)
    assert all(torch.equal(a, b) for a, b in zip(plain, found, strict=True))
    told = [r.getMessage() for r in caplog.records if r.name == "modalign"]
    assert len(told) == 1
    assert "cannot compile the projection" in told[0]


def test_errors_of_the_module_itself_are_no_compilers_errors() -> None:
    class Full(nn.Module):
        @torch._dynamo.disable  # as it comes from a kernel
        def forward(self, x: Tensor) -> Tensor:
            raise torch.OutOfMemoryError("no room")

    module = Full()
    speed = Speed(compiled={"it": module}, options=Compile())
    with pytest.raises(torch.OutOfMemoryError), speed.applied():
        module(torch.ones(1))
    assert not speed.failed


@pytest.mark.slow
@pytest.mark.parametrize("more", [{}, {"chunk_size": 12}, {"activation_checkpointing": True}], ids=str)
def test_a_compiled_run_is_the_plain_run_within_rounding(plan: Plan, in_tmp: Path, more: Plan) -> None:
    del plan["modalities"]["audio"], plan["stages"][1], plan["tasks"][1:]
    plan["modalities"]["image"]["encoder"]["dropout"] = 0.2
    modalign.align(with_keys(plan, stage=more), out="plain")
    modalign.align(with_keys(plan, stage=more, speed={"compile": True}), out="compiled")
    assert losses("compiled") == pytest.approx(losses("plain"), rel=1e-3)
    plain, compiled = weights("plain"), weights("compiled")
    assert plain.keys() == compiled.keys()
    assert all(torch.allclose(plain[k], compiled[k], atol=2e-2) for k in plain)


@pytest.mark.slow
def test_compiled_chunks_replay_their_dropout() -> None:
    from lightning_fabric import Fabric

    model, loaded = tower()
    fabric = Fabric(accelerator="cpu")
    wrapped = fabric.setup_module(model)

    def run(speed: Speed) -> list[Tensor]:
        model.speed = speed
        torch.manual_seed(1)
        model.zero_grad()
        cached_backward(
            fabric, wrapped, loaded, 8, lambda o, s: ((o["image"]["vectors"] ** 3).sum() + 0 * s, 0), 1, True
        )
        return [p.grad.clone() for p in model.parameters() if p.grad is not None]

    parts = {"layer": model.space.layers["image"], "projection": model.space.projection}
    parts["encoder"] = model.space.encoder("image")
    plain, speed = run(Speed()), Speed(compiled=parts, options=Compile())
    compiled = run(speed)
    assert not speed.failed
    assert all(torch.allclose(a, b, rtol=1e-3, atol=1e-5) for a, b in zip(plain, compiled, strict=True))


# Precision ----------------------------------------------------------------------------------


def test_tf32_is_switched_on_for_the_run_and_put_back(
    plan: Plan, in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    forward = SmallViT.forward

    def look(self: SmallViT, batch: Any) -> Features:
        seen.append(torch.get_float32_matmul_precision())
        return forward(self, batch)

    monkeypatch.setattr(SmallViT, "forward", look)
    del plan["modalities"]["audio"], plan["stages"][1], plan["tasks"][1:]
    before = torch.get_float32_matmul_precision()
    modalign.align(plan, out="plain")
    assert set(seen) == {before}
    seen.clear()
    modalign.align(with_keys(plan, speed={"tf32": True}), out="tf32")
    assert set(seen) == {"high"}
    assert torch.get_float32_matmul_precision() == before
    monkeypatch.setattr(SmallViT, "forward", lambda self, batch: batch["nothing"])
    with pytest.raises(KeyError):
        modalign.align(with_keys(plan, speed={"tf32": True}), out="broken")
    assert torch.get_float32_matmul_precision() == before
    assert losses("tf32") == pytest.approx(losses("plain"), rel=1e-3)
    encoded = [
        json.loads(Path(out, "report.json").read_text())["stages"][0]["cache"] for out in ("plain", "tf32")
    ]
    assert encoded[0]["text"]["encoded"] == encoded[1]["text"]["encoded"] > 0  # their features are kept apart


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_mixed_precision_leaves_frozen_parts_alone(plan: Plan, in_tmp: Path, precision: str) -> None:
    for stage in plan["stages"]:
        stage |= {"chunk_size": 12, "activation_checkpointing": True}
    modalign.align(plan, out="plain")
    modalign.align(with_keys(plan, fabric={"accelerator": "cpu", "precision": precision}), out="mixed")
    assert losses("mixed") == pytest.approx(losses("plain"), rel=0.05)
    assert losses("mixed") != losses("plain")
    assert {w.dtype for w in weights("mixed").values() if w.is_floating_point()} == {torch.float32}
    unchanged = [
        json.loads(Path(run, "report.json").read_text())["stages"][1]["unchanged"]
        for run in ("plain", "mixed")
    ]
    assert unchanged[0] == unchanged[1]
    assert {"projection", "image", "encoder:image"} <= set(unchanged[0])


def test_chunks_know_of_a_gradient_scaler() -> None:
    """16-mixed scales the loss: the chunks' share of the gradient must be scaled once, not twice."""
    from lightning_fabric import Fabric
    from lightning_fabric.plugins.precision import MixedPrecision

    norms = []
    for size in (None, 8):
        model, loaded = tower()
        scaler = torch.amp.GradScaler("cpu", init_scale=128.0)
        precision = MixedPrecision("16-mixed", device="cpu", scaler=scaler)  # type: ignore[arg-type]
        fabric = Fabric(accelerator="cpu", plugins=[precision])
        wrapped = fabric.setup_module(model)
        torch.manual_seed(1)

        def loss_of(outputs: Any, scale: Tensor) -> tuple[Tensor, None]:
            return (outputs["image"]["vectors"] ** 2)[:, :9].sum() + 0 * scale, None

        if size is None:
            fabric.backward(loss_of(*wrapped(loaded))[0])
        else:
            cached_backward(fabric, wrapped, loaded, size, loss_of, 1, True)
        norms.append(
            float(torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None]))
        )
    assert norms[0] == pytest.approx(norms[1], rel=0.5)  # other dropout, not 128 times as much


def test_bad_values_are_refused(plan: Plan, in_tmp: Path) -> None:
    with pytest.raises(UserError, match=r"speed\.compile"):
        modalign.align(with_keys(plan, speed={"compile": {"mode": "fastest"}}))
    with pytest.raises(UserError, match=r"unknown key.*tf32"):
        modalign.align(with_keys(plan, speed={"tf23": True}))


def test_what_cannot_be_combined_is_named(plan: Plan, in_tmp: Path) -> None:
    fabric = {"accelerator": "cpu", "strategy": "fsdp"}
    wrong = with_keys(plan, stage={"activation_checkpointing": True}, speed={"compile": True}, fabric=fabric)
    with pytest.raises(UserError) as found:
        modalign.align(wrong)
    assert "speed.compile" in str(found.value)
    assert "activation_checkpointing" in str(found.value)
