"""Several runs one after the other, in processes that torchrun started once: importing takes longest.

A case of the JSON file holds the arguments of ``align``, and maybe ``stop``: after that many steps, the
last of the processes, and no other, is told to stop; or ``room``: the rows for which that one has memory.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import modalign
import torch
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


def main() -> None:
    faulthandler.dump_traceback_later(int(os.environ.get("PATIENCE", "240")), exit=True)
    last = int(os.environ["RANK"]) == int(os.environ["WORLD_SIZE"]) - 1
    for case in json.loads(Path(sys.argv[1]).read_text()):
        stop, room = case.pop("stop", None), case.pop("room", None)
        with_room(room if last else None)
        if stop and last:
            threading.Thread(target=stop_after, args=(stop, case["out"]), daemon=True).start()
        try:
            modalign.align(**case)
        except KeyboardInterrupt:
            if not stop:
                raise
        else:
            assert not stop, "it was not stopped"


if __name__ == "__main__":
    main()
