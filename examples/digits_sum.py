"""Symile beside pairwise InfoNCE where only both modalities together tell the third.

    export MODALIGN_DATA=FOLDER   # the one with digits_sum.parquet
    python examples/digits_sum.py

Trains ``digits_sum.yaml``, then the same plan with InfoNCE over all pairs in Symile's place, and
prints how often the sum's word is the nearest of ten to a picture and a voice together: by the
product of their embeddings after Symile, by their sum after InfoNCE, which is what each trains.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import modalign
import yaml

PLAN = Path(__file__).with_name("digits_sum.yaml")


def plans(path: Path = PLAN) -> dict[str, dict[str, Any]]:
    """A plan with Symile, and its twin: InfoNCE instead, several modalities asked by their sum."""
    symile: dict[str, Any] = yaml.safe_load(path.read_text())
    pairs: dict[str, Any] = yaml.safe_load(path.read_text())
    pairs["name"] += "_pairs"
    losses = pairs["stages"][0]["losses"]
    losses["infonce"] = losses.pop("symile")["weight"]
    pairs["space"].pop("temperature")  # CLIP's, for cosines
    for task in pairs["tasks"]:
        if isinstance(task.get("modality", task.get("from")), list):
            task["combine"] = "sum"
    return {"symile": symile, "infonce": pairs}


def main() -> None:
    parser = argparse.ArgumentParser(description="the sum of two digits: Symile beside pairwise InfoNCE")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder of the two runs")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    lines = []
    for name, plan in plans().items():
        folder, start = options.out / plan["name"], time.perf_counter()
        modalign.align({**plan, "seed": options.seed}, out=folder)
        tasks = json.loads((folder / "report.json").read_text())["tasks"]
        accuracy, seconds = tasks["zero_shot:image+audio"]["accuracy"], time.perf_counter() - start
        lines.append(f"{name:8} accuracy {accuracy:.3f} of the sum's word among ten, {seconds:.0f} s")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
