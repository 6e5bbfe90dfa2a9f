"""The knowledge-graph modality: a few triples as names and edges, and as sentences."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from modalign import BadSample, Modality, file_bytes
from modalign.contracts import Batch
from torch import Generator, Tensor

from .triples import Triple, read_triples

_THINGS = ["Aarhus", "Berlin", "Chopin", "Danube", "Everest", "Fado", "Gouda", "Helsinki", "Io", "Jupiter"]
_RELATIONS = ["leader name", "part of", "birth year", "located in", "made from"]


@dataclass(frozen=True)
class Read:
    """The triples of one graph, as words."""

    triples: tuple[Triple, ...]


class KnowledgeGraph(Modality):
    """A small knowledge graph: triples of subject, predicate and object.

    A cell holds them as JSON, ``[["Aarhus", "leaderName", "Jacob Bundsgaard"]]``, or as Turtle or
    N-Triples, of which the last part of every IRI is the name. Nothing an IRI points to is ever fetched.

    Inputs:
        max_triples: larger graphs are refused.
        drop: the chance of each triple to be left out by ``augment``.

    Raises:
        ValueError: if an argument is out of range.
    """

    name: ClassVar[str] = "knowledge-graph"
    literal: ClassVar[bool] = True

    def __init__(self, max_triples: int = 256, drop: float = 0.2) -> None:
        if max_triples < 1 or not 0 <= drop < 1:
            raise ValueError(f"max_triples {max_triples} >= 1 and drop {drop} in [0, 1)")
        self.max_triples, self.drop = max_triples, drop

    def read(self, value: Any) -> Read:
        """Triples as text, as a list, or as a file of either (path or bytes, UTF-8).

        Raises:
            BadSample: if there are no triples in it, or too many.
        """
        if isinstance(value, bytes | bytearray | memoryview | Path):
            try:
                value = file_bytes(value).decode("utf-8-sig")
            except UnicodeDecodeError as error:
                raise BadSample(f"not UTF-8 text: {error.reason} at byte {error.start}") from None
        return Read(tuple(read_triples(value, self.max_triples)))

    def collate(self, items: Sequence[Read]) -> Batch:
        """``N`` graphs as padded tensors.

        ``names (N, M, L)`` uint8: every name as UTF-8 bytes, zero-padded; things first, then relations;
        ``name_mask (N, M)``, ``thing_mask (N, M)``. ``triples (N, E, 3)`` int64: numbers of names;
        ``triple_mask (N, E)``. ``bytes (N, S)`` uint8 and ``mask (N, S)``: the triples as sentences, which
        any encoder of text reads.
        """
        tables = [_names(item.triples) for item in items]
        encoded = [[name.encode() for name in (*things, *relations)] for things, relations in tables]
        n, most = len(items), max(len(names) for names in encoded)
        longest = max(len(name) for names in encoded for name in names)
        edges = max(len(item.triples) for item in items)
        names = torch.zeros(n, most, longest, dtype=torch.uint8)  # (N, M, L)
        triples = torch.zeros(n, edges, 3, dtype=torch.int64)  # (N, E, 3)
        for i, (item, (things, relations)) in enumerate(zip(items, tables, strict=True)):
            for j, name in enumerate(encoded[i]):
                names[i, j, : len(name)] = torch.frombuffer(bytearray(name), dtype=torch.uint8)
            place = {name: j for j, name in enumerate(things)}
            link = {name: j + len(things) for j, name in enumerate(relations)}
            rows = [(place[s], link[p], place[o]) for s, p, o in item.triples]
            triples[i, : len(rows)] = torch.tensor(rows)
        text, mask = _bytes([sentences(item.triples).encode() for item in items])
        return {
            "names": names,
            "name_mask": _first([len(names) for names in encoded], most),
            "thing_mask": _first([len(things) for things, _ in tables], most),
            "triples": triples,
            "triple_mask": _first([len(item.triples) for item in items], edges),
            "bytes": text,
            "mask": mask,
        }

    def example(self, n: int, seed: int = 0) -> list[Read]:
        """``n`` graphs of one to four triples, the same for one seed."""
        draw = random.Random(seed)

        def triple() -> list[str]:
            things = (*_THINGS, str(draw.randrange(3000)))
            return [draw.choice(_THINGS), draw.choice(_RELATIONS), draw.choice(things)]

        return [self.read([triple() for _ in range(draw.randrange(1, 5))]) for _ in range(n)]

    def augment(self, batch: Batch, generator: Generator) -> Batch:
        """Triples left out with chance ``drop`` (one stays), the others reordered, as text too."""
        mask = batch["triple_mask"]  # (N, E)
        luck = torch.rand(mask.shape, generator=generator, device=generator.device).to(mask.device)  # (N, E)
        luck = luck.masked_fill(~mask, -1.0)
        kept = mask & ((luck >= self.drop) | (luck == luck.amax(1, keepdim=True)))  # (N, E)
        order = torch.rand(mask.shape, generator=generator, device=generator.device).to(mask.device)
        order = order.masked_fill(~kept, 2.0).argsort(1)  # (N, E)
        triples = batch["triples"].gather(1, order.unsqueeze(-1).expand_as(batch["triples"]))  # (N, E, 3)
        kept = kept.gather(1, order)  # (N, E)
        graphs = [
            [tuple(names[j] for j in row) for row in rows[real].tolist()]
            for names, rows, real in zip(decode_names(batch), triples, kept, strict=True)
        ]
        text, mask = _bytes([sentences(graph).encode() for graph in graphs], batch["bytes"].shape[1])
        place = batch["bytes"].device
        return {
            **batch,
            "triples": triples * kept.unsqueeze(-1),
            "triple_mask": kept,
            "bytes": text.to(place),
            "mask": mask.to(place),
        }

    def preview(self, item: Read) -> tuple[str, bytes]:
        """A line for each triple."""
        return "text/plain", "\n".join(" | ".join(triple) for triple in item.triples).encode()


def sentences(triples: Sequence[Sequence[str]]) -> str:
    """Triples as plain sentences: ``Aarhus leader name Jacob Bundsgaard. …``"""
    return " ".join(f"{s} {p} {o}." for s, p, o in triples)


def decode_names(batch: Batch) -> list[list[str]]:
    """The names of each graph of a batch of ``N``."""
    table = batch["names"].cpu().numpy()  # (N, M, L)
    return [[name.tobytes().rstrip(b"\0").decode("utf-8", "replace") for name in row] for row in table]


def _names(triples: Sequence[Triple]) -> tuple[list[str], list[str]]:
    """Things and relations, each once, in order of appearance."""
    things = dict.fromkeys(name for s, _, o in triples for name in (s, o))
    return list(things), list(dict.fromkeys(p for _, p, _ in triples))


def _first(lengths: list[int], longest: int) -> Tensor:
    """``(N, longest)`` bool: True for the first ``lengths[i]``."""
    return torch.arange(longest) < torch.tensor(lengths).unsqueeze(1)


def _bytes(texts: list[bytes], longest: int | None = None) -> tuple[Tensor, Tensor]:
    """``bytes (N, S)`` and ``mask (N, S)``."""
    longest = longest or max(len(t) for t in texts)
    padded = b"".join(t.ljust(longest, b"\0") for t in texts)
    table = torch.frombuffer(bytearray(padded), dtype=torch.uint8).view(len(texts), longest)  # (N, S)
    return table, _first([len(t) for t in texts], longest)
