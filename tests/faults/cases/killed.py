"""SIGKILL at every moment at which something is being written, or nothing is."""

from __future__ import annotations

import signal
from typing import Any

from ..bench import Bench
from ..case import Promise, case
from ..inside import kill
from ..process import Ended

KILLED = Promise(-signal.SIGKILL)

MOMENTS: dict[str, tuple[str, dict[str, Any]]] = {
    "killed after the first step": ("no checkpoint yet", kill("step", count=1)),
    "killed in mid-epoch": ("after step 5", kill("step", count=5)),
    "killed at the end of an epoch": ("after step 6", kill("step", count=6)),
    "killed in the second stage": ("after step 14", kill("step", count=14)),
    "killed after the very last step": ("after step 18", kill("step", count=18)),
    "killed as a checkpoint is opened": ("second checkpoint", kill("open", "*/checkpoints/*.part", 2)),
    "killed before a checkpoint gets its name": ("third checkpoint", kill("os.rename", "*/checkpoints/*.ckpt", 3)),
    "killed as the oldest checkpoint is deleted": ("after the fourth checkpoint", kill("os.remove", "*.ckpt", 1)),
    "killed while features are put into the cache": ("encoding text", kill("open", "*/features/*.bin", 1)),
    "killed between a feature and its index": ("encoding text", kill("open", "*/features/*.idx", 1)),
    "killed before a space is moved into place": ("end of stage 1", kill("os.rename", "*/run/space", 1)),
    "killed between the two moves of a space": ("end of stage 2", kill("os.rename", "*/run/space", 2)),
    "killed as the old space is put aside": ("end of stage 2", kill("os.rename", "*/run/.space.old", 1)),
    "killed while the report is written": ("end of stage 1", kill("os.rename", "*/report.json", 1)),
    "killed while the report's page is written": ("end of stage 2", kill("open", "*/*report.html*", 2)),
    "killed while tasks are measured": (
        "end of stage 1", kill("call", "modalign.training.context:Context.measure", 1)
    ),
    "killed between two stages": ("before stage 1's last checkpoint", kill("os.rename", "*/step-000000009.ckpt", 2)),
    "killed when all is written but the last checkpoint": (
        "end of stage 2", kill("os.rename", "*/step-000000018.ckpt", 2)
    ),
}  # fmt: skip


@case("SIGKILL", "killed as the run folder is claimed, twice", "before its mark, before its plan", Promise(
    -signal.SIGKILL, resumes=False, more="the same command starts anew"))  # fmt: skip
def killed_first_thing(bench: Bench) -> Ended:
    bench.undisturbed()
    ended = bench.align(at=kill("os.rename", "*/run/plan.yaml")).end()
    assert bench.align(at=kill("os.rename", "*/run/.run")).end().status == ended.status
    assert bench.align().end().status == 0
    return ended


for name, (when, at) in MOMENTS.items():

    @case("SIGKILL", name, when, KILLED, quick=name == "killed in mid-epoch")
    def killed(bench: Bench, at: dict[str, Any] = at) -> Ended:
        return bench.align(at=at).end()


@case("SIGKILL", "killed four times in a row, each time later", "after steps 3, 4, 9 and 10", KILLED)
def killed_again_and_again(bench: Bench) -> Ended:
    ended = bench.align(at=kill("step", count=3)).end()
    for count in (2, 6, 2):
        ended = bench.align("--resume", at=kill("step", count=count)).end()
    return ended


@case("SIGKILL", "a fresh interpreter killed from outside", "after step 5, by another process", KILLED)
def killed_from_outside(bench: Bench) -> Ended:
    running = bench.align(cold=True)
    running.until(lambda: bench.steps() >= 5, "step 5")
    running.send(signal.SIGKILL)
    bench.again = lambda: bench.align("--resume", cold=True).end()
    return running.end()
