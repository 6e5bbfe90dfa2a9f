"""Reads registry.yaml, the reviewed catalogue of plugin names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from modalign.errors import UserError

from .entry import check_entry, unknown_key

SCHEMA = 1


@dataclass(frozen=True)
class Entry:
    """One plugin of the catalogue.

    Inputs:
        trust: ``core`` (in this repository, at ``source``), ``reviewed`` (read by us at ``version``)
            or ``listed`` (the name is reserved, nothing more).
        requirement: what to ask the package index for: a name and versions, never a URL.
        provides: ``{kind: names}``, reserved for this plugin.
        needs: heavy dependencies, worth knowing before installing.
    """

    distribution: str
    summary: str
    trust: str
    source: str | None = None
    requirement: str | None = None
    homepage: str | None = None
    provides: dict[str, tuple[str, ...]] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    version: str | None = None
    sha256: str | None = None


def locate(path: str | Path | None = None) -> Path:
    """Where the catalogue is: the argument, ``$MODALIGN_REGISTRY``, the checkout, the package.

    Raises:
        UserError: if the argument or the variable names no file.
    """
    for source, given in (("", path), ("MODALIGN_REGISTRY=", os.environ.get("MODALIGN_REGISTRY"))):
        if given:
            if not Path(given).is_file():
                raise UserError(f"no plugin catalogue at {source}{given}")
            return Path(given)
    package = Path(__file__).parents[1]
    checkout = package.parents[1] / "registry.yaml"
    if package.parent.name == "core" and checkout.is_file():
        return checkout
    return package / "registry.yaml"


def entries(path: str | Path | None = None) -> list[Entry]:
    """The catalogue, alphabetical.

    Raises:
        UserError: with the line, if the file breaks any rule of its format.
    """
    path = locate(path)
    data, lines = _parse(path)

    def fail(message: str, *at: str) -> UserError:
        line = next((lines[at[:n]] for n in range(len(at), -1, -1) if at[:n] in lines), 1)
        return UserError(f"{path}, line {line}: {message}")

    if not isinstance(data, dict) or not isinstance(data.get("plugins"), dict):
        raise fail("expected `schema: 1` and `plugins:`, a mapping of distributions")
    if data.get("schema") != SCHEMA:
        message = f"schema {data.get('schema')} is not {SCHEMA}, the one this modalign reads"
        raise fail(f"{message}. Run: pip install --upgrade modalign", "schema")
    for key in data:
        if key not in ("schema", "plugins"):
            raise fail(unknown_key(key, ("schema", "plugins")), str(key))
    found: list[Entry] = []
    for name, given in data["plugins"].items():
        problem = check_entry(name, given)
        if problem is not None:
            key, message = problem
            raise fail(f"{name}: {message}", "plugins", str(name), *key)
        if found and found[-1].distribution > name:
            message = f"{name} must come before {found[-1].distribution}: entries are alphabetical"
            raise fail(message, "plugins", name)
        provides = {kind: tuple(names) for kind, names in given.get("provides", {}).items()}
        found.append(Entry(name, **{**given, "provides": provides, "needs": tuple(given.get("needs", ()))}))
    return found


def providers(kind: str, name: str, path: str | Path | None = None) -> list[Entry]:
    """Who offers a component, by bare name or ``distribution:name``.

    Raises:
        UserError: if the catalogue is damaged.
    """
    who, _, bare = name.rpartition(":")
    return [
        entry
        for entry in entries(path)
        if bare in entry.provides.get(kind, ()) and who in ("", entry.distribution)
    ]


def _parse(path: Path) -> tuple[Any, dict[tuple[str, ...], int]]:
    """The YAML and the line of every key, by its path."""
    try:
        text = path.read_text(encoding="utf-8")
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
        lines: dict[tuple[str, ...], int] = {}
        for at, line in _lines(tree, ()):
            if at in lines:
                raise UserError(f"{path}, line {line}: {at[-1]} comes twice, first in line {lines[at]}")
            lines[at] = line
        return yaml.safe_load(text), lines
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{where}: not YAML: {getattr(error, 'problem', error)}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the plugin catalogue {path}: {error}") from error


def _lines(node: yaml.Node | None, at: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*at, str(key.value))
            yield here, key.start_mark.line + 1
            yield from _lines(value, here)
