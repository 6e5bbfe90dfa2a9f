"""The table of ``docs/fuzzing.md``: a line per reader, replaced when it is run again."""

from __future__ import annotations

import re
from pathlib import Path

from .watch import Outcome

HEAD = "| reader | inputs | read | refused | failed | seconds | slowest (s) | peak (MB) |"
RULE = "|---|---:|---:|---:|---:|---:|---:|---:|"


def write(file: Path, outcome: Outcome, seed: int) -> None:
    """Put one reader's figures in, in place of those it had."""
    from .readers import READERS

    text = file.read_text(encoding="utf-8")
    before, _, rest = text.partition(HEAD)
    lines = [line for line in rest.splitlines()[2:] if line.startswith("|")]
    after = "\n".join(line for line in rest.splitlines()[2:] if not line.startswith("|"))
    found = {re.split(r"\s*\|\s*", line)[1].strip("`"): line for line in lines}
    found[outcome.reader] = (
        f"| `{outcome.reader}` | {outcome.inputs:,} | {outcome.accepted:,} | {outcome.refused:,} | {len(outcome.failures)} "
        f"| {outcome.seconds:.0f} | {outcome.slowest:.2f} | {outcome.peak_mb} |"
    )
    order = [found[name] for name in READERS if name in found]
    file.write_text(before + "\n".join([HEAD, RULE, *order]) + "\n" + after, encoding="utf-8")
