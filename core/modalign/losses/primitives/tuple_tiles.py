"""The tiles of a tensor of tuple scores that is never held whole."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import product

import torch
from torch import Tensor


class Room:
    """The buffers of one pass, and the tiles that fit them."""

    def __init__(self, vectors: Sequence[Tensor], tile: int) -> None:
        *self.fixed, self.outer, self.inner, last = (len(v) for v in vectors)
        dim = vectors[-1].shape[1]
        widest = max(1, last, dim)
        self.j = min(self.inner, max(1, tile // widest))
        self.r = min(self.outer, max(1, tile // (widest * self.j)))
        self._flat = vectors[-1].new_empty(self.r * self.j, dim)
        self._scores = vectors[-1].new_empty(self.r * self.j, last)
        self._spare = vectors[-1].new_empty(0)
        self.scores = self._scores

    @property
    def tiles(self) -> Iterator[tuple[tuple[int, ...], slice, slice]]:
        """One index of each outermost modality, a slice of the next, a slice of the last but one."""
        for fixed in product(*map(range, self.fixed)):
            for r in range(0, self.outer, self.r):
                for j in range(0, self.inner, self.j):
                    yield fixed, slice(r, min(r + self.r, self.outer)), slice(j, min(j + self.j, self.inner))

    def products(self, rows: Tensor, inner: Tensor) -> Tensor:
        """``(R, D)`` and ``(J, D)`` -> ``(R·J, D)``; sets ``scores`` to the size that goes with it."""
        n = len(rows) * len(inner)
        self.scores = self._scores[:n]
        flat = self._flat[:n]
        torch.mul(rows.unsqueeze(1), inner, out=flat.view(len(rows), len(inner), -1))
        return flat

    def spare(self, shape: Sequence[int]) -> Tensor:
        """Another buffer; what it held is lost."""
        if not len(self._spare):
            self._spare = self._scores.new_empty(max(self._scores.numel(), self._flat.numel()))
        return self._spare[: math.prod(shape)].view(*shape)


def outer_rows(vectors: Sequence[Tensor], fixed: tuple[int, ...], r: slice) -> tuple[Tensor, list[Tensor]]:
    """Products ``(R, D)`` of the outermost rows, and their factors: ``(D,)`` each, then ``(R, D)``."""
    factors = [vectors[m][i] for m, i in enumerate(fixed)] + [vectors[-3][r]]
    return elementwise(factors), factors


def elementwise(factors: Sequence[Tensor]) -> Tensor:
    out = factors[0]
    for factor in factors[1:]:
        out = out * factor
    return out
