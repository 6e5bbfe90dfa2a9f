"""Starts the contract kit on one plugin in a process of its own, whatever that does to it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence

from packaging.utils import canonicalize_name

from modalign.errors import UserError, suggest
from modalign.plugin.discover import find as installed
from modalign.plugin.verdict import Verdict

PATIENCE = 900
"""Seconds a plugin's checks may take."""


def find(names: Sequence[str]) -> list[str]:
    """The installed plugins that these names mean, with or without ``modalign-``; all, if none is given.

    Raises:
        UserError: if one is not installed.
    """
    rows = installed()
    known: list[str] = [row.distribution for row in rows]
    if not names:
        return [row.distribution for row in rows if not row.disabled]
    found: list[str] = []
    for name in names:
        full: str = canonicalize_name(name)
        if full not in known and f"modalign-{full}" in known:
            full = f"modalign-{full}"
        if full not in known:
            hint = suggest(full, known) or "."
            raise UserError(f"no plugin {full} is installed{hint} Installed: {', '.join(known)}")
        found.append(full)
    return found


def judge(distribution: str) -> Verdict:
    """The kit's verdict on an installed plugin."""
    environment = {k: v for k, v in os.environ.items() if k not in ("MODALIGN_DISABLE", "MODALIGN_STRICT")}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "modalign.cli.plugins.kit", distribution],
            env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
            timeout=PATIENCE,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Verdict(distribution, problem=f"its checks were not done after {PATIENCE} seconds")
    try:
        found = json.loads(done.stdout.splitlines()[-1])
        return Verdict(**{**found, "declared_only": tuple(found["declared_only"])})
    except (ValueError, IndexError, TypeError, KeyError):
        last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
        return Verdict(distribution, problem=f"its checks ended with status {done.returncode}: {last}")
