"""TRIANGLE: the three vectors of a row should span a small triangle."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor

from modalign.contracts import Embeddings, Loss

from .primitives.anchored import Cost, check_options, contrast
from .primitives.patterns import names_of


class Triangle(Loss):
    """Cross entropy of ``-s·A`` with ``A = ½ (‖u‖²‖v‖² - ⟨u,v⟩²)``, ``u = a - b``, ``v = a - c``.

    ``A`` is twice the squared area of the triangle between the tips of a row's three vectors
    (repository ispamm/TRIANGLE); both directions, streamed.

    Blind spot: ``A = 0`` as soon as two of the three coincide, wherever the third is. Unlike the
    volume of ``gram`` it sees signs. Prefer it for three modalities that say the same thing.

    Where a row has only two of the three, the squared side ``‖a - b‖²`` takes the place of ``A``
    (not part of the method); one alone is not compared.

    Inputs:
        temperature: fixed ``1 / s``; None takes the batch's ``scale``, which the space may learn.
        label_smoothing: share of the target spread over all candidates.
        modalities: which to compare, the anchor first; None = all of the batch's.

    Raises:
        ValueError: for a value out of range, a modality the batch lacks, or more than three.
    """

    def __init__(
        self,
        temperature: float | None = None,
        label_smoothing: float = 0.1,
        modalities: Iterable[str] | None = None,
    ) -> None:
        super().__init__()
        self.modalities = tuple(modalities) if modalities is not None else None
        check_options(temperature, label_smoothing, self.modalities)
        self.temperature, self.label_smoothing = temperature, label_smoothing

    def forward(self, z: Embeddings) -> Tensor:
        names = names_of(z, self.modalities)
        if len(names) > 3:
            raise ValueError(f"triangle compares three modalities, not {', '.join(names)}: name `modalities`")
        return contrast(z, names, self.temperature, self.label_smoothing, lambda m: AREA if m == 3 else SIDE)


def _squares(others: Sequence[Tensor]) -> list[Tensor]:
    """``‖b‖²``, and for two others also ``‖c‖²`` and ``⟨b,c⟩``, each ``(K,)``."""
    squares = [b.square().sum(1) for b in others]
    return [*squares, (others[0] * others[1]).sum(1)] if len(others) == 2 else squares


def _area(products: Sequence[Tensor], square: Tensor, alone: Sequence[Tensor]) -> Tensor:
    (ab, ac), (bb, cc, bc) = products, alone
    uu, vv, uv = square + bb - 2 * ab, square + cc - 2 * ac, square - ab - ac + bc  # (n, K) each
    return (uu * vv - uv.square()) / 2


def _side(products: Sequence[Tensor], square: Tensor, alone: Sequence[Tensor]) -> Tensor:
    return square + alone[0] - 2 * products[0]  # (n, K)


AREA, SIDE = Cost(_squares, _area), Cost(_squares, _side)
