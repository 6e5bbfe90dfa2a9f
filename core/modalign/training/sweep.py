"""A sweep: one plan run once for every combination of values on the command line."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterable
from itertools import product
from pathlib import Path

from modalign.errors import UserError
from modalign.space_files import load

from .checks import prepare
from .plan_file import read_plan
from .run import align

log = logging.getLogger("modalign")

OPEN, CLOSE = "[{(", "]})"
MOST = 1000
"""More runs than that are a slip of the keyboard."""


def alternatives(override: str) -> list[str]:
    """``lr=1,2`` as ``["lr=1", "lr=2"]``; commas inside brackets, braces and quotes are the value's own."""
    key, equals, text = override.partition("=")
    values, depth, quote, start = [], 0, "", 0
    for i, character in enumerate(text):
        if quote:
            quote = "" if character == quote else quote
        elif character in "\"'":
            quote = character
        elif character in OPEN:
            depth += 1
        elif character in CLOSE:
            depth -= 1
        elif character == "," and not depth:
            values.append(text[start:i])
            start = i + 1
    values.append(text[start:])
    return [f"{key}{equals}{value.strip() if len(values) > 1 else value}" for value in values]


def combinations(overrides: Iterable[str]) -> list[list[str]]:
    """Every combination of the overrides' alternatives, the last one changing fastest.

    Raises:
        UserError: if there are too many.
    """
    lists = [alternatives(text) for text in overrides]
    count = 1
    for values in lists:
        count *= len(values)
    if count > MOST:
        raise UserError(f"{count} combinations are more than {MOST}; leave some out")
    return [list(values) for values in product(*lists)]


def sweep(
    plan: str,
    overrides: Iterable[str],
    start: str | None = None,
    resume: bool = False,
    out: str | None = None,
) -> list[Path]:
    """Run a plan for every combination; returns the run folders.

    Each run is called after the plan and the values that are its own, and lies in ``out`` or
    ``runs``; all of them share an MLflow experiment, by default the plan's name. Every combination
    is checked before the first one starts. With ``resume`` finished runs are left as they are.
    """
    overrides = list(overrides)
    swept = {text.partition("=")[0] for text in overrides if len(alternatives(text)) > 1}
    space = load(start) if start else None
    plans = []
    for values in combinations(overrides):
        source = read_plan(plan, values)
        base = str(source.raw.get("name", "plan"))
        own = [text for text in values if text.partition("=")[0] in swept]
        # Only the end of a key: stages.image-text.lr is lr.
        tail = "-".join(f"{t.partition('=')[0].rpartition('.')[2]}_{t.partition('=')[2]}" for t in own)
        name = re.sub(r"[^A-Za-z0-9-]+", "_", f"{base}-{tail}").replace("_-", "-").strip("_")[:120]
        experiment = (source.raw.get("track") or {}).get("experiment") or base
        plans.append((name, [*values, f"name={name}", f"track.experiment={json.dumps(experiment)}"]))
        prepare(read_plan(plan, plans[-1][1]), space)
    names = [name for name, _ in plans]
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UserError(f"two combinations would both be called {sorted(twice)[0]}: name a value once")
    folders = []
    for i, (name, values) in enumerate(plans, 1):
        folder = Path(out or "runs") / name
        folders.append(folder)
        if resume and (folder / "report.json").is_file() and finished(folder):
            log.info("%s: is there already", name)
            continue
        log.info("run %d of %d: %s", i, len(plans), name)
        align(plan, start=start, resume=resume and (folder / ".run").is_file(), out=folder, overrides=values)
    return folders


def finished(folder: Path) -> bool:
    """Whether every stage of a run's plan is in its report."""
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    return len(report["stages"]) == len(report["plan"]["stages"])
