"""Low-rank adapters in a text model whose own weights stay as they are."""

from __future__ import annotations

import hashlib
from typing import Any

import torch
from modalign import UserError
from torch import nn

_ADAPTER = "lora_"  # how peft names what it adds


def add_lora(network: nn.Module, rank: int, alpha: float, *, carry: bool) -> nn.Module:
    """Put adapters into every linear layer; everything else becomes a buffer, which nothing trains.

    y = W x + (alpha / rank) B A x with B = 0 at first (LoRA, Hu et al., 2021, arXiv:2106.09685), by peft.

    Inputs:
        rank: rows of A, at least 1.
        alpha: strength of the adapters, above 0.
        carry: whether the model's own weights belong to its ``state_dict``. Without them it holds
            the adapters and a digest of what they were trained on.

    Raises:
        UserError: if peft is not installed, an argument is out of range, or a ``state_dict`` is loaded
            whose adapters belong to other weights.
    """
    if rank < 1 or not alpha > 0:
        raise UserError(f"lora: rank {rank} and alpha {alpha}; use a rank such as 16 and an alpha above 0")
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise UserError("lora needs peft: pip install 'modalign-text[lora]'") from error
    kinds = [n for n, m in network.named_modules() if type(m).__name__ in ("Linear", "Conv1D")]
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=kinds, fan_in_fan_out=_is_gpt(network))  # type: ignore[arg-type]
    network = inject_adapter_in_model(config, network)
    for path, module in network.named_modules():
        for name, parameter in list(module._parameters.items()):
            if parameter is not None and _ADAPTER not in path:
                delattr(module, name)
                module.register_buffer(name, parameter.detach(), persistent=carry)
    if not carry:
        _guard(network)
    return network


def _is_gpt(network: nn.Module) -> bool:
    return any(type(m).__name__ == "Conv1D" for m in network.modules())


def _guard(network: nn.Module) -> None:
    """Remember the digest of the model's own weights, and compare it with that of a loaded state."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in sorted(network.named_buffers()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    own = torch.frombuffer(bytearray(digest.digest()), dtype=torch.uint8).clone()
    network.register_buffer("adapted", own)

    def compare(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
        there = state.get(f"{prefix}adapted")
        if there is not None and not torch.equal(there.cpu(), own):
            raise UserError("these adapters were trained on other weights than the text model has here")

    network.register_load_state_dict_pre_hook(compare)
