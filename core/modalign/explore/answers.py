"""What the page asks and is told: the space, results, previews."""

from __future__ import annotations

import base64
import binascii
import math
import re
import threading
from typing import Any

import torch
from torch import Tensor

from modalign.combine import check_combine
from modalign.contracts.modality import PREVIEWS
from modalign.errors import UserError
from modalign.search import Index, Item, hits
from modalign.search.items import cell_of
from modalign.search.query import joined
from modalign.space import Space

MOST = 100
"""Items per modality in one answer."""


class Explorer:
    """Answers with a space and an index; from several threads at once.

    A query comes from a web page: it holds texts, the bytes of files, and numbers of items, but never
    the name of a file to open.
    """

    def __init__(self, space: Space, index: Index) -> None:
        self.space, self.index = space, index
        self._tables: dict[tuple[str, str], Any] = {}
        self._lock = threading.Lock()

    def about(self) -> dict[str, Any]:
        """The space's name and its modalities: whether their items are literals, how many are indexed."""
        modalities = [
            {
                "name": name,
                "literal": self.space.reader(name).literal,
                "items": len(self.index.numbers.get(name, ())),
            }
            for name in self.space.modalities
        ]
        return {"name": str(self.space.plan.get("name", "")), "modalities": modalities}

    def search(self, asked: Any) -> dict[str, Any]:
        """Results by modality of ``{"terms": [...], "k": 12, "combine": "sum", "to": [...]}``.

        A term is ``{"modality", "value"}`` for a literal, ``{"modality", "data"}`` for a file's content
        (base64) or ``{"item": number}``, each with a ``"weight"``, by default 1.

        Raises:
            UserError: if that is not what was asked.
        """
        terms, k = _get(asked, "terms", list), _get(asked, "k", int, 12)
        to = [name for name in _get(asked, "to", list, []) if self.space.entry(str(name))]
        how = check_combine(_get(asked, "combine", str, "sum"))
        if not 1 <= k <= MOST:
            raise UserError(f"k is {k}: use 1 to {MOST}")
        with self._lock:
            vectors = [self._vector(term) for term in terms]
            query = joined(vectors, [_weight(term) for term in terms], how)
            found = hits(self.index, query, k, to)
        return {
            "results": {
                name: [
                    {"number": hit.number, "score": round(hit.score, 4), "place": str(hit.item.place)}
                    for hit in best
                ]
                for name, best in found.items()
            }
        }

    def preview(self, number: int) -> tuple[str, bytes] | None:
        """An item's MIME type and content, made anew by its modality; None if it has none to show.

        Raises:
            UserError: if there is no such item, or it has changed or gone since it was indexed.
        """
        item = self._item(number)
        reader = self.space.reader(item.modality)
        with self._lock:
            value = cell_of(self.space, item, self._tables).value
        shown = reader.preview(self.space.read(item.modality, value))
        return shown if shown and re.fullmatch(PREVIEWS, shown[0]) else None

    def _item(self, number: int) -> Item:
        if not 0 <= number < len(self.index.items):
            raise UserError(f"there is no item {number}")
        return self.index.items[number]

    def _vector(self, term: Any) -> Tensor:
        if isinstance(term, dict) and "item" in term:
            item = self._item(number := _get(term, "item", int))
            row = self.index.numbers[item.modality].index(number)
            return torch.tensor(self.index.vectors[item.modality][row])  # (D,)
        name = _get(term, "modality", str)
        if self.space.entry(name) and self.space.reader(name).literal:
            return self.space.embed(name, [_get(term, "value", str)])[0]  # (D,)
        try:
            content = base64.b64decode(_get(term, "data", str), validate=True)
        except binascii.Error:
            raise UserError("data is not base64") from None
        return self.space.embed(name, [content])[0]  # (D,)


def _get(asked: Any, key: str, kind: type, default: Any = None) -> Any:
    value = asked.get(key, default) if isinstance(asked, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise UserError(f"{key} is missing, or not of the type {kind.__name__}")
    return value


def _weight(term: Any) -> float:
    weight = term.get("weight", 1)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
        raise UserError("weight is not a number")
    return float(weight)
