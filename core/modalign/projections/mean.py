"""Mean: no projection at all, the embedding is the mean of the aligned tokens."""

from __future__ import annotations

from torch import Tensor

from modalign.contracts import Projection

from .pooling import masked_mean, zero_padding


class Mean(Projection):
    """The masked mean of what the alignment layers give; nothing to train.

    Prefer it for stages in closed form, which need it, and wherever the alignment layers alone
    shall do the work.

    Inputs:
        dim: ``D``, the width of the embeddings and of what the alignment layers give.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = self.width = dim

    def forward(self, tokens: Tensor, mask: Tensor, modality: str) -> tuple[Tensor, Tensor]:
        return masked_mean(tokens, mask), zero_padding(tokens, mask)  # (N, D), (N, T, D)
