"""How a modality token enters a sequence of tokens."""

from __future__ import annotations

import math

from torch import Tensor, nn

FUSIONS = ("add", "multiply", "concatenate", "attention")


class TokenAttention(nn.Module):
    """The modality token asks, the sequence answers: ``z = x + softmax(q kᵀ / √w) v``.

    ``q = W_q t``, ``k = W_k x``, ``v = W_v x``; the one answer is added to every position.

    Inputs:
        width: ``w``, of the tokens and of the modality token.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)

    def forward(self, tokens: Tensor, mask: Tensor, token: Tensor) -> Tensor:
        """``(N, T, w)``, ``(N, T)`` with a real token per row, ``(1, w)`` -> ``(N, T, w)``."""
        keys = self.key(tokens)  # (N, T, w)
        scores = (keys @ self.query(token).T).squeeze(-1) / math.sqrt(keys.shape[-1])  # (N, T)
        weights = scores.masked_fill(~mask, -math.inf).softmax(-1)  # (N, T)
        answer = weights.unsqueeze(1) @ self.value(tokens)  # (N, 1, w)
        return tokens + answer  # (N, T, w)
