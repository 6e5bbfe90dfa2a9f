"""Takes what lies at some paths into an index; embeds only what is new."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch

from modalign.contracts import BadSample
from modalign.space import Space, inference

from .index import Index
from .items import Candidate, Found, Item

CHUNK = 32
"""Items encoded together."""


@dataclass
class Added:
    """What adding did: how many items are new, were met again, are gone; what could not be read."""

    new: int = 0
    known: int = 0
    gone: int = 0
    unreadable: list[tuple[str, str]] = field(default_factory=list)


def add(
    space: Space, index: Index, found: Found, kind: str | None = None, step: Callable[[int], Any] = int
) -> tuple[Index, Added]:
    """A new index with what was found; one item for equal contents of one modality.

    Items of these paths whose content is not there any more are left out.

    Inputs:
        kind: of index, as for ``Index.changed``.
        step: called with 1 after each value.
    """
    done = Added()
    at = {(c.place, name): c.cell.key for c in found.candidates for name in c.modalities}
    there = {(name, c.cell.key): c.place for c in found.candidates for name in c.modalities}
    kept: list[int] = []
    items: list[Item] = []
    for number, item in enumerate(index.items):
        if found.covers(item):
            if (item.modality, item.key) not in there:
                done.gone += 1
                continue
            if at.get((item.place, item.modality)) != item.key:
                item = replace(item, place=there[item.modality, item.key])
        kept.append(number)
        items.append(item)
    vectors = {name: [_kept(index, name, kept)] for name in index.modalities}
    known = {(item.modality, item.key) for item in items}
    before, again = set(known), set()
    pending: dict[str, list[tuple[Item, Any]]] = {}
    for candidate in found.candidates:
        step(1)
        keys = {(name, candidate.cell.key) for name in candidate.modalities}
        if keys & known:
            again |= keys & before
            continue
        name, value, reason = _read(space, candidate)
        if name is None:
            done.unreadable.append((str(candidate.place), reason))
            continue
        text = candidate.cell.value if isinstance(candidate.cell.value, str) else None
        known.add((name, candidate.cell.key))
        queue = pending.setdefault(name, [])
        queue.append((Item(name, candidate.cell.key, candidate.place, text), value))
        if len(queue) == CHUNK:
            _embed(space, name, queue, items, vectors)
    for name, queue in pending.items():
        if queue:
            _embed(space, name, queue, items, vectors)
    done.known = len(again)
    done.new = len(items) - len(kept)
    joined = {name: np.concatenate(parts) for name, parts in vectors.items() if sum(map(len, parts))}
    return index.changed(items, joined, kind), done


def _kept(index: Index, name: str, kept: list[int]) -> np.ndarray:
    rows = {number: row for row, number in enumerate(index.numbers[name])}
    chosen = [rows[number] for number in kept if number in rows]
    if len(chosen) == len(rows):
        return index.vectors[name]
    return np.asarray(index.vectors[name][chosen])  # (n, D)


def _read(space: Space, candidate: Candidate) -> tuple[str | None, Any, str]:
    """The first modality that reads it and the item, or None and why none does."""
    reasons = []
    for name in candidate.modalities:
        try:
            return name, space.reader(name).read(candidate.cell.value), ""
        except BadSample as bad:
            reasons.append(" ".join(str(bad).split()))
    if len(set(reasons)) > 1:
        reasons = [f"{name}: {why}" for name, why in zip(candidate.modalities, reasons, strict=True)]
        return None, None, f"no modality reads it ({'; '.join(reasons)})"
    return None, None, reasons[0]


def _embed(
    space: Space,
    name: str,
    queue: list[tuple[Item, Any]],
    items: list[Item],
    vectors: dict[str, list[np.ndarray]],
) -> None:
    reader, encoder = space.reader(name), space.encoder(name)
    with inference(space):
        batch = {k: t.to(space.logit_scale.device) for k, t in reader.collate([v for _, v in queue]).items()}
        out: torch.Tensor = space.project(name, encoder(batch)).vectors  # (n, D)
    vectors.setdefault(name, []).append(out.float().cpu().numpy())
    items.extend(item for item, _ in queue)
    queue.clear()
