"""Aligning two frozen feature sets beside peers: ``python benchmarks/align_peers.py [--quick]``.

Two views (256 and 128 wide) of a shared 32-dimensional latent, with noise as strong as the signal, into 64
dimensions: three epochs of batches of 128. Each implementation runs in a fresh process with the same data,
seed, rate and threads (``align_with.py`` shows how); medians of several runs. Set-up is everything between
importing and the first step, and for modalign also what it reads and writes: the table, the cache,
checkpoints, the space and its report. mmlearn and open_clip need an environment of their own, with another
torch, and so does the bare loop beside them: ``make peers``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import tempfile
from pathlib import Path

from measuring import Result, fresh, heading, installed, peak_mb, print_ahead, print_head, print_row

PEERS = Path(__file__).parents[1] / ".venv-peers" / "bin" / "python"
PACKAGES = ("torch", "sentence-transformers", "mmlearn", "open_clip_torch")
FIRST = "modalign"
PARTS = ("import", "set-up", "training")


def main() -> None:
    options = arguments()
    if options.one:
        print(json.dumps(one(options.one, Path(options.folder))))
        return
    from align_with import OWN_ENVIRONMENT, WITH
    from two_views import make, write

    print(heading(options.threads, "sentence-transformers"))
    others: dict[str, str] = {}
    for rows in options.rows:
        print(f"\n{rows:,} rows")
        print_head(
            "",
            *(f"{p}, s" for p in PARTS),
            "together",
            "× ours",
            "training, × ours",
            "MB",
            "× ours",
            "R@1",
            "R@10",
        )
        ours: Result = {}
        ahead: dict[str, dict[str, float]] = {}
        for who in WITH:
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                os.environ["MODALIGN_CACHE"] = str(folder / "cache")
                write(make(rows), folder)
                python = {"python": options.peers_python} if who in OWN_ENVIRONMENT else {}
                if python and not Path(options.peers_python).is_file():
                    print_row(who, "not installed: `make peers`", *[""] * 9)
                    continue
                result = median(several(who, folder, options, **python))
            ours = ours or result
            if python:
                others.update(result.get("versions", {}))
            print_row(*cells(who, result, ours))
            if "failed" not in result and "modalign" not in who:
                for what, (number, mine) in compared(result, ours).items():
                    ahead.setdefault(what, {})[who] = number / mine
        print()
        for what, ratios in ahead.items():
            print_ahead(what, ratios)
    if others:
        print(f"\npeers' own environment: {', '.join(f'{k} {v}' for k, v in others.items())}")
    print(f"\nload {os.getloadavg()[0]:.1f} at the end")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", help="default 2,000 and 50,000; 2,000 with --quick")
    parser.add_argument("--quick", action="store_true", help="few rows, one run each")
    parser.add_argument("--runs", type=int, help="of which the median is shown; default 3, or 1 with --quick")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument(
        "--peers-python", default=os.environ.get("PEERS_PYTHON") or str(PEERS), metavar="FILE"
    )
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.rows = options.rows or ([2000] if options.quick else [2000, 50_000])
    options.runs = options.runs or (1 if options.quick else 3)
    return options


def several(who: str, folder: Path, options: argparse.Namespace, **python: str) -> list[Result]:
    """The runs of one implementation; ours from an empty cache, or from one that a run before has filled."""
    given = ["--one", who, "--folder", str(folder)]
    runs = []
    for number in range(options.runs + ("cached" in who)):
        if who == FIRST:
            shutil.rmtree(folder / "cache", ignore_errors=True)
        found = fresh(__file__, given, options.threads, **python)
        if number or "cached" not in who:
            runs.append(found)
    return runs


def one(who: str, folder: Path) -> Result:
    """One measurement; this process does nothing else."""
    from align_with import WITH
    from two_views import recall

    found = WITH[who](folder)
    peak = peak_mb()
    measured = recall(*found["embeddings"].values())
    return {"seconds": found["seconds"], "peak": peak, **measured, "versions": installed(*PACKAGES)}


def median(runs: list[Result]) -> Result:
    """The run whose seconds together are the median; the first that failed, if any did."""
    failed = [run for run in runs if "failed" in run]
    if failed:
        return failed[0]
    middle = statistics.median_low(sum(run["seconds"].values()) for run in runs)
    return next(run for run in runs if sum(run["seconds"].values()) == middle)


def compared(result: Result, ours: Result) -> dict[str, tuple[float, float]]:
    """What one wishes small, of both."""
    return {
        "all seconds together": (sum(result["seconds"].values()), sum(ours["seconds"].values())),
        "seconds of training": (result["seconds"]["training"], ours["seconds"]["training"]),
        "memory": (result["peak"], ours["peak"]),
    }


def cells(who: str, result: Result, ours: Result) -> list[str]:
    if "failed" in result:
        return [who, result["failed"], *[""] * 9]
    seconds, whole = result["seconds"], sum(result["seconds"].values())
    mine, torch = ours["seconds"], result["versions"]["torch"]
    other = f" (torch {torch})" if torch != ours["versions"]["torch"] else ""
    return [
        who + other,
        *(f"{seconds[part]:.2f}" for part in PARTS),
        f"{whole:.2f}",
        f"{whole / sum(mine.values()):.2f}",
        f"{seconds['training'] / mine['training']:.2f}",
        f"{result['peak']:.0f}",
        f"{result['peak'] / ours['peak']:.2f}",
        f"{result['R@1']:.3f}",
        f"{result['R@10']:.3f}",
    ]


if __name__ == "__main__":
    main()
