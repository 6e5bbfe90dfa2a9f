"""From a name in a plan to the one component it means, and its class."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from modalign.errors import UserError, short, suggest

from .component import KINDS, Component
from .discover import Plugin, one_line, strict

CONTRACTS = {
    "modalities": "Modality",
    "encoders": "Encoder",
    "projections": "Projection",
    "losses": "Loss",
    "tasks": "Task",
}
"""The contract a component of each kind must be a subclass of."""


@dataclass(frozen=True)
class Offer:
    """A component, and who offers it."""

    kind: str
    component: Component
    distribution: str
    version: str

    @property
    def full_name(self) -> str:
        """``distribution:name``, unambiguous whatever else is installed."""
        return f"{self.distribution}:{self.component.name}"


def offers(plugins: Sequence[Plugin], kind: str) -> list[Offer]:
    """What the plugins offer of one kind, by name, then by distribution.

    Raises:
        UserError: if there is no such kind.
    """
    if kind not in KINDS:
        hint = suggest(kind, KINDS) or "."
        raise UserError(f"no kind of component is called '{kind}'{hint} Known: {', '.join(KINDS)}")
    found = [
        Offer(kind, component, plugin.distribution, plugin.version)
        for plugin in plugins
        for component in plugin.components.get(kind, [])
    ]
    return sorted(found, key=lambda offer: (offer.component.name, offer.distribution))


def pick(plugins: Sequence[Plugin], kind: str, name: str) -> Offer:
    """The one offer that a bare or a full name means.

    Raises:
        UserError: if there is none, or a bare name that several plugins offer.
    """
    known = offers(plugins, kind)
    matches = [offer for offer in known if name in (offer.component.name, offer.full_name)]
    if len(matches) == 1:
        return matches[0]
    word = CONTRACTS[kind].lower()
    if matches:
        both = " and ".join(offer.full_name for offer in matches)
        raise UserError(f"{word} '{name}' is offered by {both}; write the full name")
    raise UserError(_unknown(plugins, known, kind, name, word))


def _unknown(plugins: Sequence[Plugin], known: list[Offer], kind: str, name: str, word: str) -> str:
    bare = [offer.component.name for offer in known]
    names = [o.component.name if bare.count(o.component.name) == 1 else o.full_name for o in known]
    message = f"no {word} named '{short(name, 200)}'"
    message += suggest(name, [*names, *(offer.full_name for offer in known)]) or "."
    message += f" Known: {', '.join(names) or 'none'}."
    missing = [f"{p.distribution} ({p.problem})" for p in plugins if not p.loaded]
    if missing:
        message += f" Not loaded: {'; '.join(missing)}."
    installed = {plugin.distribution for plugin in plugins}
    absent = [who for who in _providers(kind, name) if who not in installed]
    if absent:
        message += f" Run: modalign plugins install {absent[0]}"
    return message


def _providers(kind: str, name: str) -> list[str]:
    from .registry import providers

    try:
        return [entry.distribution for entry in providers(kind, name)]
    except UserError:  # a damaged catalogue must not hide the message under way
        return []


def import_class(offer: Offer) -> type[Any]:
    """The class an offer points to.

    Raises:
        UserError: if its module fails, has no such class, or the class is of another kind.
    """
    module_name, _, attribute = offer.component.target.partition(":")
    try:
        module = importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        if strict():
            raise
        raise UserError(
            f"{offer.full_name} cannot be used: importing {module_name} raised {one_line(error)}"
        ) from error
    found: Any = getattr(module, attribute, None)
    contract = getattr(importlib.import_module("modalign.contracts"), CONTRACTS[offer.kind])
    if found is None:
        raise UserError(f"{offer.full_name} cannot be used: {module_name} has no {attribute}")
    if not (isinstance(found, type) and issubclass(found, contract)):
        raise UserError(
            f"{offer.full_name} cannot be used: {offer.component.target} is not a subclass of"
            f" modalign.{contract.__name__}"
        )
    return found
