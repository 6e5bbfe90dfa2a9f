"""Retrieval of 20,000 by 20,000 beside open_clip: ``python benchmarks/retrieval.py [--quick] [--size N] [--dim D]``.

Both directions of the same distinct pairs, each implementation in a fresh process: seconds, and the peak
of resident memory above what inputs and libraries already took. Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from functools import cache
from pathlib import Path
from typing import Any

import psutil
import torch
from peers import bare, peer
from torch import Tensor
from torch.nn.functional import normalize

KS = (1, 5, 10)


def main() -> None:
    options = arguments()
    if options.one:
        print(json.dumps(measure(RUNS[options.one], options)))
        return
    print(
        f"torch {torch.__version__}, {options.threads} threads, load {os.getloadavg()[0]:.1f} at the start\n"
    )
    print("| | seconds | × ours | extra MB | × ours | R@1 | R@5 | R@10 | median rank |")
    print("|---|---|---|---|---|---|---|---|---|")
    results: dict[str, dict[str, Any]] = {}
    for name in RUNS:
        found = results[name] = fresh(name, options)
        ours = results[next(iter(RUNS))]
        cells = [name, f"{found['seconds']:.1f}", f"{found['seconds'] / ours['seconds']:.1f}"]
        cells += [f"{found['extra']:.0f}", f"{found['extra'] / ours['extra']:.1f}"]
        cells += [f"{a:.5g} / {b:.5g}" for a, b in found["metrics"]]
        print("| " + " | ".join(cells) + " |", flush=True)
    same = all(r["metrics"] == ours["metrics"] for name, r in results.items() if "every" not in name)
    print(f"\nsame numbers: {'yes' if same else 'NO'}; load {os.getloadavg()[0]:.1f} at the end")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--quick", action="store_true", help="2,000 pairs")
    parser.add_argument("--size", type=int, help="pairs; default 20,000")
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.size = options.size or (2_000 if options.quick else 20_000)
    return options


def inputs(size: int, dim: int) -> tuple[Tensor, Tensor]:
    """Distinct pairs, near enough for a median rank of a few."""
    g = torch.Generator().manual_seed(0)
    first = normalize(torch.randn(size, dim, generator=g), dim=1)
    return first, normalize(first + 0.26 * torch.randn(size, dim, generator=g), dim=1)


def ours(first: Tensor, second: Tensor) -> list[tuple[float, float]]:
    from modalign.tasks import retrieval_metrics

    both = [retrieval_metrics(a, b) for a, b in ((first, second), (second, first))]
    return [(both[0][k], both[1][k]) for k in (*(f"R@{k}" for k in KS), "median_rank")]


def every_positive(first: Tensor, second: Tensor) -> list[tuple[float, float]]:
    from modalign.tasks import retrieval_metrics

    both = [retrieval_metrics(a, b, every=True) for a, b in ((first, second), (second, first))]
    return [(both[0][k], both[1][k]) for k in (*(f"R@{k}" for k in KS), "median_rank")]


def open_clip(first: Tensor, second: Tensor) -> list[tuple[float, float]]:
    found = peer_function()(first, second, torch.tensor(1.0))
    keys = (*(f"R@{k}" for k in KS), "median_rank")
    return [(float(found[f"image_to_text_{k}"]), float(found[f"text_to_image_{k}"])) for k in keys]


UNUSED = {
    "open_clip": ("get_input_dtype", "CLIP", "CustomTextCLIP"),
    "open_clip_train.distributed": ("is_master",),
    "open_clip_train.zero_shot": ("zero_shot_eval",),
    "open_clip_train.precision": ("get_autocast",),
}
"""What its file asks for and ``get_clip_metrics`` never uses; torchvision would be needed for it."""


@cache
def peer_function() -> Any:
    """open_clip's ``get_clip_metrics``, from its own file."""
    for name, taken in UNUSED.items():
        vars(bare(name, None)).update(dict.fromkeys(taken))
    del sys.modules["open_clip_train"]  # `peer` looks for where it is installed
    return peer("open_clip_train", "train.py").get_clip_metrics


RUNS = {
    "modalign": ours,
    "modalign, with nDCG@k and mAP@R (every)": every_positive,
    "open_clip `get_clip_metrics`": open_clip,
}


def fresh(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """One measurement in a process of its own."""
    command = [sys.executable, __file__, "--one", name]
    for key in ("size", "dim", "threads"):
        command += [f"--{key}", str(getattr(options, key))]
    threads = {"OMP_NUM_THREADS": str(options.threads), "MKL_NUM_THREADS": str(options.threads)}
    done = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, **threads}, check=True
    )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def measure(run: Any, options: argparse.Namespace) -> dict[str, Any]:
    torch.set_num_threads(options.threads)
    run(*inputs(64, 8))  # threads and libraries are up before memory is read
    first, second = inputs(options.size, options.dim)
    before = psutil.Process().memory_info().rss
    Path("/proc/self/clear_refs").write_text("5")  # start the kernel's record of peak memory again
    start = time.perf_counter()
    metrics = run(first, second)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "extra": (peak() - before) / 2**20, "metrics": metrics}


def peak() -> int:
    """Peak resident memory in bytes (Linux)."""
    status = Path("/proc/self/status").read_text()
    return next(int(row.split()[1]) for row in status.splitlines() if row.startswith("VmHWM")) * 1024


if __name__ == "__main__":
    main()
