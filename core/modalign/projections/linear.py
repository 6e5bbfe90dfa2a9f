"""Linear: the plainest projection, a masked mean and one matrix."""

from __future__ import annotations

from torch import Tensor, nn

from modalign.contracts import Projection

from .pooling import masked_mean, zero_padding


class Linear(Projection):
    """One linear map shared by every modality: ``pooled = W · mean(tokens)``.

    Prefer it as a baseline, or where pairs are so few that a transformer would memorise them.

    Inputs:
        dim: ``D``, the width of the embeddings.
        width: what the alignment layers give; default ``dim``.
        bias: add a learnt vector to every embedding.
    """

    def __init__(self, dim: int, width: int | None = None, bias: bool = False) -> None:
        super().__init__()
        self.dim = dim
        self.width = width or dim
        self.map = nn.Linear(self.width, dim, bias=bias)

    def forward(self, tokens: Tensor, mask: Tensor, modality: str) -> tuple[Tensor, Tensor]:
        pooled = self.map(masked_mean(tokens, mask))  # (N, D): the mean and the map commute
        return pooled, self.map(zero_padding(tokens, mask))  # (N, D), (N, T, D)
