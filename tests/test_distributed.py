"""Several processes with a share of the batch each train as one does, whole or in pieces."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import modalign
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from modalign.errors import UserError
from safetensors.torch import load_file

Plan = dict[str, Any]
Case = dict[str, Any]
TOLERANCE = 1e-4
"""Of a loss; what was seen is below 1e-5."""


def metrics(out: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in Path(out, "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "lr" in line["metrics"]]


def together(processes: int, cases: Iterable[Case]) -> None:
    """Run cases in processes that torchrun starts."""
    Path("cases.json").write_text(json.dumps(list(cases)))
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    done = subprocess.run(
        [sys.executable, *launch, str(Path(__file__).with_name("several_runs.py")), "cases.json"],
        timeout=280,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-5000:]


def equal(one: str, other: str, tolerance: float = TOLERANCE) -> None:
    """The same loss at every step, the same metrics at the end."""
    first, second = metrics(one), metrics(other)
    assert [a["step"] for a in first] == [b["step"] for b in second]
    for a, b in zip(first, second, strict=True):
        assert b["metrics"]["loss"] == pytest.approx(a["metrics"]["loss"], abs=tolerance), a["step"]
        assert b["metrics"]["grad_norm"] == pytest.approx(a["metrics"]["grad_norm"], rel=1e-2, abs=1e-4)
        assert b["metrics"]["scale"] == pytest.approx(a["metrics"]["scale"], rel=1e-4)
    reports = [json.loads(Path(out, "report.json").read_text()) for out in (one, other)]
    for task, found in reports[0]["tasks"].items():
        assert reports[1]["tasks"][task] == pytest.approx(found, abs=0.1), task  # 11 rows: one of them
    assert [s["unchanged"] for s in reports[0]["stages"]] == [s["unchanged"] for s in reports[1]["stages"]]


@pytest.fixture
def odd(plan: Plan, in_tmp: Path, digits: Path) -> Plan:
    """Ragged batches with holes, no dropout; transformers of two layers."""
    rows = pq.read_table(digits).slice(0, 60).to_pylist()
    for i, row in enumerate(rows):
        if i % 4 == 1:
            row["image"] = None
        row["split"] = "train" if i < 49 else "test"
    pq.write_table(pa.Table.from_pylist(rows), "odd.parquet")
    plan["data"]["table"] = str(in_tmp / "odd.parquet")
    plan["space"]["projection"] |= {"dropout": 0.0, "layers": 2}
    plan["space"]["dropout"] = 0.0
    plan["modalities"]["image"]["encoder"]["layers"] = 2
    plan["modalities"]["audio"]["encoder"] |= {"dropout": 0.0, "blank": 0.0}
    plan["stages"][1]["align"] = ["audio", "text", "image"]
    for stage in plan["stages"]:
        stage["batch_size"] = 9
    return plan


def case(plan: Plan, out: str, processes: int, strategy: str, *, sharded: bool = False, **more: Any) -> Case:
    plan = copy.deepcopy(plan)
    plan["fabric"] = {"accelerator": "cpu", "devices": processes, "strategy": strategy}
    plan["checkpoint"] = {"sharded": sharded, "every_steps": 2}
    return {"plan": plan, "out": out, **more}


def chain(plan: Plan, out: str, processes: int) -> Iterator[Case]:
    """One run, stopped and gone on with in another way each time."""
    yield case(plan, out, processes, "fsdp", sharded=True, stop=3)
    yield case(plan, out, processes, "ddp", resume=True, stop=7)
    yield case(plan, out, processes, "fsdp", sharded=True, resume=True, stop=14)


def drawing(plan: Plan) -> Iterator[Case]:
    """A run with dropout, and the same one stopped in between."""
    plan = copy.deepcopy(plan)
    plan["space"]["projection"]["dropout"] = 0.2
    yield case(plan, "drawn", 2, "ddp")
    yield case(plan, "stopped", 2, "ddp", stop=5)
    yield case(plan, "stopped", 2, "ddp", resume=True)


def test_two_processes_equal_one(odd: Plan) -> None:
    modalign.align(odd, out="one")
    cases = [case(odd, name, 2, name) for name in ("ddp", "fsdp")]
    late = [case(odd, "told", 2, "ddp", stop_encoding=True), case(odd, "told", 2, "ddp", resume=True)]
    gain = [case(odd, f"gain-{name}", 2, name, gain=True) for name in ("ddp", "fsdp")]
    short = case(odd, "short", 2, "ddp", room=2)
    together(2, [*late, *cases, *gain, *chain(odd, "chain", 2), *drawing(odd), short])
    modalign.align(odd, out="chain", resume=True)  # in this one process
    for other in ("ddp", "fsdp", "chain", "short", "told"):
        equal("one", other)
    equal("gain-ddp", "gain-fsdp")
    drawn, stopped = (Path(out, "space/model.safetensors").read_bytes() for out in ("drawn", "stopped"))
    assert drawn == stopped  # every process drew on where it was
    assert len(metrics("one")) == 22
    whole, pieces = (load_file(f"{out}/space/model.safetensors") for out in ("one", "fsdp"))
    assert whole.keys() == pieces.keys()
    assert [p.suffix for p in Path("fsdp/checkpoints").iterdir()] == [".ckpt", ".ckpt"]


VARIANTS: dict[str, dict[str, Any]] = {
    "absent": {"batch_size": 3, "epochs": 1},
    "chunks": {"chunk_size": 2, "losses": {"infonce": 1.0, "momentum": 0.5}},
    "select": {"accumulate": 2, "clip": None, "select": {"task": "retrieval:image->text", "split": "test"}},
    "tokens": {"losses": {"late_interaction": 1.0}},
}


@pytest.mark.slow
def test_every_kind_of_step(odd: Plan) -> None:
    plans = {name: copy.deepcopy(odd) for name in VARIANTS}
    for name, changes in VARIANTS.items():
        for stage in plans[name]["stages"]:
            stage.update(copy.deepcopy(changes))
        modalign.align(plans[name], out=name)
    kinds = ("ddp", "fsdp")
    together(2, [case(plan, f"{name}-{kind}", 2, kind) for name, plan in plans.items() for kind in kinds])
    for name in VARIANTS:
        for kind in kinds:
            equal(name, f"{name}-{kind}")


@pytest.mark.slow
def test_four_processes_equal_one_and_go_on_from_two(odd: Plan) -> None:
    modalign.align(odd, out="one")
    together(2, [case(odd, "more", 2, "ddp", stop=5), case(odd, "pieces", 2, "fsdp", sharded=True, stop=5)])
    together(
        4,
        [
            case(odd, "ddp", 4, "ddp"),
            case(odd, "fsdp", 4, "fsdp"),
            case(odd, "more", 4, "ddp", resume=True),
            case(odd, "pieces", 4, "fsdp", sharded=True, resume=True),
        ],
    )
    for other in ("ddp", "fsdp", "more", "pieces"):
        equal("one", other)


@pytest.mark.slow
def test_mixed_precision_is_the_same_in_pieces(odd: Plan) -> None:
    cases = [case(odd, kind, 2, kind) for kind in ("ddp", "fsdp")]
    for each in cases:
        each["plan"]["fabric"]["precision"] = "bf16-mixed"
    together(2, cases)
    equal("ddp", "fsdp")


@pytest.mark.parametrize("started", ["torchrun", "SLURM"])
def test_another_number_of_processes_than_the_plan_says(
    started: str, odd: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = {
        "torchrun": {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"},
        "SLURM": {"SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2", "SLURM_PROCID": "0"}
        | {"SLURM_LOCALID": "0", "SLURM_NODEID": "0"},
    }
    for name, value in variables[started].items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match=f"{started} started 2 processes, and the plan asks for 1"):
        modalign.align(odd, out="none")
    assert not Path("none").exists()


def test_fsdp_of_the_first_kind_and_float16_are_refused(odd: Plan, write_plan: Callable[..., Path]) -> None:
    for fabric, said in (
        ({"strategy": "fsdp", "precision": "16-mixed"}, "fsdp does not scale losses .* bf16-mixed"),
        ({"strategy": "fsdp_cpu_offload"}, "write fsdp"),
    ):
        odd["fabric"] = fabric
        with pytest.raises(UserError, match=said):
            modalign.align(write_plan(odd), out="none")
