"""SigLIP: each pair of the batch is judged alone, match or not."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from modalign.contracts import Embeddings, Loss

from .primitives.pairs import as_pairs
from .primitives.pairwise import Pair, check_options, over_pairs
from .primitives.streaming_sigmoid import sum_softplus

DUPLICATES = ("mask", "positive", "negative")


class SigLIP(Loss):
    """The sigmoid loss: ``-1/R Σ_ij log σ(y_ij (t x_i·y_j + b))``, ``y_ij = 1`` for partners, else -1.

    Zhai et al., arXiv 2303.15343. Needs no normalisation over the batch, so it is defined for a
    single row and suffers less from small or very large batches. Prefer it to InfoNCE for those,
    and where an item may have several partners or none.

    Inputs:
        scale: ``t`` at the start, kept as its logarithm; None takes the batch's ``scale`` instead.
        bias: ``b`` at the start. 10 and -10 are from memory of the paper; a public small-scale
            configuration starts at 10 and -2.71.
        learn: whether the loss trains its scale and bias.
        pairs: pairings; None takes the batch's, else all of them.
        reduction: "mean" or "sum" over pairs.
        duplicates: rows whose ``ids`` are equal in either modality: "mask" leaves the pair out,
            "positive" makes it a match, "negative" is as published.
        tile: rows of the score matrix computed at a time; None chooses. Changes speed, not value.

    Raises:
        ValueError: for an unknown option, or a pair that the batch does not hold.
    """

    def __init__(
        self,
        scale: float | None = 10.0,
        bias: float = -10.0,
        learn: bool = True,
        pairs: Iterable[Iterable[str]] | None = None,
        reduction: str = "mean",
        duplicates: str = "mask",
        tile: int | None = None,
    ) -> None:
        super().__init__()
        check_options(None, reduction, duplicates, DUPLICATES)
        if scale is not None and not scale > 0:
            raise ValueError(f"scale {scale}: must be above 0, or None for the batch's")
        self.log_scale = None if scale is None else nn.Parameter(torch.tensor(math.log(scale)), learn)
        self.bias = nn.Parameter(torch.tensor(float(bias)), learn)
        self.pairs = as_pairs(pairs)
        self.reduction = reduction
        self.duplicates = duplicates
        self.tile = tile

    def forward(self, z: Embeddings) -> Tensor:
        scale = z.scale if self.log_scale is None else self.log_scale.exp()
        use_ids = self.duplicates != "negative"
        return over_pairs(z, self.pairs, self.reduction, lambda pair: self.compare(pair, scale), use_ids)

    def compare(self, pair: Pair, scale: Tensor | float) -> Tensor:
        """One pair -> ``()``."""
        x, y = pair.x, pair.y
        with torch.autocast(x.device.type, enabled=False):
            keys = tuple((code, code) for code in pair.codes)
            matches = self.duplicates == "positive"
            total = sum_softplus(x, y, scale, self.bias, keys=keys, flip=matches, tile=self.tile)  # ()
            positive = scale * (x * y).sum(1) + self.bias  # (R,)
            return (total + softplus(-positive).sum()) / len(x)  # ()
