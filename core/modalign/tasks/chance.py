"""What a random order of the candidates would score, by the number of right ones among them."""

from __future__ import annotations

import torch
from torch import Tensor


def chance_mrr(positives: Tensor, candidates: int) -> float:
    """The mean of 1 / rank of the best of ``positives (Q,)`` long among ``candidates``."""
    sizes, times = positives.cpu().unique(return_counts=True)  # (U,), (U,)
    rank = torch.arange(1, candidates + 1, dtype=torch.float64)  # (K,)
    total = 0.0
    for p, n in zip(sizes.tolist(), times.tolist(), strict=True):
        here = (p / (candidates - rank + 1)).clamp(max=1)  # (K,) of those not found before
        missed = (1 - here).cumprod(0).roll(1)  # (K,) before each rank
        missed[0] = 1
        total += n * float((missed * here / rank).sum())
    return total / len(positives)


def chance_ndcg(k: int, positives: Tensor, candidates: int) -> float:
    """The mean nDCG@k: every place holds one of ``positives (Q,)`` with ``P / candidates``."""
    p = positives.cpu()  # (Q,)
    gain = 1 / torch.arange(2, k + 2, dtype=torch.float64).log2()  # (k,)
    ideal = gain.cumsum(0)[p.clamp(max=k) - 1]  # (Q,)
    return float((p.double() / candidates * gain[:candidates].sum() / ideal).mean())


def chance_map(positives: Tensor, candidates: int) -> float:
    """The mean mAP@R: ``(H_P + (P - 1) (P - H_P) / (K - 1)) / K``, ``H_P`` the harmonic number."""
    p = positives.cpu()  # (Q,)
    harmonic = (1 / torch.arange(1, int(p.max()) + 1, dtype=torch.float64)).cumsum(0)[p - 1]  # (Q,)
    return float((harmonic + (p - 1) * (p - harmonic) / max(1, candidates - 1)).mean() / candidates)
