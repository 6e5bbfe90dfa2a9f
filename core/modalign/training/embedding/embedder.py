"""Embeds one part of a table after another: what every engine runs."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch
from torch import Tensor

from modalign.contracts import BadSample, Batch
from modalign.errors import UserError
from modalign.space import Space, inference
from modalign.space_files import load

from ..data import Dataset
from ..job import RunFailed
from ..memory import is_out_of_memory
from ..prefetch import Prefetcher
from .cost import PartCost, peak_memory
from .job import ID, EmbedJob, open_dataset, space_digest, versions_of
from .parts import part_path, write_part


@dataclass
class Reading:
    """What the reading of a part leaves behind beside batches."""

    bad: list[tuple[str, int, str]] = field(default_factory=list)
    """Table, row in it and reason of each cell that could not be read."""
    seconds: float = 0.0


class Embedder:
    """A space and a table, loaded once.

    A batch is cut inside a part, in row order and before anything is read, so that an embedding never
    depends on who makes it, or on what was made before.

    Inputs:
        space, dataset: loaded already; by default they are loaded here and compared with the job's.
    """

    def __init__(self, job: EmbedJob, space: Space | None = None, dataset: Dataset | None = None) -> None:
        self.job = job
        self.space = space or _load(job)
        self.reader = self.space.reader(job.modality)
        self.dataset = dataset or open_dataset(
            job.table, Path(job.folder), job.modality, job.column, job.carried, self.reader.literal
        )
        self.encoder = self.space.encoder(job.modality)

    def embed(self, part: int) -> None:
        """Write a part's embeddings, whole or not at all.

        Raises:
            RunFailed: if memory does not suffice for a batch.
        """
        started, encoding = time.perf_counter(), 0.0
        reading = Reading()
        rows: list[int] = []
        carried: list[Any] = []
        vectors = [torch.empty(0, self.space.dim)]
        batches = self._batches(part, reading)
        try:
            with inference(self.space), Prefetcher(batches) as ahead:
                for numbers, values, batch in ahead:
                    began = time.perf_counter()
                    vectors.append(self._encode(batch))
                    encoding += time.perf_counter() - began
                    rows += numbers
                    carried += values
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            size = self.job.batch_size
            raise RunFailed(
                f"out of memory with {size} samples at once; go on with --resume and "
                f"--batch-size {max(1, size // 2)}"
            ) from error
        columns: dict[str, pa.Array] = {"row": pa.array(rows, pa.int64())}
        if self.job.carried:
            columns[self.job.carried] = _column(carried)
        flat = pa.array(torch.cat(vectors).reshape(-1).numpy())
        columns["embedding"] = pa.FixedSizeListArray.from_arrays(flat, self.space.dim)
        cost = PartCost(
            rows=len(rows),
            unreadable=len(reading.bad),
            seconds=time.perf_counter() - started,
            read=reading.seconds,
            encode=encoding,
            memory=peak_memory(),
            threads=torch.get_num_threads(),
            gpu=self.space.logit_scale.device.type != "cpu",
            worker=f"{socket.gethostname()}:{os.getpid()}",
        )
        write_part(part_path(Path(self.job.parts), part), pa.table(columns), cost, reading.bad)

    def _encode(self, batch: Batch) -> Tensor:
        device = self.space.logit_scale.device
        features = self.encoder({name: tensor.to(device) for name, tensor in batch.items()})
        return self.space.project(self.job.modality, features).vectors.float().cpu()  # (N, D)

    def _batches(self, part: int, reading: Reading) -> Iterator[tuple[list[int], list[Any], Batch]]:
        """The part's readable cells, batch by batch: their rows, the values carried along, tensors."""
        cells = self._cells(part)
        while True:
            began = time.perf_counter()
            chunk = list(islice(cells, self.job.batch_size))
            rows, values, items = [], [], []
            for row, value, cell in chunk:
                try:
                    items.append(self.reader.read(cell))
                except BadSample as bad:
                    path, local = self.dataset.place(row)
                    reading.bad.append((str(path), local, " ".join(str(bad).split())))
                    continue
                rows.append(row)
                values.append(value)
            batch = self.reader.collate(items) if items else None
            reading.seconds += time.perf_counter() - began
            if not chunk:
                return
            if batch is not None:
                yield rows, values, batch

    def _cells(self, part: int) -> Iterator[tuple[int, Any, Any]]:
        for row in self.job.rows_of(part):
            value = None
            if self.job.carried:
                values = [cell.value for cell in self.dataset.cells(ID, row)]
                if len(values) > 1:
                    raise UserError(
                        f"row {row}: '{self.job.carried}' holds a list; --id takes a column of single values"
                    )
                value = values[0] if values else None
                if isinstance(value, Path):
                    where, _ = self.dataset.place(row)
                    value = os.path.relpath(value, where if where.is_dir() else where.parent)
            for cell in self.dataset.cells(self.job.modality, row):
                yield row, value, cell.value


def _column(values: list[Any]) -> pa.Array:
    """Values carried along; as text where Arrow has no type for them, as for numbers from 2^63 on."""
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError):
        return pa.array([None if value is None else str(value) for value in values])


def _load(job: EmbedJob) -> Space:
    folder = Path(job.space)
    try:
        digest = space_digest(folder)
    except OSError as error:
        raise UserError(f"this worker cannot read the space {folder}: {error.strerror or error}") from None
    if digest != job.digest:
        raise UserError(f"the space {folder} has changed since this run began: start anew")
    space = load(folder, job.device)
    here = versions_of(space, job.modality)
    if here != job.versions:
        names = sorted(name for name in {*here, *job.versions} if here.get(name) != job.versions.get(name))
        told = "; ".join(f"{name} {here.get(name)}, not {job.versions.get(name)}" for name in names)
        raise UserError(f"a worker on {socket.gethostname()} has other versions: {told}")
    return space
