"""Devices: does the way of computing on several of them allow what the plan asks for?"""

from __future__ import annotations

from collections.abc import Iterator

from ..fabric import FSDP
from ..plan_file import Problem
from .prepared import Meaning, Prepared


def check_devices(prepared: Prepared) -> Iterator[Problem]:
    fabric = prepared.plan.fabric
    if fabric.strategy == FSDP and fabric.precision == "16-mixed":
        yield Meaning(
            ("fabric", "precision"),
            "fsdp does not scale losses as float16 needs: write bf16-mixed, or strategy: ddp",
        )
    if fabric.strategy.startswith("fsdp") and fabric.strategy != FSDP:
        yield Meaning(("fabric", "strategy"), f"'{fabric.strategy}' is FSDP of the first kind: write fsdp")
