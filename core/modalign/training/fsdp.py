"""FSDP: a stage's model whose parameters are cut into one piece per process.

The space itself stays whole on every process: what is trained is a copy, and what it learnt is
copied back wherever the space is measured, compared or saved.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from modalign.contracts import Features
from modalign.space import Space

from .whole import is_sharded, whole

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

    from .stage import StageModel


def shard(model: StageModel, mesh: DeviceMesh) -> StageModel:
    """The same module, in place: each transformer layer, encoder, alignment layer and the projection
    is gathered while it computes, and lies in pieces otherwise.

    Scalars stay whole: they have no rows to share out. What several modules share is left to the root.

    Inputs:
        mesh: of all processes, in any shape.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard, register_fsdp_forward_method

    _see_through_features()
    line = init_device_mesh(mesh.device_type, (torch.distributed.get_world_size(),))
    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()
    whole_ = {p for p in model.parameters() if p.ndim == 0}
    for module in [*units(model), model]:
        fully_shard(module, mesh=line, reshard_after_forward=True, ignored_params=whole_)
    projection = model.space.projection
    if projection.provides:
        register_fsdp_forward_method(projection, "extra")
    return model


def units(model: StageModel) -> Iterator[nn.Module]:
    """The modules that are gathered one at a time, inner ones first."""
    space = model.space
    outer = [*space.encoders.values(), *space.layers.values(), space.projection]
    owners = Counter(id(p) for m in model.modules() for p in m.parameters(recurse=False))
    for module in outer:
        for layer in transformer_layers(module):
            if _alone(layer, owners):
                yield layer
        if _alone(module, owners):
            yield module


def transformer_layers(module: nn.Module) -> Iterator[nn.Module]:
    """The members of its lists of modules with an attention inside."""
    for part in module.modules():
        if isinstance(part, nn.ModuleList):
            yield from (m for m in part if any("Attention" in type(inner).__name__ for inner in m.modules()))


def _alone(module: nn.Module, owners: Counter[int]) -> bool:
    """Whether it has parameters, and nobody outside of it has the same ones."""
    mine = Counter(id(p) for m in module.modules() for p in m.parameters(recurse=False))
    return bool(mine) and all(owners[key] == count for key, count in mine.items())


@torch.no_grad()
def copy_back(model: StageModel, space: Space, *, everything: bool) -> None:
    """Give the whole space what its sharded copy holds now; every process takes part.

    Inputs:
        everything: what is frozen, too.
    """
    target = space.state_dict()
    moving = {name for name, p in model.space.named_parameters() if p.requires_grad}
    fixed = {name for name, _ in model.space.named_parameters()} - moving
    for name, tensor in model.space.state_dict().items():
        if everything or name not in fixed:
            now = whole(tensor)
            if not is_sharded(tensor) and name not in moving:  # a buffer: the first process's counts
                now = now.contiguous()
                torch.distributed.broadcast(now, 0)
            target[name].copy_(now)


@torch.no_grad()
def clip(parameters: Sequence[nn.Parameter], most: float | None) -> Tensor:
    """The norm of the whole gradient; scaled down to ``most``.

    torch's own cannot take pieces and whole tensors together.
    """
    grads = [p.grad for p in parameters if p.grad is not None]
    zero = torch.zeros((), device=grads[0].device if grads else None)
    pieces = sum((_local(g).float().square().sum() for g in grads if is_sharded(g)), zero)
    torch.distributed.all_reduce(pieces)
    rest = sum((g.float().square().sum() for g in grads if not is_sharded(g)), zero)
    norm: Tensor = (pieces + rest).sqrt()
    if most is not None:
        share = (most / (norm + 1e-6)).clamp(max=1.0)
        for grad in grads:
            _local(grad).mul_(share.to(grad.dtype))
    return norm


def _local(tensor: Any) -> Tensor:
    local: Tensor = tensor.to_local() if is_sharded(tensor) else tensor
    return local


def _see_through_features() -> None:
    """FSDP gathers a module for its backward pass when it finds tensors in its output."""
    from torch.utils import _pytree

    if Features not in _pytree.SUPPORTED_NODES:
        _pytree.register_pytree_node(
            Features, lambda f: ([f.tokens, f.mask], None), lambda parts, _: Features(*parts)
        )
