"""Universal: OneEncoder's transformer, shared by every modality, told which one it sees."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from modalign.contracts import Projection

from .fusion import FUSIONS, TokenAttention
from .pooling import masked_mean, zero_padding


class Preset(NamedTuple):
    """One published size."""

    width: int
    layers: int
    heads: int
    token_mlp: bool


PRESETS = {
    "small": Preset(width=256, layers=1, heads=4, token_mlp=True),
    "large": Preset(width=768, layers=4, heads=4, token_mlp=False),
}


class Universal(Projection):
    """OneEncoder's Universal Projection: ``z = x ⊕ t``, ``out = Transformer(LayerNorm(z)) + z``.

    ``t`` is the modality's token and ``⊕`` the fusion; the mean over real tokens is the embedding.
    Faye, Azzag, Lebbah, "OneEncoder", arXiv 2409.11059. The founders share one token MLP; each
    modality added later owns a token and a token MLP, so that nothing before it changes.

    Three things differ from the authors' code on purpose: padding is masked in the attention and
    in the mean (theirs lets a text's embedding depend on the batch it is in); the temperature is
    the space's and can be learnt (theirs is constant by accident); frozen means frozen (theirs
    leaves a few layers of the audio encoder in training).

    Prefer it when encoders give many tokens and modalities arrive one after another.

    Inputs:
        dim: ``D``, the width of the embeddings; a bias-free map follows only if it is not ``width``.
        preset: "small" (256 wide, 1 layer, 4 heads, token MLP) or "large" (768, 4, 4, no MLP), the
            two published sizes; what is given beside it wins.
        width, layers, heads, hidden, dropout: of the transformer.
        fusion: "add", "multiply", "concatenate" (tokens in front, dropped after the residual) or
            "attention" (the token asks, the answer is added everywhere).
        token_mlp: widen a token of ``token_dim`` numbers with an MLP; False: it is ``width`` wide.
        token_count: tokens per modality; default 15 for "concatenate", else 1, which it must be.

    Raises:
        ValueError: for an unknown preset or fusion, or sizes that do not fit each other.
    """

    def __init__(
        self,
        dim: int,
        width: int | None = None,
        layers: int | None = None,
        heads: int | None = None,
        hidden: int = 2048,
        dropout: float = 0.1,
        fusion: str = "add",
        preset: str = "small",
        token_mlp: bool | None = None,
        token_dim: int = 3,
        token_count: int | None = None,
    ) -> None:
        super().__init__()
        if preset not in PRESETS:
            raise ValueError(f"preset {preset!r}: use one of {', '.join(PRESETS)}")
        if fusion not in FUSIONS:
            raise ValueError(f"fusion {fusion!r}: use one of {', '.join(FUSIONS)}")
        size = PRESETS[preset]
        self.dim = dim
        self.width = width or size.width
        heads = heads or size.heads
        if self.width % heads:
            raise ValueError(f"width {self.width} must be a multiple of heads {heads}")
        self.fusion = fusion
        self.token_count = token_count or (15 if fusion == "concatenate" else 1)
        if self.token_count != 1 and fusion != "concatenate":
            raise ValueError(f"token_count {self.token_count}: only fusion 'concatenate' takes more than 1")
        self.has_token_mlp = size.token_mlp if token_mlp is None else token_mlp
        self.token_dim = token_dim if self.has_token_mlp else self.width

        self.attention = TokenAttention(self.width) if fusion == "attention" else None
        self.norm = nn.LayerNorm(self.width)
        layer = nn.TransformerEncoderLayer(self.width, heads, hidden, dropout, batch_first=True)
        # Nested tensors would drop padded columns and so change the shape that comes back.
        self.transformer = nn.TransformerEncoder(layer, layers or size.layers, enable_nested_tensor=False)
        self.out = nn.Linear(self.width, dim, bias=False) if dim != self.width else nn.Identity()

        self.tokens = nn.ParameterDict()  # keys end in _token: a modality may be called "values"
        self.founder_mlp: nn.Module | None = None
        self.later_mlps = nn.ModuleDict()

    def add_modality(self, modality: str, *, founder: bool) -> None:
        if f"{modality}_token" in self.tokens:
            raise ValueError(f"modality {modality!r} is already in the projection")
        like = self.norm.weight
        spread = 0.1 + 0.5 * torch.rand(())
        token = spread * torch.randn(self.token_count, self.token_dim)  # (k, token_dim)
        self.tokens[f"{modality}_token"] = nn.Parameter(token.to(like))
        if not self.has_token_mlp:
            return
        if not founder:
            self.later_mlps[f"{modality}_mlp"] = token_mlp(self.token_dim, self.width).to(like)
        elif self.founder_mlp is None:
            self.founder_mlp = token_mlp(self.token_dim, self.width).to(like)

    def modality_parameters(self, modality: str) -> Iterator[nn.Parameter]:
        yield self._raw_token(modality)
        if (key := f"{modality}_mlp") in self.later_mlps:  # that of founders is shared: the projection's own
            yield from self.later_mlps[key].parameters()

    def token(self, modality: str) -> Tensor:
        """The modality's token as the transformer's width sees it, ``(k, width)``.

        Raises:
            KeyError: if the modality was not added.
        """
        raw = self._raw_token(modality)  # (k, token_dim)
        mlp = self._token_mlp(modality)
        return raw if mlp is None else mlp(raw)  # (k, width)

    def forward(self, tokens: Tensor, mask: Tensor, modality: str) -> tuple[Tensor, Tensor]:
        x = zero_padding(tokens, mask)  # (N, T, w)
        seen = mask | ~mask.any(1, keepdim=True)  # (N, T): attention over nothing would be NaN
        token = self.token(modality)  # (k, w)
        if self.attention is not None:
            z = self.attention(x, seen, token)  # (N, T, w)
        elif self.fusion == "multiply":
            z = x * token  # (N, T, w)
        elif self.fusion == "concatenate":
            z = torch.cat([token.to(x.dtype).expand(len(x), -1, -1), x], 1)  # (N, k + T, w)
            seen = torch.cat([seen.new_ones(len(x), self.token_count), seen], 1)  # (N, k + T)
        else:
            z = x + token  # (N, T, w)
        out = self.transformer(self.norm(z), src_key_padding_mask=~seen) + z  # (N, T or k + T, w)
        if self.fusion == "concatenate":
            out = out[:, self.token_count :]  # (N, T, w)
        out = zero_padding(self.out(out), mask)  # (N, T, D)
        return masked_mean(out, mask), out  # (N, D), (N, T, D)

    def _raw_token(self, modality: str) -> nn.Parameter:
        key = f"{modality}_token"
        if key not in self.tokens:
            known = ", ".join(sorted(name.removesuffix("_token") for name in self.tokens)) or "none"
            raise KeyError(
                f"the projection has no modality {modality!r} (it has: {known}); call add_modality first"
            )
        return self.tokens[key]

    def _token_mlp(self, modality: str) -> nn.Module | None:
        own = f"{modality}_mlp"
        if own in self.later_mlps:
            return self.later_mlps[own]
        return self.founder_mlp


def token_mlp(token_dim: int, width: int) -> nn.Sequential:
    """The published token MLP: ``token_dim`` -> 64 -> 128 -> ``width``, then LayerNorm."""
    return nn.Sequential(
        nn.Linear(token_dim, 64),
        nn.ReLU(),
        nn.Linear(64, 128),
        nn.ReLU(),
        nn.Linear(128, width),
        nn.LayerNorm(width),
    )
