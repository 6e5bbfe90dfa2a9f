"""Reads batches ahead in processes of their own, in order; one that dies is done without."""

from __future__ import annotations

import copy
import logging
import signal
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from modalign.errors import UserError

from .content import Loaded
from .reader import Reader

log = logging.getLogger("modalign")
Note = tuple[str, int, str, str, int, float]
Rows = Callable[[int], Iterable[np.ndarray]]


class Notes:
    """Stands in for the quarantine in another process: what it is told travels with the batch."""

    def __init__(self) -> None:
        self.found: list[Note] = []

    def add(self, *note: str | int | float) -> None:
        self.found.append(note)  # type: ignore[arg-type]


Read = tuple[dict[str, Loaded] | UserError, list[Note]]
"""A batch, or why the table itself could not be read; and what could not be read of it."""


class RowReader(Dataset[Read]):
    """Loads the rows it is asked for, by modality, and says which could not be read."""

    def __init__(self, readers: Mapping[str, Reader], epoch: int) -> None:
        self.notes, self.epoch = Notes(), epoch
        self.readers = {m: copy.copy(reader) for m, reader in readers.items()}
        for reader in self.readers.values():
            reader.quarantine = self.notes  # type: ignore[assignment]
            reader.keep_nothing()

    def __getitem__(self, rows: np.ndarray) -> Read:
        loaded: dict[str, Loaded] | UserError
        try:
            loaded = {m: reader.load(rows, self.epoch) for m, reader in self.readers.items()}
        except (UserError, OSError) as error:  # raised here, its traceback would be part of the message
            loaded = UserError(str(error) or type(error).__name__)  # other errors may not travel
        notes, self.notes.found = self.notes.found, []
        return loaded, notes


def read_ahead(
    readers: Mapping[str, Reader], rows: Rows, epoch: int, first: int, workers: int
) -> Iterator[dict[str, Loaded]]:
    """The batches of an epoch from number ``first`` on, by modality.

    The same whatever the number of processes. When one dies, as they do when memory runs out, the batch is
    read again by half as many, in the end by none.

    Inputs:
        rows: this process's rows of each batch from a number on.
        workers: processes that read; 0: the caller reads.
    """
    while workers:
        loader = DataLoader(
            RowReader(readers, epoch),
            batch_size=None,
            sampler=rows(first),  # type: ignore[arg-type]
            num_workers=workers,
            multiprocessing_context="fork",
            worker_init_fn=_begin,
            generator=torch.Generator(),  # or the run's own would be drawn from
        )
        try:
            for loaded, notes in loader:
                for note in notes:
                    readers[note[2]].quarantine.add(*note)
                if isinstance(loaded, UserError):
                    raise loaded
                first += 1
                yield loaded
            return
        except (RuntimeError, ConnectionError, EOFError) as error:
            died = not isinstance(error, RuntimeError) or "DataLoader worker" in str(error)
            if not died or "Caught" in str(error):  # what a reader raised is passed on by its process
                raise
            log.warning(
                "one of %d loader processes died (most often for lack of memory): going on with %d. "
                "Write workers: %d into the plan to start there",
                workers, workers // 2, workers // 2,
            )  # fmt: skip
            workers //= 2
    for mine in rows(first):
        yield {m: reader.load(mine, epoch) for m, reader in readers.items()}


def _begin(_: int) -> None:
    # The run itself answers Ctrl-C, and stops its readers when the step is done.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
