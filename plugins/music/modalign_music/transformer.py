"""bar-transformer and midi-transformer: a small transformer over patches of characters."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from modalign import Encoder, Features, UserError
from modalign.contracts import Batch
from torch import Tensor, nn
from torch.nn import functional as F

from .ngrams import NGramEmbedding

_NEAR = 32  # places from either end, and distances, that are told apart


class PatchTransformer(Encoder):
    """Patches of characters -> a transformer -> a few tokens, each an attention pool over all patches.

    The patches are CLaMP's (Wu et al., arXiv 2304.11029); what is below and above the transformer is
    for a thousand pieces, where theirs had a million: a patch is a bag of its character n-grams, as in
    fastText, it is told how far it is from the beginning and from the end (where the key shows), heads
    see distances (Shaw et al., arXiv 1803.02155), and in training whole patches are left out.

    Inputs:
        width: ``W``.
        layers: of the transformer; 0 leaves a bag of patches.
        heads: of its attention.
        pool: tokens that come out; 0 = one for each patch.
        ngrams: characters in the longest n-gram.
        buckets: vectors for the n-grams of each length.
        dropout: share of features dropped in training.
        drop_patches: share of patches left out in training.
        weights: a folder written by ``python -m modalign_music.pretrain`` to start from.

    Raises:
        UserError: if a size does not fit, or ``weights`` are those of another encoder.
    """

    def __init__(
        self,
        width: int = 128,
        layers: int = 2,
        heads: int = 4,
        pool: int = 4,
        ngrams: int = 4,
        buckets: int = 4096,
        dropout: float = 0.4,
        drop_patches: float = 0.2,
        weights: str | None = None,
    ) -> None:
        super().__init__()
        if min(width, heads, ngrams, buckets) < 1 or min(layers, pool) < 0 or width % heads:
            raise UserError(
                f"width {width}, layers {layers}, heads {heads}, pool {pool}, ngrams {ngrams}, buckets "
                f"{buckets}: use positive numbers, and a width that is a multiple of heads"
            )
        if not (0 <= dropout < 1 and 0 <= drop_patches < 1):
            raise UserError(f"dropout {dropout}, drop_patches {drop_patches}: use shares such as 0.2")
        self.width, self.drop_patches = width, drop_patches
        self.embed = NGramEmbedding(width, ngrams, buckets)
        self.start = nn.Embedding(_NEAR, width)
        self.end = nn.Embedding(_NEAR, width)
        for places in (self.start, self.end):
            nn.init.normal_(places.weight, std=0.3)
        self.first = nn.LayerNorm(width)
        self.drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(_Block(width, heads, dropout) for _ in range(layers))
        self.last = nn.LayerNorm(width)
        self.ask = nn.Linear(width, pool) if pool else None
        if weights is not None:
            from .pretrained import load_into

            sizes = {"width": width, "layers": layers, "heads": heads, "ngrams": ngrams, "buckets": buckets}
            load_into(self, weights, sizes)

    def forward(self, batch: Batch) -> Features:
        tokens, mask = self.encode(batch["patches"], batch["mask"])  # (N, T, W), (N, T)
        if self.ask is None:
            return Features(tokens * mask[..., None], mask)
        scores = self.ask(tokens).masked_fill(~mask[..., None], -torch.inf)  # (N, T, K)
        pooled = scores.softmax(1).mT @ tokens  # (N, K, W)
        return Features(pooled, mask.new_ones(pooled.shape[:2]))

    def encode(self, patches: Tensor, real: Tensor, whole: bool = False) -> tuple[Tensor, Tensor]:
        """``patches (N, T, 64)``, ``real (N, T)`` -> a token for each ``(N, T, W)``, mask ``(N, T)``.

        Inputs:
            whole: leave no patch out, in training either.
        """
        mask = real
        if self.training and self.drop_patches and not whole:
            mask = real & (torch.rand(real.shape, device=real.device) >= self.drop_patches)  # (N, T)
            mask = mask | (real & ~mask.any(1, keepdim=True))  # an item keeps something
        place = torch.arange(real.shape[1], device=real.device).expand_as(real)  # (N, T)
        back = real.sum(1, keepdim=True) - 1 - place  # (N, T)
        x = self.embed(patches[mask])  # (P, W)
        x = (
            x + self.start(place[mask].clamp(max=_NEAR - 1)) + self.end(back[mask].clamp(0, _NEAR - 1))
        )  # (P, W)
        x = self.drop(self.first(x))  # (P, W)
        tokens = x.new_zeros(*mask.shape, self.width)  # (N, T, W)
        tokens[mask] = x
        for block in self.blocks:
            tokens = block(tokens, mask)  # (N, T, W)
        return self.last(tokens), mask


class BarTransformer(PatchTransformer):
    """``PatchTransformer`` over the bars of a score. Inputs: as there."""

    modality: ClassVar[str] = "score"


class MidiTransformer(PatchTransformer):
    """``PatchTransformer`` over the beats of a performance, or its messages. Inputs: as there, and

    per: what a patch is, as the modality ``midi`` reads it.
    """

    modality: ClassVar[str] = "midi"

    def __init__(self, per: str = "beat", **sizes: Any) -> None:
        self.per = per
        super().__init__(**sizes)

    def modality_options(self) -> dict[str, Any]:
        return {"per": self.per}


class _Block(nn.Module):
    """Attention with a bias for each distance, then a two-layer perceptron, norms in front."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.distance = nn.Parameter(torch.zeros(2 * _NEAR - 1, heads))
        self.out = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 2 * width),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(2 * width, width),
        )
        self.drop = nn.Dropout(dropout)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        n, t, w = x.shape
        q, k, v = self.qkv(self.norm(x)).view(n, t, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # (N, H, T, w)
        place = torch.arange(t, device=x.device)
        apart = (place - place[:, None]).clamp(1 - _NEAR, _NEAR - 1) + _NEAR - 1  # (T, T)
        bias = self.distance[apart].permute(2, 0, 1)  # (H, T, T)
        bias = bias.masked_fill(~mask[:, None, None], torch.finfo(bias.dtype).min)  # (N, H, T, T)
        y = F.scaled_dot_product_attention(q, k, v, bias)  # (N, H, T, w)
        x = x + self.drop(self.out(y.transpose(1, 2).reshape(n, t, w)))  # (N, T, W)
        return x + self.drop(self.mlp(x))  # (N, T, W)
