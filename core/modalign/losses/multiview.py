"""Multiview: which pairs of many modalities are contrasted, and how much each counts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor

from modalign.contracts import Embeddings, Loss
from modalign.errors import suggest

from .infonce import InfoNCE
from .primitives.pairs import Pairs, as_pairs, pairs_of
from .primitives.pairwise import check_options, over_pairs, scale_of

VIEWS = ("core", "full")


class Multiview(Loss):
    """CMC: InfoNCE over a graph of modalities, ``Σ_{ab} w_ab L(a, b)``.

    The full graph sums over all pairs, the core view over those with an anchor. Tian et al., arXiv
    1906.05849, with the batch as negatives instead of a memory bank: each ``L`` is InfoNCE in both
    directions. Prefer "core" where every modality is to be searched with one, or the others share
    little among themselves; its cost grows with the number of modalities, that of "full" with the
    square.

    Inputs:
        view: "core": every pair with the anchor; "full": every pair.
        anchor: of the core view; None takes the batch's first modality.
        weights: ``w`` by pair, such as ``[[image, text, 2.0]]``; pairs left out count 1.
        temperature, duplicates, label_smoothing, tile: as for InfoNCE.
        reduction: "sum", as published, or "mean" over pairs.

    Of the view, only pairs that the batch's pairings name are compared.

    Raises:
        ValueError: for an unknown option, an anchor that no pair has, or a weight of no pair of the view.
    """

    def __init__(
        self,
        view: str = "full",
        anchor: str | None = None,
        weights: Iterable[Sequence[Any]] | None = None,
        temperature: float | None = None,
        reduction: str = "sum",
        duplicates: str = "mask",
        label_smoothing: float = 0.0,
        tile: int | None = None,
    ) -> None:
        super().__init__()
        if view not in VIEWS:
            raise ValueError(f"view {view!r}: use one of {', '.join(VIEWS)}{suggest(str(view), VIEWS)}")
        if anchor is not None and view == "full":
            raise ValueError(f"anchor {anchor!r}: the full view has none; write view: core")
        check_options(temperature, reduction)
        self.view, self.anchor, self.reduction = view, anchor, reduction
        self.weights = as_weights(weights)
        self.infonce = InfoNCE(temperature, duplicates=duplicates, label_smoothing=label_smoothing, tile=tile)

    def forward(self, z: Embeddings) -> Tensor:
        pairs = self.graph(z)
        unknown = [sorted(pair) for pair in self.weights if pair not in {frozenset(p) for p in pairs}]
        if unknown:
            known = ", ".join(f"[{a}, {b}]" for a, b in pairs)
            raise ValueError(f"weights name the pair {unknown[0]}; the {self.view} view compares {known}")
        scale = scale_of(z, self.infonce.temperature)
        use_ids = self.infonce.duplicates != "negative"
        return over_pairs(
            z,
            pairs,
            self.reduction,
            lambda pair: (
                self.weights.get(frozenset((pair.a, pair.b)), 1.0) * self.infonce.compare(pair, scale)
            ),
            use_ids,
        )

    def graph(self, z: Embeddings) -> Pairs:
        """The pairs compared.

        Raises:
            ValueError: if no pair has the anchor.
        """
        every = pairs_of(z)
        if self.view == "full":
            return every
        anchor = self.anchor or z.modalities[0]
        found = tuple(pair for pair in every if anchor in pair)
        if not found:
            known = dict.fromkeys(m for pair in every for m in pair)
            raise ValueError(
                f"no pair with the anchor {anchor!r}{suggest(anchor, known)} "
                f"(the batch pairs {', '.join(known) or 'nothing'})"
            )
        return found


def as_weights(weights: Iterable[Sequence[Any]] | None) -> dict[frozenset[str], float]:
    """Weights as a plan writes them, checked.

    Raises:
        ValueError: if an entry is not two different names and a number of at least 0, or is there twice.
    """
    found: dict[frozenset[str], float] = {}
    for entry in weights or ():
        *names, weight = entry
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not number or not 0 <= weight < math.inf:
            raise ValueError(f"weights {list(entry)}: write two modalities and a number, [image, text, 2.0]")
        ((a, b),) = as_pairs([names]) or ()
        if frozenset((a, b)) in found:
            raise ValueError(f"weights name the pair [{a}, {b}] twice")
        found[frozenset((a, b))] = float(weight)
    return found
