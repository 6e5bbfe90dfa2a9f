"""InfoNCE: each item must pick its partner among the batch."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from modalign.contracts import Embeddings, Loss

from .primitives.groups import sum_over_same
from .primitives.pairs import as_pairs
from .primitives.pairwise import Pair, check_options, over_pairs, scale_of
from .primitives.streaming import cross_entropy

DUPLICATES = ("mask", "positive", "negative")


class InfoNCE(Loss):
    """CLIP's objective over any pairs: ``½ [CE(s·ABᵀ) + CE(s·BAᵀ)]``, the diagonal being the answer.

    van den Oord et al., arXiv 1807.03748; Radford et al., arXiv 2103.00020. A pair is compared on
    the rows where both modalities are present; pairs without such a row are left out of the mean.
    Exact, in memory that grows with N, not N²: see ``streaming``.
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
        tile: rows of the score matrix computed at a time; None chooses. Changes speed, not value.

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
        tile: int | None = None,
    ) -> None:
        super().__init__()
        check_options(temperature, reduction, duplicates, DUPLICATES)
        if not 0 <= label_smoothing < 1:
            raise ValueError(f"label_smoothing {label_smoothing}: must be in [0, 1)")
        self.temperature = temperature
        self.pairs = as_pairs(pairs)
        self.reduction = reduction
        self.symmetric = symmetric
        self.duplicates = duplicates
        self.label_smoothing = label_smoothing
        self.tile = tile

    def forward(self, z: Embeddings) -> Tensor:
        scale = scale_of(z, self.temperature)
        use_ids = self.duplicates != "negative"
        return over_pairs(z, self.pairs, self.reduction, lambda pair: self.compare(pair, scale), use_ids)

    def compare(self, pair: Pair, scale: Tensor | float) -> Tensor:
        """One pair -> ``()``."""
        x, y = pair.x, pair.y
        keys = tuple((code, code) for code in pair.codes) if self.duplicates == "mask" else ()
        with torch.autocast(x.device.type, enabled=False):
            each = cross_entropy(x, y, scale, keys=keys, columns=self.symmetric, tile=self.tile)  # (R,) each
            loss = each[0].mean() + self.softened(x, y, scale, pair.codes)  # ()
            if self.symmetric:
                back = each[1].mean() + self.softened(y, x, scale, pair.codes)  # ()
                loss = (loss + back) / 2
        return loss

    def softened(
        self, x: Tensor, y: Tensor, scale: Tensor | float, codes: tuple[Tensor, ...]
    ) -> Tensor | float:
        """What soft targets add to the cross-entropy with the partner: ``mean_i s·x_i·(y_i - Σ_j T_ij y_j)``.

        A row of targets is a mean over rows of equal content, or over all candidates, so its
        product with ``Y`` is a matter of sums, ``O(R·D)``.
        """
        target = y  # (R, D)
        if self.duplicates == "positive" and codes:
            target = sum_over_same(y, codes) / count_same(y, codes)
        if self.label_smoothing:
            target = torch.lerp(target, self.candidates(y, codes), self.label_smoothing)
        return 0.0 if target is y else (scale * (x * (y - target)).sum(1)).mean()

    def candidates(self, y: Tensor, codes: tuple[Tensor, ...]) -> Tensor:
        """``(R, D)`` mean of each row's candidates."""
        if self.duplicates != "mask" or not codes:
            return y.mean(0, keepdim=True).expand_as(y)
        wide = y.double()  # few may be left of many: no digits to lose
        left = wide.sum(0) - sum_over_same(wide, codes) + wide  # (R, D)
        return (left / (len(y) + 1 - count_same(wide, codes))).to(y.dtype)


def count_same(like: Tensor, codes: tuple[Tensor, ...]) -> Tensor:
    """``(R, 1)`` rows of equal content, itself included."""
    return sum_over_same(torch.ones_like(like[:, :1]), codes)
