"""What is fuzzed: a reader, whole files to start from, and what it may refuse them with."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .mutate import damaged

Files = dict[str, bytes]
"""One input: files by name."""


@dataclass(frozen=True)
class Bench:
    """A reader made ready: what takes long has happened.

    Inputs:
        seeds: whole inputs, each of which ``read`` accepts.
        read: told an input and the folder its files lie in; raises nothing but ``refuses``.
        tokens: words of the format.
        edit: now and then makes an input of another instead of damaging bytes: keys, types, numbers.
        finish: repairs what would have every damaged input refused at once, such as a checksum.
        fixed: files that are never damaged.
    """

    seeds: Sequence[Files]
    read: Callable[[Files, Path], Any]
    refuses: tuple[type[Exception], ...]
    tokens: Sequence[bytes] = ()
    edit: Callable[[Files, random.Random], Files] | None = None
    finish: Callable[[Files], Files] | None = None
    fixed: frozenset[str] = frozenset()

    def input(self, reader: str, seed: int, number: int) -> Files:
        """The input of that number, the same every time; the first are the seeds."""
        if number < len(self.seeds):
            return self.seeds[number]
        draw = random.Random(f"{reader} {seed} {number}")
        files = dict(draw.choice(self.seeds))
        if self.edit is not None and draw.random() < 0.6:
            with suppress(RecursionError):  # a tree too deep to be written down
                files = self.edit(files, draw)
            if draw.random() < 0.7:
                return self._finished(files, draw)
        names = [name for name in files if name not in self.fixed]
        for name in draw.sample(names, draw.choice([1, min(2, len(names))])):
            other = draw.choice(self.seeds).get(name, b"")
            files[name] = damaged(files[name], other, self.tokens, draw)
        return self._finished(files, draw)

    def _finished(self, files: Files, draw: random.Random) -> Files:
        return self.finish(files) if self.finish is not None and draw.random() < 0.8 else files
