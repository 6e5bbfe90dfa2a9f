"""The rules an entry of registry.yaml must keep."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from modalign.errors import suggest

from .component import KINDS

TRUST = ("core", "reviewed", "listed")
TEXTS = ("summary", "trust", "source", "requirement", "homepage", "version", "sha256")
KEYS = (*TEXTS, "provides", "needs")

Problem = tuple[tuple[str, ...], str]
"""Where inside the entry, and what is wrong."""


def unknown_key(key: Any, known: Iterable[str]) -> str:
    """The message for a key that does not exist."""
    return f"unknown key '{key}'{suggest(str(key), known) or '.'} Known: {', '.join(known)}"


def check_entry(name: Any, given: Any) -> Problem | None:
    """The first rule that this entry breaks, or None."""
    if not isinstance(name, str) or canonicalize_name(name) != name:
        return (), "not a distribution name in its normal form (lower case, words joined by -)"
    if not isinstance(given, dict):
        return (), "expected a mapping"
    for key, value in given.items():
        if key not in KEYS:
            return (str(key),), unknown_key(key, KEYS)
        if key in TEXTS and (not isinstance(value, str) or not value.strip() or "\n" in value):
            return (key,), f"{key} must be one line of text (quote numbers), not {value!r}"
    for key in ("summary", "trust"):
        if key not in given:
            return (), f"{key} is missing"
    return _check_trust(name, given) or _check_lists(given)


def _check_trust(name: str, given: dict[str, Any]) -> Problem | None:
    trust = given["trust"]
    if trust not in TRUST:
        return ("trust",), f"trust '{trust}' is not one of {', '.join(TRUST)}"
    wanted, other = ("source", "requirement") if trust == "core" else ("requirement", "source")
    if wanted not in given or other in given:
        return ("trust",), f"trust '{trust}' goes with {wanted}, not with {other}"
    if trust == "core" and not _plain_path(given["source"]):
        return ("source",), "source must be a folder of this repository, such as plugins/name"
    if trust == "reviewed" and "version" not in given:
        return ("trust",), "trust 'reviewed' needs the version that was read"
    if "version" in given:
        try:
            Version(given["version"])
        except (InvalidVersion, ValueError):  # the latter: more digits than int reads
            return ("version",), f"'{given['version']}' is not a version"
    if "sha256" in given and ("version" not in given or not re.fullmatch(r"[0-9a-f]{64}", given["sha256"])):
        return ("sha256",), "sha256 must be 64 hexadecimal digits and goes with version"
    if "homepage" in given and not re.fullmatch(r"https://[\w.-]+(/\S*)?", given["homepage"]):
        return ("homepage",), "homepage must start with https://"
    return _check_requirement(name, given["requirement"]) if "requirement" in given else None


def _check_requirement(name: str, text: str) -> Problem | None:
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        return ("requirement",), f"'{text}' is not a requirement: {str(error).splitlines()[0]}"
    if requirement.url is not None:
        return ("requirement",), f"'{text}' holds a URL; write a name and versions only"
    if requirement.marker or requirement.extras or canonicalize_name(requirement.name) != name:
        return ("requirement",), f"'{text}' must be '{name}' and versions only"
    return None


def _check_lists(given: dict[str, Any]) -> Problem | None:
    provides, needs = given.get("provides", {}), given.get("needs", [])
    if not isinstance(provides, dict):
        return ("provides",), "provides must map kinds to lists of names"
    for kind, names in provides.items():
        if kind not in KINDS:
            return ("provides", str(kind)), unknown_key(kind, KINDS)
        if not _words(names) or names != sorted(set(names)):
            return ("provides", kind), f"{kind} must be a list of names, alphabetical, each once"
    if not _words(needs):
        return ("needs",), "needs must be a list of distribution names"
    return None


def _words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(word, str) and word for word in value)


def _plain_path(path: str) -> bool:
    return re.fullmatch(r"[\w-]+(/[\w-]+)*", path) is not None
