"""All checks of one plugin, as a list and as pytest parameters."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

from modalign.contracts import Modality
from modalign.errors import UserError
from modalign.plugin import loader
from modalign.plugin.component import KINDS

from . import encoder, loss, modality, plugin, projection, task
from .tools import offline

Check = Callable[[], None]
Instances = Mapping[str, Callable[..., Any] | None]

_BY_KIND: dict[str, tuple[Callable[..., None], ...]] = {
    "modalities": modality.CHECKS,
    "encoders": encoder.CHECKS,
    "projections": projection.CHECKS,
    "losses": loss.CHECKS,
    "tasks": task.CHECKS,
}
_GIVEN = {"projections": 1}  # arguments the kit itself gives: a projection's dim


def checks(distribution: str, instances: Instances | None = None) -> list[tuple[str, Check]]:
    """Every check of an installed plugin: ``[("check_x[component]", function of no arguments)]``.

    Inputs:
        distribution: its name, such as ``modalign-text``.
        instances: ``{component: factory}`` for components whose constructor needs arguments (a
            projection's factory gets ``dim``); None instead of a factory: it cannot be built here.
            A component that needs arguments and has no factory is checked as a declaration only.

    Raises:
        UserError: if the plugin is not installed, or ``instances`` names what it does not offer.
    """
    instances = instances or {}
    row = plugin.plugin_row(distribution)
    whole = [c for c in plugin.CHECKS if row.distribution != "modalign" or "core_range" not in c.__name__]
    found: list[tuple[str, Check]] = [(c.__name__, partial(c, row.distribution)) for c in whole]
    offered = [offer for kind in KINDS for offer in plugin.offers(distribution, kind)]
    unknown = sorted(set(instances) - {offer.component.name for offer in offered})
    if unknown and row.problem is None:
        names = ", ".join(sorted(offer.component.name for offer in offered))
        raise UserError(f"instances for {', '.join(unknown)}: {distribution} offers {names or 'nothing'}")
    for offer in offered:
        make = _factory(offer, instances)
        if make is not None:
            found += _of_component(offer, make)
    return found


def parametrize_checks(
    distribution: str,
    expected_failures: Mapping[str, str] | None = None,
    instances: Instances | None = None,
) -> Callable[[Callable[..., Any]], Any]:
    """Decorates ``def test_contract(check): check()`` so that it runs every check of a plugin.

    Inputs:
        distribution, instances: as for ``checks``.
        expected_failures: ``{check: reason}``, by ``check_x[component]`` or ``check_x`` for all of
            them. Strict: one that passes is a failure, so the list cannot go stale.

    Raises:
        UserError: as ``checks``.
        ValueError: if a reason is empty, or no check has that name.
    """
    import pytest

    expected = dict(expected_failures or {})
    battery = checks(distribution, instances)
    if not battery:
        raise ValueError(f"no checks for {distribution}")
    names = {n for name, _ in battery for n in (name, name.partition("[")[0])}
    for name, reason in expected.items():
        if name not in names:
            raise ValueError(
                f"expected failure {name!r}: no such check; there are {', '.join(sorted(names))}"
            )
        if not reason.strip():
            raise ValueError(f"expected failure {name!r}: say why")
    parameters = []
    for name, check in battery:
        why = expected.get(name, expected.get(name.partition("[")[0]))
        marks = [pytest.mark.xfail(reason=why, strict=True)] if why else []
        parameters.append(pytest.param(check, id=name, marks=marks))
    return pytest.mark.parametrize("check", parameters)


def _of_component(offer: loader.Offer, make: Callable[..., Any]) -> list[tuple[str, Check]]:
    read_by = cache(partial(_modality_of, offer, make)) if offer.kind == "encoders" else None
    label = offer.component.name
    return [(f"{c.__name__}[{label}]", partial(_run, c, make, read_by)) for c in _BY_KIND[offer.kind]]


def _run(
    check: Callable[..., None], make: Callable[..., Any], read_by: Callable[[], Modality] | None
) -> None:
    with offline():
        if read_by is None:
            check(make)
        else:
            check(make, read_by())


def _modality_of(offer: loader.Offer, make: Callable[..., Any]) -> Modality:
    """The modality an encoder reads, built as the encoder wants it; its own plugin's if there is a choice."""
    built = make()
    own = [o.full_name for o in plugin.offers(offer.distribution, "modalities")]
    full = f"{offer.distribution}:{built.modality}"
    found = loader.load("modalities", full if full in own else built.modality)
    return found(**built.modality_options())


def _factory(offer: loader.Offer, instances: Instances) -> Callable[..., Any] | None:
    """What builds the component, or None if it needs arguments nobody gave."""
    if offer.component.name in instances:
        return instances[offer.component.name]
    try:
        found = loader.load(offer.kind, offer.full_name)
    except UserError:  # check_plugin_targets_resolve says why
        return None
    needed = [
        p
        for p in list(inspect.signature(found).parameters.values())[_GIVEN.get(offer.kind, 0) :]
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    return None if needed else found
