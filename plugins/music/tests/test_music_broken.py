"""500 broken files per reader: a reason or a legal item, no crash, no hang, little memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

CHILD = Path(__file__).with_name("broken_music.py")


def _read(kind: str, count: int, *options: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, str(CHILD), kind, str(count), *options],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stderr == ""  # the libraries print nothing
    return json.loads(done.stdout)


@pytest.mark.parametrize("kind", ["abc", "musicxml", "mxl", "kern", "midi"])
def test_500_broken_files_are_refused_or_read(kind):
    found = _read(kind, 500)
    assert found["bad"] + found["legal"] == 500
    assert found["bad"] > 50
    assert found["megabytes"] < 1000  # half of it is torch
    assert found["slowest"] < 20


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["abc", "musicxml", "mxl", "kern", "midi"])
def test_thousands_of_broken_files_and_their_previews(kind):
    assert _read(kind, 5000 if kind == "midi" else 1000, "preview")["megabytes"] < 1000
