"""Tells when a stage waits for its data more than for its arithmetic, and what would help."""

from __future__ import annotations

import os
from collections.abc import Mapping

SHARE, SECONDS = 0.25, 5.0
"""Below this share of a stage's time, or so many seconds, waiting is not worth a word."""


class Waiting:
    """Sums what the steps of a stage waited for data, and how long they took."""

    def __init__(self) -> None:
        self.data = 0.0
        self.all = 0.0

    def note(self, metrics: Mapping[str, float], batch_size: int) -> None:
        """One step's metrics."""
        self.data += metrics.get("data_seconds", 0.0)
        self.all += batch_size / metrics["samples_per_second"] if "samples_per_second" in metrics else 0.0

    def advice(self, workers: int, raw: list[str]) -> str | None:
        """What to do about it, in words; None if there is nothing to do.

        Inputs:
            workers: processes that read ahead.
            raw: modalities that are read and decoded in every epoch.
        """
        if self.data < SECONDS or self.data < SHARE * self.all:
            return None
        what = f"{self.data / self.all:.0%} of its time it waited for data ({self.data:.0f} s)"
        cores = os.cpu_count() or 1
        if not raw:
            return f"{what}: cached features are read from a slow disk; point MODALIGN_CACHE at a faster one"
        more = min(cores, max(2, 2 * workers))
        if more > workers:
            return f"{what}: {', '.join(raw)} are decoded in every epoch; write workers: {more} into the plan"
        return (
            f"{what}, with {workers} loader processes on {cores} cores: make {', '.join(raw)} cheaper to "
            "read (smaller files, row groups of about 1,000 rows), or train on features that are kept"
        )
