"""How long the command line takes to answer, with no plugin installed and with fifty.

Run: python benchmarks/startup.py [--quick] [--plugins N] [--runs N]. Prints a Markdown table of seconds, the
median over the runs, each in a new process; the plugins are generated and offer all five kinds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMANDS = (["--help"], ["plugins", "list"], ["list"])
MODULE = '''"""A generated plugin."""

from modalign import Component, hookimpl


@hookimpl
def register_modalities():
    return [Component("{name}", "{module}.parts:One", "generated")]


@hookimpl
def register_encoders():
    return [Component("{name}-encoder", "{module}.parts:Two", "generated")]


@hookimpl
def register_losses():
    return [Component("{name}-loss", "{module}.parts:Three", "generated")]
'''


def generate(folder: Path, count: int) -> None:
    """``count`` distributions as an installer leaves them: a package and a dist-info folder each."""
    for i in range(count):
        name, module = f"generated-{i:02}", f"generated_{i:02}"
        info = folder / f"{module}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: modalign<0.2,>=0.1\n"
        )
        (info / "entry_points.txt").write_text(f"[modalign.plugins]\n{name} = {module}\n")
        (info / "RECORD").write_text("")
        (folder / module).mkdir()
        (folder / module / "__init__.py").write_text(MODULE.format(name=name, module=module))


def median(arguments: list[str], folder: Path, runs: int) -> float:
    """Seconds that ``modalign`` with these arguments takes, the first run (which compiles) left out."""
    command = [sys.executable, "-m", "modalign.cli", *arguments]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", "")]),
    }
    seconds = []
    for _ in range(runs + 1):
        begin = time.perf_counter()
        subprocess.run(command, env=environment, check=True, capture_output=True)
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds[1:])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--plugins", type=int, default=50)
    parser.add_argument("--quick", action="store_true", help="three runs")
    parser.add_argument("--runs", type=int, help="default 10")
    given = parser.parse_args()
    runs = given.runs or (3 if given.quick else 10)
    counts = (0, given.plugins)
    print("| command | " + " | ".join(f"{count} plugins more" for count in counts) + " | × |")
    print("|---" * (len(counts) + 2) + "|")
    with tempfile.TemporaryDirectory() as name:
        folders = [Path(name) / str(count) for count in counts]
        for folder, count in zip(folders, counts, strict=True):
            folder.mkdir()
            generate(folder, count)
        for command in COMMANDS:
            seconds = [median(command, folder, runs) for folder in folders]
            cells = [*(f"{s:.3f} s" for s in seconds), f"{seconds[-1] / seconds[0]:.2f}"]
            print(f"| `modalign {' '.join(command)}` | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
