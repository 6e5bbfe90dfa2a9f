"""From table cells to what an encoder or the space takes: items, batches, features."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from modalign.contracts import BadSample
from modalign.plugin import loader
from modalign.space import Space, inference

from .content import Loaded, id_of, stack
from .data import Cell, Dataset
from .feature_cache import FeatureCache
from .feature_rows import FeatureRows
from .mapped_cell import lasting
from .quarantine import Quarantine
from .seeds import choose, seed_of

CHUNK = 32
"""Samples encoded together. Fixed, so that a sample's features never depend on an interruption."""
MEMO_BYTES = 512 * 2**20
"""Decoded items kept in memory, per modality."""


class Reader:
    """Reads one modality of one dataset, for training and for tasks.

    Inputs:
        cached: whether its encoder is frozen and its features may be kept on disk.
        views: augmented variants kept of every sample; 0 = the sample as it is.
        augment: augment every batch anew (never cached).
    """

    def __init__(
        self,
        space: Space,
        name: str,
        dataset: Dataset,
        quarantine: Quarantine,
        *,
        seed: int,
        cached: bool = False,
        views: int = 0,
        augment: bool = False,
    ) -> None:
        self.space, self.name, self.dataset, self.quarantine = space, name, dataset, quarantine
        self.seed, self.views, self.augment = seed, views, augment
        self.modality = space.reader(name)
        self.cache = FeatureCache(*self._cache_name()) if cached else None
        self.encoded = 0
        self.wanted, self.missed = 0, 0
        self._bad: dict[bytes, str] = {}
        self._items: dict[bytes, Any] = {}
        self._room = 0 if dataset.streamed else MEMO_BYTES
        self._rows: FeatureRows | None = None
        self._cells: Counter[Path] = Counter()  # a table may be there twice
        for table in dataset.tables:
            filled = table.filled(name)
            for path, rows in table.places():
                self._cells[path] += int(filled[rows.start : rows.stop].sum())

    def _cache_name(self) -> tuple[str, dict[str, Any]]:
        entry, encoder = self.space.entry(self.name), self.space.encoder(self.name)
        versions = {p.distribution: p.version for p in loader.plugins()}
        about = {
            "encoder": entry.encoder.value()
            if isinstance(entry.encoder.value(), str)
            else entry.encoder.name,
            "modality": entry.modality.name,
            "arguments": [entry.encoder.value(), entry.modality.value()],
            "versions": [
                versions.get(spec.name.partition(":")[0]) for spec in (entry.encoder, entry.modality)
            ],
            "fingerprint": encoder.fingerprint() + self.modality.fingerprint(),
            "views": [self.views, self.seed] if self.views else None,
        }
        if (products := torch.get_float32_matmul_precision()) != "highest":  # features in TF32 are others
            about["products"] = products
        text = json.dumps(about, sort_keys=True, default=str).encode()
        return hashlib.blake2b(text, digest_size=12).hexdigest(), about

    # Reading -------------------------------------------------------------------------------

    def read(self, cell: Cell, row: int) -> Any:
        """The item in a cell; None if it cannot be read, which the quarantine then notes."""
        key = cell.key
        if key in self._items:
            return self._items[key]
        if key in self._bad:
            self._note(row, self._bad[key])
            return None
        try:
            item = self.modality.read(cell.value)
        except BadSample as bad:
            self._bad[key] = str(bad)
            self._note(row, str(bad))
            return None
        self._memo(key, item)
        return item

    def keep_nothing(self) -> None:
        """Forget every decoded item, and keep none from now on."""
        self._items, self._room = {}, 0

    def cells(self, row: int) -> list[Cell]:
        """The alternatives in a row that are not known to be unreadable; those that are get noted."""
        cells = self.dataset.cells(self.name, row)
        for cell in cells if self._bad else ():
            if cell.key in self._bad:
                self._note(row, self._bad[cell.key])
        return [cell for cell in cells if cell.key not in self._bad]

    def _note(self, row: int, reason: str) -> None:
        path, local = self.dataset.place(row)
        self.quarantine.add(str(path), local, self.name, reason, self._cells[path], self.dataset.max_bad)

    def held(self) -> int:
        """Bytes of the decoded items in memory."""
        return sum(map(_size, self._items.values()))

    def _memo(self, key: bytes, item: Any) -> None:
        size = _size(item)
        if size <= self._room:
            self._room -= size
            self._items[key] = item

    # Frozen encoders: everything at once -----------------------------------------------------

    def distinct(self, rows: Iterable[int]) -> list[tuple[Cell, int]]:
        """Every distinct cell of some rows with the first row that holds it, like sizes together."""
        seen: dict[bytes, tuple[Cell, int]] = {}
        for row in rows:
            for i, cell in enumerate(self.dataset.cells(self.name, row)):
                if cell.key not in seen:
                    seen[cell.key] = lasting(cell, i, self.dataset, self.name, row), row
        return sorted(seen.values(), key=lambda pair: (pair[0].size, pair[0].key))

    def _key(self, cell: Cell, view: int) -> bytes:
        return (
            cell.key if not self.views else hashlib.blake2b(cell.key + bytes([view]), digest_size=16).digest()
        )

    def features(self, cells: Sequence[tuple[Cell, int]], view: int = 0) -> list[np.ndarray | None]:
        """Features ``(T, W)`` of each cell, from the cache or the encoder; None if unreadable."""
        rows: list[np.ndarray | None] = [None] * len(cells)
        if self.cache is not None:
            rows = [self.cache.get(self._key(cell, view)) for cell, _ in cells]
        read = [
            (i, item)
            for i, (cell, row) in enumerate(cells)
            if rows[i] is None and (item := self.read(cell, row)) is not None
        ]
        if not read:
            return rows
        batch = self.modality.collate([item for _, item in read])
        if self.views:
            batch = self.modality.augment(batch, self._generator("view", view, cells[0][0].key.hex()))
        encoder = self.space.encoder(self.name)
        device = self.space.logit_scale.device
        with inference(encoder):
            out = encoder({k: v.to(device) for k, v in batch.items()})
        self.encoded += len(read)
        for (i, _), tokens, mask in zip(read, out.tokens.float().cpu(), out.mask.cpu(), strict=True):
            rows[i] = tokens[mask].numpy()
        if self.cache is not None:
            self.cache.put({self._key(cells[i][0], view): torch.from_numpy(rows[i]) for i, _ in read})
        return rows

    def prepare(self, rows: Iterable[int], rank: int = 0, world: int = 1) -> Iterator[int]:
        """Encode what the cache lacks, chunk by chunk; yields the number of samples done."""
        if self.cache is None:
            return
        cells = self.distinct(rows)
        self.wanted = len(cells) * max(1, self.views)
        before = self.encoded
        starts = range(rank * CHUNK, len(cells), world * CHUNK)
        for view in range(max(1, self.views)):
            for start in starts:
                self.features(cells[start : start + CHUNK], view)
                self.missed = self.encoded - before
                yield min(start + CHUNK, len(cells))
        self.missed = self.encoded - before

    def cache_use(self) -> dict[str, float]:
        """How many samples a stage wanted, how many of them the encoder had to see, the cache's size."""
        if self.cache is None:
            return {}
        hits = self.wanted - self.missed
        return {
            "samples": self.wanted,
            "encoded": self.missed,
            "hit_rate": round(hits / self.wanted, 4) if self.wanted else 0.0,
            "bytes": self.cache.size(),
        }

    def index(self, rows: Iterable[int]) -> None:
        """Find once where the cached features of these rows lie, so that batches are loaded at once."""
        if self.cache is None or self.views:
            return
        keys: dict[int, bytes | None] = {}
        ids: dict[int, int] = {}
        for row in rows:
            cells = self.dataset.cells(self.name, row)
            if not cells:
                keys[row] = None
            elif len(cells) == 1:
                key = cells[0].key
                keys[row], ids[row] = key, id_of(key)
                if key in self._bad:
                    keys[row] = None
                    self._note(row, self._bad[key])
        self._rows = FeatureRows(self.cache, keys, ids, len(self.dataset))

    # Batches -------------------------------------------------------------------------------

    def load(self, rows: Sequence[int] | np.ndarray, epoch: int) -> Loaded:
        """One batch of rows: for each, one readable alternative, drawn anew each epoch."""
        quick = self._rows.take(rows) if self._rows is not None else None
        if quick is not None:
            return Loaded(*quick)
        ids, has, parts = [0] * len(rows), [False] * len(rows), []
        for i, row in enumerate(map(int, rows)):
            for cell in self.alternatives(row, epoch):
                part = self._part(cell, row, epoch)
                if part is not None:
                    parts.append(part)
                    ids[i], has[i] = id_of(cell.key), True
                    break
        present, numbers = torch.tensor(has, dtype=torch.bool), torch.tensor(ids, dtype=torch.long)
        return self._batch(parts, rows, epoch, present, numbers)

    def alternatives(self, row: int, epoch: int) -> list[Cell]:
        """The alternatives in a row, the one that is drawn for the epoch first."""
        cells = self.dataset.cells(self.name, row)
        if len(cells) > 1:
            first = choose(len(cells), self.seed, "alternative", self.name, row, epoch)
            cells = [*cells[first:], *cells[:first]]
        return cells

    def _batch(
        self, parts: list[Any], rows: Sequence[int] | np.ndarray, epoch: int, present: Tensor, ids: Tensor
    ) -> Loaded:
        if not parts:
            return Loaded(None, present, ids)
        if self.cache is not None:
            return Loaded(stack(parts), present, ids)
        batch = self.modality.collate(parts)
        if self.augment:
            batch = self.modality.augment(batch, self._generator("augment", epoch, int(rows[0])))
        return Loaded(batch, present, ids)

    def _part(self, cell: Cell, row: int, epoch: int) -> Any:
        if self.cache is None:
            return self.read(cell, row)
        view = choose(self.views, self.seed, "view", self.name, row, epoch) if self.views else 0
        cached = self.cache.get(self._key(cell, view))
        return cached if cached is not None else self.features([(cell, row)], view)[0]

    def _generator(self, *what: object) -> torch.Generator:
        return torch.Generator().manual_seed(seed_of(self.seed, self.name, *what))


def _size(item: Any) -> int:
    """Bytes of a decoded item, about."""
    if isinstance(item, Tensor | np.ndarray):
        return int(item.nbytes)
    return len(item) if hasattr(item, "__len__") else 64
