"""bar-transformer and midi-transformer: a small transformer over patches of characters."""

from __future__ import annotations

from typing import ClassVar

import torch
from modalign import Encoder, Features
from modalign.contracts import Batch
from torch import Tensor, nn
from torch.nn import functional as F

from .patch_embedding import NGramEmbedding

_NEAR = 32  # places from each end of a piece, and distances, that are told apart


class BarTransformer(Encoder):
    modality: ClassVar[str] = "score"

    def __init__(
        self,
        width: int = 128,
        layers: int = 2,
        heads: int = 4,
        pool: int = 4,
        dropout: float = 0.2,
        longest: int = 4,
        buckets: int = 4096,
        pdrop: float = 0.1,
    ) -> None:
        super().__init__()
        self.width, self.pool, self.pdrop = width, pool, pdrop
        self.embed = NGramEmbedding(width, longest, buckets)
        self.start = nn.Embedding(_NEAR, width)
        self.end = nn.Embedding(_NEAR, width)
        for p in (self.start, self.end):
            nn.init.normal_(p.weight, std=0.3)
        self.first = nn.LayerNorm(width)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(_Block(width, heads, dropout) for _ in range(layers))
        self.last = nn.LayerNorm(width)
        self.ask = nn.Linear(width, pool) if pool else None

    def forward(self, batch: Batch) -> Features:
        mask = batch["mask"]  # (N, T)
        if self.training and self.pdrop:
            keep = torch.rand(mask.shape, device=mask.device) > self.pdrop
            keep[:, 0] |= True
            mask = mask & keep
        x = self.embed(batch["patches"][mask])  # (P, W)
        at = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)  # (N, T)
        back = batch["mask"].sum(1, keepdim=True) - 1 - at  # (N, T)
        x = x + self.start(at[mask].clamp(max=_NEAR - 1)) + self.end(back[mask].clamp(0, _NEAR - 1))  # (P, W)
        x = self.drop(self.first(x))
        tokens = x.new_zeros(*mask.shape, self.width)  # (N, T, W)
        tokens[mask] = x
        for block in self.blocks:
            tokens = block(tokens, mask)
        tokens = self.last(tokens)
        if self.ask is None:
            return Features(tokens * mask[..., None], mask)
        weights = self.ask(tokens).masked_fill(~mask[..., None], -torch.inf).softmax(1)  # (N, T, K)
        pooled = weights.mT @ tokens  # (N, K, W)
        return Features(pooled, mask.new_ones(pooled.shape[:2]))


class _Block(nn.Module):
    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.far = nn.Parameter(torch.zeros(2 * _NEAR - 1, heads))
        self.mlp = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 2 * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * width, width),
        )
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        n, t, w = x.shape
        q, k, v = (
            self.qkv(self.norm(x)).view(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        )  # (N, H, T, w/H)
        at = torch.arange(t, device=x.device)
        apart = (at[None] - at[:, None]).clamp(1 - _NEAR, _NEAR - 1) + _NEAR - 1  # (T, T)
        bias = self.far[apart].permute(2, 0, 1)[None]  # (1, H, T, T)
        bias = bias.masked_fill(~mask[:, None, None], -1e9)
        y = F.scaled_dot_product_attention(q, k, v, bias)
        x = x + self.drop(self.out(y.transpose(1, 2).reshape(n, t, w)))
        return x + self.drop(self.mlp(x))


class MidiTransformer(BarTransformer):
    modality: ClassVar[str] = "midi"
