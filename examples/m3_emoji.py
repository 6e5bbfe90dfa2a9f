"""Symile beside pairwise InfoNCE where a voice's language says which of two words names the picture.

    export MODALIGN_DATA=FOLDER   # the one with m3_emoji.parquet
    python examples/m3_emoji.py

Trains ``m3_emoji.yaml``, then the same plan with InfoNCE over all pairs in Symile's place. Prints how
the picture is found among all of the test split by speech and text together, and how often it comes
before the picture of the text's other word: names of unseen pictures are hard, this choice is not
about names alone, and without the voice it is a coin's.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import modalign
import pyarrow.parquet as pq
from digits_sum import plans
from modalign import Space
from modalign.combine import combined
from modalign.training.table_files import locate

PLAN = Path(__file__).with_name("m3_emoji.yaml")


def right_of_two(space: Space, rows: list[dict[str, Any]], combine: str) -> float:
    """How often a row's picture scores above the picture of its text's other word; a tie is half."""
    first = {row["target"]: i for i, row in enumerate(rows)}
    asked = {m: space.embed(m, [content(row[m]) for row in rows]) for m in ("audio", "text")}
    query = combined(asked.values(), combine)  # (N, D)
    pictures = space.embed("image", [content(row["image"]) for row in rows])  # (N, D)
    other = pictures[[first[row["distractor"]] for row in rows]]  # (N, D)
    lead = (query * (pictures - other)).sum(1)  # (N,)
    return float(((lead > 0).float() + 0.5 * (lead == 0)).mean())


def content(cell: Any) -> Any:
    return cell["bytes"] if isinstance(cell, dict) else cell


def main() -> None:
    parser = argparse.ArgumentParser(description="a picture from speech and text: Symile beside InfoNCE")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder of the two runs")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    table = locate(plans(PLAN)["symile"]["data"]["table"], PLAN.parent)
    rows = [row for row in pq.read_table(table).to_pylist() if row["split"] == "test"]
    lines = ["loss      R@1    R@10   median rank  before the other word's picture"]
    for name, plan in plans(PLAN).items():
        folder, start = options.out / plan["name"], time.perf_counter()
        space = modalign.align({**plan, "seed": options.seed}, out=folder)
        found = json.loads((folder / "report.json").read_text())["tasks"]["retrieval:audio+text->image"]
        pair = right_of_two(space, rows, plan["tasks"][0].get("combine", "product"))
        line = f"{name:8}  {found['R@1']:.3f}  {found['R@10']:.3f}  {found['median_rank']:11.1f}  {pair:.3f}"
        lines.append(f"{line}   {time.perf_counter() - start:.0f} s")
    pictures = len({row["target"] for row in rows})
    lines.append(f"chance    {1 / pictures:.3f}  {10 / pictures:.3f}  {(pictures + 1) / 2:11.1f}  0.500")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
