"""A first-in-first-out store of rows, checkpointed with the loss that keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class Queue(nn.Module):
    """The last ``size`` rows pushed, oldest first; a row is one or more tensors by name.

    Inputs:
        size: 1 or more rows, whatever the number of rows in a batch.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def __len__(self) -> int:
        return max((len(b) for b in self._buffers.values() if b is not None), default=0)

    def __contains__(self, name: str) -> bool:
        return name in self._buffers

    def __getitem__(self, name: str) -> Tensor:
        """``(len, ...)``, constant."""
        return self.get_buffer(name)

    def push(self, new: Mapping[str, Tensor]) -> None:
        """Append rows, ``(n, ...)`` each, and drop the oldest beyond ``size``; a missing name means zeros."""
        old = {name: self[name] for name in self._buffers}
        before, count = len(self), len(next(iter(new.values())))
        for name, like in {**old, **new}.items():
            zeros = [like.new_zeros(n, *like.shape[1:]) for n in (before, count)]
            rows = torch.cat([old.get(name, zeros[0]), new.get(name, zeros[1]).detach()])
            # A new tensor: a loss that has yet to be differentiated may hold the old one.
            self.register_buffer(name, rows[-self.size :].clone())

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Take over names and number of rows too."""
        self._buffers.clear()
        for key, rows in state.items():
            if key.startswith(prefix):
                self.register_buffer(key[len(prefix) :], torch.empty_like(rows))
        super()._load_from_state_dict(state, prefix, *rest)


def shared(ids: Tensor, stored: Tensor, known: Tensor) -> tuple[Tensor, Tensor] | None:
    """Codes ``(R,)`` and ``(Q,)``, equal where ids are, -1 where only one side has them; None if all are.

    Inputs:
        ids: ``(R,)``.
        stored, known: ``(Q,)`` ids, and whether they are any.
    """
    distinct, code = torch.cat([ids, stored]).unique(return_inverse=True)  # (G,), (R + Q,)
    mine, theirs = code[: len(ids)], code[len(ids) :]
    theirs = theirs.masked_fill(~known, len(distinct))  # (Q,)
    sides = [torch.zeros(len(distinct) + 1, dtype=torch.bool, device=ids.device) for _ in range(2)]
    sides[0][mine], sides[1][theirs] = True, True
    both = sides[0] & sides[1]  # (G + 1,)
    if not both.any():
        return None
    return mine.masked_fill(~both[mine], -1), theirs.masked_fill(~both[theirs], -1)
