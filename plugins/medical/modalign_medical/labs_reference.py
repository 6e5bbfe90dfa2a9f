"""Learns what is usual of each laboratory value; turns a value into a percentile.

python -m modalign_medical.labs_reference --table T.parquet --columns sodium potassium --out reference.json
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from modalign import UserError

POINTS = 101
"""Quantiles that are kept of an analyte, evenly from the smallest value to the largest."""
_MOST_BYTES, _MOST_ANALYTES, _MOST_POINTS = 16 * 2**20, 10_000, 100_001


def fit(columns: Mapping[str, Sequence[float | None]], points: int = POINTS) -> dict[str, list[float]]:
    """``{analyte: quantiles}`` of the values that are there.

    Raises:
        UserError: if an analyte has no value.
    """
    found = {}
    for name, values in columns.items():
        known = np.array([np.nan if v is None else v for v in values], np.float64)
        known = known[np.isfinite(known)]
        if not len(known):
            raise UserError(f"labs: no value of {name!r} in the training rows; leave it out")
        quantiles = np.quantile(known, np.linspace(0, 1, points))
        found[name] = [float(f"{q:.7g}") for q in quantiles]
    return found


def load(reference: str | Mapping[str, Sequence[float]]) -> dict[str, np.ndarray]:
    """Quantiles from a JSON file or a mapping, checked.

    Raises:
        UserError: if there is no such file, or it is not ``{analyte: rising numbers}``.
    """
    if isinstance(reference, str):
        path = Path(reference).expanduser()
        try:
            if path.stat().st_size > _MOST_BYTES:
                raise UserError(f"labs: reference {reference} is larger than {_MOST_BYTES} bytes")
            reference = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            words = getattr(error, "strerror", None) or "it is no JSON"
            raise UserError(
                f"labs: cannot read the reference {path}: {words}; make one with: "
                "python -m modalign_medical.labs_reference --table TABLE --columns NAME... --out FILE"
            ) from None
    if not isinstance(reference, Mapping) or not 0 < len(reference) <= _MOST_ANALYTES:
        raise UserError("labs: a reference is {analyte: [quantiles]}")
    found = {}
    for name, values in reference.items():
        try:
            quantiles = np.asarray(values, np.float64)
        except (TypeError, ValueError):
            quantiles = np.empty(0)
        good = quantiles.ndim == 1 and 2 <= len(quantiles) <= _MOST_POINTS and np.isfinite(quantiles).all()
        if not good or (np.diff(quantiles) < 0).any():
            raise UserError(f"labs: the reference of {name!r} is not two or more rising numbers")
        found[str(name)] = quantiles
    return found


def percentile(value: float, quantiles: np.ndarray) -> float:
    """The share of the reference at or below the value, 0 to 1; in the middle of several equal quantiles."""
    at = np.linspace(0, 1, len(quantiles))
    left, right = np.searchsorted(quantiles, value, "left"), np.searchsorted(quantiles, value, "right")
    if left < right:
        return float((at[left] + at[right - 1]) / 2)
    return float(np.interp(value, quantiles, at))


def main(arguments: Sequence[str] | None = None) -> None:
    import argparse

    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    parser = argparse.ArgumentParser(prog="python -m modalign_medical.labs_reference", description=__doc__)
    parser.add_argument(
        "--table", type=Path, required=True, help="Parquet or CSV, one row per patient or stay"
    )
    parser.add_argument("--columns", nargs="+", required=True, help="analytes; or one column of structs")
    parser.add_argument("--split", default="split", help="column that names the split; '' if there is none")
    parser.add_argument("--train", default="train", help="the split to learn from")
    parser.add_argument("--points", type=int, default=POINTS, help="quantiles per analyte")
    parser.add_argument("--out", type=Path, required=True, help="JSON file to write")
    options = parser.parse_args(arguments)
    try:
        read = pa.csv.read_csv if options.table.suffix == ".csv" else pa.parquet.read_table
        table = read(options.table)
        unknown = [
            c for c in [*options.columns, *filter(None, [options.split])] if c not in table.column_names
        ]
        if unknown:
            raise UserError(f"no column {unknown[0]!r}; there are {', '.join(table.column_names)}")
        if options.split:
            table = table.filter(pa.compute.equal(table[options.split].cast(pa.string()), options.train))
        found = fit(_columns(table, options.columns), options.points)
    except (UserError, OSError, pa.ArrowException) as error:
        raise SystemExit(f"labs_reference: {error}") from None
    options.out.write_text(json.dumps(found) + "\n", "utf-8")
    print(f"{options.out}: {len(found)} analytes, {len(table)} rows")


def _columns(table: Any, names: Sequence[str]) -> dict[str, list[float | None]]:
    import pyarrow as pa

    found: dict[str, list[float | None]] = {}
    for name in names:
        kind = table[name].type
        if pa.types.is_struct(kind):
            rows = table[name].to_pylist()
            for field in (kind.field(i).name for i in range(kind.num_fields)):
                found[field] = [None if row is None else row[field] for row in rows]
        else:
            found[name] = table[name].cast(pa.float64()).to_pylist()
    return found


if __name__ == "__main__":
    main()
