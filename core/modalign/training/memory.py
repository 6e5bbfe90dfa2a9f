"""How many rows encoders see at once, and fewer of them when memory runs out."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import torch

from .agree import agreed
from .fabric import is_fsdp
from .job import RunFailed
from .rng import restore_rng, rng_state

if TYPE_CHECKING:
    from lightning_fabric import Fabric

log = logging.getLogger("modalign")
T = TypeVar("T")


class OutOfMemoryOnOne(MemoryError):
    """Memory ran out on some process, and all of them know."""


class ChunkSize:
    """The rows that go through encoders and projection at once; halved each time memory runs out.

    The loss sees the whole batch whatever the size, so it stays the same.

    Inputs:
        size: to begin with; None: all of a batch.
        alone: whether this is the only process. Several try again only what they gave up together:
            the others would wait for ever for one that does so by itself, in the middle of a reduction.
    """

    def __init__(self, size: int | None, *, alone: bool = True) -> None:
        self.size, self.alone = size, alone

    def below(self, rows: int) -> int | None:
        """The size, if a batch of that many rows must be cut into chunks at all."""
        return self.size if self.size is not None and self.size < rows else None

    def run(self, attempt: Callable[[], T], undo: Callable[[], None], rows: int) -> T:
        """What ``attempt`` gives, tried again with half the size as long as memory runs out.

        Inputs:
            undo: takes back what a failed attempt left behind; generators are put back here.
            rows: of the largest batch in it.

        Raises:
            RunFailed: if memory is not enough for one row, or ran out where other processes wait.
        """
        before = rng_state()
        while True:
            try:
                return attempt()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                known = self.alone or isinstance(error, OutOfMemoryOnOne)
            # Outside of the handler, whose traceback would hold on to the tensors.
            now = min(self.size or rows, rows)
            if now == 1 or not known:
                raise RunFailed(f"out of memory with {now} rows at once; lower chunk_size or batch_size")
            self.size = (now + 1) // 2
            undo()
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            restore_rng(before)
            log.warning(
                "out of memory with %d rows at once: going on with %d; the loss still sees the whole batch. "
                "Write chunk_size: %d into the stage to start there",
                now,
                self.size,
                self.size,
            )


def together(fabric: Fabric, forward: Callable[[], T]) -> T:
    """What a forward pass gives, or the same error on every process if memory runs out on one.

    Embedding is each process's own affair up to here, unless FSDP gathers modules inside of it. Later,
    in the loss and the backward pass, processes wait for each other, and one cannot call the others back.

    Raises:
        OutOfMemoryOnOne: if memory ran out on any of several processes.
    """
    if fabric.world_size == 1 or is_fsdp(fabric):
        return forward()
    result, failed = None, False
    try:
        result = forward()
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        failed = True
    if agreed(fabric, failed):
        raise OutOfMemoryOnOne
    return result  # type: ignore[return-value]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device, or the machine itself, had no memory left for a tensor."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    words = ("DefaultCPUAllocator: ", "could not create a primitive")  # the latter is oneDNN's
    return isinstance(error, RuntimeError) and any(word in str(error) for word in words)
