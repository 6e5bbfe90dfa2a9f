"""Stages in closed form: solved in one pass, composed with trained ones, with holes in the data."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import modalign
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from modalign.cli.main import main
from modalign.closed_form import METHODS, Moments, align_pairs
from modalign.training import solve
from modalign.training.sampler import Epochs
from safetensors.torch import load_file

Plan = dict[str, Any]


@pytest.fixture
def frozen(plan: Plan, in_tmp: Path) -> Plan:
    """Untrained frozen encoders, whose features still tell digits apart; linear maps into 16 dimensions."""
    for modality in plan["modalities"].values():
        modality.pop("trainable", None)
    plan["space"] = {"dim": 16, "alignment": "linear", "projection": "mean"}
    plan["stages"] = [{"name": "first", "align": ["text", "image"], "closed_form": "ridge"}]
    plan["modalities"].pop("audio")
    plan["tasks"] = [t for t in plan["tasks"] if "audio" not in t.values()]
    return plan


def report(name: str = "tiny") -> dict[str, Any]:
    content: dict[str, Any] = json.loads(Path("runs", name, "report.json").read_text())
    return content


def add_audio(plan: Plan, **stage: Any) -> None:
    encoder = {"name": "logmel-cnn", "width": 16, "rate": 4000, "mels": 16}
    plan["modalities"]["audio"] = {"encoder": encoder}
    plan["stages"].append({"name": "second", "align": ["text", "audio"], "closed_form": "ridge", **stage})
    plan["tasks"].append({"name": "retrieval", "from": "audio", "to": "image"})


@pytest.mark.parametrize("method", METHODS)
def test_every_method_finds_the_digit(method: str, frozen: Plan) -> None:
    frozen["stages"][0]["closed_form"] = {"method": method, "regularisation": 0.1}
    space = modalign.align(frozen)
    stage = report()["stages"][0]
    assert 0 < stage["loss"] < 1
    assert stage["steps"] == stage["epochs"] == 1
    assert stage["trained_parameters"] == 2 * (16 * 16 + 16)
    assert set(stage["trained"]) == {"image", "text"}
    assert report()["tasks"]["zero_shot:image"]["accuracy"] > 0.25  # chance: 0.1
    again = modalign.load("runs/tiny/space")
    assert torch.equal(again.embed("text", ["zero", "one"]), space.embed("text", ["zero", "one"]))


def test_it_solves_what_the_features_say(frozen: Plan, digits: Path) -> None:
    """The layers in the space are those of the formula on features computed by hand."""
    rows = [{**row, "text": row["text"][0]} for row in pq.read_table(digits).to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows), "one-name.parquet")
    frozen["data"]["table"] = "one-name.parquet"
    frozen["stages"][0]["closed_form"] = "cca"
    space = modalign.align(frozen)
    rows = [row for row in rows if row["split"] == "train"]

    def mean(name: str, values: list[Any]) -> torch.Tensor:
        items = [space.reader(name).read(value) for value in values]
        with torch.inference_mode():
            features = space.encoder(name)(space.reader(name).collate(items))
        real = features.mask.unsqueeze(-1)
        return (features.tokens * real).sum(1) / real.sum(1)

    moments = Moments(16, 16)
    moments.add(mean("text", [r["text"] for r in rows]), mean("image", [r["image"]["bytes"] for r in rows]))
    maps, left = align_pairs("cca", {("text", "image"): [moments]}, 16)
    assert report()["stages"][0]["loss"] == pytest.approx(left, abs=1e-4)
    signs = torch.sign((maps["text"].weight * space.layers["text"].linear.weight).sum(1, keepdim=True))
    for name, solved in maps.items():
        layer = space.layers[name].linear
        scale = layer.weight.norm() / solved.weight.norm()  # one factor, which cosines do not see
        torch.testing.assert_close(
            (scale * signs * solved.weight).float(), layer.weight, rtol=1e-2, atol=1e-2
        )
        bias = (scale * signs[:, 0] * solved.bias).float()
        torch.testing.assert_close(bias, layer.bias, rtol=1e-2, atol=1e-2)


def test_a_further_modality_is_mapped_onto_the_space(frozen: Plan) -> None:
    add_audio(frozen)
    modalign.align(frozen)
    second = report()["stages"][1]
    assert second["trained"] == ["audio"]
    assert {"text", "image", "temperature", "projection"} <= set(second["unchanged"])
    assert report()["tasks"]["retrieval:audio->image"]["class_R@1"] > 0.25


def test_it_joins_a_trained_space_and_a_trained_stage_joins_it(frozen: Plan) -> None:
    trained = {"losses": {"infonce": 1.0}, "epochs": 3, "batch_size": 32, "lr": 3e-3}
    add_audio(frozen)
    frozen["stages"][0] = {"name": "first", "align": ["text", "image"], **trained}
    modalign.align(frozen)
    assert report()["stages"][0]["trained"] == ["image", "projection", "temperature", "text"]
    frozen["name"] = "other"
    frozen["stages"][0] = {"name": "first", "align": ["text", "image"], "closed_form": "csa"}
    frozen["stages"][1] = {"name": "second", "align": ["text", "audio"], **trained}
    modalign.align(frozen)
    assert report("other")["stages"][1]["trained"] == ["audio", "projection", "temperature"]


@pytest.mark.parametrize("alignment", ["linear", "residual"])
def test_training_goes_on_from_a_solution(alignment: str, frozen: Plan) -> None:
    """Warm-started, the first steps' loss is below that of a cold start, and nothing is lost."""
    trained = {
        "losses": {"infonce": 1.0},
        "epochs": 2,
        "batch_size": 32,
        "lr": 1e-3,
        "align": ["text", "image"],
    }
    frozen["space"]["alignment"] = alignment
    frozen["stages"].append({"name": "refine", **trained, "unfreeze": ["text", "image"]})
    modalign.align(frozen)
    frozen["name"], frozen["stages"] = "cold", [{"name": "refine", **trained}]
    modalign.align(frozen)

    def loss(name: str) -> float:
        lines = Path("runs", name, "metrics.jsonl").read_text().splitlines()
        steps = [r for r in map(json.loads, lines) if r["stage"] == "refine" and "lr" in r["metrics"]]
        value: float = steps[0]["metrics"]["loss"]
        return value

    assert loss("tiny") < loss("cold") - 0.3
    assert (
        report()["tasks"]["zero_shot:image"]["accuracy"]
        >= report("cold")["tasks"]["zero_shot:image"]["accuracy"]
    )


