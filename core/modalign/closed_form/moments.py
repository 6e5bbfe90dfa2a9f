"""Means and covariances of two paired sets of vectors, from one pass over their rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Moments:
    """Means and covariances of pairs ``x (n, p)``, ``y (n, q)``, however many, chunk by chunk.

    A row costs ``(p + q)²`` multiplications and leaves no trace in memory; the sums are float64.
    Each chunk is centred by the first one's mean, so that large means cost no digits.

    Inputs:
        p, q: the two widths.
    """

    def __init__(self, p: int, q: int) -> None:
        self.widths = (p, q)
        self.weight = 0.0
        """The number of rows, each times its weight."""
        self.total = torch.zeros(p + q, dtype=torch.float64)
        self.products = torch.zeros(p + q, p + q, dtype=torch.float64)
        self.shift: Tensor | None = None

    def add(self, x: Tensor, y: Tensor, weight: float = 1.0) -> None:
        """Take in rows ``x (n, p)`` and ``y (n, q)``, each with that weight."""
        if not len(x):
            return
        rows = torch.cat([x, y], 1).float()  # (n, p + q)
        if self.shift is None:
            self.shift = rows.mean(0).double().cpu()  # (p + q,)
        rows = rows - self.shift.to(rows)  # (n, p + q)
        self.weight += weight * len(rows)
        self.total += weight * rows.sum(0).double().cpu()
        self.products += weight * (rows.T @ rows).double().cpu()

    def mean(self) -> tuple[Tensor, Tensor]:
        """``(p,)`` and ``(q,)``, float64."""
        if self.shift is None:
            return self.total[: self.widths[0]], self.total[self.widths[0] :]
        mean = self.shift + self.total / max(self.weight, 1e-300)  # (p + q,)
        return mean[: self.widths[0]], mean[self.widths[0] :]

    def covariances(self) -> tuple[Tensor, Tensor, Tensor]:
        """``xx (p, p)``, ``xy (p, q)`` and ``yy (q, q)``, float64; divided by the weight, not one less."""
        p = self.widths[0]
        weight = max(self.weight, 1e-300)
        off = self.total / weight  # (p + q,)
        every = self.products / weight - off[:, None] * off  # (p + q, p + q)
        return every[:p, :p], every[:p, p:], every[p:, p:]

    def swapped(self) -> Moments:
        """The same pairs with ``x`` and ``y`` changed over."""
        p, q = self.widths
        order = torch.cat([torch.arange(p, p + q), torch.arange(p)])
        made = Moments(q, p)
        made.weight, made.total, made.products = (
            self.weight,
            self.total[order],
            self.products[order][:, order],
        )
        made.shift = None if self.shift is None else self.shift[order]
        return made

    @classmethod
    def sum(cls, parts: Sequence[Moments]) -> Moments:
        """The moments of all parts' rows together."""
        made = cls(*parts[0].widths)
        made._take(torch.stack([part.state() for part in parts]).sum(0))
        return made

    def state(self) -> Tensor:
        """Everything as one vector; the sum of such vectors is that of all rows together.

        It refers to zero, not to ``shift``, so that parts with other first chunks agree.
        """
        shift = torch.zeros_like(self.total) if self.shift is None else self.shift
        cross = shift[:, None] * self.total
        products = self.products + cross + cross.T + self.weight * shift[:, None] * shift
        total = self.total + self.weight * shift
        return torch.cat([torch.tensor([self.weight], dtype=torch.float64), total, products.flatten()])

    def _take(self, state: Tensor) -> None:
        """Be what a ``state``, or a sum of them, says."""
        size = len(self.total)
        self.weight, self.total = float(state[0]), state[1 : 1 + size]
        self.products = state[1 + size :].reshape(size, size)
        self.shift = torch.zeros_like(self.total)

    @classmethod
    def of_state(cls, state: Tensor, p: int, q: int) -> Moments:
        """The moments that a ``state``, or a sum of them, describes."""
        made = cls(p, q)
        made._take(state.double().cpu())
        return made
