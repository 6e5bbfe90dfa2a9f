"""Every loss of the core on two and four processes is that of one process on the whole batch.

Run as a script, this file is what the processes do.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from modalign import Embeddings
from modalign.plugin import loader
from modalign.training.content import Loaded
from modalign.training.gather import gather_rows, pad_tokens
from modalign.training.stage import embeddings
from torch import Tensor, nn
from torch.nn.functional import normalize

NAMES = ("first", "second", "third")
BATCHES = (7, 9, 3)
"""Rows of three batches in a row, for losses with a memory: no share is even, one process has none of 3."""
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    offer.component.name: (offer.component.name, {})
    for offer in loader.components("losses")
    if offer.distribution == "modalign"
}
CASES |= {
    "infonce positive": ("infonce", {"duplicates": "positive", "label_smoothing": 0.1}),
    "dcl weighted": ("dcl", {"weighted": True}),
    "symile n": ("symile", {"negatives": "n"}),
    "symile subset": ("symile", {"missing": "subset"}),
    "momentum": ("momentum", {"queue": 10}),
    "momentum hardest": ("momentum", {"queue": 10, "hardest": 0.5, "in_batch": False}),
    "multiview core": ("multiview", {"view": "core", "weights": [["first", "third", 2.0]]}),
}


class Embedder(nn.Module):
    """A linear map per modality, and a temperature."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.maps = nn.ModuleDict({m: nn.Linear(5, 6) for m in NAMES})
        self.log_scale = nn.Parameter(torch.tensor(1.5))

    def forward(self, m: str, features: Tensor, mask: Tensor, present: Tensor) -> dict[str, Tensor]:
        """``(n, T, 5)``, ``(n, T)``, ``(n,)`` -> outputs as a stage's model gives them, zero where absent."""
        tokens = self.maps[m](features)  # (n, T, 6)
        pooled = (tokens * mask.unsqueeze(2)).sum(1)  # (n, 6)
        out = {
            "vectors": normalize(pooled, dim=1),
            "tokens": normalize(tokens, dim=2),
            "teacher": (features * mask.unsqueeze(2)).sum(1),
            "momentum": normalize(pooled.detach() + 0.1, dim=1),
        }
        out = {k: x * present.view(-1, *[1] * (x.dim() - 1)) for k, x in out.items()}
        return {**out, "masks": mask & present.unsqueeze(1)}


def whole_batch(n: int) -> tuple[dict[str, tuple[Tensor, ...]], Tensor]:
    """Features, mask, presence and ids of each modality; labels. No odd row has the third modality."""
    g = torch.Generator().manual_seed(n)
    row = torch.arange(n)
    present = dict(zip(NAMES, (row != 4, row != 2, row % 2 == 0), strict=True))
    data = {}
    for m in NAMES:
        lengths = torch.randint(1, 5, (n,), generator=g)
        data[m] = (
            torch.randn(n, 4, 5, generator=g),
            torch.arange(4) < lengths.unsqueeze(1),
            present[m],
            torch.randint(0, n, (n,), generator=g),
        )
    return data, torch.randint(-1, 3, (n,), generator=g)


def batch(fabric: Fabric, model: Embedder, n: int) -> Embeddings:
    """This process's share of a batch embedded, and gathered as the trainer does."""
    data, labels = whole_batch(n)
    outputs, inputs = {}, {}
    for m, tensors in data.items():
        features, mask, present, ids = (t[fabric.global_rank :: fabric.world_size] for t in tensors)
        longest = max(1, int(mask.sum(1).max()) if len(mask) else 0)
        outputs[m] = model(m, features[:, :longest], mask[:, :longest], present)
        inputs[m] = Loaded(None, gather_rows(fabric, present, n), gather_rows(fabric, ids, n))
    if fabric.world_size > 1:
        outputs = pad_tokens(fabric, outputs)
    outputs = {m: {k: gather_rows(fabric, x, n) for k, x in out.items()} for m, out in outputs.items()}
    return embeddings(outputs, inputs, model.log_scale.exp(), None, labels)


def run(fabric: Fabric) -> dict[str, dict[str, Tensor]]:
    """For each case the values on every process, and the gradients averaged over processes."""
    model = Embedder()
    batches = [batch(fabric, model, n) for n in BATCHES]
    found = {}
    for case, (name, options) in CASES.items():
        loss = loader.load("losses", name)(**options)
        values = torch.stack([loss(z) for z in batches])  # (batches,)
        named = {**dict(model.named_parameters()), **dict(loss.named_parameters(prefix="loss"))}
        gradients = torch.autograd.grad(
            values.sum(), named.values(), retain_graph=True, allow_unused=True, materialize_grads=True
        )
        every = fabric.all_gather(values.detach()).reshape(-1, len(BATCHES))  # (processes, batches)
        flat = fabric.all_reduce(torch.cat([g.flatten() for g in gradients]), reduce_op="mean")
        parts = flat.split([p.numel() for p in named.values()])
        found[case] = {"values": every, **dict(zip(named, parts, strict=True))}
    return found


def main(world: int, out: str) -> None:
    torch.set_num_threads(1)
    fabric = Fabric(accelerator="cpu", devices=world, strategy="ddp")
    fabric.launch()
    found = run(fabric)
    if fabric.is_global_zero:
        torch.save(found, out)


@pytest.fixture(scope="module")
def one() -> dict[str, dict[str, Tensor]]:
    return run(Fabric(accelerator="cpu", devices=1))


@pytest.fixture(scope="module", params=[2, 4])
def many(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("parity") / "found.pt"
    command = [sys.executable, __file__, str(request.param), str(out)]
    subprocess.run(command, check=True, timeout=240, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return {"world": request.param, "found": torch.load(out)}


@pytest.mark.parametrize("case", CASES)
def test_processes_change_nothing(case: str, one: dict[str, Any], many: dict[str, Any]) -> None:
    want, got = one[case], many["found"][case]
    assert got.keys() == want.keys()
    assert got["values"].shape == (many["world"], len(BATCHES))
    torch.testing.assert_close(got["values"], want["values"].expand_as(got["values"]), rtol=1e-5, atol=1e-6)
    assert all(want[f"maps.{m}.weight"].any() for m in NAMES), "nothing was compared"
    for key in want.keys() - {"values"}:
        error, size = (got[key] - want[key]).norm(), want[key].norm()
        assert error <= 1e-5 * size + 1e-6, (key, float(error), float(size))


if __name__ == "__main__":
    main(int(sys.argv[1]), str(Path(sys.argv[2])))
