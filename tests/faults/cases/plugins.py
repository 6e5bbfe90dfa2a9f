"""A third party's plugin raises, hangs, lies, or is missing."""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path

from ..bench import Bench
from ..case import Promise, case
from ..process import Ended

SOURCE = Path(__file__).parents[1] / "faulty"
ABOUT = "Metadata-Version: 2.1\nName: modalign-faulty\nVersion: {version}\nRequires-Dist: modalign{fence}\n"


def install(bench: Bench, fence: str = ">=0.1,<0.2", version: str = "0.1.0") -> Path:
    """The misbehaving plugin, in a folder of its own on the path; returns the folder."""
    site = bench.home / "site"
    shutil.rmtree(site, ignore_errors=True)
    shutil.copytree(SOURCE, site / "modalign_faulty", ignore=shutil.ignore_patterns("__pycache__"))
    about = site / f"modalign_faulty-{version}.dist-info"
    about.mkdir()
    (about / "METADATA").write_text(ABOUT.format(version=version, fence=fence))
    (about / "entry_points.txt").write_text("[modalign.plugins]\nfaulty = modalign_faulty\n")
    bench.environment["PYTHONPATH"] = str(site)
    return site


def with_notes(bench: Bench, tasks: bool = False) -> None:
    """A plan that uses the plugin: notes in place of texts, read from the label."""
    install(bench)
    plan = bench.plan
    plan["data"]["columns"] = {"image": "image", "note": "label", "audio": "audio"}
    plan["modalities"]["note"] = {"encoder": "note-net", "trainable": True}
    del plan["modalities"]["text"], plan["stages"][0]["select"]
    plan["stages"][0] |= {"align": ["image", "note"], "losses": {"moody": 1.0}}
    plan["stages"][1] |= {"align": ["audio", "note"]}
    plan["tasks"] = [{"name": "glance"}] if tasks else []


def misbehaving(bench: Bench, how: str, *more: str) -> Ended:
    return bench.align(*more, environment={"FAULTY": how}).end()


EVENTS = {
    "an event hook raises": ("step_finished:raise:3", "after step 3"),
    "an event hook raises at every step": ("step_finished:raise:always", "from the first step on"),
    "an event hook raises SystemExit": ("step_finished:exit:3", "after step 3"),
    "the hook of the run's begin raises": ("run_started:raise:1", "begin of the run"),
    "the hook of the run's end raises": ("run_finished:raise:1", "end of the run"),
}
for name, (how, when) in EVENTS.items():

    @case("plugin", name, when, Promise(0, "plugin modalign-faulty: .*raised .*reported once"))
    def event(bench: Bench, how: str = how) -> Ended:
        bench.undisturbed()
        install(bench)
        return misbehaving(bench, how)


CODE = {
    "reading a sample raises": ("read:raise:9", "boom in read"),
    "collating a batch raises": ("collate:raise:5", "boom in collate"),
    "an encoder raises": ("forward:raise:6", "boom in forward"),
    "a loss raises": ("loss:raise:6", "boom in loss"),
    "reading a sample ends the program (SystemExit)": ("read:exit:9", "SystemExit"),
    "reading a sample takes more memory than there is": ("read:memory:9", "MemoryError"),
}
for name, (how, says) in CODE.items():

    @case("plugin", name, f"the {how.rpartition(':')[2]}th time", Promise(1, f"{says}.*--resume"))
    def code(bench: Bench, how: str = how) -> Ended:
        with_notes(bench)
        bench.undisturbed()
        return misbehaving(bench, how)


@case("plugin", "a task raises", "end of stage 1", Promise(1, "boom in task.*--resume"))
def task(bench: Bench) -> Ended:
    with_notes(bench, tasks=True)
    bench.undisturbed()
    return misbehaving(bench, "task:raise:always")


@case("not finite", "a loss is not a number in one step", "step 3", Promise(
    0, "1 steps were not finite and skipped", same=False, more="the rows are in `nonfinite.jsonl`"))  # fmt: skip
def nan_once(bench: Bench) -> Ended:
    with_notes(bench)
    ended = misbehaving(bench, "loss:nan:3")
    assert (bench.run / "nonfinite.jsonl").is_file()
    return ended


@case("not finite", "a loss is never a number", "from step 1 on", Promise(
    1, "not finite in 11 steps.*max_nonfinite.*nonfinite.jsonl", same=False))  # fmt: skip
def nan_always(bench: Bench) -> Ended:
    with_notes(bench)
    bench.plan["stages"][0]["epochs"] = 5
    return misbehaving(bench, "loss:nan:always")


@case("not finite", "an encoder gives no numbers", "from step 4 on", Promise(
    1, "finite", same=False))  # fmt: skip
def nan_features(bench: Bench) -> Ended:
    with_notes(bench)
    bench.plan["stages"][0]["epochs"] = 8
    return misbehaving(bench, "forward:nan:always")


@case("plugin", "reading a sample hangs, and Ctrl-C twice", "the 9th sample", Promise(130, "interrupted"))
def hangs(bench: Bench) -> Ended:
    with_notes(bench)
    bench.undisturbed()
    running = bench.align(environment={"FAULTY": "read:hang:9"})
    running.until((bench.run / "plan.yaml").is_file, "the run folder")
    time.sleep(2)
    for _ in range(2):
        running.send(signal.SIGINT)
        time.sleep(0.3)
    return running.end(30)


def away(bench: Bench, *change: str) -> Ended:
    with_notes(bench)
    bench.undisturbed()
    misbehaving(bench, "loss:raise:6")
    if change:
        install(bench, *change)
    else:
        shutil.rmtree(bench.home / "site")
    ended = bench.resume()
    install(bench)
    return ended


@case("plugin", "the plugin is uninstalled", "before --resume", Promise(2, "no encoder named 'note-net'"))
def missing(bench: Bench) -> Ended:
    return away(bench)


@case("plugin", "the plugin is replaced by one for another modalign", "before --resume", Promise(
    2, "note-net.*needs modalign|needs modalign.*note-net"))  # fmt: skip
def other_core(bench: Bench) -> Ended:
    return away(bench, ">=9")


@case("plugin", "the plugin does not import (SyntaxError)", "before --resume", Promise(2, "note-net"))
def broken_import(bench: Bench) -> Ended:
    with_notes(bench)
    bench.undisturbed()
    misbehaving(bench, "loss:raise:6")
    (bench.home / "site" / "modalign_faulty" / "__init__.py").write_text("def (:\n")
    ended = bench.resume()
    install(bench)
    return ended


@case("plugin", "an unrelated plugin does not import", "from the start", Promise())
def unrelated(bench: Bench) -> Ended:
    bench.undisturbed()
    site = install(bench)
    (site / "modalign_faulty" / "__init__.py").write_text("import nothing_of_that_name\n")
    return bench.align().end()


@case("plugin", "an unrelated plugin ends the program on import", "from the start", Promise())
def exits_on_import(bench: Bench) -> Ended:
    bench.undisturbed()
    site = install(bench)
    (site / "modalign_faulty" / "__init__.py").write_text("raise SystemExit(3)\n")
    return bench.align().end()
