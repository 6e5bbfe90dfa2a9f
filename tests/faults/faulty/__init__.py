"""A plugin that misbehaves where ``FAULTY`` says: ``place:deed:n``, at the n-th time it is there."""

from __future__ import annotations

import os
import time
from collections import Counter

from modalign import Component, hookimpl

_times: Counter[str] = Counter()


def act(place: str) -> bool:
    """Misbehave, if it is time to; True where the caller is to do something odd itself."""
    wanted, deed, number = os.environ.get("FAULTY", "nowhere::0").split(":")
    if place != wanted:
        return False
    _times[place] += 1
    if number != "always" and _times[place] != int(number):
        return False
    if deed == "raise":
        raise RuntimeError(f"boom in {place}")
    if deed == "exit":
        raise SystemExit(7)
    if deed == "hang":
        time.sleep(600)
    if deed == "memory":
        bytearray(1 << 60)
    return True


@hookimpl
def register_modalities() -> list[Component]:
    return [Component("note", "modalign_faulty.parts:Note", "short texts")]


@hookimpl
def register_encoders() -> list[Component]:
    return [Component("note-net", "modalign_faulty.parts:NoteNet", "letters, counted")]


@hookimpl
def register_losses() -> list[Component]:
    return [Component("moody", "modalign_faulty.parts:Moody", "InfoNCE, mostly")]


@hookimpl
def register_tasks() -> list[Component]:
    return [Component("glance", "modalign_faulty.parts:Glance", "the number of notes")]


@hookimpl
def run_started() -> None:
    act("run_started")


@hookimpl
def step_finished() -> None:
    act("step_finished")


@hookimpl
def run_finished() -> None:
    act("run_finished")
