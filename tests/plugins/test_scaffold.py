"""`modalign plugins new`: every variant installs and passes its own tests at once."""

from __future__ import annotations

import itertools
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from modalign import UserError
from modalign.cli.main import main
from modalign.plugin.new import SINGULAR, write_plugin

KINDS = list(SINGULAR)
VARIANTS = {f"only-{kind}": ([kind], None) for kind in KINDS}
VARIANTS |= {"plain": ([], None), "whole": (KINDS, None), "reading-modality": (["encoder", "loss"], "plain")}
VARIANTS |= {"-and-".join(pair): (list(pair), None) for pair in itertools.combinations(KINDS, 2)}


def tool(*arguments, cwd=None):
    return subprocess.run([sys.executable, "-m", *arguments], capture_output=True, text=True, cwd=cwd)


def test_every_variant_installs_and_passes_its_own_tests(environment):
    """All of them in one environment: their names do not collide, and `reads` meets another plugin."""
    folders = []
    for name, (kinds, reads) in VARIANTS.items():
        write_plugin(name, kinds, reads, environment.root / f"modalign-{name}")
        folders.append(environment.root / f"modalign-{name}")
    done = environment.run("-m", "pip", "install", "--no-deps", "-q", *folders)
    assert done.returncode == 0, done.stderr
    tests = [str(folder / "tests") for folder in folders]
    done = environment.run("-m", "pytest", "--import-mode=importlib", "-q", "-p", "no:cacheprovider", *tests)
    assert done.returncode == 0, done.stdout[-3000:]
    listed = environment.plugins("list").stdout.splitlines()
    assert sorted(line.split()[0] for line in listed) == sorted(
        ["modalign", *(f"modalign-{n}" for n in VARIANTS)]
    )
    assert all(line.endswith(" ok") for line in listed)


def test_the_plain_one_through_our_own_install(environment):
    before = environment.state()
    done = environment.plugins("new", "lidar")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"modalign-lidar/{path}"
        for path in (
            "pyproject.toml", "README.md", "modalign_lidar/__init__.py", "tests/test_contract.py",
            "modalign_lidar/modality.py", "modalign_lidar/encoder.py",
        )
    ]  # fmt: skip
    command = done.stderr.split("modalign plugins ")[1].split()
    assert command == ["install", "-e", "modalign-lidar"]
    done = environment.plugins(*command, "--yes")
    assert done.returncode == 0, done.stderr
    assert environment.plugins("uninstall", "lidar", "--yes").returncode == 0
    assert environment.state() == before
    assert environment.plugins("new", "lidar").returncode == 2  # never overwrites


def test_what_is_written_is_tidy(tmp_path):
    for number, (kinds, reads) in enumerate(VARIANTS.values()):
        write_plugin(f"v{number}", kinds, reads, tmp_path / f"v{number}")
    if shutil.which("ruff", path=str(Path(sys.executable).parent)):
        for command in (["check", "--select", "E,F,I,UP,B"], ["format", "--check"]):
            done = tool("ruff", *command, "--isolated", "--line-length", "110", str(tmp_path))
            assert done.returncode == 0, done.stdout
    for path in tmp_path.rglob("*"):
        if path.is_file():
            assert "$" not in path.read_text().replace("$ modalign", "").replace("$ pytest", ""), path


@pytest.mark.parametrize(
    "name", ["Lidar", "li dar", "1dar", "", "lidar-", "../lidar", "image", "infonce", "text"]
)
def test_names_that_cannot_be(tmp_path, name):
    with pytest.raises(UserError):
        write_plugin(name, ["loss" if name == "infonce" else "modality"], None, tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_the_kinds_of_the_command_line_are_those_there_are(capsys, tmp_path):
    assert main(["plugins", "new", "--help"]) == 0
    assert f"[{'|'.join(KINDS)}]" in capsys.readouterr().out
    assert main(["plugins", "new", "lidar", "--kind", "sampler", "--out", str(tmp_path / "x")]) == 2


def test_an_encoder_alone_brings_what_it_reads(tmp_path):
    files = {path.name for path in write_plugin("lidar", ["encoder"], None, tmp_path / "a")}
    assert {"modality.py", "encoder.py"} <= files
    files = {path.name for path in write_plugin("lidar", ["encoder"], "elsewhere", tmp_path / "b")}
    assert "modality.py" not in files
