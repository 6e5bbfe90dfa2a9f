"""MLP: a masked mean and a perceptron of two layers."""

from __future__ import annotations

from torch import Tensor, nn

from modalign.contracts import Projection

from .pooling import masked_mean, zero_padding


class MLP(Projection):
    """A two-layer perceptron shared by every modality: ``pooled = f(mean(tokens))``.

    ``f`` is Linear, GELU, Dropout, Linear; each token goes through the same ``f``. Prefer it where
    the encoders already give one vector per item, so that attention has nothing to attend to.

    Inputs:
        dim: ``D``, the width of the embeddings.
        width: what the alignment layers give; default ``dim``.
        hidden: neurons between the layers; default ``2 * width``.
        dropout: probability, after the GELU.
    """

    def __init__(
        self, dim: int, width: int | None = None, hidden: int | None = None, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.dim = dim
        self.width = width or dim
        hidden = hidden or 2 * self.width
        self.layers = nn.Sequential(
            nn.Linear(self.width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, dim)
        )

    def forward(self, tokens: Tensor, mask: Tensor, modality: str) -> tuple[Tensor, Tensor]:
        pooled = self.layers(masked_mean(tokens, mask))  # (N, D)
        return pooled, self.layers(zero_padding(tokens, mask))  # (N, D), (N, T, D)
