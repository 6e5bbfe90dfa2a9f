"""Runs a few rows through a stage and measures memory and time: what a prediction stands on."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from modalign.contracts import Features

from .batches import RowBatch
from .content import Content, Embedded, Loaded, to_device
from .job import StageJob
from .live_memory import LiveMemory
from .loop import Trainer
from .stage import embeddings

FIRST = 8
"""Rows to begin with."""
LOSSES_FIRST = 128
"""Rows to begin with where losses alone are measured: with fewer, only calls are."""
RUNS = 4
"""Times the seconds of one run, that one size takes: the run that counts memory is the slowest."""
LEAP = 16
"""Times as many rows as before, at most: a guess from a few rows may be wrong."""


@dataclass(frozen=True)
class Sizes:
    """What was measured at growing numbers of rows.

    Bytes are linear in them between two points and beyond the last.

    Inputs:
        points: ``(rows, bytes at the peak, seconds)``, rows rising.
        power: of the number of rows, that seconds are linear in: 2 where all rows are compared with all.
    """

    points: tuple[tuple[int, float, float], ...]
    power: int = 1

    def memory(self, rows: float) -> float:
        """Bytes at the peak with so many rows."""
        return _line([(float(n), memory) for n, memory, _ in self.points], rows)

    def seconds(self, rows: float) -> float:
        """As long as every point allows: what a run costs without any rows is never negative."""
        points = [(float(n**self.power), took) for n, _, took in self.points]
        return _line(points, rows**self.power, steepest=min(took / x for x, took in points))

    @property
    def most(self) -> int:
        """The largest number of rows measured."""
        return self.points[-1][0]


def _line(points: list[tuple[float, float]], x: float, steepest: float = math.inf) -> float:
    """On the line through the two points around ``x``, or beyond the last two, no steeper than that."""
    if len(points) < 2:
        ((at, y),) = points
        return y * max(1.0, x / at)
    right = next((i for i, (at, _) in enumerate(points) if i and at >= x), len(points) - 1)
    (x0, y0), (x1, y1) = points[right - 1 : right + 1]
    slope = max(0.0, (y1 - y0) / (x1 - x0))
    return max(0.0, y1 + (min(slope, steepest) if x > x1 else slope) * (x - x1))


def grow(
    run: Callable[[int], None],
    most: int,
    seconds: float,
    room: float,
    ready: Callable[[int], object] = lambda rows: None,
    *,
    first: int = FIRST,
    power: int = 1,
) -> Sizes:
    """Measure ``run(rows)`` at a few rising numbers of rows, up to ``most`` as long as time and memory last.

    Each is the largest that the one before says can be afforded: a small one costs about as much time to
    measure, and noise in it counts many times over.

    Inputs:
        seconds: to spend, about.
        room: bytes that the peak may reach, about.
        ready: makes what ``run`` needs, unmeasured.
        first: rows to begin with.
        power: as in ``Sizes``.
    """
    begun, rows = time.perf_counter(), min(first, most)
    ready(rows)
    run(rows)  # whatever the first time costs
    points: list[tuple[int, float, float]] = []
    while True:
        with LiveMemory() as memory:
            run(rows)
        took = min(_seconds(run, rows) for _ in range(2))  # other programs only ever slow it down
        points.append((rows, memory.peak, took))
        left = seconds - (time.perf_counter() - begun)
        share = min(left / (RUNS * max(took, 1e-9)), room / max(memory.peak, 1))
        times = int(min(LEAP, max(0.0, share) ** (1 / power)))
        if rows == most or times < 2:
            return Sizes(tuple(points), power)
        rows = min(rows << (times.bit_length() - 1), most)
        ready(rows)


def _seconds(run: Callable[[int], object], rows: int) -> float:
    started = time.perf_counter()
    run(rows)
    return time.perf_counter() - started


class StepProbe:
    """Optimiser steps of a stage on a few of its rows.

    Inputs:
        job: its trainer changes the space, and nothing on disk.
        rows: real ones, repeated where more are asked for.
    """

    def __init__(self, job: StageJob, rows: np.ndarray) -> None:
        self.job, self.rows = job, rows
        self.trainer = Trainer(job)
        self.trainer.wrapped.train()
        self.labels = torch.tensor(job.dataset.labels) if job.dataset.has_labels else None
        self.loading = 0.0
        """Seconds that reading the current batch took."""
        self.load(min(FIRST, len(rows)))

    def load(self, count: int) -> None:
        """Make a batch of so many rows the current one."""
        rows = np.resize(self.rows, count)
        for _ in range(2):  # the first time it may be read from files
            started = time.perf_counter()
            loaded = {m: reader.load(rows, 0) for m, reader in self.job.readers.items()}
            self.loading = time.perf_counter() - started
        ids = torch.arange(count)  # repeated rows are no duplicates
        loaded = {m: replace(x, ids=ids) for m, x in loaded.items()}
        self.batch = RowBatch(rows, None if self.labels is None else self.labels[rows], loaded)

    def step(self, count: int) -> None:
        """One optimiser step with the current batch."""
        self.trainer._step([self.batch])

    @property
    def row_bytes(self) -> int:
        """Of one row as it is loaded."""
        contents = [x.content for x in self.batch.loaded.values()]
        return sum(map(_bytes, contents)) // max(1, len(self.batch.rows))

    def embed(self, count: int) -> None:
        """Make what a global batch of so many rows gives to the losses: the current one's, with noise."""
        device, needs = self.job.fabric.device, {n for _, x in self.job.losses.values() for n in x.needs}
        some = {
            m: Loaded(x.content and to_device(x.content, device), x.present.to(device), x.ids.to(device))
            for m, x in self.batch.loaded.items()
        }
        with torch.no_grad():
            outputs, self.scale = self.trainer.wrapped(some)
        unused = () if "tokens" in needs else ("tokens", "masks")
        self.leaves = {
            m: {k: _repeated(t, count) for k, t in out.items() if k not in unused}
            for m, out in outputs.items()
        }
        if self.trainer.tower:
            for out in self.leaves.values():
                out["momentum"] = out["vectors"]

    def losses(self, count: int) -> None:
        """The losses alone, forwards and backwards, on what ``embed`` made."""
        device = self.scale.device
        present, ids = torch.ones(count, dtype=torch.bool, device=device), torch.arange(count, device=device)
        leaves = {
            m: {k: t.detach().requires_grad_(t.is_floating_point()) for k, t in out.items()}
            for m, out in self.leaves.items()
        }
        labels = None if self.labels is None else self.labels[np.resize(self.rows, count)].to(device)
        loaded = {m: Loaded(None, present, ids) for m in leaves}
        scale = self.scale.detach().requires_grad_()
        total, _ = self.trainer._weighted(embeddings(leaves, loaded, scale, self.trainer.pairs, labels))
        if total.requires_grad:
            total.backward()

    @property
    def output_bytes(self) -> int:
        """Of what ``embed`` made."""
        return sum(t.nbytes for out in self.leaves.values() for t in out.values())


def _bytes(content: Content | None) -> int:
    if content is None:
        return 0
    if isinstance(content, Embedded):
        return content.vectors.nbytes
    if isinstance(content, Features):
        return content.tokens.nbytes + content.mask.nbytes
    return sum(t.nbytes for t in content.values())


def _repeated(tensor: Tensor, count: int) -> Tensor:
    times = -(-count // max(1, len(tensor)))
    many = tensor.repeat(times, *[1] * (tensor.ndim - 1))[:count]
    return many + 0.01 * torch.randn_like(many) if many.is_floating_point() else many
