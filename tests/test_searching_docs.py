"""Every command and sample of docs/searching.md runs, in order, and prints what the page says."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from modalign.cli.main import main

from .conftest import digit_rows
from .plugins.test_docs import FENCE, agree, commands, plain
from .test_search import train

pytest.importorskip("faiss")
PAGE = Path(__file__).parents[1] / "docs" / "searching.md"


def serves(command: list[str]) -> str:
    """What a command that never ends by itself prints first."""
    code = "import sys; from modalign.cli.main import main; sys.exit(main())"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        first = process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0, err
    return first + rest + err


def any_item(text: str) -> str:
    """Hits without what they are: a space of two epochs knows little."""
    text = re.sub(r"-(?=\d\.\d{4} )", "", text)
    return re.sub(r"(?m)^(   \d\.\d{4}  )/home/me/\S+\.(parquet, row \d+, \w+|\w+)", r"\1ITEM", text)


def test_the_page(digits: Path, in_tmp: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(digits, Path("runs/demo"), epochs=2)
    capsys.readouterr()
    Path("examples/demo").mkdir(parents=True)
    os.link(digits, "examples/demo/digits.parquet")
    Path("pictures").mkdir()
    for i, row in enumerate(digit_rows(2, first=200)):
        Path(f"pictures/{i}.png").write_bytes(row["image"]["bytes"])
    Path("pictures/broken.png").write_bytes(b"nothing")
    three = next(row for row in digit_rows(60) if row["label"] == 3)
    Path("a.png").write_bytes(three["image"]["bytes"])
    ran = 0
    for language, _, content in FENCE.findall(PAGE.read_text(encoding="utf-8")):
        if language == "python":
            exec(content, {})
            assert len(capsys.readouterr().out.splitlines()) == 5
        for command, expected in commands(content) if language == "console" else ():
            words = shlex.split(command)
            assert words[0] == "modalign"
            if words[1] == "explore":
                words[words.index("--port") + 1] = "0"
                found = serves(words[1:])
            else:
                assert main(words[1:]) == 0, command
                out, err = capsys.readouterr()
                found = out + err
            ran += 1
            found = re.sub(r"(?m)^(.*?)" + re.escape(str(in_tmp)), r"\1/home/me", found)
            assert agree(plain(any_item(expected)), plain(any_item(found))), f"{command}\n{found}"
    assert ran == 8
