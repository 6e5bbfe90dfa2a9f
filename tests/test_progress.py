"""The progress bar: a bar on a terminal, one line elsewhere, nothing when quiet."""

import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pluggy
import pytest
from modalign.contracts.run import Run, Stage
from modalign.plugin import hookspecs
from modalign.training.progress import Progress, main_metrics

RUN = Run("demo", Path("nowhere"), {}, {}, "digest", None)
STAGE = Stage("image[text]", 0, epochs=2, steps=40, batch_size=8, first_step=60)
RESULTS = {"retrieval:a->b/R@1": 0.5, "retrieval:a->b/MRR": 0.7, "zero_shot:a/accuracy": 0.25, "seconds": 1.5}


class Terminal(io.StringIO):
    def isatty(self):
        return True


def play(progress, steps=range(61, 101), finish=True):
    """A stage as the training loop tells it, through the real hooks."""
    hooks = pluggy.PluginManager("modalign")
    hooks.add_hookspecs(hookspecs)
    hooks.register(progress)
    hook = hooks.hook
    hook.run_started(run=RUN)
    hook.stage_started(run=RUN, stage=STAGE)
    for step in steps:
        metrics = {"loss": 123.5 / step, "samples_per_second": 4321.0, "lr": 0.1}
        hook.step_finished(run=RUN, stage=STAGE, step=step, metrics=metrics)
    if finish:
        hook.stage_finished(run=RUN, stage=STAGE, metrics=RESULTS)
    return hook


def test_off_a_terminal_a_stage_is_one_plain_line():
    file = io.StringIO()
    play(Progress(file=file)).run_finished(run=RUN, status="ok")
    (line,) = file.getvalue().splitlines()
    assert "\x1b" not in line
    for part in ("image[text]", "1.5 s", "loss 1.235", "retrieval:a->b/R@1 0.5", "zero_shot:a/accuracy 0.25"):
        assert part in line
    assert "MRR" not in line


def test_on_a_terminal_the_bar_shows_loss_speed_and_steps_of_the_stage():
    file = Terminal()
    play(Progress(file=file), finish=False).run_finished(run=RUN, status="failed")
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", file.getvalue())
    for part in ("image[text]", "40/40", "loss 1.235", "4321 samples/s"):
        assert part in text
    assert file.getvalue().count("\x1b[?25l") == file.getvalue().count("\x1b[?25h") > 0  # cursor is back


def test_after_resuming_the_time_left_comes_from_the_new_steps_alone():
    progress = Progress(file=Terminal())
    hook = play(progress, steps=[90, 91], finish=False)
    task = progress._bar.tasks[0]
    assert task.completed == 31
    assert task.speed is None or task.elapsed * task.speed < 5  # 29 steps were not taken in this moment
    hook.run_finished(run=RUN, status="interrupted")


@pytest.mark.parametrize("file", [Terminal(), io.StringIO()], ids=["terminal", "pipe"])
def test_quiet_writes_nothing(file):
    play(Progress(quiet=True, file=file)).run_finished(run=RUN, status="ok")
    assert file.getvalue() == ""


def test_real_terminal_gets_the_bar_on_stderr_and_nothing_on_stdout():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_progress as t\n"
        "t.play(t.Progress()).run_finished(run=t.RUN, status='ok')\n"
    )
    theirs, ours = pty.openpty()
    command = [sys.executable, "-c", code, str(Path(__file__).parent)]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.run(command, stdout=subprocess.PIPE, stderr=ours, env=environment, timeout=60)
    os.close(ours)
    shown = os.read(theirs, 100_000).decode()
    os.close(theirs)
    assert process.returncode == 0, shown
    assert process.stdout == b""
    assert "40/40" in shown
    assert "retrieval:a->b/R@1 0.5" in shown


def test_the_main_metric_is_the_first_of_each_task():
    assert main_metrics(RESULTS) == {"retrieval:a->b/R@1": 0.5, "zero_shot:a/accuracy": 0.25}
    assert main_metrics({"seconds": 1.0}) == {}


def test_importing_the_event_plugins_imports_none_of_their_libraries():
    code = (
        "import sys, modalign.training.progress, modalign.training.track.tracking\n"
        "print(sorted({'rich', 'mlflow', 'psutil'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert shown.stdout.strip() == "[]", shown.stderr
