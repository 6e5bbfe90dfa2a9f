"""Which names the catalogue and the core keep for others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib import metadata

from .component import KINDS
from .discover import CORE, GROUP
from .names import CONTRACTS
from .registry import entries


def reserved_elsewhere(distribution: str, offers: Mapping[str, Sequence[str]]) -> str | None:
    """The first name among ``offers`` (by kind) that is reserved, but not for ``distribution``; in words."""
    catalogue, core = entries(), _core()
    for kind, names in offers.items():
        for name in names:
            owners = [e.distribution for e in catalogue if name in e.provides.get(kind, ())]
            owners += [CORE] * (name in core.get(kind, ()))
            if owners and distribution not in owners:
                return (
                    f"the {CONTRACTS[kind].lower()} '{name}', a name that is reserved for "
                    f"{' and '.join(owners)}; it must use another"
                )
    return None


def _core() -> dict[str, set[str]]:
    """What the core offers, by kind; no other plugin is asked."""
    found: dict[str, set[str]] = {kind: set() for kind in KINDS}
    for point in metadata.distribution(CORE).entry_points.select(group=GROUP):
        module = point.load()
        for kind in KINDS:
            declare = getattr(module, f"register_{kind}", None)
            found[kind] |= {component.name for component in declare()} if declare else set()
    return found
