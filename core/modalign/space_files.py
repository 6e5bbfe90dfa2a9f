"""The space folder: written whole or not at all, read without running anything it holds."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch.nn.modules.module import register_module_parameter_registration_hook

from . import __version__
from .errors import UserError, short
from .hub.card import card, read_card
from .plugin import loader, made_with
from .space import Space, SpaceModality
from .spec import Spec

FORMAT = 1
CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"


def carried(space: Space) -> dict[str, torch.Tensor]:
    """The tensors that travel with a space, as they are: all but those of encoders it only refers to."""
    referenced = tuple(f"encoders.{n}." for n, entry in space.entries.items() if not entry.carried)
    return {k: v for k, v in space.state_dict().items() if not k.startswith(referenced)}


def weights(space: Space) -> dict[str, torch.Tensor]:
    """A copy of the tensors that travel with a space, on the CPU."""
    return {k: v.detach().cpu().contiguous().clone() for k, v in carried(space).items()}


def config(space: Space) -> dict[str, Any]:
    """What ``config.json`` holds."""
    used = [space.projection_spec, *(s for e in space.entries.values() for s in (e.modality, e.encoder))]
    distributions = {spec.name.partition(":")[0] for spec in used}
    versions = {p.distribution: p.version for p in loader.plugins() if p.distribution in distributions}
    return {
        "format": FORMAT,
        "modalign": __version__,
        "plugins": versions,
        "dim": space.dim,
        "alignment": space.alignment,
        "dropout": space.dropout,
        "projection": space.projection_spec.value(),
        "modalities": {
            name: {**asdict(entry), "modality": entry.modality.value(), "encoder": entry.encoder.value()}
            for name, entry in space.entries.items()
        },
        "stages": space.stages,
        "plan": space.plan,
    }


def save(space: Space, path: Path) -> None:
    """Write a space folder beside ``path`` and move it there, so that nobody sees half of one."""
    path = path.absolute()
    new, old = path.with_name(f".{path.name}.new"), path.with_name(f".{path.name}.old")
    if old.exists() and not path.exists():  # a process was killed between the two moves below
        os.replace(old, path)
    if path.exists() and not (path.is_dir() and {p.name for p in path.iterdir()} <= {CONFIG, WEIGHTS, CARD}):
        raise UserError(f"{path} holds something else than a space: choose another folder to save to")
    for left in (new, old):
        shutil.rmtree(left, ignore_errors=True)
    new.mkdir(parents=True)
    save_file(weights(space), new / WEIGHTS, metadata={"format": "pt"})
    (new / CONFIG).write_text(json.dumps(config(space), indent=1) + "\n", encoding="utf-8")
    (new / CARD).write_text(card(space), encoding="utf-8")
    if path.exists():
        os.replace(path, old)
    os.replace(new, path)
    shutil.rmtree(old, ignore_errors=True)


def load(source: str | os.PathLike[str], device: str | torch.device = "cpu") -> Space:
    """A space from its folder, or from an MLflow URI (``models:/``, ``runs:/``).

    Frozen encoders that the space only references are built on first use.

    Raises:
        UserError: if it is no space, damaged, of a newer format, or a plugin it needs is missing or another.
    """
    text = os.fspath(source)
    path = Path(download(text))
    if not (path / CONFIG).is_file() and (path / "space" / CONFIG).is_file():
        path = path / "space"
    try:
        about = json.loads((path / CONFIG).read_text(encoding="utf-8"))
        if not isinstance(about, dict):
            raise ValueError(f"its {CONFIG} holds a {type(about).__name__}")
        _check_form(about)
        tensors = load_file(path / WEIGHTS)
    except FileNotFoundError as error:
        raise UserError(f"{text} is not a space: it has no {Path(error.filename or WEIGHTS).name}") from None
    except (OSError, ValueError, RecursionError, SafetensorError) as error:
        raise UserError(f"the space {text} is damaged: {short(str(error), 4000)}") from None
    if about.get("format") != FORMAT:
        told = short(str(about.get("format")), 80)
        raise UserError(f"the space {text} has format {told}; this modalign {__version__} reads {FORMAT}")
    plugins = about.get("plugins", {})
    try:
        made_with.require(plugins)
        _check_sizes(about, tensors)
        space = _build(about, tensors)
    except (
        UserError,
        TypeError,
        ValueError,
        KeyError,
        IndexError,
        AttributeError,
        ArithmeticError,
        RuntimeError,
    ) as error:
        changed, why = made_with.changed(plugins), short(str(error), 4000)
        if isinstance(error, UserError) and not changed:
            raise UserError(f"the space {text} cannot be loaded: {why}") from None
        raise UserError(f"the space {text} cannot be loaded: {changed or 'it is damaged'} ({why})") from error
    if made_with.changed(plugins, series=True):
        told = made_with.changed(plugins, series=True)
        logging.getLogger("modalign").warning("the space %s may give other embeddings: %s", text, told)
    space.about = read_card(path / CARD)
    return space.requires_grad_(False).eval().to(device)


def download(source: str, to: str | None = None) -> str:
    """Where a space is on this machine: ``source`` itself, unless it is an MLflow URI.

    Raises:
        UserError: if MLflow has no such thing, or does not answer.
    """
    if not source.startswith(("models:/", "runs:/", "mlflow-artifacts:/")):
        return source
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    try:
        return download_artifacts(source, dst_path=to)
    except (MlflowException, OSError) as error:
        raise UserError(f"MLflow gives no {source}: {error}") from error


class TooMany(UserError):
    """A config claims more layers than there are weights for."""


def _check_form(about: Any) -> None:
    """Raise ``ValueError`` if a config is no mapping, or holds other kinds of values than one does."""
    if not isinstance(about, dict):
        raise ValueError(f"{CONFIG} holds no mapping")
    kinds = {"plugins": dict, "modalities": dict, "stages": list, "plan": dict}
    for key, kind in kinds.items():
        if not isinstance(about.get(key, kind()), kind):
            raise ValueError(f"{CONFIG}: {key} is a {type(about[key]).__name__}")
    if not all(isinstance(version, str) for version in about.get("plugins", {}).values()):
        raise ValueError(f"{CONFIG}: plugins are names and versions")


def _check_sizes(about: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    """See, before anything is built, whether the weights have the sizes that the config claims.

    Otherwise a config from elsewhere could fill the memory.

    Raises:
        UserError: if they have not.
    """
    most, count = 4 * len(tensors) + 1000, 0

    def counted(*_: Any) -> None:
        nonlocal count
        count += 1
        if count > most:
            raise TooMany(f"it is damaged: its config claims far more than {len(tensors)} weights")

    hook = register_module_parameter_registration_hook(counted)
    try:
        with torch.device("meta"):
            space = _skeleton(about, _encoder_if_possible)
    finally:
        hook.remove()
    for name, wanted in space.state_dict().items():
        found = tensors[name].shape if name in tensors else None
        if found != wanted.shape:
            raise UserError(f"it is damaged: its weights do not fit its config ({name})")


def _encoder(spec: Spec) -> Any:
    return loader.load("encoders", spec.name)(**spec.keywords())


def _encoder_if_possible(spec: Spec) -> Any:
    """An encoder without storage; None if it needs more than its arguments to be built, such as files."""
    try:
        return _encoder(spec)
    except TooMany:
        raise
    except Exception:
        return None


def _skeleton(about: dict[str, Any], encoder: Callable[[Spec], Any] = _encoder) -> Space:
    """A space without its weights.

    Inputs:
        encoder: builds an encoder that travels along.
    """
    space = Space(
        about["dim"],
        Spec.of(about["projection"]),
        dropout=about["dropout"],
        alignment=about.get("alignment", "mlp"),
    )
    for name, saved in about["modalities"].items():
        specs = {kind: Spec.of(saved[kind]) for kind in ("modality", "encoder")}
        entry = SpaceModality(**{**saved, **specs, "extras": tuple(saved.get("extras", ()))})
        for kind, spec in (("modalities", entry.modality), ("encoders", entry.encoder)):
            loader.resolve(kind, spec.name)
        space.add(name, entry, encoder(entry.encoder) if entry.carried else None, founder=entry.founder)
    return space


def _build(about: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Space:
    space = _skeleton(about)
    space.stages, space.plan = about["stages"], about["plan"]
    missing = space.load_state_dict(tensors, strict=False)
    if missing.missing_keys or missing.unexpected_keys:
        first = (missing.missing_keys + missing.unexpected_keys)[0]
        raise UserError(f"it is damaged: its weights do not fit its config ({first})")
    return space
