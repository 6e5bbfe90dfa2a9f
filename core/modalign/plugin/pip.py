"""Runs pip, in a process of its own: what it would install, building wheels, installing them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

ELSEWHERE = (
    "PIP_TARGET",
    "PIP_PREFIX",
    "PIP_ROOT",
    "PIP_REPORT",
    "PIP_DRY_RUN",
    "PIP_REQUIREMENT",
    "PIP_EDITABLE",
)
"""Settings that would make pip do something else than what is asked here."""


class PipFailed(Exception):
    """pip could not do it; the message is its own, shortened."""


@dataclass(frozen=True)
class Choice:
    """One distribution that pip would install.

    Inputs:
        url: where from.
        sha256: of the archive, if pip knows it.
        direct: named by its URL or path, not looked up in the index.
        editable: a folder that is linked, not copied.
    """

    name: str
    version: str
    url: str
    sha256: str | None = None
    direct: bool = False
    editable: bool = False


def run(*arguments: str, lock: int) -> str:
    """``pip`` with these arguments; what it said on stdout.

    The child inherits the lock, so that nobody touches the environment while it works, even if this
    process is killed.

    Raises:
        PipFailed: if it fails.
    """
    environment = {key: value for key, value in os.environ.items() if key not in ELSEWHERE}
    environment |= {"PIP_USER": "0", "PYTHONSAFEPATH": "1"}
    inherited: Any = {"pass_fds": (lock,)} if os.name == "posix" else {}
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--no-color", *arguments],
        env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace",
        **inherited,
    )  # fmt: skip
    if done.returncode != 0:
        raise PipFailed(reason(done.stdout, done.stderr))
    return done.stdout


def reason(stdout: str, stderr: str) -> str:
    """The part of pip's output that says why it failed."""
    conflict = re.search(r"The conflict is caused by:\n(.*?)\n\n", stdout, re.DOTALL)
    errors = re.findall(r"^\s*(?:ERROR|error): (.*)", stderr, re.MULTILINE)
    lines = conflict.group(1).splitlines() if conflict else errors or stderr.strip().splitlines()[-3:]
    useful = [line.strip() for line in lines if line.strip() and "for help visit" not in line]
    return "; ".join(dict.fromkeys(useful))[:800] or "pip failed without a word"


def resolve(wanted: Iterable[str], pins: Mapping[str, str], lock: int, upgrade: bool = False) -> list[Choice]:
    """What pip would install for these requirements, with ``pins`` held as they are; changes nothing.

    Inputs:
        wanted: requirements and paths, as on pip's command line.

    Raises:
        PipFailed: if there is no solution.
    """
    with tempfile.TemporaryDirectory() as folder:
        constraints, report = Path(folder) / "constraints.txt", Path(folder) / "report.json"
        constraints.write_text("".join(f"{name}=={version}\n" for name, version in pins.items()))
        options = ["--upgrade", "--upgrade-strategy", "only-if-needed"] if upgrade else []
        run(
            "install", "--dry-run", "--report", str(report), "--constraint", str(constraints),
            *options, *wanted, lock=lock,
        )  # fmt: skip
        found = json.loads(report.read_text(encoding="utf-8"))["install"]
    return [_choice(each) for each in found]


def _choice(item: dict[str, Any]) -> Choice:
    info, about = item["download_info"], item["metadata"]
    archive = info.get("archive_info", {})
    digest = archive.get("hashes", {}).get("sha256") or archive.get("hash", "").partition("sha256=")[2]
    return Choice(
        canonicalize_name(about["name"]),
        about["version"],
        info["url"],
        digest or None,
        item["is_direct"],
        info.get("dir_info", {}).get("editable", False),
    )


def build(folder: Path, into: Path, lock: int) -> Path:
    """A wheel of a source folder; the wheel.

    Raises:
        PipFailed: if it does not build.
    """
    before = set(into.glob("*.whl"))
    run("wheel", "--no-deps", "--wheel-dir", str(into), str(folder), lock=lock)
    (made,) = set(into.glob("*.whl")) - before
    return made


def collect(choices: Sequence[Choice], into: Path, lock: int) -> None:
    """Wheels of these distributions, downloaded or built; pip enforces their archives' hashes.

    Raises:
        PipFailed: if one cannot be had, or is not the file that was chosen.
    """
    for hashed in (True, False):  # pip wants a hash for every line of a file or for none
        some = [c for c in choices if bool(c.sha256) == hashed]
        lines = [
            (f"{c.name} @ {c.url}" if c.direct else f"{c.name}=={c.version}")
            + (f" --hash=sha256:{c.sha256}" if hashed else "")
            for c in some
        ]
        if lines:
            wanted = into / "wanted.txt"
            wanted.write_text("\n".join(lines) + "\n")
            run("wheel", "--no-deps", "--wheel-dir", str(into), "--requirement", str(wanted), lock=lock)


def install(wheels: Iterable[Path], folders: Iterable[Path], lock: int) -> None:
    """Installs these wheels, and links these folders; nothing else, and nothing from an index.

    Raises:
        PipFailed: if it does not work.
    """
    links = [word for folder in folders for word in ("--editable", str(folder))]
    files = [str(wheel) for wheel in wheels]
    if files:
        run("install", "--no-deps", "--no-index", "--force-reinstall", *files, lock=lock)
    if links:
        run("install", "--no-deps", *links, lock=lock)


def uninstall(names: Iterable[str], lock: int) -> None:
    """Removes these distributions.

    Raises:
        PipFailed: if it does not work.
    """
    run("uninstall", "--yes", *names, lock=lock)
