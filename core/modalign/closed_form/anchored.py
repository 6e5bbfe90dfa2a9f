"""Maps onto what is there already: ridge regression and rotation."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from .maps import NOTHING, Map, Pair, pooled, principal
from .moments import Moments


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
    (mean_x, mean_y), (xx, xy, yy) = moments.mean(), moments.covariances()
    mean_z, xz = target(mean_y), xy @ target.weight.T  # (D,), (p, D)
    variance = (target.weight @ yy * target.weight).sum().clamp(min=1e-300)  # of the targets
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
