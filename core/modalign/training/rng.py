"""Random generators: seeded per purpose, and their state for exact resume."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
import torch

from .seeds import seed_of


def seed_all(*parts: object) -> None:
    """Seed Python's, numpy's and torch's generators from anything printable."""
    seed = seed_of(*parts)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def rng_state() -> dict[str, Any]:
    """The state of every global generator, as tensors and plain values."""
    version, keys, *rest = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": [str(version), torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": device_rng(),
    }


def restore_rng(state: dict[str, Any]) -> None:
    """Put every global generator back."""
    random.setstate(state["python"])
    version, keys, *rest = state["numpy"]
    np.random.set_state((version, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    restore_device_rng(state["cuda"])


@cache
def has_gpu() -> bool:
    """Whether torch can use one; asked once, because torch looks for drivers each time."""
    return torch.cuda.is_available()


def device_rng() -> list[torch.Tensor]:
    """The state of this process's own GPU, if it has one; to touch the others would take their memory."""
    return [torch.cuda.get_rng_state()] if has_gpu() else []


def restore_device_rng(state: list[torch.Tensor]) -> None:
    """The inverse of ``device_rng``."""
    if state and has_gpu():
        torch.cuda.set_rng_state(state[0])


@contextmanager
def seeded(*parts: object) -> Iterator[None]:
    """Global generators seeded inside, and as they were afterwards."""
    before = rng_state()
    seed_all(*parts)
    try:
        yield
    finally:
        restore_rng(before)
