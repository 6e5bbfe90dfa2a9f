"""Whether a plugin says only what it may: what pluggy lets pass is caught here."""

from __future__ import annotations

import pluggy

from modalign.errors import suggest

from .component import KINDS, Component


def check_hooks(manager: pluggy.PluginManager, module: object, value: str) -> None:
    """Every hook is a known one and plain, and no function that looks like a hook is unmarked.

    Raises:
        TypeError: naming what is wrong.
    """
    specs = [name for name in vars(manager.hook) if getattr(manager.hook, name).has_spec()]
    callers = manager.get_hookcallers(module) or []
    for caller in callers:
        if not caller.has_spec():
            raise TypeError(f"unknown hook '{caller.name}'{suggest(caller.name, specs)}")
        for implementation in caller.get_hookimpls():
            if implementation.plugin is module and (implementation.wrapper or implementation.hookwrapper):
                raise TypeError(f"{caller.name} is a hook wrapper; use a plain @hookimpl")
    marked = {caller.name for caller in callers}
    for name in specs:
        if name not in marked and callable(getattr(module, "__dict__", {}).get(name)):
            raise TypeError(f"{value}.{name} is not marked; is @hookimpl missing?")
    if not callers:
        raise TypeError(f"{value} implements no hook; is @hookimpl missing?")


def declared(manager: pluggy.PluginManager, names: set[str]) -> dict[str, list[Component]]:
    """The components that the modules registered under ``names`` declare, by kind.

    Raises:
        TypeError: if a hook returns anything but a list of ``Component``.
        ValueError: if one name comes twice.
    """
    found: dict[str, list[Component]] = {}
    for kind in KINDS:
        for implementation in getattr(manager.hook, f"register_{kind}").get_hookimpls():
            if implementation.plugin_name in names:
                value = implementation.function()
                if not isinstance(value, list) or not all(isinstance(c, Component) for c in value):
                    raise TypeError(f"register_{kind} must return a list of Component, got {value!r:.80}")
                found.setdefault(kind, []).extend(value)
        given = [component.name for component in found.get(kind, [])]
        twice = sorted({name for name in given if given.count(name) > 1})
        if twice:
            raise ValueError(f"register_{kind} declares {', '.join(twice)} twice")
    return found
