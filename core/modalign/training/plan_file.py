"""Reads a plan from YAML, knowing the line of everything in it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from modalign.errors import UserError, short
from modalign.plain_yaml import NotYaml, parse

from .plan import Plan

Place = tuple[str | int, ...]
MOST_TOLD = 100
"""Of a plan's problems."""
MOST_KEYS = 64
"""Of one override."""


class _Loader(yaml.SafeLoader):
    """YAML 1.1, except that ``1e-3`` is the number it is in YAML 1.2."""


_Loader.yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeLoader.yaml_implicit_resolvers.items()}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


@dataclass(frozen=True)
class Problem:
    """Something wrong at a place of the plan."""

    place: Place
    message: str


@dataclass
class PlanSource:
    """A plan before it is validated, with what error messages need."""

    raw: dict[str, Any]
    file: Path | None = None
    lines: dict[Place, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    @property
    def folder(self) -> Path:
        """What relative paths in the plan start from."""
        return self.file.parent if self.file else Path.cwd()

    def error(self, problems: Iterable[Problem]) -> UserError:
        """One message with every problem, in the order of the file."""
        texts = {}
        for problem in problems:
            line = next(
                (
                    self.lines[problem.place[:n]]
                    for n in range(len(problem.place), -1, -1)
                    if problem.place[:n] in self.lines
                ),
                0,
            )
            where = f"{self.file.name}:{line}: " if self.file and line else ""
            place = ".".join(str(p) for p in problem.place)
            texts[f"{where}{short(place) + ': ' if place else ''}{short(problem.message)}"] = line
        count = len(texts)
        head = f"the plan has {count} problem{'s' if count > 1 else ''}"
        first = sorted(texts, key=lambda t: texts[t])[:MOST_TOLD]
        return UserError("\n  ".join([head, *first, *(["..."] if count > len(first) else [])]))


def read_plan(
    source: str | os.PathLike[str] | dict[str, Any] | Plan, overrides: Iterable[str] = ()
) -> PlanSource:
    """A plan file, mapping or ``Plan`` with ``key.path=value`` overrides applied.

    Raises:
        UserError: if there is no such file, it is not YAML, or an override is malformed.
    """
    if isinstance(source, Plan):
        read = PlanSource(source.model_dump(mode="json"))
    elif isinstance(source, dict):
        read = PlanSource(source)
    else:
        read = _read_file(Path(source))
    for override in overrides:
        read.raw = _override(read.raw, override)
    return read


def _read_file(path: Path) -> PlanSource:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        plans = sorted(p.name for p in path.parent.glob("*.y*ml")) if path.parent.is_dir() else []
        near = f"; plans there: {', '.join(plans)}" if plans else ""
        raise UserError(f"cannot read the plan {path}: {reason}{near}") from None
    try:
        node, raw = parse(text, _Loader)
    except NotYaml as error:
        where = f":{error.line}" if error.line else ""
        raise UserError(f"{path.name}{where}: {error}") from None
    if not isinstance(raw, dict):
        raise UserError(
            f"{path.name}: a plan is a mapping that starts with 'name: ...', not a {type(raw).__name__}"
        )
    read = PlanSource(raw, path.absolute())
    assert node is not None
    for place, line, repeated in _places(node, ()):
        if repeated:
            read.problems.append(Problem(place, f"the key stands twice (line {line})"))
        read.lines[place] = line
    return read


def _places(node: yaml.Node, place: Place) -> Iterator[tuple[Place, int, bool]]:
    """Every place of the document with its line, and whether its key stood there before."""
    if not place:
        yield place, node.start_mark.line + 1, False
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            yield (*place, key.value), key.start_mark.line + 1, key.value in seen
            seen.add(key.value)
            yield from _places(value, (*place, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            yield (*place, i), item.start_mark.line + 1, False
            yield from _places(item, (*place, i))


def _override(raw: dict[str, Any], text: str) -> dict[str, Any]:
    path, equals, value = text.partition("=")
    if not equals or not path:
        raise UserError(
            f"'{short(text)}' is not of the form key.path=value, such as seed=1 or stages.0.epochs=5"
        )
    try:
        _, parsed = parse(value, _Loader)
    except NotYaml as error:
        raise UserError(f"'{short(text)}': the value cannot be read: {error}") from None

    def put(node: Any, keys: list[str]) -> Any:
        if not keys:
            return parsed
        key, rest = keys[0], keys[1:]
        if isinstance(node, list):
            names = [item.get("name") if isinstance(item, dict) else None for item in node]
            index = (
                names.index(key)
                if key in names
                else int(key)
                if key.isdecimal() and len(key) < 10
                else len(node)
            )
            if index >= len(node):
                known = ", ".join(str(n) for n in names if n) or f"0 to {len(node) - 1}"
                raise UserError(
                    f"'{short(text)}': there is no '{short(key)}' in that list; it has {short(known)}"
                )
            return [put(item, rest) if i == index else item for i, item in enumerate(node)]
        if node is not None and not isinstance(node, dict):
            raise UserError(f"'{short(text)}': '{short(key)}' lies below a value that is no mapping")
        return {**(node or {}), key: put((node or {}).get(key), rest)}

    keys = path.split(".")
    if len(keys) > MOST_KEYS:
        raise UserError(f"'{short(text)}': a plan is not {len(keys)} keys deep")
    return put(raw, keys)
