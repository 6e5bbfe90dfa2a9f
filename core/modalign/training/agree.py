"""What several processes must know of each other before they go on together."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from lightning_fabric import Fabric


def agreed(fabric: Fabric, flag: bool) -> bool:
    """Whether it is so on any process; every process must ask."""
    if fabric.world_size == 1:
        return flag
    any_ = fabric.all_reduce(torch.tensor(float(flag), device=fabric.device), reduce_op="max")
    return bool(any_)


def everyone(fabric: Fabric, value: Any) -> list[Any]:
    """The plain values of all processes, in their order."""
    values = [value] * fabric.world_size
    if fabric.world_size > 1:
        torch.distributed.all_gather_object(values, value)
    return values


def average(fabric: Fabric, tensors: Iterable[Tensor]) -> None:
    """Replace each gradient by its mean over processes."""
    for tensor in tensors:
        if tensor.grad is not None:
            mean = fabric.all_reduce(tensor.grad, reduce_op="mean")
            assert isinstance(mean, Tensor)
            tensor.grad = mean
