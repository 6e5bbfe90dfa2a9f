"""All that a stage's trainer needs to go on, on any number of processes, as a tree of tensors."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from torch import nn

from modalign.space_files import carried

from .agree import everyone
from .job import Position
from .optim import moments, restore_moments
from .rng import restore_rng, rng_state, seed_all

if TYPE_CHECKING:
    from .loop import Trainer


def named_parameters(trainer: Trainer) -> dict[str, nn.Parameter]:
    """Everything that the optimiser moves, by name."""
    found = {f"model.{name}": p for name, p in trainer.model.named_parameters()}
    found |= {f"losses.{name}": p for name, p in trainer.losses.named_parameters()}
    return {name: p for name, p in found.items() if p.requires_grad}


def trainer_state(trainer: Trainer) -> dict[str, Any]:
    """The state now; every process takes part. Under FSDP its tensors lie in pieces."""
    return {
        "space": dict(carried(trainer.model.space)),
        "losses": trainer.losses.state_dict(),
        "optimizer": moments(trainer.optimizer.optimizer, named_parameters(trainer)),
        "schedule": trainer.schedule.state_dict(),
        "scaler": trainer.job.fabric.strategy.precision.state_dict(),
        "rng": everyone(trainer.job.fabric, rng_state()),
        "position": asdict(trainer.job.position),
        "best_weights": trainer.best_weights,
        "tower": trainer.tower.state() if trainer.tower else None,
    }


def restore_trainer(trainer: Trainer, state: dict[str, Any]) -> None:
    """The inverse; the space's own weights are those that the trainer was built with.

    A process that has no generators of its own in the state, because fewer took part then, draws from
    new ones: of seed, step and its number.
    """
    job, rank = trainer.job, trainer.job.fabric.global_rank
    trainer.losses.load_state_dict(state["losses"])
    restore_moments(trainer.optimizer.optimizer, named_parameters(trainer), state["optimizer"])
    trainer.schedule.load_state_dict(state["schedule"])
    rates = trainer.schedule.get_last_lr()
    for group, rate in zip(trainer.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    if state["scaler"]:
        job.fabric.strategy.precision.load_state_dict(state["scaler"])
    job.position = Position(**state["position"])
    trainer.best_weights = state["best_weights"]
    if trainer.tower:
        trainer.tower.restore(state["tower"])
    if rank < len(state["rng"]):
        restore_rng(state["rng"][rank])
    else:
        seed_all(job.plan.seed, "resumed", job.position.step, rank)
