"""Asks an index: by any modality, by several at once, by sums and differences."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from modalign.combine import check_combine, combined
from modalign.errors import UserError
from modalign.space import Space

from .index import Index
from .items import Item

SYNTAX = "MODALITY=VALUE or MODALITY:WEIGHT=VALUE"


@dataclass(frozen=True)
class Term:
    """One part of a query.

    Inputs:
        modality: of the space.
        value: as a table would hold it: a path, bytes or a literal.
        weight: what its vector is multiplied by; below 0 takes it away.
    """

    modality: str
    value: Any
    weight: float = 1.0


@dataclass(frozen=True)
class Hit:
    """One item found: its inner product with the query, its number in the index, itself."""

    score: float
    number: int
    item: Item


def parse(text: str, sign: float = 1.0) -> Term:
    """A term from ``MODALITY=VALUE`` or ``MODALITY:WEIGHT=VALUE``.

    Inputs:
        sign: -1 for what is taken away.

    Raises:
        UserError: if it is neither, or the weight is no positive number.
    """
    found = re.fullmatch(r"([^:=]+)(?::([^=]*))?=(.*)", text, re.DOTALL)
    if not found:
        raise UserError(f"cannot read the query {text!r}: write {SYNTAX}")
    name, written, value = found.groups()
    try:
        weight = 1.0 if written is None else float(written)
    except ValueError:
        weight = math.nan
    if not 0 < weight < math.inf:
        raise UserError(
            f"{written!r} is no weight: use a positive number, as in {name}:0.5={value[:20]}; "
            "--minus takes away"
        )
    return Term(name, value, sign * weight)


def vector(space: Space, terms: Sequence[Term], combine: str | None = None) -> Tensor:
    """One query vector ``(D,)`` of all terms.

    Inputs:
        combine: "sum" adds the weighted vectors; "product" multiplies them, for spaces trained so
            (Symile). Default: the sum.

    Raises:
        UserError: if there is no term, one cannot be read, a product has weights, or a sum cancels out.
    """
    how = check_combine(combine or "sum")
    for term in terms:
        space.entry(term.modality)
    check_weights([term.weight for term in terms], how)
    vectors = [space.embed(term.modality, [term.value])[0] for term in terms]  # (D,) each
    return joined(vectors, [term.weight for term in terms], how)


def check_weights(weights: Sequence[float], how: str) -> None:
    """That there is something to ask, and no product of weighted vectors.

    Raises:
        UserError: if not.
    """
    if not weights:
        raise UserError(f"ask for something: {SYNTAX}")
    if how == "product" and any(weight != 1 for weight in weights):
        raise UserError("a product has no weights and no differences: combine by sum, or leave them out")


def joined(vectors: Sequence[Tensor], weights: Sequence[float], how: str = "sum") -> Tensor:
    """Vectors ``(D,)`` and their weights as one ``(D,)``.

    Raises:
        UserError: as ``vector``.
    """
    check_weights(weights, how)
    found = combined([weight * v[None] for weight, v in zip(weights, vectors, strict=True)], how)[0]  # (D,)
    if how == "sum" and float(found.norm()) < 1e-4 * sum(map(abs, weights)):
        raise UserError("the parts of the query cancel out: nothing is left to look for")
    return found


def hits(index: Index, query: Tensor, k: int = 10, to: Collection[str] = ()) -> dict[str, list[Hit]]:
    """The best ``k`` items of each modality, best first: their scores compare only within one.

    Inputs:
        query: ``(D,)``.
        to: only these modalities; by default all that the index has.
    """
    asked = query.detach().to("cpu", torch.float32).numpy()[None]  # (1, D)
    return {
        name: [
            Hit(score, number := index.numbers[name][row], index.items[number])
            for score, row in (index.nearest(name).search(asked, k)[0] if name in index.modalities else [])
        ]
        for name in to or index.modalities
    }
