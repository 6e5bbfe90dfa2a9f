"""What the loss benchmark compares: per case, inputs by size and ours beside its peers."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from modalign import Embeddings, Loss
from modalign.losses import DCL, InfoNCE, NTXent, SigLIP, SupCon, Symile
from peers import peer
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


def ours(loss: Loss, unit: bool = False) -> Run:
    """``unit``: make rows unit first, where a peer does so itself."""

    def run(x: Inputs) -> Tensor:
        vectors = {m: normalize(x[m], dim=1) if unit else x[m] for m in ("a", "b")}
        return loss(Embeddings(vectors, scale=x.get("scale", 1.0), labels=x.get("labels")))

    return run


def triples(n: int, d: int = 256) -> Inputs:
    """A third beside them, and a width that all scores of three can afford."""
    third = torch.randn(n, d, generator=torch.Generator().manual_seed(1))
    return {**pairs(n, d), "c": normalize(third, dim=1).requires_grad_()}


def symile(negatives: str) -> Run:
    loss = Symile(negatives)
    return lambda x: loss(Embeddings({m: x[m] for m in "abc"}, scale=x["scale"]))


def symile_package(sampling: str) -> Run:
    loss = importlib.import_module("symile").Symile(sampling)
    return lambda x: loss([x[m] for m in "abc"], x["scale"])


def with_labels(n: int) -> Inputs:
    """The same, with 16 classes."""
    return {**pairs(n), "labels": torch.arange(n) % 16}


def clip_loss() -> Run:
    loss = peer("open_clip", "loss.py").ClipLoss()
    return lambda x: loss(x["a"], x["b"], x["scale"])


def siglip_loss() -> Run:
    loss, bias = peer("open_clip", "loss.py").SigLipLoss(), torch.tensor(-10.0)
    return lambda x: loss(x["a"], x["b"], x["scale"], bias)


def lightly_nt_xent() -> Run:
    file = peer("lightly", "loss/ntx_ent_loss.py", {"torchvision.ops": "StochasticDepth"})
    loss = file.NTXentLoss(0.07)
    return lambda x: loss(x["a"], x["b"])


def lightly_dcl(name: str) -> Run:
    loss = getattr(peer("lightly", "loss/dcl_loss.py"), name)(0.07)
    return lambda x: loss(x["a"], x["b"])


def metric_learning(name: str) -> Run:
    losses = importlib.import_module("pytorch_metric_learning.losses")
    loss = getattr(losses, name)(0.07)

    def run(x: Inputs) -> Tensor:
        labels = x.get("labels", torch.arange(len(x["a"])))  # (N,)
        return loss(torch.cat([x["a"], x["b"]]), labels.repeat(2))

    return run


CLIP, SIGLIP = "open_clip ClipLoss", "open_clip SigLipLoss"
NT_XENT, PML_NT_XENT = "lightly NTXentLoss", "pytorch-metric-learning NTXentLoss"
SUPCON = "pytorch-metric-learning SupConLoss"

CASES: list[Case] = [
    Case(
        "infonce",
        pairs,
        lambda: ours(InfoNCE()),
        {CLIP: clip_loss},
        sizes=(256, 1024, 4096, 8192, 65536),
        quick=(256, 1024),
        peer_sizes={CLIP: (256, 1024, 4096, 8192)},
    ),
    Case(
        "siglip",
        pairs,
        lambda: ours(SigLIP(None, -10.0, learn=False)),
        {SIGLIP: siglip_loss},
        sizes=(1024, 4096, 8192),
    ),
    Case(
        "nt_xent",
        pairs,
        lambda: ours(NTXent(0.07), unit=True),
        {NT_XENT: lightly_nt_xent, PML_NT_XENT: lambda: metric_learning("NTXentLoss")},
        sizes=(128, 1024, 4096),
        quick=(128,),
        peer_sizes={PML_NT_XENT: (128,)},
    ),
    Case(
        "supcon",
        with_labels,
        lambda: ours(SupCon(0.07), unit=True),
        {SUPCON: lambda: metric_learning("SupConLoss")},
        sizes=(1024, 2048),
    ),
    Case(
        "dcl", pairs, lambda: ours(DCL(0.07), unit=True), {"lightly DCLLoss": lambda: lightly_dcl("DCLLoss")}
    ),
    Case(
        "dcl, weighted",
        pairs,
        lambda: ours(DCL(0.07, weighted=True), unit=True),
        {"lightly DCLWLoss": lambda: lightly_dcl("DCLWLoss")},
    ),
    Case(
        "symile, all",
        triples,
        lambda: symile("all"),
        {"symile n_squared": lambda: symile_package("n_squared")},
        sizes=(64, 256, 1024),
        quick=(64,),
        peer_sizes={"symile n_squared": (64, 256)},
    ),
    Case(
        "symile, n",  # each draws its own shuffles: values and gradients agree in expectation only
        triples,
        lambda: symile("n"),
        {"symile n": lambda: symile_package("n")},
    ),
]
