"""``python -m fuzz [READER ...] [--inputs N] [--seed S]``: damaged input for every reader, and what came of it."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from .table import write
from .watch import Outcome, fuzz


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    parser.add_argument(
        "readers", nargs="*", metavar="READER", help="by default those of the core; `all` for every one"
    )
    parser.add_argument("--inputs", type=int, default=1000, help="per reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=1e9, help="at most, per reader")
    parser.add_argument(
        "--keep", type=Path, help="folder for the inputs that failed, instead of a temporary one"
    )
    parser.add_argument(
        "--write", type=Path, metavar="FILE.md", help="put the figures into this file's table"
    )
    parser.add_argument(
        "--again", type=Path, metavar="INPUT", help="have one reader read a kept input once more"
    )
    parser.add_argument("--list", action="store_true", help="the readers' names")
    asked = parser.parse_args()
    from .readers import CORE, READERS

    if asked.list:
        print("\n".join(READERS))
        return 0
    names = [
        n
        for r in asked.readers or ["core"]
        for n in (READERS if r == "all" else CORE if r == "core" else [r])
    ]
    unknown = [name for name in names if name not in READERS]
    if unknown:
        parser.error(f"there is no reader {unknown[0]}; there are {', '.join(READERS)}")
    if asked.again:
        from .worker import once

        return once(names[0], asked.again)
    keep = asked.keep or Path(tempfile.mkdtemp(prefix="fuzz-"))
    outcomes = []
    for name in names:
        outcome = fuzz(name, asked.inputs, asked.seed, keep.absolute() / name, asked.minutes)
        outcomes.append(outcome)
        print(line(outcome), flush=True)
        if asked.write:
            write(asked.write, outcome, asked.seed)
    if any(outcome.failures for outcome in outcomes):
        print(f"failing inputs and what they did: {keep}", file=sys.stderr)
        return 1
    return 0


def line(outcome: Outcome) -> str:
    """What one reader did, for people."""
    text = (
        f"{outcome.reader}: {outcome.inputs:,} inputs, {outcome.accepted:,} read, {outcome.refused:,} refused, "
        f"{len(outcome.failures)} failed, {outcome.seconds:.0f} s, slowest {outcome.slowest:.2f} s, {outcome.peak_mb} MB"
    )
    for what, count in outcome.kinds().items():
        first = next(f for f in outcome.failures if f["what"] == what)
        text += f"\n  {count} x {what}; first: input {first['number']} of seed {first['seed']}"
        text += f"\n    {json.dumps(str(first['more'])[-600:])}" if first["more"] else ""
    return text


if __name__ == "__main__":
    sys.exit(main())
