"""Modalities, encoders, projection and losses: do they exist, do their arguments fit?"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn

from modalign.contracts import Loss, Projection
from modalign.errors import UserError
from modalign.plugin import loader
from modalign.space import Space

from ..plan import Plan, StagePlan
from ..plan_file import Place, Problem
from .prepared import Meaning, component, modality_component

HINTS = {
    "labels": "; name the label's column in data.label",
    "teacher": "; align a modality whose encoder is frozen",
}
ALWAYS = frozenset({"tokens", "ids", "momentum"})
"""What every loss can have."""


def check_modalities(plan: Plan) -> Iterator[Problem]:
    for name, modality in plan.modalities.items():
        if name in ("projection", "temperature") or hasattr(nn.ModuleDict, name):
            yield Meaning(("modalities", name), f"'{name}' is a name the space needs itself: choose another")
        place: Place = ("modalities", name, "encoder")
        encoder, problems = component("encoders", modality.encoder.name, place)
        yield from problems
        if encoder is None:
            continue
        yield from (Meaning(place, text) for text in modality.encoder.check(encoder))
        reads = modality_component(modality)
        place = ("modalities", name, "modality") if modality.modality else place
        reader, problems = component("modalities", reads, place)
        yield from problems
        if reader is not None:
            spec = type(modality.encoder)(reads, modality.read)
            wrong = spec.check(reader)
            yield from (Meaning(("modalities", name, "read"), text) for text in wrong)
            if not wrong:
                try:
                    reader(**spec.keywords())
                except (UserError, ValueError, TypeError) as error:
                    yield Meaning(("modalities", name, "read"), str(error))


def check_projection(plan: Plan, start: Space | None) -> Iterator[Problem]:
    if start is not None:
        return
    place = ("space", "projection")
    target, problems = component("projections", plan.space.projection.name, place)
    yield from problems
    if target is None:
        return
    wrong = plan.space.projection.check(target, "dim")
    yield from (Meaning(place, text) for text in wrong)
    if not wrong:
        try:
            with torch.device("meta"):  # a slip of the keyboard must not fill the memory
                target(dim=plan.space.dim, **plan.space.projection.keywords())
        except (UserError, ValueError, TypeError, RuntimeError, ArithmeticError) as error:
            yield Meaning(place, str(error))


def check_losses(plan: Plan, start: Space | None, stage: StagePlan, here: Place) -> Iterator[Problem]:
    data = plan.stage_data(stage)
    have = set(ALWAYS)
    if data is not None and any(source.label for source in data.sources()):
        have.add("labels")
    if any(m not in plan.modalities or not plan.modalities[m].trainable for m in stage.align):
        have.add("teacher")  # the features of a frozen encoder
    try:
        projection = (
            type(start.projection) if start else loader.load("projections", plan.space.projection.name)
        )
        if issubclass(projection, Projection):
            have |= projection.provides
    except UserError:
        pass
    for name, (_, spec) in stage.weights().items():
        place: Place = (*here, "losses", name)
        target, problems = component("losses", name, place)
        yield from problems
        if target is None or not issubclass(target, Loss):
            continue
        wrong = spec.check(target)
        yield from (Meaning(place, text) for text in wrong)
        for need in sorted(target.needs - have):
            hint = HINTS.get(need, "")
            yield Meaning(place, f"needs '{need}', which this plan does not give it{hint}")
        if not wrong:
            try:
                target(**spec.keywords())
            except (UserError, ValueError, TypeError) as error:
                yield Meaning(place, str(error))
