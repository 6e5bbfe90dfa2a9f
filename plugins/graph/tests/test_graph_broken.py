"""500 broken files per reader: refused with a reason or read, within a gigabyte and a few seconds each."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("broken_graphs.py")
KINDS = ("smiles", "mol", "mol3000", "sdf", "json", "turtle", "ntriples", "npz")


@pytest.fixture(scope="module")
def readings(tmp_path_factory):
    """What a child process says of every kind."""
    folder = tmp_path_factory.mktemp("broken")
    command = [sys.executable, str(SCRIPT), "500", *KINDS]
    found = subprocess.run(command, capture_output=True, text=True, timeout=600, cwd=folder, check=False)
    assert found.returncode == 0, found.stderr[-2000:]
    assert not found.stderr  # libraries print nothing
    assert not list(folder.iterdir())  # and write nothing
    return json.loads(found.stdout)


@pytest.mark.parametrize("kind", KINDS)
def test_broken_files_are_refused_with_a_reason(kind, readings):
    about = readings[kind]
    assert not about["wrong"]
    assert about["refused"] + about["read"] == 500
    assert about["refused"] > 250
    assert about["peak_mb"] < 1000
    assert about["slowest"] < 20
