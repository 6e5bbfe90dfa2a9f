"""Checkpoints that are cut, flipped, swapped, forged or gone when a run is to go on."""

from __future__ import annotations

import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path

from ..bench import Bench
from ..case import Promise, case
from ..inside import kill
from ..process import Ended
from .cache import flip, halve


class Forged:
    """What unpickling would run."""

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return os.mkdir, ("pwned",)


def forge(path: Path) -> None:
    """A checkpoint with the right size and digest whose content is somebody else's code."""
    import hashlib
    import io
    import json

    import torch

    buffer = io.BytesIO()
    torch.save({"stage": Forged()}, buffer, pickle_module=pickle)
    payload = buffer.getvalue()
    head = json.dumps({"size": len(payload), "sha256": hashlib.sha256(payload).hexdigest()})
    path.write_bytes(head.encode() + b"\n" + payload)


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def only_part(path: Path) -> None:
    path.rename(path.with_suffix(".part"))


DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "the newest checkpoint is cut in half": (halve, "is damaged"),
    "a bit of the newest checkpoint is flipped": (flip, "is damaged"),
    "the newest checkpoint is empty": (lambda path: os.truncate(path, 0), "is damaged"),
    "the newest checkpoint is garbage": (lambda path: path.write_bytes(os.urandom(3000)), "is damaged"),
    "the newest checkpoint is a folder": (as_folder, "is damaged"),
    "the newest checkpoint is a forged pickle": (forge, "is damaged"),
    "of the newest checkpoint there is only the part file": (only_part, ""),
    "the newest checkpoint is gone": (Path.unlink, ""),
}


def stopped(bench: Bench) -> list[Path]:
    """Kill a run after step 14; its checkpoints, newest first."""
    bench.undisturbed()
    bench.align(at=kill("step", count=14)).end()
    found = sorted((bench.run / "checkpoints").glob("*.ckpt"), reverse=True)
    assert len(found) == 3
    return found


for name, (damage, says) in DAMAGE.items():

    @case("checkpoint", name, "before --resume", Promise(0, says), quick=name.startswith("a bit"))
    def newest(bench: Bench, damage: Callable[[Path], object] = damage) -> Ended:
        damage(stopped(bench)[0])
        ended = bench.resume()
        assert not (bench.home / "pwned").exists(), "a checkpoint's code was run"
        return ended


@case("checkpoint", "every checkpoint is damaged: it starts from the beginning", "before --resume", Promise(
    0, "is damaged.*is damaged.*is damaged"))  # fmt: skip
def all_of_them(bench: Bench) -> Ended:
    for path in stopped(bench):
        flip(path)
    return bench.resume()


@case("checkpoint", "the folder of checkpoints is gone", "before --resume", Promise(0))
def folder_gone(bench: Bench) -> Ended:
    stopped(bench)
    shutil.rmtree(bench.run / "checkpoints")
    return bench.resume()


@case(
    "checkpoint",
    "the newest checkpoint may not be read (mode 000)",
    "before --resume",
    Promise(0, "is damaged"),
)
def mode(bench: Bench) -> Ended:
    stopped(bench)[0].chmod(0)
    return bench.align("--resume", inside={"plain": True}).end()
