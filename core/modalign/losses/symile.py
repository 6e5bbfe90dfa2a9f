"""Symile: one product of all modalities at once, which sees what no pair shows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize as unit
from torch.nn.functional import softplus

from modalign.contracts import Embeddings, Loss
from modalign.errors import suggest

from .primitives.pairs import connected_zero, widen
from .primitives.patterns import names_of, patterns, places, rows_with
from .primitives.shuffles import shuffled_lse
from .primitives.tuples import check_cost, mip, tuple_lse

NORMALIZE = ("none", "l2", "layernorm")
MISSING = ("learned", "subset", "drop")


class Symile(Loss):
    """Each item must pick, among combinations of the other modalities, the one it belongs to.

    The mean over anchors ``m`` of ``lse_t s·MIP(r^m_i, t) - s·MIP(r^1_i, ..., r^M_i)``, with the
    multilinear inner product ``MIP = Σ_k Π_m r^m_k`` (Saporta et al., arXiv 2411.01053). It bounds
    the total correlation of all modalities: ``TC >= log(candidates) - loss``. For two modalities it
    is InfoNCE. Prefer it where only several modalities together tell about another; score with
    ``space.score``. Candidates stand for the product of the marginals, so equal content is kept.

    Inputs:
        negatives: "all": every combination of rows, ``N^(M-1)`` candidates per anchor, exact and
            streamed; "n": ``N - 1`` shuffled combinations; a number ``k``: ``k`` such shuffles. No
            shuffled combination is a true tuple. With two modalities all rows are candidates anyway.
        missing: what to do with a row that lacks a modality. "learned": a learnt vector per modality
            stands in for it, in every role. "subset": the row is compared by the product of what it
            has, against everything present of those modalities; a row with one modality is only a
            candidate. "drop": only complete rows count.
        temperature: fixed ``1 / s``; None takes the batch's ``scale``, which the space may learn.
        rescale: multiply scores by ``D^((M-1)/2)`` (layernorm: ``D^(-1/2)``), which gives random
            vectors logits of variance ``s²`` whatever ``D`` and ``M``. Use a small ``s`` with it.
        normalize: "none" takes vectors as the space gives them, unit; "l2" makes them unit;
            "layernorm" learns a LayerNorm per modality: score with ``prepared`` vectors then.
        modalities: which of the batch's to compare; None = all.
        dim: ``D``. With ``modalities`` it makes learnt parameters at once. Under the trainer the
            space gives both; else they are made in the first forward, which must then come before the
            optimiser is built.
        seed: of the shuffles. They depend on it and on the number of training steps, a buffer.
        most: refuse to make more scores than this; None: 1e10 on a CPU, 1e12 elsewhere.

    Raises:
        ValueError: for an unknown option, a modality the batch lacks, or fewer than two modalities.
        UserError: if "all" would make more than ``most`` scores.
    """

    draws: Tensor

    def __init__(
        self,
        negatives: str | int = "all",
        missing: str = "learned",
        temperature: float | None = None,
        rescale: bool = False,
        normalize: str = "none",
        modalities: Iterable[str] | None = None,
        dim: int | None = None,
        seed: int = 0,
        most: float | None = None,
    ) -> None:
        super().__init__()
        counts = isinstance(negatives, int) and not isinstance(negatives, bool) and negatives >= 1
        if negatives not in ("all", "n") and not counts:
            raise ValueError(f"negatives {negatives!r}: use all, n, or how many shuffles, such as 4")
        for what, given, known in (("missing", missing, MISSING), ("normalize", normalize, NORMALIZE)):
            if given not in known:
                raise ValueError(f"{what} {given!r}: use one of {', '.join(known)}{suggest(given, known)}")
        if temperature is not None and not temperature > 0:
            raise ValueError(f"temperature {temperature}: must be above 0")
        self.negatives, self.missing, self.temperature = negatives, missing, temperature
        self.rescale, self.normalize, self.seed, self.most = rescale, normalize, seed, most
        self.modalities = tuple(modalities) if modalities is not None else None
        if self.modalities is not None and len(set(self.modalities)) < max(2, len(self.modalities)):
            raise ValueError(f"modalities {list(self.modalities)}: name two or more, each once")
        self.stand_ins = nn.ParameterDict()
        self.norms = nn.ModuleDict()
        self.register_buffer("draws", torch.zeros((), dtype=torch.long))
        if self.modalities and dim is not None:
            self._make(self.modalities, dim, torch.device("cpu"))

    def bind(self, space: Any) -> None:
        self._make(self.modalities or space.modalities, space.dim, self.draws.device)

    def forward(self, z: Embeddings) -> Tensor:
        names = names_of(z, self.modalities)
        self._make(names, z.vectors[names[0]].shape[1], z.vectors[names[0]].device)
        if self.training:
            self.draws += 1
        with torch.autocast(z.vectors[names[0]].device.type, enabled=False):
            losses = [self._contrast(*group, z.scale) for group in self._groups(z, names)]  # each (R,)
        zero = connected_zero(z)  # every modality has a gradient, also one that no row could use
        return torch.cat(losses).mean() + zero if losses else zero

    def prepared(self, modality: str, vectors: Tensor) -> Tensor:
        """Vectors ``(N, D)`` as they enter the product: normalised, float32 or wider."""
        vectors = widen(vectors)
        if self.normalize == "layernorm":
            return self.norms[modality](vectors)
        return unit(vectors, dim=1) if self.normalize == "l2" else vectors

    def _make(self, names: Iterable[str], dim: int, device: torch.device) -> None:
        """The parameters of these modalities, where they do not exist yet."""
        for m in names:
            if self.missing == "learned" and m not in self.stand_ins:
                # Equal entries: at first the product is that of the modalities that are there.
                self.stand_ins[m] = nn.Parameter(torch.full((dim,), dim**-0.5, device=device))
            if self.normalize == "layernorm" and m not in self.norms:
                self.norms[m] = nn.LayerNorm(dim, device=device)

    def _groups(self, z: Embeddings, names: tuple[str, ...]) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
        """Rows compared by the same product: per modality its candidates ``(K_m, D)``, and where
        among them the group's rows stand ``(R,)``."""
        if self.missing == "learned":
            rows = torch.stack([z.present[m] for m in names]).any(0).nonzero().squeeze(1)  # (R,)
            if len(rows):
                place = torch.arange(len(rows), device=rows.device)  # (R,)
                yield [self._filled(z, m)[rows] for m in names], [place] * len(names)
            return
        for some, rows in patterns(z, names):
            if len(some) < 2 or (self.missing == "drop" and some != names):
                continue
            shared = self.missing == "drop" or (self.negatives != "all" and len(some) > 2)
            pools = [rows_with(z, some if shared else (m,)) for m in some]  # each (K_m,)
            vectors = [self.prepared(m, z.vectors[m][pool]) for m, pool in zip(some, pools, strict=True)]
            yield vectors, [places(rows, pool) for pool in pools]

    def _filled(self, z: Embeddings, m: str) -> Tensor:
        """``(N, D)`` vectors, the learnt one where the modality is missing."""
        here = z.present[m].nonzero().squeeze(1)  # (R,)
        own = self.prepared(m, z.vectors[m][here])  # (R, D)
        if len(here) == len(z):
            return own
        other = self.prepared(m, unit(self.stand_ins[m], dim=0).unsqueeze(0)).to(own.dtype)  # (1, D)
        return other.repeat(len(z), 1).index_copy(0, here, own)

    def _contrast(self, vectors: list[Tensor], where: list[Tensor], scale: Tensor | float) -> Tensor:
        """The loss of each row of a group, ``(R,)``."""
        scale = scale if self.temperature is None else 1 / self.temperature
        if self.rescale:
            power = -1 if self.normalize == "layernorm" else len(vectors) - 1
            scale = scale * vectors[0].shape[1] ** (power / 2)
        true = scale * mip([v[i] for v, i in zip(vectors, where, strict=True)])  # (R,)
        if all(len(v) == 1 for v in vectors):
            return true - true  # nothing to choose from: exactly zero
        if self.negatives == "all" or len(vectors) == 2:
            check_cost([len(v) for v in vectors], vectors[0], self.most)
            lse = tuple_lse(vectors, scale)  # M x (K_m,)
            return torch.stack([x[i] for x, i in zip(lse, where, strict=True)]).mean(0) - true
        rounds = 1 if self.negatives == "n" else int(self.negatives)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + int(self.draws))
        wrong = shuffled_lse(vectors, scale, rounds, generator)  # M x (K,)
        return softplus(torch.stack([x[i] for x, i in zip(wrong, where, strict=True)]) - true).mean(0)
