"""Bars of ABC as a picture of notes, by verovio in a process of its own."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from functools import lru_cache

_OPTIONS = {
    "pageWidth": 1600,
    "scale": 40,
    "adjustPageHeight": True,
    "adjustPageWidth": True,
    "header": "none",
    "footer": "none",
    "svgViewBox": True,
    "xmlIdChecksum": True,  # the same notes give the same picture
}
_ENDING = re.compile(r"\|\s*\[(?=\d)")  # of the two ways to write one, verovio reads |1 better
_BARS = 64  # what fits a page that people look at
_SECONDS = 20  # a page takes a few hundredths, starting the process a few tenths


def engraved(bars: Sequence[str]) -> tuple[str, bytes] | None:
    """The first bars as ``image/svg+xml``; None without verovio, or if it cannot draw them.

    Verovio ends its process on some ABC that it does not understand; hence a process of its own.

    Inputs:
        bars: as ``bars_of_abc`` gives them.
    """
    if importlib.util.find_spec("verovio") is None:
        return None
    fields = [bar for bar in bars[:8] if bar[1:2] == ":" and bar[0] in "ML"]
    key = next((bar for bar in bars[:8] if bar.startswith("K:")), "K:C")
    music = [bar for i, bar in enumerate(bars[:_BARS]) if i >= 8 or not (bar in fields or bar == key)]
    body = _ENDING.sub("|", " ".join(music))
    picture = _drawn("\n".join(["X:1", *(fields or ["M:none", "L:1/8"]), key, body, ""]))
    return ("image/svg+xml", picture) if picture.startswith(b"<svg") else None


@lru_cache(maxsize=256)
def _drawn(tune: str) -> bytes:
    try:
        done = subprocess.run(
            [sys.executable, "-c", "import sys; from modalign_music.engrave import draw; draw()"],
            input=tune.encode(),
            capture_output=True,
            timeout=_SECONDS,
            check=False,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return b""
    return done.stdout if done.returncode == 0 else b""


def draw() -> None:
    """The process: a tune from standard input, a picture to standard output."""
    import verovio

    with contextlib.suppress(ImportError):  # Windows has no limits, and leaves no core files
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    verovio.enableLog(verovio.LOG_OFF)
    toolkit = verovio.toolkit()
    toolkit.setInputFrom("abc")
    toolkit.setOptions(_OPTIONS)
    if toolkit.loadData(sys.stdin.buffer.read().decode()):
        sys.stdout.buffer.write(toolkit.renderToSVG(1).encode())
