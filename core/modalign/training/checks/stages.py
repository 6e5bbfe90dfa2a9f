"""Stages: does each align something new with something already there?"""

from __future__ import annotations

from collections.abc import Iterator

from modalign.contracts import Task
from modalign.errors import UserError, suggest

from ..evaluate import build_task
from ..plan import Plan, StagePlan
from ..plan_file import Place, Problem
from .closed_form import unsolvable
from .components import check_losses
from .prepared import Meaning, Prepared


def check_stages(prepared: Prepared) -> Iterator[Problem]:
    plan = prepared.plan
    aligned = set(prepared.start.modalities) if prepared.start else set()
    if not plan.stages:
        yield Meaning(("stages",), "there are no stages; write at least one, with 'align' and 'losses'")
    for name in set(plan.modalities) & aligned:
        yield Meaning(
            ("modalities", name), "is in the space already: leave it out of this plan, or choose another name"
        )
    seen: set[str] = set()
    used = set(aligned)
    for i, stage in enumerate(plan.stages):
        here: Place = ("stages", i)
        if stage.name in seen:
            yield Meaning((*here, "name"), f"two stages are called '{stage.name}'")
        seen.add(stage.name)
        yield from check_align(prepared, stage, (*here, "align"), aligned, first=not used)
        new = set(stage.align) - aligned
        known = set(plan.modalities) | aligned
        aligned |= set(stage.align) & known
        used |= set(stage.align)
        yield from check_unfreeze(stage, here, aligned)
        for a, b in stage.pairs or []:
            for m in {a, b} - set(stage.align):
                yield Meaning((*here, "pairs"), f"'{m}' is not in this stage's align")
        if stage.closed_form is not None:
            for text in unsolvable(plan, stage, new, prepared.start):
                yield Meaning((*here, "closed_form"), text)
        yield from check_losses(plan, prepared.start, stage, here)
        yield from check_latent_mix(plan, stage, here, new)
        if stage.bucket_by is not None and stage.bucket_by not in stage.align:
            near = suggest(stage.bucket_by, stage.align)
            yield Meaning((*here, "bucket_by"), f"'{stage.bucket_by}' is not in this stage's align{near}")
        yield from check_select(plan, stage, here, aligned)
        if plan.stage_data(stage) is None:
            yield Meaning((*here, "data"), "there is no data: write 'data' in the plan or in the stage")
    for name in set(plan.modalities) - used:
        yield Meaning(("modalities", name), "no stage aligns it: add it to a stage's align, or take it out")


def check_align(
    prepared: Prepared, stage: StagePlan, place: Place, aligned: set[str], *, first: bool
) -> Iterator[Problem]:
    known = {*prepared.plan.modalities, *aligned}
    unknown = [m for m in stage.align if m not in known]
    for m in unknown:
        yield Meaning(
            place, f"unknown modality '{m}'{suggest(m, known)} (known: {', '.join(sorted(known)) or 'none'})"
        )
    if len(set(stage.align)) < len(stage.align):
        yield Meaning(place, "a modality stands there twice")
    new = [m for m in stage.align if m not in aligned]
    if unknown:
        return
    if not first and not aligned & set(stage.align):
        yield Meaning(
            place,
            f"none of {', '.join(stage.align)} is aligned yet: a later stage needs an anchor that an earlier "
            f"one aligned ({', '.join(sorted(aligned)) or 'none so far'})",
        )
    if not new and not stage.unfreeze:
        yield Meaning(
            place,
            "everything here is aligned already and frozen: add a new modality, or say what to 'unfreeze'",
        )


def check_unfreeze(stage: StagePlan, here: Place, aligned: set[str]) -> Iterator[Problem]:
    known = {"projection", "temperature", *aligned, *(f"encoder:{m}" for m in aligned)}
    for part in stage.unfreeze:
        if part not in known:
            yield Meaning(
                (*here, "unfreeze"),
                f"unknown part '{part}'{suggest(part, known)} (known: {', '.join(sorted(known))})",
            )


def check_latent_mix(plan: Plan, stage: StagePlan, here: Place, new: set[str]) -> Iterator[Problem]:
    """Mixtures are made of what the feature cache holds."""
    if stage.latent_mix is None:
        return
    place: Place = (*here, "latent_mix")
    if not plan.cache:
        yield Meaning(place, "it mixes cached features: take 'cache: false' from the plan")
    for name in stage.align:
        modality = plan.modalities.get(name)
        if f"encoder:{name}" in stage.unfreeze or (modality and modality.trainable and name in new):
            yield Meaning(place, f"it mixes the features of frozen encoders, and {name}'s is trained here")
        elif modality and modality.augment is True:
            yield Meaning(place, f"it mixes cached features: write augment: {{views: 8}} for {name}")


def check_select(plan: Plan, stage: StagePlan, here: Place, aligned: set[str]) -> Iterator[Problem]:
    if stage.select is None:
        return
    tasks = dict(builtcheck_tasks(plan))
    place: Place = (*here, "select", "task")
    task = tasks.get(stage.select.task)
    if task is None:
        near = suggest(stage.select.task, tasks)
        yield Meaning(
            place, f"there is no task '{stage.select.task}'{near} (known: {', '.join(tasks) or 'none'})"
        )
    elif not set(task.modalities) <= aligned:
        late = ", ".join(sorted(set(task.modalities) - aligned))
        yield Meaning(place, f"it measures {late}, which is not aligned by the end of this stage")


def builtcheck_tasks(plan: Plan) -> Iterator[tuple[str, Task]]:
    for task in plan.tasks:
        try:
            yield build_task(task)
        except (UserError, TypeError, ValueError):
            continue
