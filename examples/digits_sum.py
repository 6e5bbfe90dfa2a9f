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
from pathlib import Path
from typing import Any

import modalign
import yaml

PLAN = Path(__file__).with_name("digits_sum.yaml")


def plans() -> dict[str, dict[str, Any]]:
    """The plan, and its twin that differs in the loss and in how several modalities are asked."""
    symile: dict[str, Any] = yaml.safe_load(PLAN.read_text())
    pairs: dict[str, Any] = yaml.safe_load(PLAN.read_text())
    pairs["name"] = "digits_sum_pairs"
    losses = pairs["stages"][0]["losses"]
    losses["infonce"] = losses.pop("symile")["weight"]
    pairs["space"].pop("temperature")  # CLIP's, for cosines
    for task in pairs["tasks"]:
        if isinstance(task["modality"], list):
            task["combine"] = "sum"
    return {"symile": symile, "infonce": pairs}


def main() -> None:
    parser = argparse.ArgumentParser(description="the sum of two digits: Symile beside pairwise InfoNCE")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder of the two runs")
    options = parser.parse_args()
    accuracy = {}
    for name, plan in plans().items():
        folder = options.out / plan["name"]
        modalign.align(plan, out=folder)
        tasks = json.loads((folder / "report.json").read_text())["tasks"]
        accuracy[name] = tasks["zero_shot:image+audio"]["accuracy"]
    for name, value in accuracy.items():
        print(f"{name:8} accuracy {value:.3f} of the sum's word among ten")


if __name__ == "__main__":
    main()
