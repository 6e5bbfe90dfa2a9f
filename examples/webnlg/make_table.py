"""WebNLG as a table: triples beside all their texts, and splits for categories never seen.

    python examples/webnlg/make_table.py        # MODALIGN_DATA is the folder of webnlg.parquet

``test`` and ``unseen`` hold every text of a graph; ``test-first`` and ``unseen-first`` are the same graphs
with their first text alone, as other figures on this data are measured.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).parents[2]


def rows_of(row: dict[str, str]) -> list[dict[str, object]]:
    """The table's rows for one graph: two where it is tested."""
    texts = json.loads(row["texts_en"])
    made = {"triples": row["triples"], "texts": texts, "category": row["category"], "split": row["split"]}
    if row["split"] != "test":
        return [made]
    split = "test" if row["seen_category"] == "1" else "unseen"
    return [made | {"split": split}, made | {"split": f"{split}-first", "texts": texts[:1]}]


def main() -> None:
    default = Path(os.environ.get("MODALIGN_DATA", "../shared/data")) / "webnlg.parquet"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--table", type=Path, default=default)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "webnlg.parquet")
    given = parser.parse_args()
    rows = [made for row in pq.read_table(given.table).to_pylist() for made in rows_of(row)]
    given.out.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), given.out)
    print(f"{given.out}: {len(rows)} rows")


if __name__ == "__main__":
    main()
