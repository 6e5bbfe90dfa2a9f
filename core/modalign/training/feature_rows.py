"""Cached features by row number: a batch of them is one copy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from modalign.contracts import Features

from .feature_cache import FeatureCache

UNKNOWN, MISSING = -1, -2


class FeatureRows:
    """Where the features of rows lie that hold one sample each, all of ``T`` tokens.

    Inputs:
        cache: the features.
        keys: by row, the key of its only sample; None where the row holds none. Rows that are not
            named, or whose features are not in the cache, are unknown here.
        ids: by row, what tells equal content.
        rows: the number of rows of the dataset.
    """

    def __init__(
        self, cache: FeatureCache, keys: dict[int, bytes | None], ids: dict[int, int], rows: int
    ) -> None:
        self.place = np.full(rows, UNKNOWN, dtype=np.int64)
        self.shard = np.zeros(rows, dtype=np.int64)
        self.ids = np.zeros(rows, dtype=np.int64)
        self.shards: list[np.ndarray] = []
        """Per shard every entry, ``(entries, T, W)``."""
        numbers: dict[object, int] = {}
        shape: tuple[int, int] | None = None
        for row, key in keys.items():
            if key is None:
                self.place[row] = MISSING
                continue
            found = cache.where(key)
            if found is None:
                continue
            path, offset, t, w = found
            shape = shape or (t, w)
            if (t, w) != shape or offset % (4 * t * w):  # of another length
                continue
            if path not in numbers:
                whole = cache.mapped(path)
                numbers[path] = len(self.shards)
                entries = whole[: len(whole) - len(whole) % (4 * t * w)]
                self.shards.append(entries.view(np.float32).reshape(-1, t, w))
            self.place[row] = offset // (4 * t * w)
            self.shard[row], self.ids[row] = numbers[path], ids[row]

    def take(self, rows: Sequence[int] | np.ndarray) -> tuple[Features | None, Tensor, Tensor] | None:
        """Features of the rows that have any, which these are, and the ids; None if a row is unknown."""
        numbers = np.asarray(rows, dtype=np.int64)
        place = self.place[numbers]  # (N,)
        if (place == UNKNOWN).any():
            return None
        present = place != MISSING  # (N,)
        ids = torch.from_numpy(self.ids[numbers])
        if not present.any():
            return None, torch.from_numpy(present), ids
        place, shard = place[present], self.shard[numbers[present]]
        first = self.shards[shard[0]]
        if (shard == shard[0]).all():
            tokens = first[place]  # (n, T, W)
        else:
            tokens = np.empty((len(place), *first.shape[1:]), np.float32)
            for number in np.unique(shard):
                of = shard == number
                tokens[of] = self.shards[number][place[of]]
        mask = torch.ones(tokens.shape[:2], dtype=torch.bool)
        return Features(torch.from_numpy(tokens), mask), torch.from_numpy(present), ids
