"""Builds what a plan names: encoders, the space, a stage's new modalities."""

from __future__ import annotations

import hashlib
import json
import subprocess
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from modalign import __version__
from modalign.contracts import Encoder
from modalign.errors import UserError
from modalign.plugin import loader
from modalign.space import Space, SpaceModality
from modalign.spec import Spec

from .checks import Prepared, modality_component
from .hub_dataset import each_file, found
from .plan import ModalityPlan, Plan, StagePlan
from .rng import seeded
from .stage import hash_parts


def build_encoders(plan: Plan) -> dict[str, Encoder]:
    """Every encoder of the plan. Here missing weights show, before anything is written.

    Raises:
        UserError: with the modality's name, if one cannot be built.
    """
    encoders = {}
    for name, modality in plan.modalities.items():
        target = loader.load("encoders", modality.encoder.name)
        with seeded(plan.seed, "encoder", name):
            try:
                encoders[name] = target(**modality.encoder.keywords())
            except (ValueError, TypeError, OSError, ImportError) as error:
                raise UserError(f"modalities.{name}.encoder: {modality.encoder.name}: {error}") from error
    return encoders


def build_space(plan: Plan) -> Space:
    """An empty space of the plan's shape."""
    with seeded(plan.seed, "projection"):
        shape = plan.space
        return Space(shape.dim, shape.projection, shape.temperature.init, shape.dropout, shape.alignment)


def space_modality(plan: ModalityPlan, encoder: Encoder) -> SpaceModality:
    """How the space will read and encode a modality, with full names and every argument."""
    offer = loader.resolve("encoders", plan.encoder.name)
    reads = loader.resolve("modalities", modality_component(plan)).full_name
    carried = plan.trainable or not encoder.pretrained
    return SpaceModality(
        modality=Spec(reads, {**encoder.modality_options(), **plan.read}),
        encoder=Spec(offer.full_name, plan.encoder.args),
        width=encoder.width,
        carried=carried,
        fingerprint=None if carried else encoder.fingerprint(),
        extras=encoder.extras,
    )


def enter_stage(
    plan: Plan, space: Space, stage: StagePlan, encoders: dict[str, Encoder], *, founders: bool
) -> list[str]:
    """Add the stage's new modalities to the space; returns them."""
    new = [m for m in stage.align if m not in space.modalities]
    for name in new:
        with seeded(plan.seed, "modality", name):
            space.add(
                name, space_modality(plan.modalities[name], encoders[name]), encoders[name], founder=founders
            )
    for part in stage.unfreeze:
        kind, _, name = part.partition(":")
        if kind == "encoder":
            space.encoder(name)
            space.entries[name] = replace(space.entries[name], carried=True, fingerprint=None)
    return new


def versions(space_plugins: dict[str, str]) -> dict[str, str]:
    """modalign, torch and the plugins used."""
    import torch

    return {"modalign": __version__, "torch": torch.__version__, **space_plugins}


def git_commit(folder: Path) -> str | None:
    """The commit checked out where the plan lies, ``+`` if the tree differs; None outside git."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, text=True, check=True, timeout=10
        ).stdout.strip()

    try:
        return git("rev-parse", "HEAD") + (
            "+" if git("status", "--porcelain", "--untracked-files=no") else ""
        )
    except (OSError, subprocess.SubprocessError):
        return None


def differences(old: Any, new: Any, place: str = "") -> list[str]:
    """The places where two plain values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = [*old, *(k for k in new if k not in old)]
        return [
            d for k in keys for d in differences(old.get(k), new.get(k), f"{place}.{k}" if place else str(k))
        ]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        return [
            d
            for i, (a, b) in enumerate(zip(old, new, strict=True))
            for d in differences(a, b, f"{place}.{i}")
        ]
    return [] if old == new else [place]


def input_digests(prepared: Prepared) -> dict[str, str]:
    """Digests of what a run is made from: its tables, and the space it starts from."""
    parts = hash_parts(prepared.start) if prepared.start else {}
    return {
        "data": ",".join(dataset.digest() for dataset in prepared.datasets.values()),
        "start": hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest() if parts else "",
    }


def absolute_paths(plan: Any, folder: Path) -> Any:
    """A dumped plan whose tables are found from anywhere; ``${VARIABLE}`` stays as it is."""

    def absolute(path: str) -> str:
        return path if path.startswith(("${", "~")) else str(folder.absolute() / path)

    def absolute_file(name: str, file: str) -> str:
        return file if file.startswith(("${", "~")) else found(file, name, folder.absolute())

    def walk(value: Any, inside_data: bool) -> Any:
        if isinstance(value, list):
            return [walk(v, inside_data) for v in value]
        if not isinstance(value, dict):
            return value
        done = {key: walk(v, inside_data or key == "data") for key, v in value.items()}
        if inside_data:
            for key in ("table", "root"):
                if isinstance(done.get(key), str):
                    done[key] = absolute(done[key])
            dataset = done.get("dataset")
            if isinstance(dataset, dict) and (folder / str(dataset.get("name"))).is_dir():
                done["dataset"] = {**dataset, "name": absolute(str(dataset["name"]))}
            elif isinstance(dataset, dict) and dataset.get("files"):
                there = partial(absolute_file, str(dataset.get("name")))
                done["dataset"] = {**dataset, "files": each_file(dataset["files"], there)}
            if isinstance(done.get("tables"), dict):
                done["tables"] = {split: absolute(path) for split, path in done["tables"].items()}
        return done

    return walk(plan, False)
