"""Component: how a plugin names what it offers without importing it."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pluggy

hookimpl = pluggy.HookimplMarker("modalign")
"""Marks a function of a plugin as the implementation of the hook of the same name."""

KINDS = ("modalities", "encoders", "projections", "losses", "tasks")
"""The kinds of component; each has a hook ``register_<kind>``."""


@dataclass(frozen=True)
class Component:
    """One thing a plugin offers: strings until someone uses it.

    Inputs:
        name: lower-case letters, digits, ``-`` and ``_``; what plans write.
        target: ``"package.module:Class"``, imported on first use.
        summary: one line for ``modalign list``.

    Raises:
        ValueError: if name or target is not of that form.
    """

    name: str
    target: str
    summary: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z0-9]+([-_][a-z0-9]+)*", self.name):
            raise ValueError(f"component name {self.name!r}: use lower-case letters, digits, - and _")
        if not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", self.target):
            raise ValueError(f"component {self.name}: target {self.target!r} is not 'package.module:Class'")
