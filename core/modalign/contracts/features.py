"""The two types that flow: features out of encoders, embeddings into losses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor


@dataclass  # not frozen: Fabric rebuilds it when it converts inputs to another precision
class Features:
    """What an encoder says about a batch, token by token.

    Inputs:
        tokens: ``(N, T, W)`` float, any scale. An encoder of one vector per item has ``T = 1``.
        mask: ``(N, T)`` bool, True where the token is real. Every item has at least one real token.
    """

    tokens: Tensor
    mask: Tensor

    @classmethod
    def from_vectors(cls, vectors: Tensor) -> Features:
        """``(N, W)`` vectors as features of one token each."""
        return cls(vectors.unsqueeze(1), vectors.new_ones(len(vectors), 1, dtype=torch.bool))

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True)
class Embeddings:
    """A batch of embeddings, with whatever else a loss may ask for.

    Row ``i`` of every modality describes the same thing; rows where ``present`` is False hold
    no information and must not be read.

    Inputs:
        vectors: ``{modality: (N, D)}``, unit rows.
        scale: what cosines are multiplied by before a softmax (1 / temperature).
        present: ``{modality: (N,)}`` bool; a modality left out is present everywhere.
        tokens, masks: ``{modality: (N, T, D)}`` and ``{modality: (N, T)}``.
        labels: ``(N,)`` class indices; -1 = unknown.
        relevance: ``(N, N)`` or ``(N,)`` graded relevance.
        teacher: ``{modality: (N, W)}`` frozen features to take similarities from.
        ids: ``{modality: (N,)}`` integers, equal where two rows hold the same content; one
            tensor stands for every modality.
        pairs: the pairings a loss compares; None = all of them.
        extra: anything else a projection ``provides``, by name.

    Raises:
        ValueError: if the tensors do not agree on ``N``.
    """

    vectors: Mapping[str, Tensor]
    scale: Tensor | float = 1.0
    present: Mapping[str, Tensor] = field(default_factory=dict)
    tokens: Mapping[str, Tensor] = field(default_factory=dict)
    masks: Mapping[str, Tensor] = field(default_factory=dict)
    labels: Tensor | None = None
    relevance: Tensor | None = None
    teacher: Mapping[str, Tensor] | None = None
    ids: Mapping[str, Tensor] = field(default_factory=dict)
    pairs: tuple[tuple[str, str], ...] | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        sizes = {name: len(v) for name, v in self.vectors.items()}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"modalities disagree on the number of rows: {sizes}")
        ids = self.ids
        if isinstance(ids, Tensor):
            ids = dict.fromkeys(self.vectors, ids)
        present = {
            name: self.present.get(name, torch.ones(len(v), dtype=torch.bool, device=v.device))
            for name, v in self.vectors.items()
        }
        for what, given in (("present", present), ("ids", ids)):
            wrong = {m: len(t) for m, t in given.items() if m in sizes and len(t) != sizes[m]}
            if wrong:
                raise ValueError(f"{what} has {wrong} rows, the vectors have {sizes}")
        object.__setattr__(self, "ids", ids)
        object.__setattr__(self, "present", present)

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(self.vectors)

    def __len__(self) -> int:
        return len(next(iter(self.vectors.values())))
