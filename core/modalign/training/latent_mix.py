"""FuseMix: mixtures of two rows' frozen features, the same two in every modality."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from modalign.contracts import Features

from .content import Loaded

ODD = (-7046029254386353131, -4417276706812531889)
"""Two odd multipliers that spread 64-bit integers."""


def mix(loaded: Mapping[str, Loaded], share: float) -> dict[str, Loaded]:
    """Rows ``0 … n - 1`` mixed with rows ``n … 2n - 1``: ``share · first + (1 - share) · second``.

    Vouitsis et al., "Data-Efficient Multimodal Fusion on a Single GPU", CVPR 2024. Tokens are mixed
    place by place; where one row has none its share is zero. A row is present where both are. Equal
    mixtures have equal ids, and so stay each other's positives.

    Inputs:
        loaded: by modality, features of ``2n`` rows.
        share: of the first row, 0 to 1.
    """
    return {name: _mixed(one, share) for name, one in loaded.items()}


def _mixed(loaded: Loaded, share: float) -> Loaded:
    first, second = loaded.present.chunk(2)
    present = first & second  # (n,)
    a, b = loaded.ids.chunk(2)
    ids = torch.where(a == b, a, a * ODD[0] + b * ODD[1]) * present  # (n,)
    if loaded.content is None or not present.any():
        return Loaded(None, present, ids)
    assert isinstance(loaded.content, Features)
    place = loaded.present.long().cumsum(0) - 1  # of each row among those that are present
    one, other = (place[half] for half in (_rows(present, 0), _rows(present, len(present))))
    tokens, mask = loaded.content.tokens, loaded.content.mask
    weights = torch.tensor([share, 1 - share], dtype=tokens.dtype)
    masks = torch.stack([mask[one], mask[other]]) & (weights > 0)[:, None, None]  # (2, m, T)
    both = torch.stack([tokens[one], tokens[other]]).masked_fill(~masks.unsqueeze(-1), 0)  # (2, m, T, W)
    mixed = (both * weights[:, None, None, None]).sum(0)  # (m, T, W)
    return Loaded(Features(mixed, masks.any(0)), present, ids)


def _rows(present: Tensor, offset: int) -> Tensor:
    return present.nonzero()[:, 0] + offset
