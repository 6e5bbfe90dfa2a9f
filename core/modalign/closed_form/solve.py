"""Linear maps that align modalities, from their covariances alone."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from .moments import Moments

METHODS = ("ridge", "procrustes", "cca", "csa")
Pair = tuple[str, str]
NOTHING = 1e-6
"""A variance below this share of the largest is rounding: products are float32 before they are summed."""


@dataclass(frozen=True)
class Map:
    """``x (n, W) -> x @ weight.T + bias``: ``weight (D, W)``, ``bias (D,)``, float64."""

    weight: Tensor
    bias: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return x @ self.weight.T.to(x) + self.bias.to(x)  # (n, D)

    def moments(self, moments: Moments) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Mean of ``x``, mean of the mapped ``y``, and ``xx``, ``xy`` of pairs whose ``y`` is mapped."""
        (mean_x, mean_y), (xx, xy, _) = moments.mean(), moments.covariances()
        return mean_x, self(mean_y), xx, xy @ self.weight.T


def identity(width: int) -> Map:
    """The map that leaves vectors of that width as they are."""
    return Map(torch.eye(width, dtype=torch.float64), torch.zeros(width, dtype=torch.float64))


def onto(
    method: str, moments: Moments, target: Map, regularisation: float | None = None
) -> tuple[Map, float]:
    """The map of ``x`` onto what ``target`` makes of ``y``, and the share of variance it leaves unexplained.

    "ridge": ``(xx + λI)⁻¹ xy``, the least squares of Hoerl and Kennard (1970). "procrustes": ``U Vᵀ`` of the
    singular vectors of ``xy``, the rotation that fits best (Schönemann, 1966), which keeps every angle.

    Inputs:
        moments: of the pairs ``x (n, p)``, ``y (n, q)``.
        target: of ``q`` to ``D`` dimensions.
        regularisation: ``λ`` of "ridge" as a share of the mean variance of ``x``; by default the one
            with the least generalised cross-validation error (Golub, Heath, Wahba, 1979).

    Raises:
        ValueError: for "procrustes" with ``p > D``: no rotation leads there.
    """
    mean_x, mean_z, xx, xz = target.moments(moments)
    zz = target.weight @ moments.covariances()[2] @ target.weight.T
    variance = zz.trace().clamp(min=1e-300)
    if method == "procrustes":
        if xx.shape[0] > xz.shape[1]:
            raise ValueError(
                f"a rotation cannot bring {xx.shape[0]} dimensions into {xz.shape[1]}: choose a larger "
                "space.dim, or ridge"
            )
        u, values, v = torch.linalg.svd(xz, full_matrices=False)
        weight = (u @ v).T  # (D, p)
        explained = values.sum().square() / xx.trace().clamp(min=1e-300)
    else:
        values, vectors = torch.linalg.eigh(xx)
        values, seen = values.clamp(min=0), vectors.T @ xz  # (p,), (p, D): by principal direction
        share = regularisation
        if share is None:
            share = gcv(values, seen.square().sum(1), float(variance), moments.weight)
        loaded = values + share * values.mean()  # (p,)
        inverse = torch.where(values > values.max() * NOTHING, 1 / loaded, 0.0)  # (p,)
        weight = ((vectors * inverse) @ seen).T  # (D, p)
        explained = 2 * (weight.T * xz).sum() - (weight @ xx * weight).sum()
    return Map(weight, mean_z - weight @ mean_x), float(1 - explained / variance)


