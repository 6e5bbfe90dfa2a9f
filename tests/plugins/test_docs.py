"""The plugin pages: every code sample runs, and every command prints what the page says it prints."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "plugins"
FENCE = re.compile(r"^```(\w+)[ ]?(\S*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def plain(text: str) -> list[str]:
    """Lines without what differs between machines: numbers, and the width of columns."""
    lines = [re.sub(r"\d[\d,]*(\.\d+)?", "#", " ".join(line.split())) for line in text.splitlines()]
    return [line for line in lines if line]


def agree(expected: list[str], found: list[str]) -> bool:
    """Whether ``found`` is ``expected``, in which ``...`` stands for any lines."""
    if not expected:
        return not found
    if expected[0] == "...":
        return any(agree(expected[1:], found[i:]) for i in range(len(found) + 1))
    line = ".*".join(re.escape(part) for part in expected[0].split("..."))
    return bool(found) and re.fullmatch(line, found[0]) is not None and agree(expected[1:], found[1:])


def commands(block: str) -> list[tuple[str, str]]:
    """``$ command`` lines, each with what the page says it prints."""
    parts = re.split(r"^\$ (.*)\n", block, flags=re.MULTILINE)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))


def follow(page: str, environment) -> None:
    """Do what the page says, in order: write its files, run its commands."""
    for language, file, content in FENCE.findall((PAGES / page).read_text()):
        if language == "console":
            for command, expected in commands(content):
                found = run(command, environment)
                assert agree(plain(expected), plain(found)), f"{page}: {command}\n{found}"
        elif file:
            (environment.root / file).parent.mkdir(parents=True, exist_ok=True)
            (environment.root / file).write_text(content)


def run(command: str, environment) -> str:
    words = shlex.split(command)
    program = {"modalign": ["-m", "modalign.cli"], "python": [], "pytest": ["-m", "pytest"]}[words[0]]
    done = subprocess.run(
        [environment.python, *program, *words[1:]],
        env={**environment.variables, "PYTHONUNBUFFERED": "1"}, cwd=environment.root, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    return done.stdout.replace(str(ROOT), "/home/me/modalign").replace(str(environment.root), "/home/me")


def test_the_reader_of_pages_sees_differences():
    assert agree(["a", "...", "d"], ["a", "b", "c", "d"])
    assert agree(["...", "d"], ["d"])
    assert agree(["a ... c"], ["a b c"])
    assert not agree(["a ... c"], ["a b d"])
    assert not agree(["a"], ["a", "b"])
    assert not agree(["a", "...", "d"], ["a", "b"])
    assert plain("x  1.5  2,000\n\n") == ["x # #"]
    assert commands("$ a b\nout\nmore\n$ c\n") == [("a b", "out\nmore\n"), ("c", "")]


def test_installing(environment):
    before = environment.state()
    follow("installing.md", environment)
    assert environment.state() == before


@pytest.mark.slow
def test_tutorial(environment):
    follow("tutorial.md", environment)
    tasks = json.loads((environment.root / "runs" / "ink" / "report.json").read_text())["tasks"]
    assert tasks["retrieval:ink->image"]["class_R@1"] > 0.5  # chance: 0.1
    assert tasks["zero_shot:ink"]["accuracy"] > 0.6
    done = environment.run("-m", "pytest", "-q", "modalign-ink")
    assert done.returncode == 0, done.stdout


def test_testing_samples(environment):
    """The samples of the testing page, beside the plugin of the tutorial."""
    for language, file, content in FENCE.findall((PAGES / "tutorial.md").read_text()):
        if language == "python" and file.startswith("modalign-ink/"):
            path = environment.site / file.removeprefix("modalign-ink/")
            path.parent.mkdir(exist_ok=True)
            path.write_text(content)
    from modalign.plugin.new import write_plugin

    written = write_plugin("ink", out=environment.root / "ink")
    declarations = next(path for path in written if path.name == "__init__.py")
    (environment.site / "modalign_ink" / "__init__.py").write_text(declarations.read_text())
    info = environment.site / "modalign_ink-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: modalign-ink\nVersion: 0.1.0\nRequires-Dist: modalign>=0.1,<0.2\n"
    )
    (info / "entry_points.txt").write_text("[modalign.plugins]\nink = modalign_ink\n")
    samples = [content for language, _, content in FENCE.findall((PAGES / "testing.md").read_text())]
    test = environment.root / "test_samples.py"
    test.write_text("\n\n".join(samples))
    done = environment.run("-m", "pytest", "-q", "-p", "no:cacheprovider", test)
    assert done.returncode == 0, done.stdout[-2000:]
    assert re.search(r"\b42 passed", done.stdout), done.stdout[-300:]


def test_the_catalogue_of_the_trust_page_is_one(tmp_path):
    from modalign.plugin.registry import entries

    ((language, _, content),) = FENCE.findall((PAGES / "trust.md").read_text())
    assert language == "yaml"
    (tmp_path / "registry.yaml").write_text(content)
    (entry,) = entries(tmp_path / "registry.yaml")
    assert entry.trust == "reviewed"


def test_every_page_is_linked_and_every_link_leads_somewhere():
    for page in PAGES.glob("*.md"):
        for link in re.findall(r"\]\(([\w./-]+\.md)\)", page.read_text()):
            assert (page.parent / link).is_file(), f"{page.name}: {link}"
    index = (PAGES / "index.md").read_text()
    for page in PAGES.glob("*.md"):
        assert page.name == "index.md" or f"({page.name})" in index
