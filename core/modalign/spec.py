"""A component as plans and spaces write it: a name and its arguments."""

from __future__ import annotations

import inspect
import os
import re
from dataclasses import dataclass, field
from typing import Any

from .errors import UserError, suggest


@dataclass(frozen=True)
class Spec:
    """A component's name and constructor arguments; ``"minilm"`` or ``{name: minilm, max_tokens: 64}``."""

    name: str
    args: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, value: Any) -> Spec:
        """A spec from what a plan holds.

        Raises:
            ValueError: if it is neither a name nor a mapping with a name.
        """
        if isinstance(value, Spec):
            return value
        if isinstance(value, str):
            return cls(value)
        if isinstance(value, dict) and isinstance(value.get("name"), str):
            return cls(value["name"], {str(k): v for k, v in value.items() if k != "name"})
        raise ValueError("write a component's name, or {name: ..., argument: value}")

    def value(self) -> str | dict[str, Any]:
        """The plain form ``of`` reads."""
        return {"name": self.name, **self.args} if self.args else self.name

    def keywords(self) -> dict[str, Any]:
        """Arguments as Python takes them: ``from`` becomes ``from_``, ``${VARIABLE}`` its value.

        Raises:
            UserError: if a variable is not set, or holds no path that exists.
        """
        return {_python_name(k): _expanded(v, f"{self.name}: {k}") for k, v in self.args.items()}

    def check(self, target: type, *given: str) -> list[str]:
        """What is wrong with the arguments for ``target``'s constructor, besides those ``given``."""
        parameters = inspect.signature(target).parameters
        if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            return []
        known = [
            name
            for name, p in parameters.items()
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and name not in given
        ]
        keywords = [_python_name(k) for k in self.args]
        takes = ", ".join(known) or "none"
        problems = [
            f"{self.name} takes no argument '{name}'{suggest(name, known)} (it takes: {takes})"
            for name in keywords
            if name not in known
        ]
        problems += [
            f"{self.name} needs the argument '{name.rstrip('_')}'"
            for name in known
            if parameters[name].default is inspect.Parameter.empty and name not in keywords
        ]
        return problems


def _python_name(key: str) -> str:
    return "from_" if key == "from" else key


def _expanded(value: Any, place: str) -> Any:
    """A value with the environment's in place of ``${VARIABLE}``, however deep the strings lie.

    Only variables that hold a path there is: a stranger's plan must not learn what else they hold.
    """
    if isinstance(value, dict):
        return {k: _expanded(v, place) for k, v in value.items()}
    if isinstance(value, list):
        return [_expanded(v, place) for v in value]
    if not isinstance(value, str):
        return value
    for name in re.findall(r"\$\{(\w+)\}", value):
        if not os.path.exists(os.environ.get(name, "")):
            state = "names nothing that is there" if name in os.environ else "is not set"
            raise UserError(
                f"{place} is {value}: the environment variable {name} {state}; export {name}=FOLDER"
            )
    return re.sub(r"\$\{(\w+)\}", lambda found: os.environ[found[1]], value)
