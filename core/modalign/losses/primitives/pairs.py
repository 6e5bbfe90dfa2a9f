"""Which pairings a loss compares, and the rows both sides have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import combinations

import torch
from torch import Tensor

from modalign.contracts import Embeddings
from modalign.errors import suggest

Pairs = tuple[tuple[str, str], ...]


def as_pairs(pairs: Iterable[Iterable[str]] | None) -> Pairs | None:
    """Pairs as a plan writes them, lists of two names, checked.

    Raises:
        ValueError: if a pair is not two different names.
    """
    if pairs is None:
        return None
    found = []
    for pair in pairs:
        names = [pair] if isinstance(pair, str) else list(pair)
        if len(names) != 2 or names[0] == names[1]:
            raise ValueError(f"pair {names}: write two different modalities, such as [image, text]")
        found.append((names[0], names[1]))
    return tuple(found)


def pairs_of(z: Embeddings, own: Pairs | None = None) -> Pairs:
    """The loss's own pairs, else the batch's, else all of them.

    Raises:
        ValueError: if a pair names a modality the batch does not hold.
    """
    pairs = own if own is not None else z.pairs
    if pairs is None:
        return tuple(combinations(z.modalities, 2))
    for name in (name for pair in pairs for name in pair):
        if name not in z.vectors:
            raise ValueError(
                f"no modality {name!r} in the batch, which holds {', '.join(z.modalities)}"
                + suggest(name, z.modalities)
            )
    return pairs


def common_rows(z: Embeddings, pairs: Pairs) -> Iterator[tuple[str, str, Tensor]]:
    """Each pair with the ``(R,)`` indices of rows where both are present; pairs with none are skipped."""
    for a, b in pairs:
        rows = (z.present[a] & z.present[b]).nonzero().squeeze(1)  # (R,)
        if len(rows):
            yield a, b, rows


def connected_zero(z: Embeddings) -> Tensor:
    """Zero in float32 that depends on every vector and the scale without reading a row."""
    nothing = torch.stack([v[:0].sum() for v in z.vectors.values()]).sum()  # ()
    return widen(nothing) * z.scale


def widen(x: Tensor) -> Tensor:
    """``x`` in float32, or as it is if already wider."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
