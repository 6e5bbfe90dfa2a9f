"""Fabric as the plan says, on the processes that were started."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import torch

from modalign.errors import UserError

from .job import RunFailed
from .plan import FabricPlan

if TYPE_CHECKING:
    from lightning_fabric import Fabric
    from torch.distributed.device_mesh import DeviceMesh

FSDP = "fsdp"
BEGIN = 300.0
"""Seconds for processes to import what they need and to find each other."""


def build_fabric(plan: FabricPlan) -> Fabric:
    """Fabric, not launched yet.

    Raises:
        UserError: if there is no such device or strategy, or not as many processes were started.
    """
    from lightning_fabric import Fabric

    given: dict[str, Any] = plan.model_dump(exclude={"timeout"})
    _check_strategy(plan.strategy)
    try:
        if plan.strategy == FSDP:
            from lightning_fabric.strategies import ModelParallelStrategy

            from .fsdp import shard

            # Fabric's own "fsdp" is the older kind, which needs a GPU.
            given["strategy"] = ModelParallelStrategy(shard)
        fabric = Fabric(**given)
    except Exception as error:
        raise UserError(f"fabric: {error}") from error
    check_processes(plan, getattr(fabric.strategy, "num_processes", 1))
    return fabric


def _check_strategy(name: str) -> None:
    """Fabric's own message names some strategies and tells of a class to pass, which no plan can."""
    from lightning_fabric.strategies import STRATEGY_REGISTRY

    if name.lower() not in ("auto", *STRATEGY_REGISTRY.available_strategies()):
        raise UserError(
            f"fabric.strategy: there is no '{name}': write auto, ddp or fsdp, or another that Fabric knows"
        )


def launch(fabric: Fabric, timeout: float) -> None:
    """Start the other processes, if nobody did, and wait until all have found each other.

    Inputs:
        timeout: seconds that they wait for each other from then on; to begin, they may need longer.

    Raises:
        RunFailed: if they do not.
    """
    begin = max(timeout, BEGIN)
    if hasattr(fabric.strategy, "_timeout"):  # of whichever strategy "auto" chose
        fabric.strategy._timeout = timedelta(seconds=begin)
    try:
        fabric.launch()
    except torch.distributed.DistError as error:
        raise RunFailed(f"the run's processes did not find each other in {begin:g} s: {error}") from error
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.distributed_c10d._set_pg_timeout(timedelta(seconds=timeout))


def check_processes(plan: FabricPlan, per_node: int) -> None:
    """See whether torchrun or SLURM started as many processes as the plan asks for.

    Raises:
        UserError: if not; each would take itself for the whole run, or wait for others for ever.
    """
    starter, started = started_by()
    wanted = per_node * plan.num_nodes
    if starter and started != wanted:
        right = f"fabric.devices={started}" if plan.num_nodes == 1 else "fabric.devices and fabric.num_nodes"
        raise UserError(
            f"fabric: {starter} started {started} processes, and the plan asks for {wanted} (devices "
            f"{per_node} on num_nodes {plan.num_nodes}): write {right}, or start {wanted}"
        )


def started_by() -> tuple[str, int]:
    """What started this process as one of several, and how many; ("", 1) if nothing did."""
    from lightning_fabric.plugins.environments import SLURMEnvironment

    if torch.distributed.is_available() and torch.distributed.is_torchelastic_launched():
        return "torchrun", int(os.environ["WORLD_SIZE"])
    if "SLURM_NTASKS" in os.environ and SLURMEnvironment.detect():
        return "SLURM", int(os.environ["SLURM_NTASKS"])
    return "", 1


def is_fsdp(fabric: Fabric) -> bool:
    """Whether models are cut into pieces."""
    return hasattr(type(fabric.strategy), "device_mesh")


def mesh_of(fabric: Fabric) -> DeviceMesh:
    """All processes, of a launched Fabric that cuts models into pieces."""
    mesh: DeviceMesh = fabric.strategy.device_mesh  # type: ignore[attr-defined]
    return mesh


def first_process() -> bool:
    """Whether this process speaks for the run; the others of a distributed run are silent."""
    from lightning_fabric.utilities.rank_zero import rank_zero_only

    return getattr(rank_zero_only, "rank", 0) == 0
