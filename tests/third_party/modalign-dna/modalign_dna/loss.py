"""hardest-stranger: of all wrong candidates only the nearest counts."""

from __future__ import annotations

from itertools import combinations

import torch
from modalign import Embeddings, Loss
from torch import Tensor
from torch.nn import functional as F


class HardestStranger(Loss):
    """``softplus(s (max_{j != i} cos(a_i, b_j) - cos(a_i, b_i) + margin)) / s``, both ways, mean over rows.

    After VSE++ (Faghri et al., arXiv 1707.05612) with a soft hinge. Every pairing of the batch counts, on
    rows where both are present. Prefer it beside a softer loss, once pairs roughly find each other; it
    suffers where the batch holds duplicates.

    Inputs:
        margin: how much nearer than a stranger a partner should be.
    """

    def __init__(self, margin: float = 0.2) -> None:
        super().__init__()
        self.margin = margin

    def forward(self, z: Embeddings) -> Tensor:
        pairs = z.pairs if z.pairs is not None else combinations(z.modalities, 2)
        found = [part for a, b in pairs if (part := self._pair(z, a, b)) is not None]
        if not found:
            return torch.stack([v[:0].sum() for v in z.vectors.values()]).sum().float() * z.scale  # ()
        return torch.stack(found).mean()  # ()

    def _pair(self, z: Embeddings, a: str, b: str) -> Tensor | None:
        rows = (z.present[a] & z.present[b]).nonzero().squeeze(1)  # (R,)
        if len(rows) < 2:
            return None
        left, right = z.vectors[a][rows], z.vectors[b][rows]  # (R, D), (R, D)
        with torch.autocast(left.device.type, enabled=False):
            cosine = left.float() @ right.float().T  # (R, R)
            true = cosine.diagonal()  # (R,)
            wrong = cosine.masked_fill(
                torch.eye(len(rows), dtype=torch.bool, device=left.device), -2
            )  # (R, R)
            sides = torch.stack([wrong.amax(1), wrong.amax(0)])  # (2, R)
            return (F.softplus(z.scale * (sides - true + self.margin)) / z.scale).mean()  # ()
