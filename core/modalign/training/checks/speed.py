"""Speed: what cannot be combined."""

from __future__ import annotations

from collections.abc import Iterator

from ..plan import Plan
from ..plan_file import Problem
from .prepared import Meaning


def check_speed(plan: Plan) -> Iterator[Problem]:
    """Models that are cut into pieces are neither compiled nor run twice."""
    if "fsdp" not in plan.fabric.strategy.lower():
        return
    if plan.speed.compile:
        yield Meaning(("speed", "compile"), "it cannot be combined with fabric.strategy fsdp: use ddp")
    for i, stage in enumerate(plan.stages):
        if stage.activation_checkpointing:
            yield Meaning(
                ("stages", i, "activation_checkpointing"),
                "it cannot be combined with fabric.strategy fsdp: write chunk_size, or use ddp",
            )
