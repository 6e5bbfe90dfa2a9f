"""Writes ``docs/reliability.md`` from what happened."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence

from .case import Case
from .judge import Verdict

HEAD = """# Reliability

This page is written by the fault suite (`make faults`, or `python -m tests.faults --write
docs/reliability.md`) from what happened when it was run; do not edit it. Every fault below is real:
processes are killed and stopped by signals at chosen moments, disks are full or unplugged, files are
changed, cut and forbidden, limits of the system are reached, other processes hold locks, plugins misbehave.

## What is promised

After any of these faults
- the exit status is 0 (done), 1 (the run failed), 2 (the user's input is wrong) or 130 (interrupted), or
  the signal that ended the process;
- stderr names what went wrong and what to do, without a traceback (`MODALIGN_DEBUG=1` shows it);
- no file that claims to be whole is half-written: JSON, Parquet, safetensors, checkpoints, pages;
- no process is left behind;
- `modalign align PLAN --resume` goes on, once the cause is mended, and ends with the bytes of the
  undisturbed run (`space/model.safetensors`) and its metrics (`metrics.jsonl`, times apart), on the same
  machine and number of processes;
- a sample that cannot be read costs that sample (`quarantine.csv`), never the run, up to `data.max_bad`;
- MLflow and plugins' event hooks can neither stop nor change a run.

What is not promised: a power cut may lose what the disk had not written yet (checkpoints are flushed
with `fsync`, other files are not); a file of the feature cache that another program cuts while it is in
use ends the process (SIGBUS), as with every memory-mapped file.

## What was done
"""


def page(verdicts: Sequence[tuple[Case, Verdict | str]]) -> str:
    """The page's text.

    Inputs:
        verdicts: by case, what happened, or why it could not be done on this machine.
    """
    done = [(case, verdict) for case, verdict in verdicts if isinstance(verdict, Verdict)]
    held = [case for case, verdict in done if not verdict.broken]
    kinds = list(dict.fromkeys(case.kind for case, _ in verdicts))
    lines = [
        HEAD,
        f"{len(done)} faults of {len({case.kind for case, _ in done})} kinds; {len(held)} of the promises were kept.",
    ]
    known = [case for case, _ in verdicts if case.defect]
    if known:
        lines += ["", "Known not to be kept yet:", ""]
        lines += [f"- {case.name}: {case.defect}" for case in known]
    lines += ["", "| kind | done | when | what happened | promised | kept |", "|---|---|---|---|---|---|"]
    for kind in kinds:
        for case, verdict in verdicts:
            if case.kind == kind:
                lines.append("| " + " | ".join(map(_cell, _row(case, verdict))) + " |")
    return "\n".join(lines) + "\n"


def _row(case: Case, verdict: Verdict | str) -> tuple[str, ...]:
    if isinstance(verdict, str):
        happened, kept = f"not done here: {verdict}", "-"
    else:
        happened, kept = told(verdict), "no" if verdict.broken else "yes"
    return case.kind, case.name, case.when, happened, str(case.promise), kept


def told(verdict: Verdict) -> str:
    """What happened, in a line that is the same in every run."""
    if verdict.status is None:
        return "it did not end"
    if verdict.status < 0:
        return signal.Signals(-verdict.status).name
    said = re.sub(r" \(MODALIGN_DEBUG=1[^)]*\)", "", verdict.message)
    said = re.sub(r"(?<![\w:])/(?:[^\s'\"():,;]+/)+", "…/", said)  # where things lay
    said = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:PORT", said)
    said = said if len(said) <= 220 else f"{said[:219]}…"
    status = f"status {verdict.status}"
    return f"{status}: `{said}`" if said else status


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def names(text: str) -> list[str]:
    """Kind and name of every case in a page."""
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return [f"{row[0][2:]}: {row[1]}".replace("\\|", "|") for row in rows if row[1] != "done"]
