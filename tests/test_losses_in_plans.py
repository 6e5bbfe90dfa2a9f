"""Every loss the core offers trains a space from a plan, alone and composed, with holes in the data."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import modalign
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from modalign.plugin import loader

Plan = dict[str, Any]
OPTIONS: dict[str, dict[str, Any]] = {
    "symile": {"negatives": "all"},
    "cwcl": {"pairs": [["text", "image"], ["text", "audio"]]},  # only text has a frozen encoder
    "momentum": {"queue": 16, "momentum": 0.9, "temperature": None},
}
EPOCHS = {"momentum": 12}  # candidates grow until the queue is full, and so does the loss
LOSSES = [offer.component.name for offer in loader.components("losses") if offer.distribution == "modalign"]


@pytest.fixture
def holes(plan: Plan, in_tmp: Path, digits: Path) -> Plan:
    """Three modalities at once, founders all, a third of the cells missing here and there."""
    rows = pq.read_table(digits).to_pylist()
    for i, row in enumerate(rows):
        if i % 3 == 0 and row["split"] == "train":
            row[("image", "text", "audio")[i % 9 // 3]] = None
    pq.write_table(pa.Table.from_pylist(rows), "holes.parquet")
    plan["data"]["table"] = "holes.parquet"
    plan["stages"] = [{**plan["stages"][0], "name": "all", "align": ["image", "text", "audio"], "epochs": 3}]
    return plan


@pytest.mark.parametrize("name", LOSSES)
def test_each_loss_trains(name: str, holes: Plan) -> None:
    holes["stages"][0]["losses"] = {name: {"weight": 1.0, **OPTIONS.get(name, {})}}
    holes["stages"][0]["epochs"] = EPOCHS.get(name, 3)
    modalign.align(holes)
    lines = Path("runs/tiny/metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["metrics"] for line in lines if '"lr"' in line]
    assert all(math.isfinite(m["loss"]) and m["grad_norm"] > 0 for m in steps)
    first, last = (sum(m["loss"] for m in part) for part in (steps[:3], steps[-3:]))
    assert last < first


def test_losses_compose_and_are_logged_by_name(holes: Plan) -> None:
    holes["stages"][0]["losses"] = {
        "symile": {"weight": 1.0, "negatives": "all"},
        "uniformity": 0.1,
        "infonce": 0.5,
    }
    modalign.align(holes)
    line = next(line for line in Path("runs/tiny/metrics.jsonl").read_text().splitlines() if '"lr"' in line)
    metrics = json.loads(line)["metrics"]
    parts = {key.removeprefix("loss/"): value for key, value in metrics.items() if key.startswith("loss/")}
    assert set(parts) == {"symile", "uniformity", "infonce"}
    whole = parts["symile"] + 0.1 * parts["uniformity"] + 0.5 * parts["infonce"]
    assert metrics["loss"] == pytest.approx(whole, rel=1e-5)


def test_a_teacher_must_be_frozen(plan: Plan, in_tmp: Path) -> None:
    plan["stages"][0]["losses"] = {"cwcl": 1.0}
    plan["modalities"]["text"]["trainable"] = True
    with pytest.raises(modalign.UserError, match=r"needs 'teacher'.*frozen"):
        modalign.align(plan)
