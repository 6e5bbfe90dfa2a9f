"""Samples that cannot be read: quarantined with a reason, missing from then on, never fatal by themselves."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import modalign
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from modalign.cli.main import main
from modalign.training.quarantine import TooManyBad

Plan = dict[str, Any]


def quarantine(folder: str) -> list[dict[str, str]]:
    with open(f"{folder}/quarantine.csv", newline="") as file:
        return list(csv.DictReader(file))


def spoil(digits: Path, modality: str, cells: dict[int, Any]) -> None:
    rows = pq.read_table(digits).to_pylist()
    for i, cell in cells.items():
        rows[i][modality] = cell
    pq.write_table(pa.Table.from_pylist(rows), "spoilt.parquet")


def cell(content: bytes | None, path: str | None = None) -> dict[str, Any]:
    return {"bytes": content, "path": path}


def test_each_kind_of_bad_sample_has_its_reason(plan: Plan, in_tmp: Path, digits: Path) -> None:
    good = pq.read_table(digits).to_pylist()[1]["image"]["bytes"]
    spoil(
        digits,
        "image",
        {
            1: cell(b""),
            2: cell(b"not an image"),
            3: cell(good[:40]),
            4: cell(None, "gone.png"),
            6: cell(None),
        },
    )
    plan["data"] |= {"table": "spoilt.parquet"}
    modalign.align(plan)
    rows = {int(r["row"]): r for r in quarantine("runs/tiny")}
    assert set(rows) == {1, 2, 3, 4}  # an empty cell is missing, not bad
    assert "empty" in rows[1]["reason"]
    assert "gone.png" in rows[4]["reason"]
    assert {r["modality"] for r in rows.values()} == {"image"}
    content = json.loads(Path("runs/tiny/report.json").read_text())
    assert content["quarantined"] == 4


def test_one_readable_alternative_is_enough(plan: Plan, in_tmp: Path, digits: Path) -> None:
    spoil(digits, "text", {1: ["", "one"], 2: ["", " "]})
    plan["data"] |= {"table": "spoilt.parquet"}
    modalign.align(plan)
    assert {int(r["row"]) for r in quarantine("runs/tiny")} == {1, 2}


@pytest.mark.parametrize("modality", ["image", "audio", "text"])
def test_too_many_stop_the_run(
    modality: str, plan: Plan, in_tmp: Path, digits: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad: Any = [""] if modality == "text" else cell(b"\x00\x01damaged")
    spoil(digits, modality, dict.fromkeys(range(1, 40), bad))
    plan["data"] |= {"table": "spoilt.parquet"}
    Path("plan.json").write_text(json.dumps(plan))
    assert main(["align", "plan.json"]) == 1
    message = capsys.readouterr().err
    assert "max_bad" in message
    assert "quarantine.csv" in message
    assert len(quarantine("runs/tiny")) == 8  # 5 % of 150 and one more
    with pytest.raises(TooManyBad):
        modalign.align(plan)
    plan["data"]["max_bad"] = 0.5
    modalign.align(plan)
    splits = pq.read_table("spoilt.parquet")["split"].to_pylist()
    assert len(quarantine("runs/tiny")) == sum(s != "val" for s in splits[1:40])  # nobody read val


def test_paths_are_relative_to_the_table(plan: Plan, in_tmp: Path, digits: Path) -> None:
    rows = pq.read_table(digits).to_pylist()
    Path("data/pictures").mkdir(parents=True)
    for i, row in enumerate(rows):
        Path(f"data/pictures/{i}.png").write_bytes(row["image"]["bytes"])
        row["image"] = f"pictures/{i}.png"
        row["text"] = row["text"][0]
        del row["audio"]
    lines = "\n".join(json.dumps(row) for row in rows)
    Path("data/rows.jsonl").write_text(lines)
    pa.csv.write_csv(pa.Table.from_pylist(rows), "data/rows.csv")
    del plan["modalities"]["audio"], plan["tasks"][1]
    plan["stages"] = plan["stages"][:1]
    found = []
    for file in ("data/rows.jsonl", "data/rows.csv"):
        plan["data"]["table"] = file
        modalign.align(plan)
        assert not Path("runs/tiny/quarantine.csv").exists()
        found.append(Path("runs/tiny/space/model.safetensors").read_bytes())
    assert found[0] == found[1]


def test_a_loss_that_is_not_finite_skips_steps_then_stops(
    plan: Plan, in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modalign.losses import InfoNCE
    from modalign.training import RunFailed

    honest, calls = InfoNCE.forward, {"n": 0}

    def sometimes(self: InfoNCE, z: modalign.Embeddings) -> Any:
        calls["n"] += 1
        value = honest(self, z)
        return value * float("nan") if calls["n"] in (2, 5) else value

    monkeypatch.setattr(InfoNCE, "forward", sometimes)
    modalign.align(plan)
    stages = json.loads(Path("runs/tiny/report.json").read_text())["stages"]
    assert [s["nonfinite_steps"] for s in stages] == [2, 0]
    records = [json.loads(line) for line in Path("runs/tiny/nonfinite.jsonl").read_text().splitlines()]
    assert [r["step"] for r in records] == [2, 5]
    assert len(records[0]["rows"]) == 32
    monkeypatch.setattr(InfoNCE, "forward", lambda self, z: honest(self, z) * float("inf"))
    with pytest.raises(RunFailed, match="max_nonfinite"):
        modalign.align({**plan, "max_nonfinite": 3})


def test_a_gradient_that_is_not_finite_is_skipped_too(
    plan: Plan, in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modalign.losses import InfoNCE
    from modalign.training import RunFailed

    honest, calls = InfoNCE.forward, {"n": 0}

    def poisoned(self: InfoNCE, z: modalign.Embeddings) -> Any:
        calls["n"] += 1
        value = honest(self, z)
        if calls["n"] == 2:
            value.register_hook(lambda grad: grad * float("nan"))
        return value

    monkeypatch.setattr(InfoNCE, "forward", poisoned)
    modalign.align(plan)
    stages = json.loads(Path("runs/tiny/report.json").read_text())["stages"]
    assert [s["nonfinite_steps"] for s in stages] == [1, 0]
    monkeypatch.setattr(InfoNCE, "forward", lambda self, z: honest(self, z) * float("nan"))
    with pytest.raises(RunFailed, match="no step"):
        modalign.align({**plan, "max_nonfinite": 99})
