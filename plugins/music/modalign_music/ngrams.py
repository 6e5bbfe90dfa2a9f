"""Patches of characters as vectors: a bag of hashed character n-grams."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_START = 2  # a character no text holds: it marks both ends of a patch


class NGramEmbedding(nn.Module):
    """The mean of one learnt vector for every n-gram in a patch, ends marked, by hash.

    As the words of fastText (Bojanowski et al., arXiv 1607.04606). A linear model on n-grams is hard to
    beat with a few hundred tunes; this is that model, for each bar, in front of the transformer.

    Inputs:
        width: ``W``.
        ngrams: n-grams of 1 to this many characters.
        buckets: vectors for each length of n-gram; n-grams that meet in one share it.
    """

    def __init__(self, width: int, ngrams: int = 4, buckets: int = 4096) -> None:
        super().__init__()
        self.ngrams, self.buckets = ngrams, buckets
        self.table = nn.EmbeddingBag(ngrams * buckets, width, mode="sum")
        nn.init.normal_(self.table.weight, std=1.0)

    def forward(self, patches: Tensor) -> Tensor:
        """``(P, 64)`` uint8, 0 after the end -> ``(P, W)``."""
        patches = patches[:, : max(1, int((patches > 0).sum(1).max()))]
        lengths = (patches > 0).sum(1, keepdim=True)  # (P, 1)
        marked = F.pad(patches.long(), (1, 1))  # (P, L + 2)
        at = torch.arange(marked.shape[1], device=marked.device)  # (L + 2,)
        marked = marked.masked_fill((at == 0) | (at == lengths + 1), _START)  # (P, L + 2)
        ids, real = [], []
        code = torch.zeros_like(marked)  # (P, L + 2)
        for n in range(self.ngrams):
            code = code[:, : marked.shape[1] - n] * 131 + marked[:, n:]  # (P, L + 2 - n)
            mixed = (code ^ (code >> 15)) * 0x2C1B3C6D & 0x7FFFFFFF  # (P, L + 2 - n)
            ids.append((mixed ^ (mixed >> 12)) % self.buckets + n * self.buckets)
            real.append(at[: code.shape[1]] + n < lengths + 2)  # (P, L + 2 - n)
        found, kept = torch.cat(ids, 1), torch.cat(real, 1)  # (P, G), (P, G)
        count = kept.sum(1)  # (P,)
        sums = self.table(found[kept], count.cumsum(0) - count)  # (P, W)
        return sums / count[:, None].sqrt()
