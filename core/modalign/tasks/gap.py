"""The shape of a space: gap between two modalities, alignment, uniformity, spectra."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor

from modalign.contracts import Items, Report, Split, Task
from modalign.errors import UserError

from .bootstrap import interval
from .joint import as_names, items_of
from .ranking import join, score_blocks
from .spectrum import CHUNK, centre, effective_rank, figure, singular_values

SHOWN = 20
"""Singular values in the table; the figure shows them all."""


class Gap(Task):
    """How two modalities lie in the space, without asking it for anything.

    ``alignment``, mean squared distance of partners, and ``uniformity``, ``log mean e^{-t‖x - x'‖²}``
    over a modality's own items, the mean of both modalities (Wang and Isola, arXiv 2005.10242; both:
    lower is better); ``gap``, the distance of the modalities' centres (Liang et al., arXiv
    2203.02053); ``effective_rank``, e to the entropy of the singular values of the centred items,
    the mean of both (Roy and Vetterli, EUSIPCO 2007), and ``cross_effective_rank``, that of the
    partners' covariance between the modalities, whose singular values are table and figure
    ``spectrum``. Streamed. Chance of ``alignment``: partners drawn at random.

    The interval of ``gap`` is along the line between the centres; that of ``uniformity`` counts both
    ends of each distance (Hoeffding's projection).

    Inputs:
        between: two modalities.
        t: the sharpness of ``uniformity``.

    Raises:
        UserError: if there are not two, the split has no item of one, or no row with both.
    """

    primary: ClassVar[str] = "alignment"
    higher_is_better: ClassVar[bool] = False

    def __init__(self, between: Iterable[str], t: float = 2.0) -> None:
        self.between, self.t = as_names(between), t
        if len(self.between) != 2:
            raise UserError(f"gap between {', '.join(self.between)}: name two modalities")
        if not t > 0:
            raise UserError(f"gap t {t}: must be above 0")

    @property
    def modalities(self) -> tuple[str, ...]:
        return self.between

    def run(self, space: Any, data: Split) -> Report:
        first, second = sides = [items_of(space, data, m) for m in self.between]
        pairs = join(first.links, second.links).to(first.vectors.device)  # (L, 2)
        if not len(pairs):
            raise UserError(f"gap: no row of split {data.name!r} has both {' and '.join(self.between)}")
        distances = squared_distances(first, second, pairs)  # (L,)
        centres = [centre(items.vectors) for items in sides]  # (D,) each
        line = centres[0] - centres[1]  # (D,)
        metrics = {"alignment": float(distances.mean()), "gap": float(line.norm())}
        unit = line / line.norm().clamp(min=1e-12)  # (D,)
        along = [projected(items.vectors, unit) for items in sides]  # (K,) each
        intervals = {
            "alignment": interval(distances),
            "gap": sides_interval(along[0], along[1], (1, -1)),
        }
        spreads = [closeness(items.vectors, self.t) for items in sides]  # (K,) each, or none of one item
        if all(len(s) for s in spreads):
            metrics["uniformity"] = float(sum(s.mean().log() for s in spreads) / 2)
            both = linearised(spreads[0]), linearised(spreads[1])
            intervals["uniformity"] = sides_interval(*both, (0.5, 0.5))
        everywhere = [singular_values(items.vectors) for items in sides]  # (D,) each
        metrics["effective_rank"] = sum(map(effective_rank, everywhere)) / 2
        spectrum = singular_values(first.vectors, second.vectors, pairs)  # (D,)
        metrics["cross_effective_rank"] = effective_rank(spectrum)
        chance = {"alignment": chance_alignment(first, second)}
        table = [
            {
                "modality": name,
                "items": len(items),
                "length_of_centre": float(middle.norm()),
                "uniformity": float(spread.mean().log()) if len(spread) else None,
                "effective_rank": effective_rank(values),
            }
            for name, items, middle, spread, values in zip(
                self.between, sides, centres, spreads, everywhere, strict=True
            )
        ]
        share = (spectrum / spectrum.sum().clamp(min=1e-300)).tolist()
        largest = [
            {"number": i + 1, "singular_value": float(v), "share": share[i]}
            for i, v in enumerate(spectrum[:SHOWN])
        ]
        return Report(
            metrics,
            intervals,
            chance,
            tables={"modalities": table, "spectrum": largest},
            figures={"spectrum": figure(spectrum, self.about)},
        )


def squared_distances(first: Items, second: Items, pairs: Tensor) -> Tensor:
    """``‖x - y‖²`` of each of ``pairs (L, 2)``: ``(L,)`` float64, on the CPU."""
    parts = [
        (first.vectors[some[:, 0]].double() - second.vectors[some[:, 1]].double()).square().sum(1).cpu()
        for some in pairs.split(CHUNK)
    ]
    return torch.cat(parts)


def chance_alignment(first: Items, second: Items) -> float:
    """The mean squared distance of any two items: ``mean ‖x‖² + mean ‖y‖² - 2 x̄ · ȳ``."""
    own = [
        sum(float(part.double().square().sum()) for part in side.vectors.split(CHUNK)) / len(side)
        for side in (first, second)
    ]
    return own[0] + own[1] - 2 * float(centre(first.vectors) @ centre(second.vectors))


def projected(vectors: Tensor, direction: Tensor) -> Tensor:
    """``(K, D)`` along ``(D,)``: ``(K,)`` float64, on the CPU."""
    return torch.cat([(part.double() @ direction).cpu() for part in vectors.split(CHUNK)])


def closeness(vectors: Tensor, t: float) -> Tensor:
    """``mean_{k ≠ j} e^{-t‖x_j - x_k‖²}`` of ``(K, D)``: ``(K,)`` float64, empty of a single item."""
    count = len(vectors)
    if count < 2:
        return torch.zeros(0, dtype=torch.float64)
    square = vectors.float().square().sum(1)  # (K,)
    found = torch.zeros(count, dtype=torch.float64)  # (K,)
    for part, scores, _ in score_blocks(vectors, vectors):
        near = (-t * (square[part].unsqueeze(1) + square - 2 * scores)).clamp(max=0).exp()  # (n, K)
        number = torch.arange(len(near), device=near.device)
        near[number, number + part.start] = 0
        found[part] = near.sum(1, dtype=torch.float64).cpu() / (count - 1)
    return found


def linearised(spread: Tensor) -> Tensor:
    """``(K,)`` with the log of ``spread``'s mean as mean, as noisy as that is by both ends of a distance."""
    return spread.mean().log() + 2 * (spread / spread.mean() - 1)


def sides_interval(first: Tensor, second: Tensor, weights: tuple[float, float]) -> tuple[float, float]:
    """The interval of ``w_1 mean(first) + w_2 mean(second)`` of ``(N,)`` and ``(K,)`` values."""
    total, sides = len(first) + len(second), (first, second)
    parts = [w * total / len(v) * (v - v.mean()) for v, w in zip(sides, weights, strict=True)]
    middle = weights[0] * first.mean() + weights[1] * second.mean()  # ()
    return interval(torch.cat(parts) + middle)
