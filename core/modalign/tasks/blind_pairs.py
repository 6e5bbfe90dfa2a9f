"""Blind pairs: things that one modality takes for the same and another tells apart."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from modalign.contracts import Report, Split, Task
from modalign.errors import UserError

from .bootstrap import interval
from .joint import items_of
from .ranking import join, score_blocks

SAMPLE = 1 << 18
"""Pairs that quantiles are taken from; of few rows, all of them."""


class BlindPairs(Task):
    """Pairs of rows near in one modality and far in another (Tong et al., arXiv 2401.06209, §2).

    ``blind``, the share of the near pairs that are far; lower is better, 0 if no pair is near.
    Chance: the share of all pairs that are far, as if the modalities knew nothing of each other.
    Tables: ``worst``, the near pairs whose two cosines differ most; ``counts``. Rows that share the
    near item itself make no pair. Streamed; its interval counts both ends of a pair.

    Inputs:
        near: the modality in which the rows are close, such as the one whose encoder is doubted.
        far: the modality in which they are not.
        above: cosines from here on are near; default: those of the closest 1 % of pairs. The paper
            takes 0.95.
        below: cosines up to here are far; default: the median. The paper takes 0.6.
        show: rows of ``worst``.

    Raises:
        UserError: if both modalities are one, the split has no item of one, or fewer than two rows
            with both.
    """

    primary: ClassVar[str] = "blind"
    higher_is_better: ClassVar[bool] = False

    def __init__(
        self, near: str, far: str, above: float | None = None, below: float | None = None, show: int = 20
    ) -> None:
        self.near, self.far, self.above, self.below, self.show = near, far, above, below, show
        if near == far:
            raise UserError(f"blind_pairs near and far in {near}: name two modalities")
        if show < 1:
            raise UserError(f"blind_pairs show {show}: show at least one")

    @property
    def modalities(self) -> tuple[str, ...]:
        return (self.near, self.far)

    @property
    def about(self) -> str:
        return f"{self.near}, not {self.far}"

    def run(self, space: Any, data: Split) -> Report:
        sides = [items_of(space, data, m) for m in self.modalities]
        pairs = join(sides[0].links, sides[1].links).to(sides[0].vectors.device)  # (P, 2)
        x, y = (side.vectors[pairs[:, i]] for i, side in enumerate(sides))  # (P, D) each
        if len(pairs[:, 0].unique()) < 2:
            raise UserError(
                f"blind_pairs: split {data.name!r} has fewer than two rows with different {self.near} "
                f"and with {self.far}"
            )
        above, below = (
            quantile(v, q) if limit is None else limit
            for v, q, limit in ((x, 0.99, self.above), (y, 0.5, self.below))
        )
        near, blind, far = (torch.zeros(len(pairs), dtype=torch.float64) for _ in range(3))  # (P,) each
        possible = 0
        worst = Worst.none()
        for block in blocks(x, y, pairs[:, 0]):
            close = (block.near >= above) & block.apart  # (n, P)
            apart = (block.far <= below) & block.apart  # (n, P)
            near[block.part] = close.sum(1).double().cpu()
            blind[block.part] = (close & apart).sum(1).double().cpu()
            far[block.part] = apart.sum(1).double().cpu()
            possible += int(block.apart.sum())
            worst = worst.with_block(block, close, self.show)
        share = float(blind.sum() / near.sum()) if near.sum() > 0 else 0.0
        intervals = {}
        if near.sum() > 0:  # each pair stands in two rows: twice the deviation (Hoeffding's projection)
            intervals["blind"] = interval(share + 2 * (blind - share * near) / near.mean())
        counts = {
            "near_from": above,
            "far_up_to": below,
            "near_pairs": int(near.sum()) // 2,
            "blind_pairs": int(blind.sum()) // 2,
            "pairs": possible // 2,
        }
        rows = first_rows(pairs, sides[0].links, sides[1].links)  # (P,)
        return Report(
            {"blind": share, "near_pairs": float(counts["near_pairs"])},
            intervals,
            {"blind": float(far.sum()) / possible},
            tables={"worst": self.named(worst, rows, data, below), "counts": [counts]},
        )

    def named(self, worst: Worst, rows: Tensor, data: Split, below: float) -> list[dict[str, Any]]:
        """The worst pairs by the numbers of their rows in the split, with classes if there are any."""
        table = []
        for (i, j), a, b in zip(worst.rows.tolist(), worst.near.tolist(), worst.far.tolist(), strict=True):
            both = int(rows[i]), int(rows[j])
            row = {"row": both[0], "other_row": both[1], self.near: a, self.far: b, "blind": b <= below}
            if data.labels is not None:
                names = [int(data.labels[r]) for r in both]
                row["class"], row["other_class"] = (
                    data.classes[c] if 0 <= c < len(data.classes) else str(c) for c in names
                )
            table.append(row)
        return table


@dataclass(frozen=True)
class Block:
    """Cosines of some rows with all: ``near``, ``far`` ``(n, P)``; ``apart``: they have different items."""

    part: slice
    near: Tensor
    far: Tensor
    apart: Tensor


def blocks(x: Tensor, y: Tensor, item: Tensor) -> Iterator[Block]:
    """The cosines of ``x (P, D)`` and ``y (P, D)`` side by side; ``item (P,)`` tells equal ones of x."""
    for (part, near, _), (_, far, _) in zip(score_blocks(x, x), score_blocks(y, y), strict=True):
        yield Block(part, near, far, item[part].unsqueeze(1) != item)


@dataclass(frozen=True)
class Worst:
    """The pairs with the largest difference so far: ``rows (W, 2)``, cosines ``(W,)``, ``(W,)``."""

    rows: Tensor
    near: Tensor
    far: Tensor

    @classmethod
    def none(cls) -> Worst:
        return cls(torch.zeros(0, 2, dtype=torch.long), torch.zeros(0), torch.zeros(0))

    def with_block(self, block: Block, close: Tensor, most: int) -> Worst:
        """With those of a block's ``close (n, P)`` pairs that differ more."""
        here = torch.arange(block.part.start, block.part.stop, device=close.device)  # (n,)
        once = close & (here.unsqueeze(1) < torch.arange(close.shape[1], device=close.device))  # (n, P)
        scored = (block.near - block.far).masked_fill(~once, -torch.inf).flatten()  # (n · P,)
        value, index = scored.topk(min(most, len(scored)))  # (w,), (w,)
        index = index[value > -torch.inf]
        found = torch.stack([here[index // close.shape[1]], index % close.shape[1]], 1).cpu()  # (w, 2)
        rows = torch.cat([self.rows, found])
        near = torch.cat([self.near, block.near.flatten()[index].float().cpu()])
        far = torch.cat([self.far, block.far.flatten()[index].float().cpu()])
        best = (near - far).argsort(descending=True, stable=True)[:most]  # (W,)
        return Worst(rows[best], near[best], far[best])


def quantile(vectors: Tensor, q: float) -> float:
    """Of the cosines of different rows of ``(P, D)``: of all pairs, or of a seeded sample."""
    count = len(vectors)
    if count * (count - 1) // 2 <= SAMPLE:
        i, j = torch.triu_indices(count, count, 1)
    else:
        g = torch.Generator().manual_seed(0)
        i = torch.randint(count, (SAMPLE,), generator=g)
        j = (i + torch.randint(1, count, (SAMPLE,), generator=g)) % count
    parts = [
        (vectors[a.to(vectors.device)] * vectors[b.to(vectors.device)]).sum(1).float().cpu()
        for a, b in zip(i.split(1 << 14), j.split(1 << 14), strict=True)
    ]
    return float(torch.cat(parts).quantile(q))


def first_rows(pairs: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """The first row that holds both items of each of ``pairs (P, 2)``, ordered: ``(P,)``."""
    rows: dict[tuple[int, int], int] = {}
    of_row: dict[int, list[int]] = {}
    for item, row in right.tolist():
        of_row.setdefault(row, []).append(item)
    for item, row in sorted(left.tolist(), key=lambda link: link[1]):
        for other in of_row.get(row, ()):
            rows.setdefault((item, other), row)
    return torch.tensor([rows[a, b] for a, b in pairs.tolist()])
