"""One table of molecules with descriptions, facts with texts, and a few molecules with facts.

    python examples/molecules-and-facts/make_table.py     # MODALIGN_DATA is the folder of the two tables

Rows of ChEBI-20 have a molecule and a text, rows of WebNLG have facts and a text. Facts about molecules stand
in test rows alone: what the description's plain sentences say ("It has a role as an antigen."), so they are
made from the text, and only their pairing with molecules is new.
"""

from __future__ import annotations

import argparse
import json
import os
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

ROOT = Path(__file__).parents[2]
KINDS = {
    r"It has a role as (.+?)\.": "has role",
    r"It derives from (.+?)\.": "derives from",
    r"It is (?:a|an) conjugate (?:acid|base) of (.+?)\.": "conjugate of",
    r"It is (?:a|an) enantiomer of (.+?)\.": "enantiomer of",
    r"It is ((?:a|an|a member of) (?!conjugate|enantiomer).+?)\.": "is a",
    r"The molecule is (.+?)(?: (?:that|in which|having|resulting|obtained|with|consisting) |, |\.)": "is a",
}


def facts(text: str) -> list[list[str]]:
    """``[["molecule", "has role", "antigen"], …]``, as far as plain sentences say."""
    found = []
    for pattern, relation in KINDS.items():
        for listed in re.findall(pattern, text):
            for thing in re.split(r", | and (?=an? |the )", listed):
                name = re.sub(
                    r"^(?:and )?(?:a member of the class of |a member of |an? |the )?", "", thing.strip()
                )
                if name:
                    found.append(["molecule", relation, name])
    return found


def main() -> None:
    data = Path(os.environ.get("MODALIGN_DATA", "../shared/data"))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=data)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "molecules-and-facts.parquet")
    given = parser.parse_args()
    rows = []
    for row in pq.read_table(given.data / "chebi20.parquet").to_pylist():
        known = facts(row["text"]) if row["split"] == "test" else []
        made = {"molecule": row["smiles"], "text": row["text"], "split": row["split"]}
        rows.append(made | {"facts": json.dumps(known) if known else None})
    for row in pq.read_table(given.data / "webnlg.parquet").to_pylist():
        if row["split"] != "test":
            text = next(iter(json.loads(row["texts_en"])), None)
            rows.append({"molecule": None, "text": text, "facts": row["triples"], "split": row["split"]})
    given.out.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), given.out)
    filled = sum(row["facts"] is not None and row["molecule"] is not None for row in rows)
    print(f"{given.out}: {len(rows)} rows, {filled} of them with molecule and facts")


if __name__ == "__main__":
    main()
