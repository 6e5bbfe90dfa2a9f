"""Writes the beginning of a plugin: small, commented, and good enough to pass its own checks."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from importlib import resources
from pathlib import Path
from string import Template

from packaging.version import Version

import modalign
from modalign.errors import UserError

from .component import KINDS
from .names import CONTRACTS
from .registry import entries
from .reserved import reserved_elsewhere

SINGULAR = {CONTRACTS[kind].lower(): kind for kind in KINDS}
"""``modality`` -> ``modalities``, and so on."""

SUMMARIES = {
    "modality": "text files of numbers, a line for each point",
    "encoder": "a small network, trained from scratch",
    "projection": "a mean, a learnt shift per modality, a linear map",
    "loss": "a soft margin between true pairs and strangers",
    "task": "how much nearer true pairs are than strangers",
}


def write_plugin(
    name: str, kinds: Sequence[str] = (), reads: str | None = None, out: Path | None = None
) -> list[Path]:
    """Write a plugin's folder, by default ``modalign-NAME`` here.

    Inputs:
        name: with or without ``modalign-``.
        kinds: of component, such as ``loss``; default: a modality and an encoder.
        reads: the modality the encoder reads, if another plugin brings it.
        out: the folder.

    Returns the files.

    Raises:
        UserError: if the name is no name or taken, or the folder is not empty.
    """
    name = name.removeprefix("modalign-")
    _check_name(name)
    out = out or Path(f"modalign-{name}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists already; choose another folder with --out")
    chosen = [kind for kind in SINGULAR if kind in (kinds or ("modality", "encoder"))]
    if "encoder" in chosen and reads is None and "modality" not in chosen:
        chosen.insert(0, "modality")  # an encoder must read something
    words = _words(name, reads)
    about = [{**words, **_component(kind, words, alone=len(chosen) == 1)} for kind in chosen]
    taken = reserved_elsewhere(words["distribution"], {each["plural"]: [each["component"]] for each in about})
    if taken:
        raise UserError(f"{words['distribution']} would offer {taken}")
    files = {
        "pyproject.toml": _fill("pyproject.toml", words),
        "README.md": _fill("README.md", {**words, **_tables(about)}),
        f"{words['module']}/__init__.py": _fill(
            "__init__.py", {**words, "declarations": "".join(_fill("declaration.py", each) for each in about)}
        ),
        "tests/test_contract.py": _fill("test_contract.py", {**words, **_instances(about)}),
    }
    for each in about:
        template = "encoder_reading" if each["kind"] == "encoder" and reads is not None else each["kind"]
        files[f"{words['module']}/{each['kind']}.py"] = _fill(f"{template}.py", each)
    for path, text in files.items():
        (out / path).parent.mkdir(parents=True, exist_ok=True)
        (out / path).write_text(text.rstrip("\n") + "\n", encoding="utf-8")
    return [out / path for path in files]


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", name):
        raise UserError(
            f"'{name}' is no name for a plugin: use lower-case letters, digits and -, such as lidar"
        )
    if any(entry.distribution == f"modalign-{name}" for entry in entries()):
        raise UserError(f"modalign-{name} is in the catalogue already; choose another name")


def _words(name: str, reads: str | None) -> dict[str, str]:
    major, minor = (*Version(modalign.__version__).release, 0)[:2]
    return {
        "name": name,
        "distribution": f"modalign-{name}",
        "module": f"modalign_{name.replace('-', '_')}",
        "title": name.replace("-", " ").capitalize(),
        "fence": f">={major}.{minor},<{major}.{minor + 1}"
        if major == 0
        else f">={major}.{minor},<{major + 1}",
        "reads": reads or name,
    }


def _component(kind: str, words: dict[str, str], alone: bool) -> dict[str, str]:
    stem = "".join(word.capitalize() for word in words["name"].split("-"))
    plain = alone or kind == "modality"
    return {
        "kind": kind,
        "plural": SINGULAR[kind],
        "component": words["name"] if plain else f"{words['name']}-{kind}",
        "cls": stem if plain else f"{stem}{kind.capitalize()}",
        "summary": SUMMARIES[kind],
    }


def _tables(about: Iterable[dict[str, str]]) -> dict[str, str]:
    rows = [f"| {each['kind']} | `{each['component']}` | {each['summary']} |" for each in about]
    files = [f"| `{each['module']}/{each['kind']}.py` | the {each['kind']} itself |" for each in about]
    return {"table": "\n".join(rows), "files": "\n".join(files)}


def _instances(about: Iterable[dict[str, str]]) -> dict[str, str]:
    """A task names the modalities it measures: its test must say which."""
    task = next((each for each in about if each["kind"] == "task"), None)
    if task is None:
        return {"imports": "", "instances": ""}
    given = f'lambda: {task["cls"]}("{task["name"]}", "other")'
    return {
        "imports": f"from {task['module']}.task import {task['cls']}\n",
        "instances": f', instances={{"{task["component"]}": {given}}}',
    }


def _fill(template: str, words: dict[str, str]) -> str:
    text = (
        resources.files(__package__)
        .joinpath("scaffold")
        .joinpath(f"{template}.tmpl")
        .read_text(encoding="utf-8")
    )
    return Template(text).substitute(words)
