"""What a process computes in place of a modality of which its batch holds no row."""

from __future__ import annotations

import torch

from modalign.contracts import Features

from .anchors import Anchor
from .content import Content, to_device
from .job import StageJob


def stand_ins(job: StageJob) -> dict[str, Content]:
    """One row of each modality that is computed from features or raw batches in the stage."""
    made: dict[str, Content] = {}
    for name, reader in job.readers.items():
        if isinstance(reader, Anchor):
            continue
        if reader.cache is not None:
            row: Content = Features.from_vectors(torch.zeros(1, job.space.entry(name).width))
        else:
            row = reader.modality.collate(reader.modality.example(1))
        made[name] = to_device(row, job.fabric.device)
    return made
