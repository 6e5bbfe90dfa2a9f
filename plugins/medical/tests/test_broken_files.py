"""500 broken files per reader: an item or BadSample; no crash, hang, leak of a name, or gigabyte."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

READERS = {"dicom", "nifti", "picture", "edf", "table", "wfdb", "labs", "report"}
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits memory as Linux does")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """What a process of its own says of each reader."""
    script, folder = Path(__file__).with_name("break_files.py"), tmp_path_factory.mktemp("broken")
    done = subprocess.run([sys.executable, script, folder], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stderr == ""  # the libraries are silent
    return {row["reader"]: row for row in map(json.loads, done.stdout.splitlines())}


def test_every_reader_was_tried(found):
    assert set(found) == READERS


@pytest.mark.parametrize("reader", sorted(READERS))
def test_broken_files_are_items_or_bad_samples(found, reader):
    row = found[reader]
    assert row["wrong"] == []
    assert row["leaks"] == []
    assert row["read"] >= 500
    assert row["bad"] >= 50
    assert row["megabytes"] < 1000
