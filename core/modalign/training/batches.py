"""The batches of a stage, in order: each process loads its share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from modalign.errors import UserError

from .content import Loaded
from .job import RunFailed, StageJob
from .latent_mix import mix
from .loader import read_ahead
from .reader import Reader
from .seeds import seed_of


@dataclass(frozen=True)
class RowBatch:
    """One batch.

    Inputs:
        rows: ``(N,)`` row numbers, of the global batch.
        labels: ``(N,)`` class indices, -1 = unknown; None where the data name no label.
        loaded: by modality, this process's rows.
    """

    rows: np.ndarray
    labels: Tensor | None
    loaded: dict[str, Loaded]


def batches(job: StageJob, epoch: int, first: int) -> Iterator[RowBatch]:
    """The batches of an epoch from number ``first`` on.

    Raises:
        RunFailed: if a table's file cannot be read any more.
    """
    try:
        yield from _mixed(job, epoch, first) if job.stage.latent_mix else _plain(job, epoch, first)
    except (UserError, OSError) as error:
        raise RunFailed(f"stage {job.stage.name}: {error}. Mend that, then go on with --resume") from error


def _plain(job: StageJob, epoch: int, first: int) -> Iterator[RowBatch]:
    rank, world = job.fabric.global_rank, job.fabric.world_size
    raw = {m: r for m, r in job.readers.items() if isinstance(r, Reader) and r.cache is None}
    near = {m: r for m, r in job.readers.items() if m not in raw}
    labels = torch.from_numpy(job.dataset.labels) if job.dataset.has_labels else None

    def rows(number: int) -> Iterator[np.ndarray]:
        return (batch[rank::world] for batch in job.epochs.from_batch(epoch, number))

    workers = job.plan.workers if raw else 0
    ahead = read_ahead(raw, rows, epoch, first, workers)
    for all_rows, read in zip(job.epochs.from_batch(epoch, first), ahead, strict=True):
        loaded = {m: reader.load(all_rows[rank::world], epoch) for m, reader in near.items()}
        known = None if labels is None else labels[all_rows]
        yield RowBatch(all_rows, known, {m: loaded[m] if m in loaded else read[m] for m in job.readers})


def _mixed(job: StageJob, epoch: int, first: int) -> Iterator[RowBatch]:
    rank, world = job.fabric.global_rank, job.fabric.world_size
    alpha = job.stage.latent_mix
    assert alpha is not None
    labels = torch.from_numpy(job.dataset.labels) if job.dataset.has_labels else None
    for number, rows in enumerate(job.epochs.from_batch(epoch, first), first):
        random = np.random.default_rng(seed_of(job.plan.seed, job.stage.name, "mix", epoch, number))
        partners, share = random.permutation(rows), float(random.beta(alpha, alpha))
        both = np.concatenate([rows[rank::world], partners[rank::world]])
        loaded = mix({m: reader.load(both, epoch) for m, reader in job.readers.items()}, share)
        known = None
        if labels is not None:
            known = torch.where(labels[rows] == labels[partners], labels[rows], -1)
        yield RowBatch(rows, known, loaded)
