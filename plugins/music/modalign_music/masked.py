"""Masked music: an encoder learns to write the bars that were hidden from it."""

from __future__ import annotations

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from .patches import hidden
from .transformer import PatchTransformer

_CHARACTERS = 128
_SHARE = 0.45
_LOST, _SHUFFLED = 0.8, 0.9  # of the items: up to here hidden, up to here shuffled, the rest as they are


class MaskedMusic(nn.Module):
    """An encoder and a small recurrent decoder that spells out every chosen patch from its token.

    45 % of an item's patches are chosen. In 80 % of the items they are hidden, in 10 % their characters
    are shuffled, in 10 % they stay: the scheme of CLaMP 2 and 3 (arXiv 2410.13267, 2502.10362).

    Inputs:
        encoder: its ``drop_patches`` is not used here.
    """

    def __init__(self, encoder: PatchTransformer) -> None:
        super().__init__()
        self.encoder = encoder
        width = encoder.width
        self.characters = nn.Embedding(_CHARACTERS, 64)
        self.state = nn.Linear(width, width)
        self.spell = nn.GRU(64, width, batch_first=True)
        self.write = nn.Linear(width, _CHARACTERS)

    def forward(self, patches: Tensor, mask: Tensor, generator: Generator) -> Tensor:
        """``patches (N, T, 64)``, ``mask (N, T)`` -> nats per character of the chosen patches, ``()``."""
        seen, chosen = disturbed(patches, mask, generator)  # (N, T, 64), (N, T)
        tokens, _ = self.encoder.encode(seen, mask, whole=True)  # (N, T, W), (N, T)
        target = patches[chosen].long()  # (P, 64)
        lengths = (target > 0).sum(1)  # (P,)
        target = target[:, : int(lengths.max()) + 1]  # (P, L): with the 0 that ends a patch, if it fits
        before = F.pad(target[:, :-1], (1, 0))  # (P, L)
        start = self.state(tokens[chosen])[None]  # (1, P, W)
        out, _ = self.spell(self.characters(before), start.contiguous())  # (P, L, W)
        real = torch.arange(target.shape[1], device=target.device) <= lengths[:, None]  # (P, L)
        return F.cross_entropy(self.write(out[real]), target[real])


def disturbed(patches: Tensor, mask: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """What the encoder sees ``(N, T, 64)``, and the patches it is to write ``(N, T)``, one at least."""
    n, t, length = patches.shape
    draw = torch.rand(n, t, generator=generator).to(patches.device).masked_fill(~mask, 2)  # (N, T)
    chosen = (draw < _SHARE) | (draw == draw.amin(1, keepdim=True))  # (N, T)
    chosen &= mask
    how = torch.rand(n, 1, generator=generator).to(patches.device)  # (N, 1)
    order = torch.rand(n, t, length, generator=generator).to(patches.device)  # (N, T, 64)
    order = order.masked_fill(patches == 0, 2).argsort(2)  # (N, T, 64): padding stays behind
    shuffled = torch.where(
        (chosen & (how >= _LOST) & (how < _SHUFFLED))[..., None], patches.gather(2, order), patches
    )  # (N, T, 64)
    return hidden(shuffled, chosen & (how < _LOST)), chosen
