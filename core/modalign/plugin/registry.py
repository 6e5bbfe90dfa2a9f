"""Reads registry.yaml, the reviewed catalogue of plugin names."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from modalign.errors import UserError, short
from modalign.plain_yaml import NotYaml, parse

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
    file: Path | None = None
    """The catalogue it stands in."""

    @property
    def folder(self) -> Path | None:
        """Where its source is, if its catalogue lies in a checkout that holds it."""
        folder = self.file.parent / self.source if self.file and self.source else None
        return folder if folder and (folder / "pyproject.toml").is_file() else None


def layers(*given: str | Path) -> list[Path]:
    """The catalogues, the one that decides first.

    Those given, then those of ``$MODALIGN_REGISTRY`` (several are joined as in ``$PATH``), then the
    checkout's own or, in an installed core, the one shipped with it. Of two entries for one
    distribution the first holds.

    Raises:
        UserError: if one of the first two kinds is no file.
    """
    named = os.environ.get("MODALIGN_REGISTRY", "").split(os.pathsep)
    found: list[Path] = []
    for source, paths in (("", given), ("MODALIGN_REGISTRY=", named)):
        for path in (Path(each) for each in paths if str(each)):
            if not path.is_file():
                raise UserError(f"no plugin catalogue at {source}{path}")
            found.append(path)
    package = Path(__file__).parents[1]
    checkout = package.parents[1] / "registry.yaml"
    own = package.parent.name == "core" and checkout.is_file()
    return [*found, checkout if own else package / "registry.yaml"]


def entries(*paths: str | Path) -> list[Entry]:
    """The entries of these catalogues, by default of all ``layers()``; alphabetical.

    Raises:
        UserError: with the line, if a file breaks any rule of its format.
    """
    found: dict[str, Entry] = {}
    for path in paths or layers():
        for entry in _read(Path(path)):
            found.setdefault(entry.distribution, entry)
    return [found[name] for name in sorted(found)]


def _read(path: Path) -> list[Entry]:
    data, lines = _parse(path)

    def fail(message: str, *at: str) -> UserError:
        line = next((lines[at[:n]] for n in range(len(at), -1, -1) if at[:n] in lines), 1)
        return UserError(f"{path}, line {line}: {short(message)}")

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
        found.append(
            Entry(
                name, **{**given, "provides": provides, "needs": tuple(given.get("needs", ())), "file": path}
            )
        )
    return found


def providers(kind: str, name: str, *paths: str | Path) -> list[Entry]:
    """Who offers a component, by bare name or ``distribution:name``.

    Raises:
        UserError: if the catalogue is damaged.
    """
    who, _, bare = name.rpartition(":")
    return [
        entry
        for entry in entries(*paths)
        if bare in entry.provides.get(kind, ()) and who in ("", entry.distribution)
    ]


def _parse(path: Path) -> tuple[Any, dict[tuple[str, ...], int]]:
    """The YAML and the line of every key, by its path."""
    try:
        tree, value = parse(path.read_text(encoding="utf-8"))
    except NotYaml as error:
        where = f", line {error.line}" if error.line else ""
        raise UserError(f"{path}{where}: {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read the plugin catalogue {path}: {error}") from error
    lines: dict[tuple[str, ...], int] = {}
    for at, line in _lines(tree, ()):
        if at in lines:
            raise UserError(f"{path}, line {line}: {at[-1]} comes twice, first in line {lines[at]}")
        lines[at] = line
    return value, lines


def _lines(node: yaml.Node | None, at: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], int]]:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            here = (*at, str(key.value))
            yield here, key.start_mark.line + 1
            yield from _lines(value, here)
