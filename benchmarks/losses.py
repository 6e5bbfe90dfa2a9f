"""Speed and memory of our losses beside their peers: ``python benchmarks/losses.py [--quick] [CASE ...]``.

Each measurement is a fresh process with the same inputs and threads: loss and backward, the fastest
of several runs (CPU seconds count all threads, waiting ones too), and the peak of resident memory
above what inputs and libraries already took (the gradients themselves are part of it, for everyone). Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import torch
from loss_cases import CASES, OURS, Case, Inputs

Result = dict[str, Any]


def main() -> None:
    options = arguments()
    if options.one:
        name, size, who = options.one
        case = next(case for case in CASES if case.name == name)
        print(json.dumps(measure(case, int(size), who, options)))
        return
    print(
        f"torch {torch.__version__}, {options.threads} threads, load {os.getloadavg()[0]:.1f} at the start\n"
    )
    print(
        "| loss | N | | value | seconds | × ours | CPU seconds | × ours | extra MB | × ours | gradient differs by |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for case in CASES:
        if options.cases and case.name not in options.cases:
            continue
        for size in options.sizes or (case.quick if options.quick else case.sizes):
            with tempfile.TemporaryDirectory() as folder:
                results = {who: fresh(case, size, who, options, folder) for who in case.implementations(size)}
                for who, result in results.items():
                    print(line(case, size, who, result, results[OURS], Path(folder)), flush=True)
    print(f"\nload {os.getloadavg()[0]:.1f} at the end")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("cases", nargs="*", help=f"of {', '.join(case.name for case in CASES)}")
    parser.add_argument("--quick", action="store_true", help="small sizes only")
    parser.add_argument("--sizes", type=int, nargs="+", metavar="N", help="these sizes only")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=300, help="given up after so many")
    parser.add_argument("--memory", type=float, default=8, help="and when more GB are asked for")
    parser.add_argument("--one", nargs=3, metavar=("CASE", "N", "WHO"), help=argparse.SUPPRESS)
    parser.add_argument("--gradients", help=argparse.SUPPRESS)
    return parser.parse_args()


def fresh(case: Case, size: int, who: str, options: argparse.Namespace, folder: str) -> Result:
    """One measurement in a process of its own."""
    command = [sys.executable, __file__, "--one", case.name, str(size), who, "--gradients", folder]
    command += ["--threads", str(options.threads), "--memory", str(options.memory)]
    threads = {"OMP_NUM_THREADS": str(options.threads), "MKL_NUM_THREADS": str(options.threads)}
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=options.seconds,
            env={**os.environ, **threads},
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"more than {options.seconds:.0f} s"}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        memory = "memory" in last or "MemoryError" in done.stderr
        return {"failed": f"more than {options.memory:.0f} GB" if memory else last}
    return json.loads(done.stdout.splitlines()[-1])


def measure(case: Case, size: int, who: str, options: argparse.Namespace) -> Result:
    torch.set_num_threads(options.threads)
    resource.setrlimit(resource.RLIMIT_DATA, (int(options.memory * 2**30), -1))
    run = case.implementations(size)[who]()
    run(case.inputs(32)).backward()  # threads and libraries are up before memory is read
    x = case.inputs(size)
    before = psutil.Process().memory_info().rss
    forget_peak()
    seconds: list[float] = []
    cpu: list[float] = []
    value, extra = 0.0, 0
    while len(seconds) < 2 or (len(seconds) < 9 and sum(seconds) < 20):
        for leaf in x.values():
            leaf.grad = None
        start, used = time.perf_counter(), time.process_time()
        loss = run(x)
        loss.backward()
        seconds.append(time.perf_counter() - start)
        cpu.append(time.process_time() - used)
        if len(seconds) == 1:
            value, extra = float(loss), peak() - before
        del loss
        if seconds[0] > 60:
            break
    found = {k: v.grad for k, v in x.items() if v.grad is not None}
    torch.save(found, gradients(Path(options.gradients), who))
    return {"value": value, "seconds": min(seconds), "cpu": min(cpu), "extra": extra / 2**20}


def gradients(folder: Path, who: str) -> Path:
    return folder / f"{''.join(c if c.isalnum() else '-' for c in who)}.pt"


def forget_peak() -> None:
    """Start the kernel's record of peak resident memory again (Linux)."""
    Path("/proc/self/clear_refs").write_text("5")


def peak() -> int:
    status = Path("/proc/self/status").read_text()
    return next(int(row.split()[1]) for row in status.splitlines() if row.startswith("VmHWM")) * 1024


def line(case: Case, size: int, who: str, found: Result, ours: Result, folder: Path) -> str:
    head = f"| {case.name} | {size:,} | {who} |"
    if "failed" in found:
        return f"{head} | {found['failed']} | | | | | | |"
    cells = [f"{head} {found['value']:.6f}"]
    alone = who == OURS or "failed" in ours
    for key, form in (("seconds", ".3f"), ("cpu", ".3f"), ("extra", ".0f")):
        ratio = "" if alone else f"{found[key] / max(ours[key], 1e-9):.1f}"
        cells += [f"{found[key]:{form}}", ratio]
    away = (
        difference(torch.load(gradients(folder, OURS)), torch.load(gradients(folder, who)))
        if not alone
        else 0
    )
    return " | ".join([*cells, "" if alone else f"{away:.0e}"]) + " |"


def difference(a: Inputs, b: Inputs) -> float:
    """The largest ``‖a - b‖ / ‖b‖`` over the inputs both have a gradient for."""
    return max(float((a[k] - b[k]).norm() / b[k].norm()) for k in a.keys() & b.keys())


if __name__ == "__main__":
    main()
