"""Several modalities as one query: the product or the sum of their vectors."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor

from .errors import UserError, suggest

COMBINE = ("product", "sum")


def check_combine(how: str) -> str:
    """``how``, if it is a way to combine vectors.

    Raises:
        UserError: if not.
    """
    if how not in COMBINE:
        raise UserError(f"combine {how!r}: use one of {', '.join(COMBINE)}{suggest(how, COMBINE)}")
    return how


def combined(vectors: Iterable[Tensor], how: str = "product") -> Tensor:
    """Aligned vectors ``(N, D)`` of several modalities as one ``(N, D)``.

    Its dot product with a candidate is, for "product", their multilinear inner product, which
    Symile trains; for "sum" the sum of the pairs' dot products, which InfoNCE trains. One
    modality stays as it is.

    Raises:
        UserError: for another ``how``.
    """
    check_combine(how)
    first, *others = vectors
    for other in others:
        first = first * other if how == "product" else first + other  # (N, D)
    return first
