"""Momentum contrast: slowly moving keys, and a queue of earlier ones to choose among."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from modalign.contracts import Embeddings, Loss

from .primitives.hardest import hardest_log_sum_exp
from .primitives.pairs import as_pairs, pairs_of, widen
from .primitives.pairwise import Pair, check_options, over_pairs, scale_of, take
from .primitives.queue import Queue, shared
from .primitives.scores import Keys
from .primitives.streaming import log_sum_exp

DUPLICATES = ("mask", "negative")


class Momentum(Loss):
    """MoCo across modalities: ``λ_q ℓ(x, k^Y, Q_Y) + λ_k ℓ(y, k^X, Q_X)``, dual view, hard negatives.

    ``ℓ(q, k, Q) = -log(e^{s q·k} / (e^{s q·k} + Σ_{u∈Q} e^{s q·u}))``, the mean over rows. ``k`` are
    keys: embeddings by a slow copy of what is trained, ``θ_k ← m·θ_k + (1-m)·θ_q``; ``Q`` holds the
    last keys of one modality. Neither has a gradient. He et al., arXiv 1911.05722; Chen et al., arXiv
    2003.04297; both views and the filter, arXiv 2501.16360. Prefer it where memory allows only small
    batches: candidates are many although few rows are embedded at once.

    Keys are the batch's ``extra["momentum"]``, ``{modality: (N, D)}`` unit rows; the trainer makes
    them. A modality without keys has its own vectors, detached, as keys, as if ``m`` were 0. In
    training mode keys enter the queue after the loss is computed: those of present rows, in order.

    Inputs:
        queue: how many keys each modality's queue holds, a multiple of the batch or not. Published:
            65,536 (from memory).
        momentum: ``m``, for whoever makes the keys; 0.999 (from memory) as published.
        temperature: fixed ``1 / s``, 0.2 (from memory) as published; None takes the batch's ``scale``.
        query_weight, key_weight: ``λ_q``, where the first of a pair looks for the second, and ``λ_k``,
            the other way round. ½ each is not verified against the paper; 1 and 0 are MoCo.
        hardest: the share ``r`` of the queue, nearest to the query by cosine, that counts; not verified.
        in_batch: whether the batch's other keys are candidates too. False is MoCo as published: then
            a loss with an empty queue is zero.
        pairs: pairings; None takes the batch's, else all of them.
        reduction: "mean" or "sum" over pairs.
        duplicates: candidates that ``ids`` say hold the same content as the query's row, in either
            modality: "mask" leaves them out, "negative" keeps them, as published. A queue as long as
            the data holds every row's own older keys, so give ids.
        tile: rows of the score matrix computed at a time; None chooses. Changes speed, not value.

    Raises:
        ValueError: for an unknown option, or a pair that the batch does not hold.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"momentum"})

    def __init__(
        self,
        queue: int = 8192,
        momentum: float = 0.999,
        temperature: float | None = 0.2,
        query_weight: float = 0.5,
        key_weight: float = 0.5,
        hardest: float = 1.0,
        in_batch: bool = True,
        pairs: Iterable[Iterable[str]] | None = None,
        reduction: str = "mean",
        duplicates: str = "mask",
        tile: int | None = None,
    ) -> None:
        super().__init__()
        check_options(temperature, reduction, duplicates, DUPLICATES)
        if queue < 1:
            raise ValueError(f"queue {queue}: must hold 1 or more keys")
        if not 0 <= momentum <= 1:
            raise ValueError(f"momentum {momentum}: must be in [0, 1]")
        if not 0 < hardest <= 1:
            raise ValueError(f"hardest {hardest}: must be in (0, 1], a share of the queue")
        for name, weight in (("query_weight", query_weight), ("key_weight", key_weight)):
            if not 0 <= weight < math.inf:
                raise ValueError(f"{name} {weight}: must be 0 or more")
        if not query_weight + key_weight:
            raise ValueError("query_weight and key_weight are both 0: nothing would be trained")
        self.size = queue
        self.momentum = momentum
        self.temperature = temperature
        self.query_weight, self.key_weight = query_weight, key_weight
        self.hardest = hardest
        self.in_batch = in_batch
        self.pairs = as_pairs(pairs)
        self.reduction = reduction
        self.duplicates = duplicates
        self.tile = tile
        self.queues = nn.ModuleDict()

    def forward(self, z: Embeddings) -> Tensor:
        scale = scale_of(z, self.temperature)
        given = z.extra.get("momentum", {})
        keys = {m: widen(given.get(m, v).detach()) for m, v in z.vectors.items()}  # (N, D) each
        named = dict.fromkeys(m for pair in pairs_of(z, self.pairs) for m in pair)
        for m in named:
            self.queue_of(m).to(keys[m].device)
        use_ids = self.duplicates == "mask"
        loss = over_pairs(z, self.pairs, self.reduction, lambda p: self.compare(z, p, keys, scale), use_ids)
        if self.training:
            for m in named:
                self.enqueue(z, m, keys[m])
        return loss

    def compare(self, z: Embeddings, pair: Pair, keys: dict[str, Tensor], scale: Tensor | float) -> Tensor:
        """One pair -> ``()``."""
        loss = widen(pair.x.new_zeros(()))  # ()
        sides = ((pair.x, pair.b, self.query_weight), (pair.y, pair.a, self.key_weight))
        for query, other, weight in sides:
            if weight:
                each = self.one_way(z, pair, query, other, take(keys[other], pair.rows), scale)  # (R,)
                loss = loss + weight * each.mean()
        return loss

    def one_way(
        self, z: Embeddings, pair: Pair, query: Tensor, other: str, key: Tensor, scale: Tensor | float
    ) -> Tensor:
        """``-log p(key)`` of each query, ``(R,)``.

        Inputs:
            query, key: ``(R, D)``; the key of a query is of modality ``other``.
        """
        queue = self.queue_of(other)
        with torch.autocast(query.device.type, enabled=False):
            positive = scale * (query * key).sum(1)  # (R,)
            each = 0 * positive  # (R,)
            if self.in_batch:
                same = tuple((code, code) for code in pair.codes)
                wrong, _, _ = log_sum_exp(query, key, scale, keys=same, columns=False, tile=self.tile)  # (R,)
                each = softplus(wrong - positive)
            if len(queue):
                same = self.same_content(z, pair, queue)
                stored = queue["vectors"]  # (Q, D)
                if self.hardest < 1:
                    count = math.ceil(self.hardest * len(queue) - 1e-9)
                    wrong = hardest_log_sum_exp(query, stored, scale, count, same)  # (R,)
                else:
                    wrong, _, _ = log_sum_exp(
                        query, stored, scale, partner=None, keys=same, columns=False, tile=self.tile
                    )  # (R,)
                # log(1 + e^u + e^v) in two steps, accurate near zero.
                each = each + softplus(wrong - positive - each)
        return each

    def same_content(self, z: Embeddings, pair: Pair, queue: Queue) -> Keys:
        """Where the queue holds what a row holds, in either modality: per modality two codes."""
        if self.duplicates != "mask":
            return ()
        names = [m for m in (pair.a, pair.b) if m in z.ids and f"ids_{m}" in queue]
        found = (
            shared(z.ids[m][pair.rows], queue[f"ids_{m}"], queue[f"known_{m}"]) for m in names
        )  # (R,), (Q,) each
        return tuple(codes for codes in found if codes is not None)

    def enqueue(self, z: Embeddings, m: str, keys: Tensor) -> None:
        """Keep the keys ``(N, D)`` of present rows, with what their rows hold; none that is not finite."""
        rows = (z.present[m] & keys.isfinite().all(1)).nonzero().squeeze(1)  # (R,)
        row = {"vectors": keys[rows]}
        for name in z.modalities:
            if name in z.ids:
                row |= {f"ids_{name}": z.ids[name][rows], f"known_{name}": z.present[name][rows]}
        self.queue_of(m).push(row)

    def queue_of(self, m: str) -> Queue:
        """The queue of a modality, empty at first."""
        if m not in self.queues:
            self.queues[m] = Queue(self.size)
        queue = self.queues[m]
        assert isinstance(queue, Queue)
        return queue

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Make the queues that were kept: they come with the first batch of their modality."""
        self.queues.clear()
        start = f"{prefix}queues."
        for m in dict.fromkeys(key[len(start) :].split(".")[0] for key in state if key.startswith(start)):
            self.queue_of(m)
        super()._load_from_state_dict(state, prefix, *rest)
