"""DCL: contrast without the positive in the denominator."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from modalign.contracts import Embeddings, Loss

from .primitives.pairs import as_pairs
from .primitives.pairwise import Pair, both_views, check_options, over_pairs, scale_of
from .primitives.streaming import log_sum_exp

DUPLICATES = ("mask", "negative")


class DCL(Loss):
    """Decoupled contrast: with ``Z = [X; Y]``, mean of ``-w_i s z_i·z_i' + log Σ_{k≠i,i'} e^{s z_i·z_k}``.

    Yeh et al., arXiv 2110.06848. NT-Xent whose positive ``z_i'`` is taken out of the denominator,
    so an easy positive no longer shrinks the gradient of the negatives: prefer it to NT-Xent for
    small batches. The loss may be negative. A row without negatives has its positive term alone.

    Inputs:
        temperature: fixed ``1 / s``; None takes the batch's ``scale``. A usual value (from a
            third-party implementation) is 0.1.
        weighted: DCLW: ``w_i = 2 - R·softmax_i(x_i·y_i / sigma)``, without gradient, which counts
            hard positives more; else ``w_i = 1``.
        sigma: the width of that weight, 0.5 as published.
        pairs: pairings; None takes the batch's, else all of them.
        reduction: "mean" or "sum" over pairs.
        duplicates: rows whose ``ids`` are equal in either modality: "mask" takes them out of each
            other's candidates, "negative" leaves them in, as published.
        tile: rows of the score matrix computed at a time; None chooses. Changes speed, not value.

    Raises:
        ValueError: for an unknown option, or a pair that the batch does not hold.
    """

    def __init__(
        self,
        temperature: float | None = None,
        weighted: bool = False,
        sigma: float = 0.5,
        pairs: Iterable[Iterable[str]] | None = None,
        reduction: str = "mean",
        duplicates: str = "mask",
        tile: int | None = None,
    ) -> None:
        super().__init__()
        check_options(temperature, reduction, duplicates, DUPLICATES)
        if not sigma > 0:
            raise ValueError(f"sigma {sigma}: must be above 0")
        self.temperature = temperature
        self.weighted = weighted
        self.sigma = sigma
        self.pairs = as_pairs(pairs)
        self.reduction = reduction
        self.duplicates = duplicates
        self.tile = tile

    def forward(self, z: Embeddings) -> Tensor:
        scale = scale_of(z, self.temperature)
        return over_pairs(
            z, self.pairs, self.reduction, lambda p: self.compare(p, scale), self.duplicates == "mask"
        )

    def compare(self, pair: Pair, scale: Tensor | float) -> Tensor:
        """One pair -> ``()``."""
        views, keys = both_views(pair)  # (2R, D)
        with torch.autocast(views.device.type, enabled=False):
            negatives, _, positive = log_sum_exp(
                views, None, scale, partner=len(pair.x), keys=keys, tile=self.tile
            )  # (2R,), -, (2R,)
            assert positive is not None
            lonely = negatives.isneginf()  # (2R,)
            return (negatives.masked_fill(lonely, 0) - self.weights(pair) * positive).mean()  # ()

    def weights(self, pair: Pair) -> Tensor | float:
        """``(2R,)`` of mean 1, the same for both views of a row."""
        if not self.weighted:
            return 1.0
        cosines = (pair.x * pair.y).sum(1).detach()  # (R,)
        return (2 - len(cosines) * (cosines / self.sigma).softmax(0)).repeat(2)  # (2R,)
