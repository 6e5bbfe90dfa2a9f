"""A constructed table of scans, heartbeats and laboratory values that only together tell one another.

    export MODALIGN_DATA=FOLDER   # the one with mednist.parquet and mitbih_beats.parquet
    python examples/scan-ecg-labs/make_table.py   # writes runs/scan-ecg-labs.parquet

Scans and beats are real, laboratory values are drawn, and who belongs to whom is made up: the group of
a scan is the sum of the beat's group and the patient's, modulo three. So any one of the three says
nothing about another, and any two determine the third's group. A fifth of the training cells of each
column is empty. Test scans and beats are in no training row; the beats are of the same patients.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

SCANS = [("CXR", "ChestCT"), ("HeadCT", "BreastMRI"), ("Hand", "AbdomenCT")]
BEATS = ["normal beat", "paced beat", "left bundle branch block beat"]
ANALYTES = {  # median, spread of the logarithm
    "sodium": (140, 0.02), "potassium": (4.2, 0.1), "creatinine": (0.9, 0.25), "haemoglobin": (14, 0.1),
    "leucocytes": (7, 0.25), "crp": (3, 0.8), "lactate": (1.2, 0.3), "platelets": (250, 0.25),
}  # fmt: skip
PATIENTS: list[dict[str, float]] = [  # by how many spreads an analyte is moved
    {},
    {"leucocytes": 2.5, "crp": 4.0, "lactate": 2.0},
    {"creatinine": 5.0, "potassium": 2.0, "haemoglobin": -2.5},
]
"""Healthy, infected, with failing kidneys."""
MISSING, UNMEASURED = 0.2, 0.15
ROWS = {"train": 1800, "val": 90, "test": 270}


def labs_of(patient: int, rng: np.random.Generator) -> dict[str, float | None]:
    """Values of one patient of a group, some of them not measured."""
    found: dict[str, float | None] = {}
    for name, (median, spread) in ANALYTES.items():
        value = median * np.exp(spread * (rng.standard_normal() + PATIENTS[patient].get(name, 0.0)))
        found[name] = None if rng.random() < UNMEASURED else round(float(value), 2)
    return found


def pools(folder: Path, rng: np.random.Generator) -> dict[tuple[str, str], list[list[Any]]]:
    """``{(column, split): cells by group}``, each real cell in one split."""
    scans = pq.read_table(folder / "mednist.parquet", columns=["image", "label", "split"]).to_pylist()
    beats = pq.read_table(folder / "mitbih_beats.parquet", columns=["ecg", "text", "split"]).to_pylist()
    beats = [row for row in beats if row["split"] == "train" and row["text"] in BEATS]
    shares = rng.permuted(np.resize(["train"] * 6 + ["val"] + ["test"] * 3, len(beats)))
    own = rng.permuted(np.resize(["train"] * 6 + ["val"], len(scans)))
    found: dict[tuple[str, str], list[list[Any]]] = {
        (column, split): [[], [], []] for column in ("scan", "ecg") for split in ROWS
    }
    for row, split in zip(beats, shares, strict=True):
        found["ecg", split][BEATS.index(row["text"])].append(row["ecg"])
    for row, other in zip(scans, own, strict=True):
        group = next(i for i, kinds in enumerate(SCANS) if row["label"] in kinds)
        found["scan", "test" if row["split"] == "test" else other][group].append(row["image"])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description="a constructed table of scans, beats and laboratory values")
    parser.add_argument("--out", type=Path, default=Path("runs/scan-ecg-labs.parquet"))
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    cells = pools(Path(os.environ.get("MODALIGN_DATA", "../shared/data")), rng)
    rows = []
    for split, count in ROWS.items():
        decks = {key: [rng.permutation(len(pool)) for pool in pools] for key, pools in cells.items()}
        used = {column: [0, 0, 0] for column in ("scan", "ecg")}
        for number in range(count):
            ecg, patient = number % 3, number // 3 % 3  # every combination equally often
            scan = (ecg + patient) % 3
            row = {"labs": labs_of(patient, rng), "split": split, "scan_group": scan}
            for column, group in (("scan", scan), ("ecg", ecg)):
                deck = decks[column, split][group]  # each cell once, then all again
                row[column] = cells[column, split][group][deck[used[column][group] % len(deck)]]
                used[column][group] += 1
            row |= {"ecg_group": BEATS[ecg], "labs_group": patient}
            for column in ("scan", "ecg", "labs"):
                if split == "train" and rng.random() < MISSING:
                    row[column] = None
            rows.append(row)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), options.out)
    print(f"{options.out}: {len(rows)} rows")


if __name__ == "__main__":
    main()
