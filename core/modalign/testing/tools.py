"""What the checks share: expectations, random states, comparisons."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from modalign.contracts import Batch

TOLERANCE = 1e-5
"""How far two computations of the same thing may be apart, relative to the largest value."""


def expect(condition: bool, message: str) -> None:
    """Fail with ``message`` unless ``condition``; holds under ``python -O`` too.

    Raises:
        AssertionError: if the condition is False.
    """
    if not condition:
        raise AssertionError(message)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """The global generators of Python, NumPy and torch at ``seed``, as they were afterwards."""
    import random

    import numpy as np

    before = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(before[0])
            np.random.set_state(before[1])


@contextmanager
def offline() -> Iterator[None]:
    """No connection to another machine can be opened: nothing downloads unless it is asked to."""
    import socket

    connect = socket.socket.connect

    def refuse(self: socket.socket, address: object) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            raise ConnectionError(f"a check must not use the network, and something asked for {address}")
        connect(self, address)  # type: ignore[arg-type]

    socket.socket.connect = refuse  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        socket.socket.connect = connect  # type: ignore[method-assign]


def same(a: Tensor, b: Tensor) -> bool:
    """Bit for bit the same, NaN being equal to NaN."""
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return bool(torch.equal(a, b) or (a.is_floating_point() and torch.equal(a.nan_to_num(), b.nan_to_num())))


def same_batch(a: Batch, b: Batch) -> bool:
    """The same tensors under the same names."""
    return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)


def near(a: Tensor, b: Tensor, tolerance: float = TOLERANCE) -> bool:
    """As close as two computations of the same thing should be; NaN is near nothing."""
    if a.shape != b.shape:
        return False
    a, b = a.detach().double(), b.detach().double()
    largest = max(1.0, float(b.abs().max())) if b.numel() else 1.0
    return bool(((a - b).abs() <= tolerance * largest).all())


def finite(x: Tensor | None) -> bool:
    return x is None or bool(x.isfinite().all())


def without_gradient(module: nn.Module, skip: frozenset[int] = frozenset()) -> list[str]:
    """Names of trainable parameters that a backward pass did not reach, or reached with NaN."""
    return [
        name
        for name, p in module.named_parameters()
        if p.requires_grad and id(p) not in skip and (p.grad is None or not finite(p.grad))
    ]
