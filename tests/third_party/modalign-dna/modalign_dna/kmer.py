"""dna-kmer: which short words a sequence is made of, whichever strand was read."""

from __future__ import annotations

from typing import ClassVar

import torch
from modalign import Encoder, Features
from modalign.contracts import Batch
from torch import Tensor, nn


class DnaKmer(Encoder):
    """Frequencies of canonical k-mers through a two-layer perceptron; one token.

    A word and its reverse complement count as one, so both strands of a sequence are the same to it.
    Prefer it for long sequences and few of them.

    Inputs:
        width: ``W``.
        k: bases in a word, 1 to 7.

    Raises:
        ValueError: if ``k`` is not in that range.
    """

    modality: ClassVar[str] = "dna"

    def __init__(self, width: int = 128, k: int = 4) -> None:
        super().__init__()
        if not 1 <= k <= 7:
            raise ValueError(f"dna-kmer: k is {k}; use 1 to 7")
        self.width, self.k = width, k
        self.register_buffer("powers", 4 ** torch.arange(k), persistent=False)
        self.layers = nn.Sequential(nn.Linear(4**k, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, batch: Batch) -> Features:
        return Features.from_vectors(self.layers(self.frequencies(batch["bases"], batch["mask"])))

    def frequencies(self, bases: Tensor, mask: Tensor) -> Tensor:
        """``bases`` and ``mask``, both ``(N, L)`` -> how often each canonical word occurs, ``(N, 4^k)``.

        In units of what chance would give; a sequence without a word has zeros.
        """
        counts = torch.zeros(len(bases), 4**self.k, device=bases.device)
        if bases.shape[1] >= self.k:
            sure = (mask & (bases < 4)).unfold(1, self.k, 1).all(2)  # (N, L - k + 1)
            words = bases.long().unfold(1, self.k, 1)  # (N, L - k + 1, k)
            index = (words * self.powers).sum(2)  # (N, L - k + 1)
            other = ((3 - words.flip(2)) * self.powers).sum(2)  # (N, L - k + 1)
            canonical = torch.where(sure, torch.minimum(index, other), 0)  # (N, L - k + 1)
            counts.scatter_add_(1, canonical, sure.to(counts))
        return counts / counts.sum(1, keepdim=True).clamp(min=1) * 4**self.k
