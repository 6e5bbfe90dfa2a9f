"""A guard for gradients that have no derivative of their own."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch


def first_order(backward: Callable[..., Any]) -> Callable[..., Any]:
    """A ``Function.backward`` outside autocast that refuses ``create_graph``.

    ``once_differentiable`` would stay silent where the incoming gradient is a constant, as that of
    a plain sum is: the second derivative would then be missing without a word.

    Raises:
        RuntimeError: when called to be differentiated again.
    """

    @wraps(backward)
    def guarded(ctx: Any, *gradients: Any) -> Any:
        if torch.is_grad_enabled():
            raise RuntimeError("a streamed loss cannot be differentiated twice: leave out create_graph=True")
        device = next((g.device.type for g in gradients if g is not None), "cpu")
        with torch.autocast(device, enabled=False):
            return backward(ctx, *gradients)

    return guarded
