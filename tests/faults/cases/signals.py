"""Signals that ask, stop, or come from a terminal or a scheduler that goes away."""

from __future__ import annotations

import signal
import time

from ..bench import Bench
from ..case import Promise, case
from ..inside import kill, moment
from ..process import Ended

INT, TERM = signal.SIGINT, signal.SIGTERM
STOPPED = Promise(130, "stopping after this step.*interrupted")
BEFORE = Promise(130, "interrupted", resumes=False, same=False, more="nothing was written")


@case("Ctrl-C", "Ctrl-C in mid-epoch", "after step 5", STOPPED, quick=True)
def ctrl_c(bench: Bench) -> Ended:
    return bench.align(at=kill("step", count=5, number=INT)).end()


@case("Ctrl-C", "Ctrl-C twice: it stops at once", "after step 5", STOPPED)
def ctrl_c_twice(bench: Bench) -> Ended:
    return bench.align(at=kill("step", count=5, number=INT, times=2)).end()


@case("Ctrl-C", "Ctrl-C before anything is written", "while the plan is checked", BEFORE)
def ctrl_c_early(bench: Bench) -> Ended:
    ended = bench.align(at=kill("call", "modalign.training.run:input_digests", number=INT)).end()
    assert not bench.run.exists()
    return ended


@case("Ctrl-C", "Ctrl-C while features are computed", "encoding text", STOPPED)
def ctrl_c_encoding(bench: Bench) -> Ended:
    return bench.align(at=kill("call", "modalign.training.reader:Reader.features", number=INT)).end()


@case("Ctrl-C", "Ctrl-C while tasks are measured", "end of stage 1", STOPPED)
def ctrl_c_measuring(bench: Bench) -> Ended:
    return bench.align(at=kill("call", "modalign.training.context:Context.measure", number=INT)).end()


@case("Ctrl-C", "Ctrl-C while a checkpoint is written", "second checkpoint", STOPPED)
def ctrl_c_checkpoint(bench: Bench) -> Ended:
    return bench.align(at=kill("os.rename", "*/checkpoints/*.ckpt", 2, number=INT)).end()


@case("Ctrl-C", "Ctrl-C twice while a space is written", "end of stage 1", STOPPED)
def ctrl_c_space(bench: Bench) -> Ended:
    return bench.align(at=kill("os.rename", "*/run/space", number=INT, times=2)).end()


@case("Ctrl-C", "Ctrl-C, resumed, and Ctrl-C again", "after steps 5 and 11", STOPPED)
def ctrl_c_again(bench: Bench) -> Ended:
    bench.align(at=kill("step", count=5, number=INT)).end()
    return bench.align("--resume", at=kill("step", count=6, number=INT)).end()


@case("Ctrl-C", "a fresh interpreter and Ctrl-C from outside", "after step 5, by another process", STOPPED)
def ctrl_c_from_outside(bench: Bench) -> Ended:
    running = bench.align(cold=True)
    running.until(lambda: bench.steps() >= 5, "step 5")
    running.send(INT, group=True)
    return running.end()


@case("SIGTERM", "SIGTERM in mid-epoch", "after step 5", STOPPED)
def term(bench: Bench) -> Ended:
    return bench.align(at=kill("step", count=5, number=TERM)).end()


@case("SIGTERM", "SIGTERM twice", "after step 14", STOPPED)
def term_twice(bench: Bench) -> Ended:
    return bench.align(at=kill("step", count=14, number=TERM, times=2)).end()


@case("SIGTERM", "SIGTERM, and SIGKILL ten seconds later in vain", "after step 3", STOPPED)
def term_kill(bench: Bench) -> Ended:
    running = bench.align(at=moment("step", count=3, do="wait", flag=str(bench.flag)))
    bench.paused(running)
    running.send(TERM)
    bench.go_on()
    return running.end()


@case("SIGHUP", "the terminal is closed", "after step 5", Promise(-signal.SIGHUP))
def hang_up(bench: Bench) -> Ended:
    return bench.align(at=kill("step", count=5, number=signal.SIGHUP)).end()


@case("SIGUSR1", "a scheduler's warning that nobody asked for", "after step 5", Promise(-signal.SIGUSR1))
def user_signal(bench: Bench) -> Ended:
    return bench.align(at=kill("step", count=5, number=signal.SIGUSR1)).end()


@case("SIGSTOP", "suspended and continued", "after step 5, for a second", Promise())
def suspended(bench: Bench) -> Ended:
    running = bench.align(at=moment("step", count=5, do="wait", flag=str(bench.flag)))
    bench.paused(running)
    running.send(signal.SIGSTOP)
    bench.go_on()
    time.sleep(1)
    assert running.status() is None
    running.send(signal.SIGCONT)
    return running.end()


@case("CPU time", "the limit on processor time is reached", "when it is", Promise(-signal.SIGXCPU))
def processor_time(bench: Bench) -> Ended:
    bench.plan["stages"][1]["epochs"] = 40
    bench.undisturbed()
    return bench.align(inside={"limits": {"RLIMIT_CPU": 2}}).end()


@case("crash", "a library crashes (SIGSEGV)", "after step 5", Promise(-signal.SIGSEGV))
def crash(bench: Bench) -> Ended:
    return bench.align(at=kill("step", count=5, number=signal.SIGSEGV)).end()


@case("crash", "a library ends the process (SIGABRT)", "in the second stage", Promise(-signal.SIGABRT))
def abort(bench: Bench) -> Ended:
    return bench.align(
        at=kill("call", "modalign.training.context:Context.record", 14, number=signal.SIGABRT)
    ).end()


@case("crash", "something calls os._exit(3)", "after step 5", Promise(3))
def leaves(bench: Bench) -> Ended:
    return bench.align(at=moment("step", count=5, do="leave", status=3)).end()
