"""Canonical correlations of two modalities or more, with and without weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from .maps import NOTHING, Map, Pair, pooled
from .moments import Moments

FLOOR = 1e-3
"""The least weight of a direction: at zero a later stage could not train it."""


def canonical_maps(
    moments: Mapping[Pair, Sequence[Moments]], dim: int, regularisation: float | None, *, weighted: bool
) -> tuple[dict[str, Map], float]:
    """The ``dim`` directions that correlate most, in every modality; and ``1 -`` their mean correlation.

    Inputs:
        weighted: multiply each direction by the root of its correlation. With two parts or more it
            is the one in rows that had no say in the directions, since with few rows strangers
            correlate too.
    """
    found = Directions(whole(moments), regularisation)
    correlations = found.correlations
    parts = min(len(p) for p in moments.values())
    if weighted and parts > 1:
        held = []
        for i in range(parts):
            rest = {pair: [*p[:i], *p[i + 1 :]] for pair, p in moments.items()}
            seen = Directions(whole(rest), regularisation).correlate({p: m[i] for p, m in moments.items()})
            held.append(torch.nn.functional.pad(seen, (0, max(0, len(correlations) - len(seen)))))
        size = min(map(len, held))
        mean = torch.stack([each[:size] for each in held]).mean(0)
        correlations = mean.cummin(0).values.clamp(FLOOR, 1)
    kept = min(dim, len(correlations))
    weights = correlations[:kept].sqrt() if weighted else torch.ones(kept, dtype=torch.float64)
    maps = {}
    for name, map_ in found.maps.items():
        weight = torch.zeros(dim, map_.shape[1], dtype=torch.float64)
        weight[:kept] = weights[:, None] * map_[:kept]
        maps[name] = Map(weight, -weight @ found.means[name])
    return maps, float(1 - correlations[:kept].mean()) if kept else 1.0


def whole(moments: Mapping[Pair, Sequence[Moments]]) -> dict[Pair, Moments]:
    return {pair: Moments.sum(parts) for pair, parts in moments.items()}


class Directions:
    """Canonical directions: ``maps`` by modality ``(k, W)``, most correlated first, unit variance each.

    Inputs:
        moments: by pair.
        regularisation: as ``align_pairs``.
    """

    def __init__(self, moments: Mapping[Pair, Moments], regularisation: float | None) -> None:
        rows: dict[str, list[tuple[Tensor, Tensor, float]]] = {}
        for pair, m in moments.items():
            xx, _, yy = m.covariances()
            for name, mean, covariance in zip(pair, m.mean(), (xx, yy), strict=True):
                rows.setdefault(name, []).append((mean, covariance, m.weight))
        self.means, roots = {}, {}
        for name, parts in rows.items():
            self.means[name], covariance = pooled(parts)
            share = regularisation
            if share is None:
                share = oas(covariance, sum(weight for *_, weight in parts))
            roots[name] = inverse_root(covariance, share)
        cross = {pair: m.covariances()[1] for pair, m in moments.items()}
        directions, self.correlations = canonical(roots, cross)
        self.maps = {name: directions[name].T @ root for name, root in roots.items()}

    def correlate(self, moments: Mapping[Pair, Moments]) -> Tensor:
        """The correlation along each direction in other rows, over all pairs, ``(k,)``."""
        found = []
        for (a, b), m in moments.items():
            xx, xy, yy = m.covariances()
            along, beside = self.maps[a], self.maps[b]
            variances = (along @ xx * along).sum(1) * (beside @ yy * beside).sum(1)
            found.append((along @ xy * beside).sum(1) / variances.clamp(min=1e-300).sqrt())
        return torch.stack(found).mean(0)


def canonical(roots: Mapping[str, Tensor], cross: Mapping[Pair, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
    """Canonical directions ``(W, k)`` of whitened modalities, and their ``(k,)`` correlations, falling."""
    if len(roots) == 2:
        (((a, b), xy),) = cross.items()
        u, correlations, v = torch.linalg.svd(roots[a] @ xy @ roots[b], full_matrices=False)
        return {a: u, b: v.T}, correlations.clamp(0, 1)
    starts, size = {}, 0
    for name, root in roots.items():
        starts[name], size = size, size + len(root)
    whole = torch.zeros(size, size, dtype=torch.float64)
    for (a, b), xy in cross.items():
        block = roots[a] @ xy @ roots[b]
        i, j = starts[a], starts[b]
        whole[i : i + len(block), j : j + block.shape[1]] = block
        whole[j : j + block.shape[1], i : i + len(block)] = block.T
    values, vectors = torch.linalg.eigh(whole)
    kept = int((values > 1e-12).sum())
    values, vectors = values[-kept:].flip(0), vectors[:, -kept:].flip(1)
    scale = len(roots) ** 0.5  # as for two modalities, whose parts are unit vectors
    directions = {name: scale * vectors[i : i + len(roots[name])] for name, i in starts.items()}
    return directions, (values / (len(roots) - 1)).clamp(0, 1)


def inverse_root(covariance: Tensor, share: float) -> Tensor:
    """``(Σ + share · mean variance · I)^(-1/2)``; directions without any variance are left out."""
    values, vectors = torch.linalg.eigh(covariance)
    real = values > values.max() * NOTHING
    loaded = values.clamp(min=0) + share * mean_variance(covariance)
    scaled = vectors * torch.where(real, loaded, 1.0).rsqrt().mul(real)  # (W, W)
    return scaled @ vectors.T


def mean_variance(covariance: Tensor) -> Tensor:
    return covariance.trace() / len(covariance)


def oas(covariance: Tensor, rows: float) -> float:
    """The oracle approximating shrinkage of ``rows`` samples' covariance, as a share of its mean variance.

    Chen, Wiesel, Eldar, Hero, "Shrinkage algorithms for MMSE covariance estimation", IEEE TSP 2010, eq. 23.
    """
    width = len(covariance)
    squares, square = float(covariance.square().sum()), float(covariance.trace().square())
    above = (1 - 2 / width) * squares + square
    below = (rows + 1 - 2 / width) * (squares - square / width)
    shrinkage = min(1.0, above / below) if below > 0 else 1.0
    return shrinkage / max(1 - shrinkage, 1e-3)
