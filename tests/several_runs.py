"""Several runs one after the other, in processes that torchrun started once: importing takes longest.

A case of the JSON file holds the arguments of ``align``, and maybe ``stop``: after that many steps, the
last of the processes, and no other, is told to stop; or ``stop_encoding``: it is told so while features are
encoded; or ``room``: the rows for which that one has memory; or ``gain``: a parameter without dimensions.
"""

from __future__ import annotations

import faulthandler
import functools
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import modalign
import torch
from modalign.contracts import Features
from modalign.training.reader import Reader
from modalign_image.small_vit import SmallViT


def steps_logged(folder: str) -> int:
    try:
        return Path(folder, "metrics.jsonl").read_bytes().count(b'"lr"')
    except FileNotFoundError:
        return 0


def stop_after(steps: int, folder: str) -> None:
    while steps_logged(folder) < steps:
        time.sleep(0.005)
    os.kill(os.getpid(), signal.SIGTERM)


def with_room(rows: int | None) -> None:
    """Let memory run out when a trained image encoder sees more rows."""
    whole = SmallViT.__dict__.get("whole", SmallViT.forward)

    def forward(self: SmallViT, batch: Any) -> Any:
        if rows and self.training and len(batch["pixels"]) > rows:
            raise torch.OutOfMemoryError("no room")
        return whole(self, batch)

    SmallViT.whole, SmallViT.forward = whole, forward


@contextmanager
def with_gain(wanted: bool) -> Iterator[None]:
    """Give the image encoder a parameter without dimensions, which FSDP leaves whole on every process."""
    begin, forward = SmallViT.__init__, SmallViT.forward

    @functools.wraps(begin)
    def with_one(self: SmallViT, *args: Any, **keywords: Any) -> None:
        begin(self, *args, **keywords)
        self.gain = torch.nn.Parameter(torch.tensor(1.0))

    def gained(self: SmallViT, batch: Any) -> Features:
        found = forward(self, batch)
        bright = batch["pixels"].mean((1, 2, 3))[:, None, None]  # or a norm would take it out again
        return Features(found.tokens * (1 + 20 * (self.gain - 1) * bright), found.mask)

    if wanted:
        SmallViT.__init__, SmallViT.forward = with_one, gained
    try:
        yield
    finally:
        SmallViT.__init__, SmallViT.forward = begin, forward


@contextmanager
def told_while_encoding(wanted: bool) -> Iterator[None]:
    """Tell this process to stop when it has encoded something."""
    prepare = Reader.prepare

    def told(self: Reader, *args: Any) -> Iterator[int]:
        for done in prepare(self, *args):
            os.kill(os.getpid(), signal.SIGTERM)
            yield done

    if wanted:
        Reader.prepare = told
    try:
        yield
    finally:
        Reader.prepare = prepare


def main() -> None:
    faulthandler.dump_traceback_later(int(os.environ.get("PATIENCE", "240")), exit=True)
    last = int(os.environ["RANK"]) == int(os.environ["WORLD_SIZE"]) - 1
    for case in json.loads(Path(sys.argv[1]).read_text()):
        stop, room = case.pop("stop", None), case.pop("room", None)
        encoding, gain = case.pop("stop_encoding", False), case.pop("gain", False)
        told = stop or encoding
        with_room(room if last else None)
        if stop and last:
            threading.Thread(target=stop_after, args=(stop, case["out"]), daemon=True).start()
        try:
            with with_gain(gain), told_while_encoding(encoding and last):
                modalign.align(**case)
        except KeyboardInterrupt:
            if not told:
                raise
        else:
            assert not told, "it was not stopped"


if __name__ == "__main__":
    main()
