"""Pairwise scores by tiles: a matrix that is never held whole."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, reduce

import psutil
import torch
from torch import Tensor

CPU_TILE = 2048
"""Smaller tiles make threads wait for each other on a busy machine; larger ones are no faster."""
DEVICE_TILE = 8192

Keys = tuple[tuple[Tensor, Tensor], ...]


@dataclass(frozen=True)
class Layout:
    """What is special about some entries of the scores ``L = s·ABᵀ``, ``(N, K)``.

    Inputs:
        own: both sides are the same rows, so ``L`` is symmetric; its diagonal is no candidate.
        partner: the positive of row ``i`` is column ``i + partner``; None: no positives.
        keys: per key two integer tensors ``(N,)`` and ``(K,)``; an entry whose two integers are
            equal and not negative is a duplicate, unless it is a positive.
        columns: sums are wanted down the columns too.
        tile: rows and columns of a tile.
    """

    own: bool
    partner: int | None
    keys: Keys
    columns: bool
    tile: int

    def walk(self, n: int, k: int) -> Iterator[tuple[slice, list[slice]]]:
        """Each stripe of rows with the stripes of columns to visit; the upper triangle if ``own``."""
        for r in range(0, n, self.tile):
            first = r if self.own else 0
            yield (
                slice(r, min(r + self.tile, n)),
                [slice(c, min(c + self.tile, k)) for c in range(first, k, self.tile)],
            )

    def positives(self, tile: Tensor, rows: slice, cols: slice) -> Iterator[tuple[Tensor, slice]]:
        """Views of the tile's positives, each with the rows they belong to."""
        if self.partner is None:
            return
        # Of a symmetric tile on the diagonal, the lower triangle holds positives as well.
        both = (self.partner, -self.partner) if self.own and rows == cols else (self.partner,)
        for partner in both:
            offset = rows.start + partner - cols.start
            view = tile.diagonal(offset)  # (P,)
            start = rows.start + max(0, -offset)
            if len(view):
                yield view, slice(start, start + len(view))

    def read(self, tile: Tensor, rows: slice, cols: slice, into: Tensor | None) -> None:
        """Copy the tile's positives to their rows of ``into (N,)``."""
        if into is not None:
            for view, at in self.positives(tile, rows, cols):
                into[at] = view

    def silence(self, tile: Tensor, rows: slice, cols: slice, value: float) -> None:
        """Write ``value`` wherever an entry is no negative: itself, positives, duplicates."""
        if self.own and rows == cols:
            tile.diagonal().fill_(value)
        for view, _ in self.positives(tile, rows, cols):
            view.fill_(value)
        found = self.duplicates(rows, cols)
        if found is not None:
            tile[found] = value

    def duplicates(self, rows: slice, cols: slice) -> tuple[Tensor, Tensor] | None:
        """Where in the tile the duplicates are, each once; None if there are none."""
        if not self.keys:
            return None
        sides = [(left[rows], right[cols]) for left, right in self.keys]
        i = reduce(torch.logical_or, [left >= 0 for left, _ in sides]).nonzero().squeeze(1)  # (n,)
        j = reduce(torch.logical_or, [right >= 0 for _, right in sides]).nonzero().squeeze(1)  # (k,)
        if not (len(i) and len(j)):
            return None
        equal = [(left[i, None] == right[j]) & (left[i, None] >= 0) for left, right in sides]
        hit = reduce(torch.logical_or, equal)  # (n, k)
        if self.partner is not None:
            hit &= (j + cols.start) - (i + rows.start).unsqueeze(1) != self.partner
        p, q = hit.nonzero(as_tuple=True)
        return (i[p], j[q]) if len(p) else None


@dataclass(frozen=True)
class Scores:
    """``L = s·ABᵀ`` by tiles, in ``kind`` whatever the type of ``a (N, D)`` and ``b (K, D)``."""

    a: Tensor
    b: Tensor
    scale: Tensor
    layout: Layout
    kind: torch.dtype

    def stripes(self) -> Iterator[tuple[slice, Tensor, list[slice]]]:
        """Rows, their ``(n, D)`` vectors, and the columns to visit."""
        for rows, stripe in self.layout.walk(len(self.a), len(self.b)):
            yield rows, self.a[rows].to(self.kind), stripe

    def buffer(self) -> Tensor:
        """Room for any tile."""
        tile = self.layout.tile
        return self.a.new_empty(min(tile, len(self.a)) * min(tile, len(self.b)), dtype=self.kind)

    def tile(self, left: Tensor, right: Tensor, buffer: Tensor | None) -> Tensor:
        """``(n, k)`` products in ``buffer``, or in new memory; ``left`` carries the scale."""
        if buffer is None:
            return left @ right.T
        return torch.mm(left, right.T, out=shaped(buffer, left, right))

    def bound(self) -> float:
        """A number no score exceeds."""
        if not (len(self.a) and len(self.b)):
            return 0.0
        norms = [torch.linalg.vector_norm(x, dim=1, dtype=self.kind).amax() for x in (self.a, self.b)]
        return float(self.scale.abs() * norms[0] * norms[1])


def shaped(buffer: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """The ``(n, k)`` head of a flat buffer."""
    return buffer[: len(left) * len(right)].view(len(left), len(right))


def as_scalar(value: Tensor | float) -> Tensor:
    """A tensor; a number becomes one without dimensions, which never widens what it multiplies."""
    return value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64)


def tile_size(device: torch.device, itemsize: int, tile: int | None = None, own: bool = False) -> int:
    """``tile`` if given, else by the free memory, up to where size no longer helps.

    ``own``: half of that, since smaller tiles follow the triangle more closely.

    Raises:
        ValueError: if ``tile`` is not positive.
    """
    if tile is not None:
        if tile < 1:
            raise ValueError(f"tile {tile}: must be 1 or more rows, or None to choose it")
        return tile
    if device.type == "cuda":
        free, most = torch.cuda.mem_get_info(device)[0], DEVICE_TILE
    else:
        free, most = free_memory(int(time.monotonic())), CPU_TILE
    # Two tiles at a time, in a sixteenth of what is free.
    return max(64, min(most >> own, math.isqrt(free // (32 * itemsize)) // 64 * 64))


@lru_cache(maxsize=1)
def free_memory(second: int) -> int:
    """Bytes of memory that nobody uses; once a second, because asking takes as long as a small loss."""
    return int(psutil.virtual_memory().available)
