"""The alignment layer: the small trained map from one encoder's width to the projection's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from .errors import UserError, suggest


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


class LinearAlignment(nn.Module):
    """One matrix and a bias per token: what a closed form can solve.

    Inputs: as ``AlignmentLayer``; ``dropout`` falls on the encoder's tokens.
    """

    def __init__(self, encoder_width: int, width: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(encoder_width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """``(N, T, W)`` -> ``(N, T, width)``."""
        return self.linear(self.dropout(tokens))

    @torch.no_grad()
    def become(self, weight: Tensor, bias: Tensor) -> None:
        """Be this very map: ``weight (width, W)`` and ``bias (width,)``."""
        self.linear.weight.copy_(weight)
        self.linear.bias.copy_(bias)


class ResidualAlignment(LinearAlignment):
    """A linear map and, beside it, a perceptron that starts at zero: ``y = A x + b + MLP(x)``.

    A closed form sets the linear part; training then bends it.

    Inputs: as ``AlignmentLayer``.
    """

    def __init__(self, encoder_width: int, width: int, dropout: float = 0.1) -> None:
        super().__init__(encoder_width, width, dropout)
        self.bend = nn.Sequential(
            nn.LayerNorm(encoder_width),
            nn.Linear(encoder_width, width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(width, width),
        )
        for parameter in self.bend[-1].parameters():
            nn.init.zeros_(parameter)

    def forward(self, tokens: Tensor) -> Tensor:
        """``(N, T, W)`` -> ``(N, T, width)``."""
        return super().forward(tokens) + self.bend(tokens)

    def become(self, weight: Tensor, bias: Tensor) -> None:
        super().become(weight, bias)
        for parameter in self.bend[-1].parameters():
            nn.init.zeros_(parameter)


LAYERS: dict[str, Any] = {"mlp": AlignmentLayer, "linear": LinearAlignment, "residual": ResidualAlignment}


def alignment_layer(kind: str, encoder_width: int, width: int, dropout: float) -> nn.Module:
    """An untrained alignment layer of a kind that ``LAYERS`` names.

    Raises:
        UserError: for another kind.
    """
    if kind not in LAYERS:
        raise UserError(f"alignment {kind!r}: use one of {', '.join(LAYERS)}{suggest(kind, LAYERS)}")
    layer: nn.Module = LAYERS[kind](encoder_width, width, dropout)
    return layer
