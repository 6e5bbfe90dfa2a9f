"""The fuzzers themselves: they run, they are the same every time, and they notice what they look for."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).parents[1]
sys.path.insert(0, str(TOP))

from fuzz.documents import changed  # noqa: E402
from fuzz.mutate import MOST, damaged  # noqa: E402
from fuzz.watch import fuzz  # noqa: E402
from fuzz.worker import pack, unpack  # noqa: E402

QUICK = ["plan", "overrides", "registry", "table-csv", "table-jsonl", "checkpoint"]
BAD = '''
"""Readers that do what none may."""
import ctypes, os, socket, time
from fuzz import readers
from fuzz.reader import Bench

HELD = []

def bench(scratch):
    def read(files, folder):
        data = files["x"]
        if data == b"seed":
            return
        what = WHAT
        if what == "crash":
            ctypes.string_at(0)
        elif what == "hang":
            while True:
                pass
        elif what == "memory":
            b"x" * (1200 << 20)
        elif what == "error":
            raise KeyError("unexpected")
        elif what == "empty":
            raise ValueError("")
        elif what == "write":
            open("/tmp/elsewhere-of-a-fuzzer", "w")
        elif what == "process":
            os.system("true")
        elif what == "network":
            socket.create_connection(("127.0.0.1", 9))
        elif what == "code":
            exec(compile("1", "given", "exec"))
    return Bench([{"x": b"seed"}], read, (ValueError,))

readers.READERS["bad"] = bench
'''


@pytest.mark.parametrize(
    ("what", "says"),
    [
        ("crash", "crash: exit status -11"),
        ("hang", "hang"),
        ("memory", " MB"),
        ("error", "KeyError in"),
        ("empty", "an empty message"),
        ("write", "forbidden: writes /tmp/elsewhere"),
        ("process", "forbidden: os.system"),
        ("network", "forbidden: socket.getaddrinfo"),
        ("code", "forbidden: runs code of given"),
    ],
)
def test_what_a_reader_must_not_do_is_noticed(
    what: str, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import sys\nif 'fuzz.worker' in ' '.join(sys.orig_argv):\n    import bad_reader\n"
    )
    (tmp_path / "bad_reader.py").write_text(BAD.replace("WHAT", repr(what), 1))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{TOP}:{os.environ.get('PYTHONPATH', '')}")
    outcome = fuzz("bad", 2, 0, tmp_path / "bad")
    assert outcome.inputs == 2
    assert any(says in kind for kind in outcome.kinds()), outcome.kinds()
    assert (tmp_path / "bad" / "input-1").is_file()


def test_core_readers_bear_some_hundred_inputs(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "fuzz",
        *QUICK,
        "--inputs",
        "300",
        "--seed",
        "7",
        "--keep",
        str(tmp_path),
    ]
    run = subprocess.run(command, cwd=TOP, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout.count("300 inputs") == len(QUICK)


def test_an_input_is_the_same_every_time() -> None:
    whole, other = b"name: tiny\n" * 20, b"{}" * 50
    made = [[damaged(whole, other, [b"word"], random.Random(f"{i}")) for i in range(200)] for _ in range(2)]
    assert made[0] == made[1]
    assert len(set(made[0])) > 150
    assert all(len(data) <= MOST for data in made[0])
    tree = {"a": [1, {"b": "c"}]}
    assert all(
        repr(changed(tree, ["x"], random.Random(i))) == repr(changed(tree, ["x"], random.Random(i)))
        for i in range(50)
    )
    assert tree == {"a": [1, {"b": "c"}]}
    files = {"a.hea": b"\n\0", "b": b""}
    assert unpack(pack(files)) == files
