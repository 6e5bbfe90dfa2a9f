"""What the loss benchmark compares: per case, inputs by size and ours beside its peers."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType

import torch
from modalign import Embeddings
from modalign.losses import InfoNCE
from torch import Tensor
from torch.nn.functional import normalize

Inputs = dict[str, Tensor]
Run = Callable[[Inputs], Tensor]
"""Leaf tensors -> the loss, ready for ``backward``."""

OURS = "modalign"


@dataclass(frozen=True)
class Case:
    """One loss, measured on the same inputs for each implementation.

    Inputs:
        inputs: ``N`` -> tensors; those that require a gradient are compared.
        ours, peers: build the loss (imports included, not timed) and return how to run it.
        sizes: ``N`` by implementation: where a peer stops, ours goes on alone.
        quick: the sizes of ``--quick``.
    """

    name: str
    inputs: Callable[[int], Inputs]
    ours: Callable[[], Run]
    peers: dict[str, Callable[[], Run]] = field(default_factory=dict)
    sizes: tuple[int, ...] = (1024, 4096)
    quick: tuple[int, ...] = (256,)
    peer_sizes: dict[str, tuple[int, ...]] = field(default_factory=dict)

    def implementations(self, size: int) -> dict[str, Callable[[], Run]]:
        """Ours and the peers measured at this size."""
        peers = {k: v for k, v in self.peers.items() if size in self.peer_sizes.get(k, (size,))}
        return {OURS: self.ours, **peers}


def pairs(n: int, d: int = 512) -> Inputs:
    """Two unit vectors per row that agree somewhat, and CLIP's first scale."""
    g = torch.Generator().manual_seed(0)
    shared = torch.randn(n, d, generator=g)  # (N, D)
    a, b = (normalize(shared + 2 * torch.randn(n, d, generator=g), dim=1) for _ in range(2))
    return {
        "a": a.requires_grad_(),
        "b": b.requires_grad_(),
        "scale": torch.tensor(1 / 0.07).requires_grad_(),
    }


def two(x: Inputs) -> Embeddings:
    return Embeddings({"a": x["a"], "b": x["b"]}, scale=x["scale"])


def peer_file(package: str, path: str) -> ModuleType:
    """One file of an installed package, without importing the package (which may need much more)."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None:
        raise ModuleNotFoundError(f"not installed: {package}")
    file = Path(found.origin).parent / path
    spec = importlib.util.spec_from_file_location(f"{package}_{file.stem}", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def infonce() -> Run:
    loss = InfoNCE()
    return lambda x: loss(two(x))


def clip_loss() -> Run:
    loss = peer_file("open_clip", "loss.py").ClipLoss()
    return lambda x: loss(x["a"], x["b"], x["scale"])


CASES: list[Case] = [
    Case(
        "infonce",
        pairs,
        infonce,
        {"open_clip ClipLoss": clip_loss},
        sizes=(256, 1024, 4096, 8192, 65536),
        quick=(256, 1024),
        peer_sizes={"open_clip ClipLoss": (256, 1024, 4096, 8192)},
    ),
]
