"""Runs a few rows through a stage and measures memory and time: what a prediction stands on."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modalign.contracts import Features

from .batches import RowBatch
from .content import Content, Embedded, Loaded
from .job import StageJob
from .live_memory import LiveMemory
from .loop import Trainer
from .stage import embeddings

FIRST = 8
"""Rows to begin with."""


@dataclass(frozen=True)
class Sizes:
    """What was measured at growing numbers of rows: bytes and seconds are linear in them.

    Inputs:
        points: ``(rows, bytes at the peak, seconds)``, rows rising.
    """

    points: tuple[tuple[int, float, float], ...]

    def memory(self, rows: float) -> float:
        """Bytes at the peak with so many rows."""
        return self._line(1, rows)

    def seconds(self, rows: float) -> float:
        return self._line(2, rows)

    @property
    def most(self) -> int:
        """The largest number of rows measured."""
        return self.points[-1][0]

    def _line(self, what: int, rows: float) -> float:
        (n, *_), last = self.points[0], self.points[-1]
        if len(self.points) < 2 or rows == last[0]:
            return last[what] * rows / last[0] if rows > last[0] else last[what]
        slope = max(0.0, (last[what] - self.points[-2][what]) / (last[0] - self.points[-2][0]))
        return max(0.0, last[what] + slope * (rows - last[0]))


def grow(run: Callable[[int], None], most: int, seconds: float, room: float) -> Sizes:
    """Measure ``run(rows)``, rows doubling up to ``most`` as long as time and memory last.

    Inputs:
        seconds: to spend, about.
        room: bytes that the peak may reach, about.
    """
    begun, rows = time.perf_counter(), min(FIRST, most)
    run(rows)  # whatever the first time costs
    points: list[tuple[int, float, float]] = []
    while True:
        with LiveMemory() as memory:
            run(rows)
        started = time.perf_counter()
        run(rows)
        took = time.perf_counter() - started
        points.append((rows, memory.peak, took))
        left = seconds - (time.perf_counter() - begun)
        if rows == most or 5 * took > left or 2 * memory.peak > room:
            return Sizes(tuple(points))
        rows = min(2 * rows, most)


class StepProbe:
    """Optimiser steps of a stage on its own first rows.

    Inputs:
        job: its trainer changes the space, and nothing on disk.
        rows: real ones, as many as may be asked for.
    """

    def __init__(self, job: StageJob, rows: np.ndarray) -> None:
        self.job, self.rows = job, rows
        self.trainer = Trainer(job)
        self.trainer.wrapped.train()
        self.labels = torch.tensor(job.dataset.labels) if job.dataset.has_labels else None
        self.loading = 0.0
        """Seconds that reading the last batch took."""
        self._batches: dict[int, RowBatch] = {}

    def batch(self, count: int) -> RowBatch:
        """The first rows as a batch."""
        if count not in self._batches:
            rows = np.resize(self.rows, count)
            loaded = {m: reader.load(rows, 0) for m, reader in self.job.readers.items()}
            started = time.perf_counter()
            loaded = {m: reader.load(rows, 0) for m, reader in self.job.readers.items()}
            self.loading = time.perf_counter() - started
            labels = None if self.labels is None else self.labels[rows]
            self._batches = {count: RowBatch(rows, labels, loaded)}
        return self._batches[count]

    def step(self, count: int) -> None:
        """One optimiser step."""
        self.trainer._step([self.batch(count)])

    def bytes_of_batch(self) -> int:
        """Of one row of a batch as it is loaded."""
        batch = self.batch(max(self._batches, default=FIRST))
        return sum(map(_bytes, (x.content for x in batch.loaded.values()))) // max(1, len(batch.rows))

    def outputs(self, count: int) -> tuple[dict[str, Loaded], dict[str, dict[str, Tensor]], Tensor]:
        """What a global batch of so many rows gives to the losses: the probe's own, repeated with noise."""
        batch = self.batch(max(self._batches, default=FIRST))
        device = self.job.fabric.device
        some = {m: replace(x, content=_moved(x.content, device), present=x.present.to(device)) for m, x in batch.loaded.items()}
        with torch.no_grad():
            outputs, scale = self.trainer.wrapped(some)
        ids = torch.arange(count, device=device)
        present = torch.ones(count, dtype=torch.bool, device=device)
        loaded = {m: Loaded(None, present, ids) for m in outputs}
        return loaded, {m: {k: _repeated(t, count) for k, t in out.items()} for m, out in outputs.items()}, scale

    def losses(self, count: int) -> None:
        """The losses alone, forwards and backwards, on a global batch of so many rows."""
        loaded, outputs, scale = self._kept(count)
        leaves = {
            m: {k: t.detach().requires_grad_(t.is_floating_point()) for k, t in out.items()}
            for m, out in outputs.items()
        }
        labels = None if self.labels is None else self.labels[np.resize(self.rows, count)].to(scale.device)
        scale = scale.detach().requires_grad_()
        z = embeddings(leaves, loaded, scale, self.trainer.pairs, labels)
        total, _ = self.trainer._weighted(z)
        if total.requires_grad:
            total.backward()

    def _kept(self, count: int) -> Any:
        if getattr(self, "_outputs", (0,))[0] != count:
            self._outputs = (count, self.outputs(count))
        return self._outputs[1]


def bytes_of_outputs(outputs: Mapping[str, Mapping[str, Tensor]]) -> int:
    return sum(t.nbytes for out in outputs.values() for t in out.values())


def _bytes(content: Content | None) -> int:
    if content is None:
        return 0
    if isinstance(content, Embedded):
        return content.vectors.nbytes
    if isinstance(content, Features):
        return content.tokens.nbytes + content.mask.nbytes
    return sum(t.nbytes for t in content.values())


def _moved(content: Content | None, device: torch.device) -> Content | None:
    from .content import to_device

    return None if content is None else to_device(content, device)


def _repeated(tensor: Tensor, count: int) -> Tensor:
    times = -(-count // max(1, len(tensor)))
    many = tensor.repeat(times, *[1] * (tensor.ndim - 1))[:count]
    return many + 0.01 * torch.randn_like(many) if many.is_floating_point() else many
