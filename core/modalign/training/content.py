"""What a batch holds of one modality: raw tensors, features or embeddings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from modalign.contracts import Batch, Features


@dataclass
class Embedded:
    """Embeddings ``(n, D)`` of rows that a stage does not move."""

    vectors: Tensor


Content = Batch | Features | Embedded
Outputs = dict[str, dict[str, Tensor]]
"""What a stage's model gives: by modality, ``vectors`` and whatever else, rows first."""


@dataclass  # not frozen: Fabric rebuilds it when it converts inputs to another precision
class Loaded:
    """One modality of a batch of ``N`` rows.

    Inputs:
        content: the present rows only: a raw batch, features, embeddings, or None where no row is present.
        present: ``(N,)`` bool.
        ids: ``(N,)`` int64, equal where the content is; 0 where it is missing.
    """

    content: Content | None
    present: Tensor
    ids: Tensor


def stack(rows: Sequence[np.ndarray]) -> Features:
    """Features of single items, ``(T_i, W)`` each, padded to one batch."""
    longest = max(len(r) for r in rows)
    tokens = torch.zeros(len(rows), longest, rows[0].shape[1])
    filled = tokens.numpy()
    mask = torch.zeros(len(rows), longest, dtype=torch.bool)
    for i, row in enumerate(rows):
        filled[i, : len(row)] = row
        mask[i, : len(row)] = True
    return Features(tokens, mask)


def id_of(key: bytes) -> int:
    """A content key as the integer that losses compare."""
    return int.from_bytes(key[:8], "big", signed=True)


def to_device(content: Content, device: torch.device) -> Content:
    if isinstance(content, Embedded):
        return Embedded(content.vectors.to(device))
    if isinstance(content, Features):
        return Features(content.tokens.to(device), content.mask.to(device))
    return {k: v.to(device) for k, v in content.items()}
