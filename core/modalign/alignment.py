"""The alignment layer: the small trained map from one encoder's width to the projection's."""

from __future__ import annotations

from torch import Tensor, nn


class AlignmentLayer(nn.Module):
    """Per-token head of OneEncoder (arXiv 2409.11059): Linear, GELU, Linear, dropout, LayerNorm.

    Inputs:
        encoder_width: ``W`` of the encoder's tokens.
        width: what the projection takes.
        dropout: probability, in training only.
    """

    def __init__(self, encoder_width: int, width: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(encoder_width, width),
            nn.GELU(),
            nn.Linear(width, width),
            nn.Dropout(dropout),
            nn.LayerNorm(width),
        )

    def forward(self, tokens: Tensor) -> Tensor:
        """``(N, T, W)`` -> ``(N, T, width)``."""
        return self.layers(tokens)
