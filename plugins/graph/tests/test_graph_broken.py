"""500 broken files per reader: refused with a reason or read, within a gigabyte and a few seconds each."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("broken_graphs.py")
KINDS = ("smiles", "mol", "mol3000", "sdf", "json", "turtle", "ntriples", "npz")


@pytest.mark.parametrize("kind", KINDS)
def test_broken_files_are_refused_with_a_reason(kind, tmp_path):
    command = [sys.executable, str(SCRIPT), kind, "500"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path, check=False)
    assert found.returncode == 0, found.stderr[-2000:]
    about = json.loads(found.stdout)
    assert not about["wrong"]
    assert about["refused"] + about["read"] == 500
    assert about["refused"] > 250
    assert about["peak_mb"] < 1000
    assert about["slowest"] < 20
    assert not found.stderr  # libraries print nothing
    assert not list(tmp_path.iterdir())  # and write nothing
