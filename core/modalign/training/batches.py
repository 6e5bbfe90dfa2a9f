"""The batches of a stage, in order: each process loads its share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .content import Loaded
from .job import StageJob
from .latent_mix import mix
from .sampler import seed_of


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
    """The batches of an epoch from number ``first`` on."""
    rank, world = job.fabric.global_rank, job.fabric.world_size
    alpha = job.stage.latent_mix
    labels = torch.tensor(job.dataset.labels) if job.dataset.has_labels else None
    for number, rows in enumerate(job.epochs.from_batch(epoch, first), first):
        known = None if labels is None else labels[rows]
        mine = rows[rank::world]
        if alpha is None:
            loaded = {m: reader.load(mine, epoch) for m, reader in job.readers.items()}
        else:
            random = np.random.default_rng(seed_of(job.plan.seed, job.stage.name, "mix", epoch, number))
            partners, share = random.permutation(rows), float(random.beta(alpha, alpha))
            both = np.concatenate([mine, partners[rank::world]])
            loaded = mix({m: reader.load(both, epoch) for m, reader in job.readers.items()}, share)
            if known is not None and labels is not None:
                known = torch.where(known == labels[partners], known, -1)
        yield RowBatch(rows, known, loaded)
