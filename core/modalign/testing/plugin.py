"""Checks of a plugin as a whole: light, well declared, fenced, in step with the catalogue."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from modalign.contracts import Encoder, Modality
from modalign.errors import UserError
from modalign.plugin import loader, registry
from modalign.plugin.component import KINDS

from .tools import expect

HEAVY = (
    "torch", "torchaudio", "torchvision", "transformers", "lightning", "lightning_fabric", "mlflow",
    "numpy", "pandas", "scipy", "sklearn", "matplotlib", "pyarrow", "datasets", "PIL", "soundfile",
    "librosa", "cv2", "jax", "tensorflow", "rdkit", "torch_geometric", "music21",
)  # fmt: skip
"""What a module of declarations must not import: each costs a good part of a second, or seconds."""

_DECLARE = """
import importlib.metadata, json, sys
before = set(sys.modules)
for point in importlib.metadata.distribution(sys.argv[1]).entry_points:
    if point.group == "modalign.plugins":
        module = point.load()
        for name, value in list(vars(module).items()):
            if name.startswith("register_") and callable(value):
                value()
print("\\n" + json.dumps(sorted({name.partition(".")[0] for name in set(sys.modules) - before})))
"""


def check_plugin_loads(distribution: str) -> None:
    """The loader has nothing to say against it, and it offers something."""
    row = plugin_row(distribution)
    expect(row.problem is None, f"{row.distribution}: {row.problem}")


def check_plugin_declares_without_heavy_imports(distribution: str) -> None:
    """Importing its module and asking what it registers imports nothing heavy."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run(
        [sys.executable, "-c", _DECLARE, distribution], capture_output=True, text=True, env=environment
    )
    expect(done.returncode == 0, f"declaring failed:\n{done.stderr[-2000:]}")
    found = set(json.loads(done.stdout.strip().splitlines()[-1])) & set(HEAVY)
    expect(
        not found,
        f"declaring imports {', '.join(sorted(found))}; keep such imports in the modules that targets name",
    )


def check_plugin_targets_resolve(distribution: str) -> None:
    """Every target is a class of the contract its hook promises, under its own name."""
    for kind in KINDS:
        for offer in offers(distribution, kind):
            try:
                found = loader.load(kind, offer.full_name)
            except UserError as error:
                raise AssertionError(str(error)) from error
            name = offer.component.name
            if issubclass(found, Modality):
                own = getattr(found, "name", None)
                expect(own == name, f"{offer.component.target}.name is {own!r}, declared as {name!r}")
            if issubclass(found, Encoder):
                expect(
                    isinstance(getattr(found, "modality", None), str),
                    f"{offer.component.target}.modality must name the modality it reads",
                )


def check_plugin_requires_a_core_range(distribution: str) -> None:
    """Its metadata ask for ``modalign`` from one version up to, and without, another."""
    requires = [Requirement(text) for text in metadata.requires(distribution) or ()]
    core = [r for r in requires if canonicalize_name(r.name) == "modalign"]
    expect(bool(core), 'it does not require modalign; write "modalign>=x,<y" in dependencies')
    signs = {s.operator for r in core for s in r.specifier}
    closed = bool(signs & {"~=", "==", "==="}) or (bool(signs & {">=", ">"}) and bool(signs & {"<", "<="}))
    expect(closed, f"it requires {core[0]}; give both ends, such as modalign>=x,<y")


def check_plugin_matches_the_registry(distribution: str) -> None:
    """If ``registry.yaml`` lists it, the names reserved there are those it declares."""
    name = canonicalize_name(distribution)
    listed = next((entry for entry in registry.entries() if entry.distribution == name), None)
    if listed is None:
        return
    declared = {k: sorted(o.component.name for o in offers(distribution, k)) for k in KINDS}
    reserved = {k: sorted(listed.provides.get(k, ())) for k in KINDS}
    for kind in KINDS:
        expect(
            declared[kind] == reserved[kind],
            f"registry.yaml reserves {kind} {reserved[kind]}, the plugin declares {declared[kind]}",
        )


def plugin_row(distribution: str) -> loader.Plugin:
    """The loader's row of that plugin.

    Raises:
        UserError: if it is not installed.
    """
    name = canonicalize_name(distribution)
    rows = {row.distribution: row for row in loader.plugins()}
    if name not in rows:
        raise UserError(
            f"no plugin {distribution!r} is installed (there are: {', '.join(rows) or 'none'}); "
            "run: modalign plugins install -e PATH"
        )
    return rows[name]


def offers(distribution: str, kind: str) -> list[loader.Offer]:
    """What that plugin offers of one kind."""
    name = canonicalize_name(distribution)
    return [offer for offer in loader.components(kind) if offer.distribution == name]


CHECKS: tuple[Callable[[str], None], ...] = (
    check_plugin_loads,
    check_plugin_declares_without_heavy_imports,
    check_plugin_targets_resolve,
    check_plugin_requires_a_core_range,
    check_plugin_matches_the_registry,
)