def test_holes_and_broken_cells(frozen: Plan, digits: Path) -> None:
    rows = pq.read_table(digits).to_pylist()
    for i, row in enumerate(rows):
        if i % 3 == 0:
            row["text"] = None
        if i % 40 == 1:
            row["image"] = {"bytes": b"no picture", "path": None}
    pq.write_table(pa.Table.from_pylist(rows), "holes.parquet")
    frozen["data"] |= {"table": "holes.parquet", "max_bad": 0.2}
    modalign.align(frozen)
    whole = [r for i, r in enumerate(rows) if i % 3 and i % 40 != 1]
    pq.write_table(pa.Table.from_pylist(whole), "whole.parquet")
    frozen["name"], frozen["data"]["table"] = "whole", "whole.parquet"
    modalign.align(frozen)
    assert len(Path("runs/tiny/quarantine.csv").read_text().splitlines()) > 1
    # Rows are numbered otherwise, so other alternatives are drawn: alike, not equal.
    assert report()["stages"][0]["loss"] == pytest.approx(report("whole")["stages"][0]["loss"], abs=0.1)


@pytest.mark.parametrize("count", [1, 9, 10, 11, 12, 17])
def test_processes_look_for_a_wish_to_stop_equally_often(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solve, "ROWS", 3)
    epochs = Epochs([range(count)], [None], 4, 0)
    parts = [list(solve.shares(epochs, rank, 3)) for rank in range(3)]
    assert len({len(part) for part in parts}) == 1
    assert sorted(int(row) for part in parts for rows, _ in part for row in rows) == list(range(count))