def align_pairs(
    method: str, moments: Mapping[Pair, Moments], dim: int, regularisation: float | None = None
) -> tuple[dict[str, Map], float]:
    """One map into a common space of ``dim`` dimensions for every modality in the pairs.

    "cca": the directions that correlate most (Hotelling, 1936), for more than two modalities those
    that correlate most with their sum (MAXVAR; Kettenring, 1971). "csa": each of them weighted by the
    root of its correlation, so that cosines drop what is not shared (Li et al., "CSA", arXiv
    2410.07610). "ridge", "procrustes": the first modality stays as it is, centred, or if it is wider
    than ``dim`` in its principal directions; the others are mapped onto it.

    Inputs:
        moments: by pair, ``x`` of the first and ``y`` of the second; rows that lack one are in no sum.
        regularisation: what is added to the diagonal of a covariance, as a share of the mean
            variance; by default, for "cca" and "csa", the oracle approximating shrinkage of each
            modality (Chen et al., 2010), for "ridge" what cross-validation says.

    Returns the maps, and the share left unexplained: ``1 -`` the mean correlation, or as ``onto``.
    """
    if method in ("ridge", "procrustes"):
        return anchored(method, moments, dim, regularisation)
    rows: dict[str, list[tuple[Tensor, Tensor, float]]] = {}
    for pair, found in moments.items():
        xx, _, yy = found.covariances()
        for name, mean, covariance in zip(pair, found.mean(), (xx, yy), strict=True):
            rows.setdefault(name, []).append((mean, covariance, found.weight))
    means, roots = {}, {}
    for name, parts in rows.items():
        means[name], covariance = pooled(parts)
        share = oas(covariance, sum(w for *_, w in parts)) if regularisation is None else regularisation
        roots[name] = inverse_root(covariance, share)
    cross = {pair: found.covariances()[1] for pair, found in moments.items()}
    directions, correlations = canonical(roots, cross)
    kept = min(dim, len(correlations))
    weighting = correlations[:kept].sqrt() if method == "csa" else torch.ones(kept, dtype=torch.float64)
    maps = {}
    for name, root in roots.items():
        weight_ = torch.zeros(dim, len(root), dtype=torch.float64)
        weight_[:kept] = weighting[:, None] * (directions[name][:, :kept].T @ root)
        maps[name] = Map(weight_, -weight_ @ means[name])
    return maps, float(1 - correlations[:kept].mean()) if kept else 1.0


def anchored(
    method: str, moments: Mapping[Pair, Moments], dim: int, regularisation: float | None
) -> tuple[dict[str, Map], float]:
    """Every modality onto the first one of the first pair; pairs without that one say nothing here.

    Raises:
        ValueError: if a modality is in no pair with the first.
    """
    anchor = next(iter(moments))[0]
    toward = {
        a if b == anchor else b: m if b == anchor else m.swapped()
        for (a, b), m in moments.items()
        if anchor in (a, b)
    }
    for name in dict.fromkeys(m for pair in moments for m in pair):
        if name != anchor and name not in toward:
            raise ValueError(f"{method} maps onto {anchor}, and no pair has {name} with it")
    mean, covariance = pooled([(m.mean()[1], m.covariances()[2], m.weight) for m in toward.values()])
    maps, left = {anchor: principal(mean, covariance, dim)}, []
    for name, found in toward.items():
        maps[name], unexplained = onto(method, found, maps[anchor], regularisation)
        left.append(unexplained)
    return maps, sum(left) / len(left)


def pooled(parts: Iterable[tuple[Tensor, Tensor, float]]) -> tuple[Tensor, Tensor]:
    """Mean and covariance of all rows, from those of some and their weights."""
    parts = list(parts)
    weight = sum(w for *_, w in parts) or 1.0
    mean = torch.stack([w * mean for mean, _, w in parts]).sum(0) / weight
    spread = [w * (cov + (part - mean)[:, None] * (part - mean)) for part, cov, w in parts]
    return mean, torch.stack(spread).sum(0) / weight


def principal(mean: Tensor, covariance: Tensor, dim: int) -> Map:
    """Centres vectors; those wider than ``dim`` are turned to their ``dim`` principal directions."""
    width = len(covariance)
    if width <= dim:
        weight = torch.eye(dim, width, dtype=torch.float64)
    else:
        weight = torch.linalg.eigh(covariance)[1][:, -dim:].flip(1).T  # (dim, width)
    return Map(weight, -weight @ mean)


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


def gcv(values: Tensor, seen: Tensor, variance: float, rows: float) -> float:
    """The share of the mean variance, among sixty, with the least generalised cross-validation error.

    Inputs:
        values: ``(p,)`` variances of ``x`` along its principal directions.
        seen: ``(p,)`` squared covariances of these with the targets, summed over targets.
        variance: of the targets.
    """
    shares = torch.logspace(-6, 2, 60, dtype=torch.float64)
    loaded = values + shares[:, None] * values.mean() + 1e-300  # (60, p)
    left = variance - (seen * (2 / loaded - values / loaded.square())).sum(1)  # (60,)
    free = (1 - (values / loaded).sum(1) / max(rows, 1.0)).clamp(min=1e-6)  # (60,)
    return float(shares[(left / free.square()).argmin()])
