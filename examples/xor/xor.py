"""What no pair of modalities shows: an exclusive or, learnt by Symile and missed by InfoNCE.

    python examples/xor/xor.py --out xor.png

Three modalities of five bits: a and b are fair coins; c is ``a xor b`` with probability p, else a
copy of a. One draw decides for all five bits. Task: b, given a and c, among all 32 vectors. No
model can do better than ``p (1 - 2^-5) + 2^-5``; b is independent of a and of c alone, so nothing
that looks at pairs beats chance, 2^-5 (Saporta et al., arXiv 2411.01053, §5.1).

Then ``c = a xor b`` of one bit each, with values missing at random in training.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import torch
from modalign import Embeddings, Loss
from modalign.losses import InfoNCE, Symile
from torch import Tensor, nn
from torch.nn.functional import normalize

BITS, DIM = 5, 16
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
MISSING = (0.0, 0.2, 0.5)


def ceiling(p: float, bits: int = BITS) -> float:
    """The best accuracy there can be."""
    return p * (1 - 2**-bits) + 2**-bits


def draw(n: int, p: float, bits: int, generator: torch.Generator) -> dict[str, Tensor]:
    """``n`` rows of the three modalities, each ``(n, bits)`` of 0 and 1."""
    a, b = (torch.randint(0, 2, (n, bits), generator=generator) for _ in range(2))
    mixed = torch.rand(n, 1, generator=generator) < p  # (n, 1)
    return {"a": a.float(), "b": b.float(), "c": torch.where(mixed, a ^ b, a).float()}


class Encoders(nn.Module):
    """One linear map per modality onto the unit sphere, and a learnt scale."""

    def __init__(self, bits: int, scale: float) -> None:
        super().__init__()
        self.maps = nn.ModuleDict({m: nn.Linear(bits, DIM) for m in "abc"})
        self.log_scale = nn.Parameter(torch.tensor(scale).log())

    def forward(self, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {m: normalize(self.maps[m](x), dim=1) for m, x in rows.items()}  # (n, DIM) each


def train(
    loss: Loss,
    rows: dict[str, Tensor],
    present: dict[str, Tensor],
    epochs: int,
    batch: int,
    lr: float,
) -> Encoders:
    """Encoders trained with AdamW on all rows, ``batch`` at a time."""
    torch.manual_seed(1)
    model = Encoders(rows["a"].shape[1], scale=5.0)
    optimizer = torch.optim.AdamW([*model.parameters(), *loss.parameters()], lr=lr)
    steps = epochs * -(-len(rows["a"]) // batch)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.02, steps)
    for _ in range(epochs):
        for some in torch.randperm(len(rows["a"])).split(batch):
            z = Embeddings(
                model({m: x[some] for m, x in rows.items()}),
                scale=model.log_scale.exp(),
                present={m: x[some] for m, x in present.items()},
            )
            optimizer.zero_grad()
            loss(z).backward()
            optimizer.step()
            schedule.step()
    return model


@torch.no_grad()
def accuracy(model: Encoders, rows: dict[str, Tensor], target: str, product: bool) -> float:
    """How often the true vector of ``target`` scores highest, given the two others.

    Inputs:
        product: score by the product of all three, as Symile does; else by the sum over pairs.
    """
    bits = rows[target].shape[1]
    weights = 2 ** torch.arange(bits)  # (bits,)
    every = (torch.arange(2**bits).unsqueeze(1) // weights % 2).float()  # (2^bits, bits)
    z = model(rows)
    x, y = (z[m] for m in z if m != target)  # (n, DIM) each
    query = x * y if product else x + y  # (n, DIM)
    answer = (query @ model({target: every})[target].T).argmax(1)  # (n,)
    return float((answer == (rows[target] @ weights.float()).long()).float().mean())


def synergy(p: float, epochs: int, n: int) -> tuple[float, float]:
    """Test accuracy of Symile and of pairwise InfoNCE on the five-bit task."""
    g = torch.Generator().manual_seed(0)
    rows, test = draw(n, p, BITS, g), draw(5000, p, BITS, g)
    found = []
    for loss in (Symile(negatives="n"), InfoNCE()):
        model = train(loss, rows, {}, epochs, 500, 0.05)
        found.append(accuracy(model, test, "b", product=isinstance(loss, Symile)))
    return found[0], found[1]


def with_missing(share: float, missing: str, epochs: int, n: int) -> float:
    """Test accuracy of Symile on the one-bit task, trained with a share of values missing."""
    g = torch.Generator().manual_seed(0)
    rows, test = draw(n, 1.0, 1, g), draw(5000, 1.0, 1, g)
    present = {m: torch.rand(n, generator=g) >= share for m in rows}
    loss = Symile(negatives="n", missing=missing, modalities="abc", dim=DIM)
    model = train(loss, rows, present, epochs, 1000, 0.1)
    return accuracy(model, test, "a", product=True)


def plot(results: list[tuple[float, float, float]], out: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.5), layout="constrained")
    axes = figure.subplots()
    p = [r[0] for r in results]
    axes.plot(p, [ceiling(x) for x in p], color="0.6", linestyle="--", label="ceiling")
    axes.plot(p, [r[1] for r in results], marker="o", label="Symile")
    axes.plot(p, [r[2] for r in results], marker="s", label="pairwise InfoNCE")
    axes.axhline(2**-BITS, color="0.8", linestyle=":", label="chance")
    axes.set(xlabel="p: share of rows with c = a xor b", ylabel="accuracy of b", ylim=(-0.02, 1.02))
    axes.legend(frameon=False)
    figure.savefig(out, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description="XOR of three modalities: Symile against pairwise InfoNCE")
    parser.add_argument("--out", type=Path, default=Path("xor.png"), help="where the figure goes")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--rows", type=int, default=10_000, help="training rows")
    options = parser.parse_args()
    results = []
    print("   p   ceiling  Symile  InfoNCE")
    for p in SHARES:
        results.append((p, *synergy(p, options.epochs, options.rows)))
        print(f"{p:5.2f}  {ceiling(p):6.3f}  {results[-1][1]:6.3f}  {results[-1][2]:6.3f}", flush=True)
    plot(results, options.out)
    print("missing  learned  subset")
    for share in MISSING:
        found = [with_missing(share, how, options.epochs, options.rows) for how in ("learned", "subset")]
        print(f"{share:6.0%}   {found[0]:6.3f}  {found[1]:6.3f}", flush=True)
    print(f"figure: {options.out}")


if __name__ == "__main__":
    main()
