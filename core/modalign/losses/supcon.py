"""SupCon: rows of one class attract each other, across and within modalities."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from modalign.contracts import Embeddings, Loss

from .primitives.groups import alone, numbered
from .primitives.pairs import connected_zero
from .primitives.pairwise import check_options, scale_of, take
from .primitives.streaming import log_sum_exp


class SupCon(Loss):
    """Supervised: mean over ``i`` of ``-1/|P_i| Σ_{p∈P_i} log(e^{s z_i·z_p} / Σ_{k≠i} e^{s z_i·z_k})``.

    Khosla et al., arXiv 2004.11362, the form with the sum outside the logarithm. Every present
    embedding of every modality is a view; ``P_i`` are the other views of the same class. A view
    without any contributes 0. A row without a label (-1) is a class of its own: its modalities
    still attract each other. With all labels different and two modalities it is NT-Xent. Prefer it
    when labels are at hand and classes hold many items.

    Inputs:
        temperature: fixed ``1 / s``; None takes the batch's ``scale``. The reference uses 0.07.
        tile: rows of the score matrix computed at a time; None chooses. Changes speed, not value.

    It compares the modalities that the batch's pairings name, without them all.

    Raises:
        ValueError: for an unknown option, or a batch without labels.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"labels"})

    def __init__(self, temperature: float | None = None, tile: int | None = None) -> None:
        super().__init__()
        check_options(temperature)
        self.temperature = temperature
        self.tile = tile

    def forward(self, z: Embeddings) -> Tensor:
        if z.labels is None:
            raise ValueError(
                "supcon needs labels; the batch has none: name the column as data.label in the plan"
            )
        named = z.modalities if z.pairs is None else dict.fromkeys(m for pair in z.pairs for m in pair)
        rows = {m: z.present[m].nonzero().squeeze(1) for m in named}  # (R_m,) each
        if not any(map(len, rows.values())):
            return connected_zero(z)
        views = torch.cat([take(z.vectors[m], rows[m]) for m in named])  # (V, D)
        classes, sizes = numbered(torch.cat([alone(z.labels)[rows[m]] for m in named]))  # (V,), (C,)
        scale = scale_of(z, self.temperature)
        with torch.autocast(views.device.type, enabled=False):
            log_sums, _, _ = log_sum_exp(views, None, scale, partner=None, tile=self.tile)  # (V,)
            # The sum of scores with one's class is the score with the class's sum.
            sums = views.new_zeros(len(sizes), views.shape[1]).index_add(0, classes, views)  # (C, D)
            others = sums[classes] - views  # (V, D)
            count = sizes[classes] - 1  # (V,)
            positive = scale * (views * others).sum(1) / count.clamp(min=1)  # (V,)
            return torch.where(count > 0, log_sums - positive, 0).mean()  # ()
