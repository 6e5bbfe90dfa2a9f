"""Loads every installed plugin on its own, and asks what it offers."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

import pluggy

from modalign.errors import UserError

from . import hookspecs
from .check import check_hooks, declared
from .discover import GROUP, Plugin, disabled_by, find, one_line, strict
from .names import Offer, import_class, offers, pick

__all__ = [
    "GROUP", "Offer", "Plugin", "call", "components", "disable", "failures", "load", "plugins",
    "registered", "reset", "resolve",
]  # fmt: skip

_manager: pluggy.PluginManager | None = None
_plugins: list[Plugin] | None = None
_owners: dict[str, Plugin] = {}  # name on the manager -> row
_extras: dict[str, object] = {}  # objects registered for the duration of a run
_failures: dict[tuple[str, str], str] = {}  # (who, hook) -> problem
_disabled: tuple[str, ...] = ()  # by the plan


def plugins() -> list[Plugin]:
    """Every installed plugin, alphabetical, loaded if nothing speaks against it; cached.

    Nothing a plugin does wrong is raised, unless ``MODALIGN_STRICT=1``: it is in ``problem``.
    """
    global _manager, _plugins
    if _plugins is None:
        manager = pluggy.PluginManager("modalign")
        manager.add_hookspecs(hookspecs)
        _owners.clear()
        rows = find(_disabled)
        for plugin in rows:
            _load(manager, plugin)
        for name, thing in _extras.items():
            manager.register(thing, name)
        _manager, _plugins = manager, rows
    return _plugins


def components(kind: str) -> list[Offer]:
    """Everything on offer of one kind (``"losses"``), sorted by name.

    Raises:
        UserError: if there is no such kind.
    """
    return offers(plugins(), kind)


def resolve(kind: str, name: str) -> Offer:
    """The component a plan means by a bare name or by ``distribution:name``.

    Raises:
        UserError: if there is none, or a bare name that several plugins offer.
    """
    return pick(plugins(), kind, name)


def load(kind: str, name: str) -> type[Any]:
    """The class of a component, imported now.

    Raises:
        UserError: as ``resolve``; or if its module fails or the class is not of that kind.
    """
    return import_class(resolve(kind, name))


def call(hook: str, **kwargs: Any) -> list[tuple[str, Any]]:
    """Call a hook on every plugin, each on its own: ``[(plugin, value)]``.

    An implementation gets only the arguments it names. One that raises is recorded, reported once
    and left out of the result, unless ``MODALIGN_STRICT=1``.
    """
    plugins()
    assert _manager is not None
    results = []
    for implementation in getattr(_manager.hook, hook).get_hookimpls():
        name = implementation.plugin_name
        owner = _owners.get(name)
        who = owner.distribution if owner else name
        try:
            value = implementation.function(*(kwargs[argument] for argument in implementation.argnames))
        except (Exception, SystemExit) as error:
            if strict():
                raise
            _record(who, hook, f"{hook} raised {one_line(error)}", owner)
        else:
            results.append((who, value))
    return results


def _record(who: str, hook: str, problem: str, owner: Plugin | None) -> None:
    if owner is not None:
        owner.problem = problem
    if (who, hook) not in _failures:
        import logging

        logging.getLogger("modalign").warning("plugin %s: %s (reported once)", who, problem)
    _failures[who, hook] = problem


def failures() -> dict[str, str]:
    """What ``call`` had to skip so far: plugin or registered name -> its latest problem."""
    return {who: problem for (who, _), problem in _failures.items()}


@contextmanager
def registered(**objects: object) -> Iterator[None]:
    """Let more objects with ``@hookimpl`` methods hear the events, for the duration.

    A name that is disabled, as a plugin would be, is left out.
    """
    plugins()
    added = []
    try:
        for name, thing in objects.items():
            if disabled_by(name, _disabled):
                continue
            for key in [key for key in _failures if key[0] == name]:
                del _failures[key]
            assert _manager is not None
            _manager.register(thing, name)
            _extras[name] = thing
            added.append(name)
        yield
    finally:
        for name in added:
            _extras.pop(name, None)
            if _manager is not None and _manager.has_plugin(name):
                _manager.unregister(name=name)


def disable(names: Iterable[str]) -> None:
    """Leave these plugins out: what a plan's ``plugins: {disable: [...]}`` says, and no more.

    Replaces what an earlier plan disabled; ``MODALIGN_DISABLE`` holds besides.
    """
    global _disabled, _plugins
    chosen = tuple(sorted(set(names)))
    if chosen != _disabled:
        _disabled, _plugins = chosen, None


def reset() -> None:
    """Forget everything; the next question discovers anew."""
    global _manager, _plugins, _disabled
    _manager, _plugins, _disabled = None, None, ()
    for state in (_owners, _extras, _failures):
        state.clear()


def _load(manager: pluggy.PluginManager, plugin: Plugin) -> None:
    """Import, register and check one plugin; on failure it is as if it were not there."""
    if plugin.problem is not None:
        if strict() and not plugin.disabled:
            raise UserError(f"plugin {plugin.distribution}: {plugin.problem}")
        return
    names: list[str] = []
    try:
        with redirect_stdout(sys.stderr):  # stdout is for data, whatever a plugin prints
            modules = {point.value: point.load() for point in plugin.entry_points}
            for value, module in modules.items():
                if manager.is_registered(module):
                    raise ValueError(f"{value} is already the module of another plugin")
                names.append(f"{plugin.distribution} {value}")
                manager.register(module, names[-1])
                _owners[names[-1]] = plugin
                check_hooks(manager, module, value)
            plugin.components = declared(manager, set(names))
        plugin.loaded = True
    except (Exception, SystemExit) as error:
        for name in names:
            if manager.has_plugin(name):
                manager.unregister(name=name)
            _owners.pop(name, None)
        if strict():
            raise
        plugin.problem = one_line(error)
