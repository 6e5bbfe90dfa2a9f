"""Names as sums of embeddings of their hashed character n-grams."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_PRIME = 1_000_003


class NameGrams(nn.Module):
    """Mean of the embeddings of a name's byte n-grams (fastText; Bojanowski et al., arXiv 1607.04606).

    Names never seen share n-grams with those that were. Upper case counts as lower case (ASCII), and
    every name begins and ends with a mark of its own.

    Inputs:
        width: ``W``.
        buckets: rows of the table; n-grams are hashed onto them.
        sizes: of the n-grams, in bytes.
    """

    def __init__(self, width: int, buckets: int = 1 << 15, sizes: tuple[int, ...] = (2, 3, 4, 5)) -> None:
        super().__init__()
        self.buckets, self.sizes = buckets, sizes
        self.table = nn.Embedding(buckets, width)
        nn.init.normal_(self.table.weight, std=width**-0.5)

    def forward(self, names: Tensor) -> Tensor:
        """Bytes ``(R, L)``, zero-padded -> ``(R, W)``."""
        grams, real = self._grams(names)  # (R, K), (R, K)
        share = real / real.sum(1, keepdim=True).clamp_min(1)  # (R, K)
        return F.embedding_bag(
            grams, self.table.weight, mode="sum", per_sample_weights=share.to(self.table.weight)
        )

    def _grams(self, names: Tensor) -> tuple[Tensor, Tensor]:
        """Buckets ``(R, K)`` of all n-grams and which of them are real."""
        lengths = (names > 0).sum(1, keepdim=True)  # (R, 1)
        small = names.long() + 32 * ((names >= 65) & (names <= 90))  # (R, L)
        marked = F.pad(small, (1, max(self.sizes)))  # (R, 1 + L + max)
        marked[:, 0] = 256
        marked = marked.scatter(1, lengths + 1, 257)
        found, real = [], []
        for size in self.sizes:
            windows = marked.unfold(1, size, 1)  # (R, K', size)
            code = torch.zeros_like(windows[..., 0])  # (R, K')
            for i in range(size):
                code = (code * _PRIME + windows[..., i] + size) & 0x7FFFFFFF
            found.append((code ^ (code >> 13)) % self.buckets)
            real.append(torch.arange(code.shape[1], device=code.device) + size <= lengths + 2)
        return torch.cat(found, 1), torch.cat(real, 1)