def test_two_processes_solve_the_same(frozen: Plan, write_plan: Callable[..., Path]) -> None:
    add_audio(frozen)
    file = str(write_plan(frozen))
    for out, more in (("one", []), ("two", ["fabric.devices=2", "fabric.strategy=ddp"])):
        subprocess.run(
            [sys.executable, "-m", "modalign.cli", "align", file, "--out", out, *more],
            check=True,
            timeout=240,
        )
    one, two = (load_file(f"{out}/space/model.safetensors") for out in ("one", "two"))
    assert one.keys() == two.keys()
    for key in one:
        torch.testing.assert_close(one[key], two[key], rtol=1e-3, atol=1e-4)


def test_interrupted_before_it_is_solved(frozen: Plan, write_plan: Callable[..., Path]) -> None:
    """A finished first stage is not solved again; the second is, and the result is that of one run."""
    add_audio(frozen)
    modalign.align(frozen, out="whole")
    only = write_plan(frozen)
    modalign.align(str(only), out="broken")
    checkpoints = sorted(Path("broken/checkpoints").glob("*.ckpt"))
    checkpoints[-1].unlink()
    modalign.align(str(only), out="broken", resume=True)
    whole, broken = (Path(out, "space/model.safetensors").read_bytes() for out in ("whole", "broken"))
    assert whole == broken


def test_dry_run(frozen: Plan, write_plan: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["align", str(write_plan(frozen)), "--dry-run"]) == 0
    assert "544" in capsys.readouterr().out


def change(plan: Plan, **more: Any) -> None:
    plan["stages"][0] |= more


BAD: dict[str, tuple[Callable[[Plan], Any], list[str]]] = {
    "both": (lambda p: change(p, losses={"infonce": 1.0}), ["either 'losses'", "'closed_form'"]),
    "neither": (lambda p: p["stages"][0].pop("closed_form"), ["either 'losses'"]),
    "no method": (lambda p: change(p, closed_form="rigde"), ["closed_form", "ridge"]),
    "idle key": (lambda p: change(p, epochs=3, lr=0.1), ["no use for epochs, lr"]),
    "bent layers": (lambda p: p["space"].pop("alignment"), ["alignment: mlp", "alignment: linear"]),
    "projection": (lambda p: p["space"].update(projection="linear"), ["projection: linear", "projection: mean"]),
    "trainable": (lambda p: p["modalities"]["image"].update(trainable=True), ["trains no encoder", "image"]),
    "turning what is there": (
        lambda p: add_audio(p, closed_form="cca"), ["stages.1.closed_form", "text is in the space", "unfreeze: [text]"],
    ),
    "unfreezing more": (
        lambda p: add_audio(p, unfreeze=["temperature"]), ["not temperature"],
    ),
    "alone": (lambda p: p["stages"].append({"name": "x", "align": ["image"], "closed_form": "ridge", "unfreeze": ["image"]}), ["two modalities"]),
    "no pair": (
        lambda p: add_audio(p, align=["text", "audio", "image"], unfreeze=["image"], pairs=[["audio", "image"], ["image", "text"]]),
        ["no pair has audio", "text"],
    ),
    "no room": (
        lambda p: (p["space"].update(dim=8), change(p, closed_form="procrustes")),
        ["16 dimensions of image into 8", "space.dim"],
    ),
    "another kind": (lambda p: p["space"].update(alignment="liner"), ["space.alignment", "linear"]),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_bad_plans(
    case: str, frozen: Plan, write_plan: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    edit, words = BAD[case]
    edit(frozen)
    assert main(["align", str(write_plan(frozen))]) == 2
    told = capsys.readouterr().err
    assert all(word in told for word in words), told
    assert not Path("runs").exists()
