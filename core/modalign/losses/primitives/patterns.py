"""Which modalities a loss compares, and rows grouped by which of them they have."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from modalign.contracts import Embeddings


def names_of(z: Embeddings, own: tuple[str, ...] | None) -> tuple[str, ...]:
    """The loss's own modalities, else all of the batch's.

    Raises:
        ValueError: if the batch lacks one, or there are fewer than two.
    """
    names = own or z.modalities
    unknown = [m for m in names if m not in z.vectors]
    if unknown or len(names) < 2:
        wrong = f"no modality {unknown[0]!r}" if unknown else "fewer than two modalities"
        raise ValueError(f"{wrong} in the batch, which holds {', '.join(z.modalities)}")
    return names


def patterns(z: Embeddings, modalities: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Tensor]]:
    """Each set of present modalities that occurs, with the ``(R,)`` rows that have exactly it.

    The fullest come first; rows with none of the modalities are left out.
    """
    present = torch.stack([z.present[m] for m in modalities], 1)  # (N, M)
    found, which = present.unique(dim=0, return_inverse=True)  # (P, M), (N,)
    for i in sorted(range(len(found)), key=lambda i: -int(found[i].sum())):
        names = tuple(m for m, has in zip(modalities, found[i].tolist(), strict=True) if has)
        if names:
            yield names, (which == i).nonzero().squeeze(1)


def rows_with(z: Embeddings, modalities: tuple[str, ...]) -> Tensor:
    """``(R,)`` rows that have all the modalities, and maybe others."""
    return torch.stack([z.present[m] for m in modalities]).all(0).nonzero().squeeze(1)


def places(rows: Tensor, among: Tensor) -> Tensor:
    """Where each of ``rows (R,)`` stands in the sorted ``among (K,)`` that holds it."""
    return torch.searchsorted(among, rows)
