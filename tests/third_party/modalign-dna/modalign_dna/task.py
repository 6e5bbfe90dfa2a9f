"""mutual-neighbours: how many true pairs find each other, from both sides."""

from __future__ import annotations

from typing import Any, ClassVar

from modalign import Report, Task, UserError
from modalign.contracts import Split


class MutualNeighbours(Task):
    """Pairs ``(i, j)`` with ``j`` the nearest of ``i`` and ``i`` the nearest of ``j``.

    ``recall``: true ones among the items of ``from`` that have a partner. ``precision``: true ones among
    all such pairs. Stricter than retrieval, which looks from one side only.

    Inputs:
        from_: a modality; ``from`` in a plan.
        to: another.

    Raises:
        UserError: if the split has no row with both.
    """

    primary: ClassVar[str] = "recall"

    def __init__(self, from_: str, to: str) -> None:
        self.from_, self.to = from_, to

    @property
    def modalities(self) -> tuple[str, ...]:
        return (self.from_, self.to)

    @property
    def about(self) -> str:
        return f"{self.from_}<->{self.to}"

    def run(self, space: Any, data: Split) -> Report:
        a, b = data.embed(space, self.from_), data.embed(space, self.to)
        in_row: dict[int, set[int]] = {}
        for item, row in b.links.tolist():
            in_row.setdefault(row, set()).add(item)
        partners: dict[int, set[int]] = {}
        for item, row in a.links.tolist():
            if row in in_row:
                partners.setdefault(item, set()).update(in_row[row])
        if not partners:
            raise UserError(f"{self.about}: no row of split {data.name!r} has both")
        cosine = space.similarity(a.vectors, b.vectors)  # (N, K)
        nearest, back = cosine.argmax(1).tolist(), cosine.argmax(0).tolist()  # (N,), (K,)
        mutual = [(i, j) for i, j in enumerate(nearest) if back[j] == i]
        true = sum(j in partners.get(i, ()) for i, j in mutual)
        return Report(
            {"recall": true / len(partners), "precision": true / max(len(mutual), 1)},
            tables={"sizes": [{"mutual": len(mutual), "true": true, "with a partner": len(partners)}]},
        )
