"""What --dry-run predicts, beside what a run then needs."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import textwrap
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import modalign
import psutil
import pytest
import torch
from modalign import report
from modalign.cli.main import main
from modalign.training import probe, stage_probe
from modalign.training.dry_run import advice, details, duration, predict, size
from modalign.training.live_memory import LiveMemory
from modalign.training.prediction import StagePrediction, StepCost
from modalign.training.probe import Sizes, StepProbe, grow

Plan = dict[str, Any]
Write = Callable[..., Path]


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_probe, "SECONDS", 2.0)


def everything(*folders: Path) -> dict[str, tuple[int, int]]:
    """Every file below some folders with its size and time."""
    files = [f for folder in folders for f in folder.rglob("*")]
    return {str(f): (f.stat().st_size, f.stat().st_mtime_ns) for f in files}


def as_archive(plan: Plan, path: Path) -> Plan:
    """The same plan, its rows in a tar archive that is streamed."""
    import pyarrow.parquet as pq

    rows = pq.read_table(plan["data"]["table"]).to_pylist()
    with tarfile.open(path, "w") as archive:
        for i, row in enumerate(rows):
            cells = {"png": row["image"]["bytes"], "txt": row["text"][0].encode()}
            for ending, data in {**cells, "wav": row["audio"]["bytes"]}.items():
                about = tarfile.TarInfo(f"{i:05d}.{ending}")
                about.size = len(data)
                archive.addfile(about, io.BytesIO(data))
    columns = {"image": "png", "text": "txt", "audio": "wav"}
    return {**plan, "data": {"table": str(path), "columns": columns}, "tasks": []}


@pytest.mark.parametrize("kind", ["table", "archive"])
def test_nothing_is_written_and_it_is_quick(
    plan: Plan, write_plan: Write, in_tmp: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    plan["track"] = {"uri": "sqlite:///mlflow.db"}
    if kind == "archive":
        plan = as_archive(plan, in_tmp / "digits.tar")
    file, cache = write_plan(plan), Path(os.environ["MODALIGN_CACHE"])
    before, started = everything(in_tmp, cache), time.perf_counter()
    assert main(["align", str(file), "--dry-run"]) == 0
    assert time.perf_counter() - started < 30
    assert everything(in_tmp, cache) == before
    out = capsys.readouterr().out
    for word in (
        "trained encoder:image",
        "frozen encoder:text",
        "gradients",
        "activations",
        "it fits",
        "total:",
    ):
        assert word in out, word


def test_counts_are_those_of_the_run_and_the_cache_is_known(plan: Plan, in_tmp: Path) -> None:
    first, second = predict(plan)
    text = first.encodings[list(first.align).index("text")]
    assert (text.samples, text.cached, text.exact) == (20, 0, True)
    assert second.encodings[list(second.align).index("text")].disk == 0  # the first stage will have made it
    modalign.align(plan, out="run")
    stages = json.loads(Path("run/report.json").read_text())["stages"]
    for found, real in zip((first, second), stages, strict=True):
        encoders = sum(n for part, n in found.trained.items() if part.startswith("encoder:"))
        assert encoders == real["trained_encoder_parameters"]
        assert sum(found.trained.values()) - encoders == real["trained_parameters"]
        assert (found.steps, found.rows) == (real["steps"], real["rows"])
    cached = stages[0]["cache"]["text"]
    assert cached["samples"] == text.samples
    abouts = Path(os.environ["MODALIGN_CACHE"]).rglob("about.json")
    (about,) = [a for a in abouts if "char-cnn" in a.read_text()]
    data = sum(f.stat().st_size for f in about.parent.glob("*.bin"))
    assert data / 1.5 < text.disk < data * 1.5
    again = predict(plan)[0]
    text = again.encodings[list(again.align).index("text")]
    assert (text.samples, text.cached, text.disk) == (20, 20, 0)


def test_shards_are_predicted_as_they_are_read(plan: Plan, in_tmp: Path) -> None:
    """By every step anew: neither features nor items are kept."""
    table, archive = predict(plan)[0], predict(as_archive(plan, in_tmp / "digits.tar"))
    assert table.encodings[0].items == 120 * 8 * 8 * 3
    for stage in archive:
        assert [(e.cached, e.disk, e.memory, e.items) for e in stage.encodings] == [(0, 0, 0, 0)] * 2
        assert stage.encode_seconds == 0.0
        assert stage.memory["data"] < 1e6


CHILD = """
    import json, re, sys
    from pathlib import Path
    import modalign, torch, yaml
    torch.set_num_threads(1)

    def bytes_of(name):
        return 1024 * int(re.search(name + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1])

    plan = yaml.safe_load(Path("plan.yaml").read_text())
    small = {**plan["stages"][0], "batch_size": 4, "epochs": 1}
    small.pop("chunk_size", None)
    modalign.align({**plan, "name": "warm", "stages": [small], "data": {"table": "few.parquet"}}, out="warm")
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    before = bytes_of("VmRSS")
    modalign.align(plan, out="run")
    print(bytes_of("VmHWM") - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads the peak as Linux keeps it")
@pytest.mark.parametrize(
    "more", [{}, pytest.param({"chunk_size": 16}, marks=pytest.mark.slow)], ids=["whole", "chunks"]
)
def test_memory_is_what_a_run_then_needs(plan: Plan, write_plan: Write, in_tmp: Path, more: Plan) -> None:
    """Within a factor of 1.5, the C library told to give back what is freed."""
    import pyarrow.parquet as pq

    table = pq.read_table(plan["data"]["table"])
    pq.write_table(table.slice(0, 8), "few.parquet")
    del plan["modalities"]["audio"], plan["stages"][1], plan["tasks"][:]
    encoder = {"name": "small-vit", "size": 32, "patch": 4, "width": 96, "layers": 4}
    plan["modalities"]["image"]["encoder"] = encoder
    plan["stages"][0] |= {"batch_size": 128, "epochs": 1, **more}
    file = write_plan(plan)
    (found,) = predict(file)
    assert found.needed > 30e6
    threshold = {f"MALLOC_{name}_THRESHOLD_": "65536" for name in ("MMAP", "TRIM")}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(CHILD)],
        env={**os.environ, **threshold},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    used = int(done.stdout.splitlines()[-1])
    assert used / 1.5 < found.needed < used * 1.5, (used, found.memory)


