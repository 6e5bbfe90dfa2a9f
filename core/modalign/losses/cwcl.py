"""CWCL: the frozen modality's own similarities say how much each candidate is a positive."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from modalign.contracts import Embeddings, Loss

from .primitives.kernel_mean import kernel_mean
from .primitives.pairs import as_pairs
from .primitives.pairwise import Pair, check_options, over_pairs, scale_of, take
from .primitives.streaming import cross_entropy

DUPLICATES = ("mask", "negative")


class CWCL(Loss):
    """Continuously weighted contrast: ``½ [XE(s·XYᵀ, W / row sums) + CE(s·YXᵀ)]``.

    Srinivasa et al., arXiv 2309.14580. ``X`` is the modality whose encoder is trained already and
    ``W_ij`` grows with the cosine of its raw features ``p_i``, ``p_j``: a near-duplicate counts as
    nearly a positive. The other direction is InfoNCE's; with ``W = I`` the whole is InfoNCE. Prefer
    it to add a modality to a strong frozen one, with little or noisy paired data.

    Inputs:
        teacher: the modality that has raw frozen features, ``X`` above; None takes the first of
            each pair that has some in the batch's ``teacher``.
        width: None: ``W = ½ + ½ cos`` (the paper's map as remembered, not verified); a number:
            ``W = exp((cos - 1) / width)``, a variant in use, sharper the smaller it is.
        temperature: fixed ``1 / s``; None takes the batch's ``scale``.
        pairs: pairings; None takes the batch's, else all of them.
        reduction: "mean" or "sum" over pairs.
        duplicates: rows whose ``ids`` are equal in either modality, in the direction that has no
            weights: "mask" takes them out of the candidates, "negative" leaves them in.
        tile: rows of the score matrix computed at a time; None chooses. Changes speed, not value.

    Raises:
        ValueError: for an unknown option, a pair that the batch does not hold, or a pair of which
            neither modality has teacher features.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"teacher"})

    def __init__(
        self,
        teacher: str | None = None,
        width: float | None = None,
        temperature: float | None = None,
        pairs: Iterable[Iterable[str]] | None = None,
        reduction: str = "mean",
        duplicates: str = "mask",
        tile: int | None = None,
    ) -> None:
        super().__init__()
        check_options(temperature, reduction, duplicates, DUPLICATES)
        if width is not None and not width > 0:
            raise ValueError(f"width {width}: must be above 0, or None for weights of ½ + ½ cos")
        self.teacher = teacher
        self.width = width
        self.temperature = temperature
        self.pairs = as_pairs(pairs)
        self.reduction = reduction
        self.duplicates = duplicates
        self.tile = tile

    def forward(self, z: Embeddings) -> Tensor:
        scale = scale_of(z, self.temperature)
        return over_pairs(
            z, self.pairs, self.reduction, lambda p: self.compare(z, p, scale), self.duplicates == "mask"
        )

    def compare(self, z: Embeddings, pair: Pair, scale: Tensor | float) -> Tensor:
        """One pair -> ``()``."""
        taught = self.taught(z, pair)
        x, y = (pair.x, pair.y) if taught == pair.a else (pair.y, pair.x)  # (R, D) each
        assert z.teacher is not None
        with torch.autocast(x.device.type, enabled=False):
            features = normalize(take(z.teacher[taught], pair.rows).detach(), dim=1).to(y.dtype)  # (R, W)
            keys = tuple((code, code) for code in pair.codes)
            if keys:
                (each,) = cross_entropy(x, y, scale, columns=False, tile=self.tile)  # (R,)
                (back,) = cross_entropy(y, x, scale, keys=keys, columns=False, tile=self.tile)  # (R,)
            else:
                each, back = cross_entropy(x, y, scale, tile=self.tile)  # (R,) each
            target = self.weighted_mean(features, y)  # (R, D)
            softened = (scale * (x * (y - target)).sum(1)).mean()  # ()
            return (each.mean() + softened + back.mean()) / 2  # ()

    def taught(self, z: Embeddings, pair: Pair) -> str:
        """The pair's modality whose features give the weights."""
        known = z.teacher or {}
        wanted = (self.teacher,) if self.teacher in (pair.a, pair.b) else (pair.a, pair.b)
        for name in wanted:
            if name in known:
                return name
        raise ValueError(
            f"cwcl needs teacher features of {' or '.join(map(str, wanted))}; "
            f"the batch has them for {', '.join(known) or 'no modality'}"
        )

    def weighted_mean(self, features: Tensor, y: Tensor) -> Tensor:
        """``Σ_j W_ij y_j / Σ_j W_ij``, ``(R, D)``, from unit ``features (R, W)``."""
        if self.width is not None:
            return kernel_mean(features, y, self.width, tile=self.tile)
        # W is linear in the features, so its product with Y needs no R×R matrix.
        top = y.sum(0) + features @ (features.T @ y)  # (R, D)
        bottom = len(y) + features @ features.sum(0)  # (R,)
        return top / bottom.unsqueeze(1)
