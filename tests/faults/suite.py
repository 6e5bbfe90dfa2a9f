"""The whole suite: every case, in the order of the page."""

from __future__ import annotations

from .case import CASES
from .cases import (
    cache,
    changed,
    checkpoints,
    disk,
    files,
    killed,
    machine_limits,
    plugins,
    signals,
    spaces,
    terminal,
    together,
    tracking,
)

ORDER = (
    killed, signals, terminal, disk, machine_limits, files, changed, checkpoints, cache, tracking, plugins, together,
    spaces,
)  # fmt: skip

SUITE = sorted(CASES.values(), key=lambda case: [m.__name__ for m in ORDER].index(case.inject.__module__))
"""Sorted by subject; inside of one, as its file has them."""
