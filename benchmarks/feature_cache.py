"""What the feature cache saves: the first epoch with a frozen encoder beside the same run again.

python benchmarks/feature_cache.py [--quick] [--texts 1000]

Two halves of each text are aligned through frozen MiniLM and a linear projection. The second run
finds every feature in the cache: its encoders see no sample.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import tempfile
from pathlib import Path

import modalign
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from measuring import heading

WORDS = [
    "signal",
    "heart",
    "rhythm",
    "melody",
    "minor",
    "chord",
    "bright",
    "carbon",
    "ring",
    "acid",
    "north",
    "river",
    "stone",
    "light",
    "quiet",
    "seven",
]


def texts(count: int, words: int, seed: int) -> list[str]:
    """Distinct texts of about as many tokens as words."""
    draw = random.Random(seed)
    return [" ".join(draw.choice(WORDS) for _ in range(words)) for _ in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="200 texts")
    parser.add_argument("--texts", type=int, help="default 1,000")
    given = parser.parse_args()
    count = given.texts or (200 if given.quick else 1000)
    print(heading(torch.get_num_threads(), "transformers"), end="\n\n")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["MODALIGN_CACHE"] = str(Path(folder, "cache"))
        half = count // 2
        table = pa.table({"first": texts(half, 40, 0), "second": texts(half, 40, 1)})
        pq.write_table(table, "texts.parquet")
        plan = {
            "name": "cache",
            "data": {"table": "texts.parquet"},
            "modalities": {"first": {"encoder": "minilm"}, "second": {"encoder": "minilm"}},
            "space": {"dim": 256, "projection": "linear"},
            "stages": [{"name": "s", "align": ["first", "second"], "losses": {"infonce": 1.0}, "epochs": 1}],
            "track": {"uri": None},
        }
        print("| run | samples encoded | encoding, s | epoch, s | together, s |\n|---|---|---|---|---|")
        totals = []
        for name in ("first", "second"):
            modalign.align(plan, out=name)
            stage = json.loads(Path(name, "report.json").read_text())["stages"][0]
            totals.append(stage["encode_seconds"] + stage["seconds"])
            encoded = sum(use["encoded"] for use in stage["cache"].values())
            print(
                f"| {name} | {encoded} | {stage['encode_seconds']:.2f} | {stage['seconds']:.2f} | {totals[-1]:.2f} |"
            )
        print(f"\nratio: {totals[0] / totals[1]:.1f}")


if __name__ == "__main__":
    main()
