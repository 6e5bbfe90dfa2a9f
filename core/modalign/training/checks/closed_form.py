"""Closed forms: is the way into the space linear, and is there something to solve?"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from modalign.contracts import Encoder
from modalign.errors import UserError
from modalign.projections import Mean
from modalign.space import Space

from ..plan import Plan, StagePlan


def unsolvable(plan: Plan, stage: StagePlan, new: Collection[str], space: Space | None) -> Iterator[str]:
    """What keeps a stage from being solved in closed form.

    Inputs:
        new: the modalities it brings into the space.
        space: the one that the run starts from.
    """
    assert stage.closed_form is not None
    alignment = space.alignment if space else plan.space.alignment
    projection = plan.space.projection.name
    flat = isinstance(space.projection, Mean) if space else projection.rpartition(":")[2] == "mean"
    if alignment == "mlp" or not flat:
        yield (
            f"a closed form solves linear maps, and the way into this space is not linear (alignment: "
            f"{alignment}, projection: {space.projection_spec.name if space else projection})"
            + ("" if space else ". Write space: {alignment: linear, projection: mean}")
        )
    for m in sorted(new):
        if m in plan.modalities and plan.modalities[m].trainable:
            yield f"it trains no encoder: take 'trainable' from {m}, or align it by losses"
    fixed = [m for m in stage.align if m not in new and m not in stage.unfreeze]
    if len(stage.align) < 2:
        yield "it aligns two modalities or more"
    if fixed and stage.closed_form.method in ("cca", "csa"):
        yield (
            f"{stage.closed_form.method} turns every modality, and {', '.join(fixed)} is in the space "
            f"already: use ridge or procrustes, or unfreeze: [{', '.join(fixed)}]"
        )
    others = [part for part in stage.unfreeze if part not in stage.align]
    if others:
        yield f"it sets alignment layers of {', '.join(stage.align)} alone, not {', '.join(others)}"
    pairs = [set(pair) for pair in stage.pairs or []]
    for m in set(stage.align) - set(fixed) if fixed and pairs else ():
        if not any(m in pair and pair & set(fixed) for pair in pairs):
            yield f"no pair has {m} with one of {', '.join(fixed)}"


def check_widths(plan: Plan, encoders: Mapping[str, Encoder], space: Space) -> None:
    """Whether rotations have room.

    Raises:
        UserError: if a modality to be turned is wider than the space.
    """
    for i, stage in enumerate(plan.stages):
        if stage.closed_form is None or stage.closed_form.method != "procrustes":
            continue
        known = [*space.modalities, *(m for s in plan.stages[:i] for m in s.align)]
        moved = [m for m in stage.align if m not in known or m in stage.unfreeze]
        for m in moved[1:] if len(moved) == len(stage.align) else moved:
            width = encoders[m].width if m in encoders else space.entry(m).width
            if width > space.dim:
                raise UserError(
                    f"stages.{stage.name}: procrustes cannot turn the {width} dimensions of {m} into "
                    f"{space.dim}: choose a larger space.dim, or ridge"
                )
