"""GradCache: the gradient of a loss on the whole batch, encoders run in chunks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from modalign.contracts import Features

from .content import Embedded, Loaded, Outputs
from .memory import together
from .rng import device_rng, restore_device_rng

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def split(loaded: Mapping[str, Loaded], size: int, count: int | None = None) -> Iterator[dict[str, Loaded]]:
    """A batch of ``N`` rows as batches of at most ``size`` rows.

    Inputs:
        count: how many: that of all processes, of which some hold a row less, so that their last one
            may be empty; default: as many as it takes.
    """
    total = len(next(iter(loaded.values())).present)
    for start in range(0, total if count is None else count * size, size):
        rows = slice(start, start + size)
        yield {m: Loaded(_content(x, start, size), x.present[rows], x.ids[rows]) for m, x in loaded.items()}


def _content(loaded: Loaded, start: int, size: int) -> Any:
    """The content holds present rows only: count those before the chunk and in it."""
    first = int(loaded.present[:start].sum())
    last = first + int(loaded.present[start : start + size].sum())
    if loaded.content is None or first == last:
        return None
    if isinstance(loaded.content, Embedded):
        return Embedded(loaded.content.vectors[first:last])
    if isinstance(loaded.content, Features):
        return Features(loaded.content.tokens[first:last], loaded.content.mask[first:last])
    return {name: tensor[first:last] for name, tensor in loaded.content.items()}


def join(parts: list[Outputs]) -> Outputs:
    """Outputs of chunks as one batch; token sequences get the longest one's length."""
    joined: Outputs = {}
    for m in parts[0]:
        joined[m] = {}
        for key in parts[0][m]:
            tensors = [part[m][key] for part in parts]
            if key in ("tokens", "masks"):
                longest = max(t.shape[1] for t in tensors)
                tensors = [_lengthen(t, longest) for t in tensors]
            joined[m][key] = torch.cat(tensors)
    return joined


def _lengthen(tensor: Tensor, length: int) -> Tensor:
    more = length - tensor.shape[1]
    return nn.functional.pad(tensor, (0, 0, 0, more) if tensor.ndim == 3 else (0, more)) if more else tensor


def cached_backward(
    fabric: Fabric,
    model: Any,
    loaded: Mapping[str, Loaded],
    size: int,
    loss_of: Callable[[Outputs, Tensor], tuple[Tensor, Any]],
    share: float,
    last: bool,
    count: int | None = None,
) -> tuple[float, Any]:
    """Embed without gradient, take the loss's gradient by embedding, then run chunks again with it.

    Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", arXiv
    2101.06983. Generators are replayed, so that both passes of a chunk see the same dropout. Memory
    is that of one chunk, for one more forward pass.

    Inputs:
        model: returns outputs and scale for a batch; wrapped by Fabric.
        size: rows per chunk.
        loss_of: the loss of joined outputs and scale, and what else to return.
        share: what the loss is multiplied by before its gradient is taken.
        last: whether the optimiser steps after this batch, so that devices must agree.
        count: as in ``split``.

    Returns the loss's value (no gradient is left behind if it is not finite) and the rest.
    """
    chunks = list(split(loaded, size, count))
    states: list[tuple[Tensor, list[Tensor]]] = []

    def first_pass() -> tuple[list[Outputs], Tensor]:
        parts = []
        with torch.no_grad():
            for chunk in chunks:
                states.append(_generators())
                outputs, scale = model(chunk)
                parts.append(outputs)
        return parts, scale

    parts, scale = together(fabric, first_pass)
    leaves = {
        m: {k: t.detach().requires_grad_(t.is_floating_point()) for k, t in out.items()}
        for m, out in join(parts).items()
    }
    scale = scale.detach().requires_grad_()
    loss, rest = loss_of(leaves, scale)
    value = float(loss.detach())
    if not math.isfinite(value) or not loss.requires_grad:
        return value, rest
    fabric.backward(loss * share)
    # What a gradient scaler multiplies by (else 1): the gradients of the leaves hold it already.
    factor = torch.ones((), device=loss.device, requires_grad=True)
    fabric.backward(factor * 1.0)
    start = 0
    for i, (chunk, state) in enumerate(zip(chunks, states, strict=True)):
        stop = start + len(next(iter(chunk.values())).present)
        _set_generators(state)
        with fabric.no_backward_sync(model, enabled=not last or i < len(chunks) - 1):
            outputs, again = model(chunk)
            pull = again * scale.grad if i == 0 and scale.grad is not None else again * 0.0
            for m, out in outputs.items():
                for key, tensor in out.items():
                    grad = leaves[m][key].grad
                    if grad is not None and tensor.requires_grad:
                        # Only padding lies beyond the chunk's own length.
                        pull = pull + (tensor * grad[start:stop, : tensor.shape[1]]).sum()
            if pull.requires_grad:
                fabric.backward(pull / factor.grad)
        start = stop
    return value, rest


def _generators() -> tuple[Tensor, list[Tensor]]:
    return torch.get_rng_state(), device_rng()


def _set_generators(state: tuple[Tensor, list[Tensor]]) -> None:
    torch.set_rng_state(state[0])
    restore_device_rng(state[1])
