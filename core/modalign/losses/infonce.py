"""InfoNCE: each item must pick its partner among the batch."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from modalign.contracts import Embeddings, Loss

from .pairs import as_pairs, common_rows, connected_zero, pairs_of, widen
from .softmax import soft_cross_entropy

DUPLICATES = ("mask", "positive", "negative")
REDUCTIONS = ("mean", "sum")


class InfoNCE(Loss):
    """CLIP's objective over any pairs: ``½ [CE(s·ABᵀ) + CE(s·BAᵀ)]``, the diagonal being the answer.

    van den Oord et al., arXiv 1807.03748; Radford et al., arXiv 2103.00020. A pair is compared on
    the rows where both modalities are present; pairs without such a row are left out of the mean.
    The first choice for paired data; with many items per class prefer a supervised loss.

    Inputs:
        temperature: fixed ``1 / s``; None takes the batch's ``scale``, which the space may learn.
        pairs: pairings such as ``[[image, text]]``; None takes the batch's, else all of them.
        reduction: "mean" or "sum" over pairs.
        symmetric: False: only the first of a pair looks for the second.
        duplicates: what to do where ``ids`` says that another row holds the same content on either
            side: "mask" takes it out of the candidates, "positive" makes it an answer of equal
            weight, "negative" is CLIP as published. Without ``ids`` the three are the same.
        label_smoothing: share of the target spread over all candidates.

    Raises:
        ValueError: for an unknown option, or a pair that the batch does not hold.
    """

    def __init__(
        self,
        temperature: float | None = None,
        pairs: Iterable[Iterable[str]] | None = None,
        reduction: str = "mean",
        symmetric: bool = True,
        duplicates: str = "mask",
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__()
        if temperature is not None and not temperature > 0:
            raise ValueError(f"temperature {temperature}: must be above 0")
        if reduction not in REDUCTIONS:
            raise ValueError(f"reduction {reduction!r}: use one of {', '.join(REDUCTIONS)}")
        if duplicates not in DUPLICATES:
            raise ValueError(f"duplicates {duplicates!r}: use one of {', '.join(DUPLICATES)}")
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing {label_smoothing}: must be in [0, 1)")
        self.temperature = temperature
        self.pairs = as_pairs(pairs)
        self.reduction = reduction
        self.symmetric = symmetric
        self.duplicates = duplicates
        self.label_smoothing = label_smoothing

    def forward(self, z: Embeddings) -> Tensor:
        scale = z.scale if self.temperature is None else 1 / self.temperature
        losses = []
        for a, b, rows in common_rows(z, pairs_of(z, self.pairs)):
            same = same_content(z, a, b, rows) if self.duplicates != "negative" else None  # (R, R)
            losses.append(self.compare(z.vectors[a][rows], z.vectors[b][rows], scale, same))  # ()
        if not losses:
            return connected_zero(z)
        total = torch.stack(losses).sum()  # ()
        return total / len(losses) if self.reduction == "mean" else total

    def compare(self, a: Tensor, b: Tensor, scale: Tensor | float, same: Tensor | None) -> Tensor:
        """One pair: ``a``, ``b (R, D)``, ``same (R, R)`` bool off the diagonal or None -> ``()``."""
        with torch.autocast(a.device.type, enabled=False):
            logits = scale * (widen(a) @ widen(b).T)  # (R, R)
            targets = torch.eye(len(a), dtype=logits.dtype, device=logits.device)  # (R, R)
            left_out = None
            if same is not None and self.duplicates == "mask":
                left_out = same
            elif same is not None:
                targets = targets + same
                targets = targets / targets.sum(1, keepdim=True)  # (R, R)
            # `same` is symmetric, so it and the targets serve the other direction as they are.
            loss = soft_cross_entropy(logits, targets, left_out, self.label_smoothing).mean()  # ()
            if self.symmetric:
                back = soft_cross_entropy(logits.T, targets, left_out, self.label_smoothing).mean()  # ()
                loss = (loss + back) / 2
        return loss


def same_content(z: Embeddings, a: str, b: str, rows: Tensor) -> Tensor | None:
    """``(R, R)`` True where two different rows hold equal content in ``a`` or in ``b``; None without ids."""
    ids = [z.ids[m][rows] for m in (a, b) if m in z.ids]  # each (R,)
    if not ids:
        return None
    same = torch.stack([i.unsqueeze(0) == i.unsqueeze(1) for i in ids]).any(0)  # (R, R)
    return same.fill_diagonal_(False)