def test_too_little_memory_gets_advice_that_fits(
    plan: Plan, write_plan: Write, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    del plan["modalities"]["audio"], plan["stages"][1], plan["tasks"][1:]
    plan["modalities"]["image"]["encoder"] |= {"size": 16, "width": 64, "layers": 4}
    plan["stages"][0]["batch_size"] = 120
    (roomy,) = predict(plan)
    assert roomy.fits
    assert roomy.chunk is None
    scarce = psutil.virtual_memory()._replace(available=int(roomy.needed * 1.1))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: scarce)
    (tight,) = predict(plan)
    assert not tight.fits
    assert tight.chunk is not None
    assert 1 <= tight.chunk < 120
    file = write_plan(plan)
    assert main(["align", str(file), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "it does not fit" in out
    assert "write chunk_size: " in out
    plan["stages"][0]["chunk_size"] = tight.chunk
    (chunked,) = predict(plan)
    assert chunked.needed < 0.8 * tight.needed
    assert chunked.rows_at_once == tight.chunk


def test_fsdp_shares_out_what_is_trained(plan: Plan) -> None:
    """The space itself stays whole on every process, and a copy of it lies in pieces."""
    del plan["modalities"]["audio"], plan["stages"][1], plan["tasks"][1:]
    plan["modalities"]["text"]["encoder"]["width"] = 128

    def predicted(**fabric: Any) -> StagePrediction:
        (found,) = predict({**plan, "fabric": {"accelerator": "cpu", "devices": 4, **fabric}})
        return found

    whole, cut = predicted(strategy="ddp"), predicted(strategy="fsdp")
    for what in ("gradients", "AdamW's moments"):
        assert cut.memory[what] == pytest.approx(whole.memory[what] / 4, abs=8)
    assert cut.memory["parameters"] == whole.memory["parameters"]
    assert whole.memory["gradients under way"] == whole.memory["gradients"]
    assert "gradients under way" not in {**cut.memory, **predicted(devices=1).memory}
    share = whole.memory["parameters"] / 4
    largest = 4 * max(n for part, n in cut.trained.items())  # the encoder of text is cached
    assert share < cut.memory["the copy in pieces"] <= share + 3 * largest + 4
    assert cut.memory["activations"] == pytest.approx(whole.memory["activations"], rel=0.01)
    assert (whole.pieces, cut.pieces) == (None, 4)
    text = report.columns(details(cut))
    assert "estimate" in text
    assert "what fsdp sends" in text
    assert "estimate" not in report.columns(details(whole))


def test_advice_is_none_that_a_plan_is_refused_for(plan: Plan) -> None:
    del plan["modalities"]["audio"], plan["stages"][1], plan["tasks"][1:]
    (found,) = predict(plan)
    asked = "activation_checkpointing: true"
    assert asked in advice(found)
    assert asked not in advice(replace(found, pieces=2))
    assert "more processes" in advice(replace(found, pieces=2))
    plan["stages"][0]["activation_checkpointing"] = True
    assert asked not in advice(predict(plan)[0])


def test_a_closed_form_has_its_own_figures(plan: Plan, in_tmp: Path) -> None:
    plan["modalities"] = {"image": {"encoder": "small-vit"}, "text": plan["modalities"]["text"]}
    plan["modalities"]["image"]["encoder"] = {
        "name": "small-vit",
        "size": 8,
        "patch": 4,
        "width": 16,
        "layers": 1,
    }
    plan["space"] = {"dim": 16, "alignment": "linear", "projection": "mean"}
    plan["stages"] = [{"name": "first", "align": ["image", "text"], "closed_form": "ridge"}]
    plan["tasks"] = []
    (found,) = predict(plan)
    assert "gradients" not in found.memory
    assert found.memory["moments and features"] > 2 * 16 * 16 * 8
    assert found.steps == 1
    assert {e.modality: e.samples for e in found.encodings} == {"image": 120, "text": 20}


def test_overrides_and_wrong_plans(plan: Plan, write_plan: Write, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_plan(plan)
    (a, _), (b, _) = predict(file), predict(file, ["stages.image-text.epochs=7"])
    assert b.steps == 3.5 * a.steps
    assert main(["align", str(file), "--dry-run", "fabric.accelerator=abacus"]) == 2
    assert "abacus" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", ["strategy=dpp", "strategy=deepspeed", "accelerator=abacus"])
def test_devices_that_a_run_refuses_are_refused_alike(
    plan: Plan, write_plan: Write, in_tmp: Path, capsys: pytest.CaptureFixture[str], wrong: str
) -> None:
    file, said = write_plan(plan), []
    for more in ([], ["--dry-run"]):
        assert main(["align", str(file), f"fabric.{wrong}", *more]) == 2
        found = capsys.readouterr()
        assert "it fits" not in found.out
        said.append(found.err)
    assert said[0] == said[1]
    assert said[0].count("\n") == 1
    assert wrong.partition("=")[2] in said[0].lower()
    assert not Path("runs").exists()


def test_matrices_are_multiplied_as_the_run_will(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, in_tmp: Path
) -> None:
    del plan["modalities"]["audio"], plan["stages"][1], plan["tasks"][:]
    seen = []
    step = StepProbe.step

    def noted(self: StepProbe, count: int) -> None:
        seen.append(torch.get_float32_matmul_precision())
        step(self, count)

    monkeypatch.setattr(StepProbe, "step", noted)
    before = torch.get_float32_matmul_precision()
    predict({**plan, "speed": {"tf32": True}})
    assert set(seen) == {"high"}
    assert torch.get_float32_matmul_precision() == before


def test_live_memory_counts_what_is_alive() -> None:
    kept = torch.ones(1000)
    with LiveMemory() as memory:
        a = kept * 2
        assert memory.now == 4000
        view = a[:10]
        b = a + 1
        assert memory.now == 8000
        del a
        assert memory.now == 8000  # the view holds it
        del view, b
        assert memory.now == 0
        kept.add_(1)
    assert memory.peak == 8000


def test_lines_through_what_was_measured() -> None:
    sizes = Sizes(((8, 1000.0, 0.1), (16, 1800.0, 0.2), (32, 3400.0, 0.4)))
    assert sizes.memory(32) == 3400
    assert sizes.memory(64) == pytest.approx(6600)  # 200 + 100 per row
    assert sizes.seconds(64) == pytest.approx(0.8)
    step = StepCost(sizes, Sizes(((64, 0.0, 0.0),)), gradients=200, outputs=50, batch=64, local=64)
    assert step.memory(None) == {"activations": 6400, "losses": 0}
    assert step.memory(16) == {"activations": 1600, "losses": 100}
    assert step.largest(64, 1750) == 16
    assert step.largest(64, 100) is None
    seen = []
    found = grow(lambda n: seen.append(torch.ones(n)), 48, 10.0, 1e9)
    assert [n for n, *_ in found.points] == [8, 48]
    assert found.memory(48) == 4 * 48
    assert found.memory(24) == pytest.approx(4 * 24)


def test_noise_in_a_short_measurement_is_not_multiplied() -> None:
    """A step costs something before its first row, so no row costs more than its share of a step."""
    noisy = Sizes(((8, 0.0, 0.039), (16, 0.0, 0.145)))
    assert noisy.seconds(16) == 0.145
    assert noisy.seconds(128) == pytest.approx(0.145 + 112 * 0.039 / 8)


def test_what_calling_losses_costs_does_not_grow_with_the_batch() -> None:
    """What is compared with all does, as its square."""

    def step(pair: float) -> StepCost:
        losses = Sizes(tuple((n, 0.0, 0.002 + pair * n**2) for n in (128, 512)), power=2)
        return StepCost(Sizes(((8, 0.0, 0.1), (64, 0.0, 0.8))), losses, 0, 0, batch=4096, local=64)

    assert step(0.0).seconds(None) == pytest.approx(0.8)
    assert step(1e-8).seconds(None) == pytest.approx(0.8 + 1e-8 * (4096**2 - 64**2))


def test_losses_are_measured_on_many_rows(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    del plan["modalities"]["audio"], plan["stages"][1], plan["tasks"][1:]
    plan["stages"][0]["batch_size"] = 100
    seen: list[Sizes] = []

    def noted(*args: Any, **more: Any) -> Sizes:
        seen.append(grow(*args, **more))
        return seen[-1]

    monkeypatch.setattr(stage_probe, "grow", noted)
    predict(plan)
    steps, losses = seen
    assert (steps.points[0][0], steps.power) == (8, 1)
    assert (losses.points[0][0], losses.power) == (100, 2)


@pytest.mark.parametrize("power", [1, 2])
def test_few_sizes_are_measured_and_they_are_far_apart(power: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """And time is kept, within what counting memory and making rows ready take."""
    now = [0.0]
    monkeypatch.setattr(probe.time, "perf_counter", lambda: now[0])

    def run(rows: int) -> None:
        now[0] += 0.03 + (0.002 * rows if power == 1 else 2e-6 * rows**2)

    first, last = {1: (8, 128), 2: (128, 256)}[power]
    found = grow(run, 100_000, 2.0, 1e9, first=first, power=power)
    assert (found.points[0][0], found.points[-1][0]) == (first, last)
    assert len(found.points) <= 3
    assert 0.5 < now[0] < 2.0
    assert found.seconds(4000) == pytest.approx(0.03 + (8 if power == 1 else 32))


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.25, "250 ms"), (12, "12.0 s"), (3700, "1 h 2 min"), (200000, "2 d 7 h")]
)
def test_times_in_words(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_sizes_in_words() -> None:
    assert [size(n) for n in (12, 1500, 2_340_000, 5e9, 3e12)] == [
        "12 B",
        "1.5 kB",
        "2.34 MB",
        "5 GB",
        "3,000 GB",
    ]
