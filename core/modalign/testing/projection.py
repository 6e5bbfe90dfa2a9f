"""Checks of a projection: shapes, padding, progressive alignment."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from modalign.contracts import Projection

from .tools import expect, near, same, seeded, without_gradient

Make = Callable[[int], Projection]
"""``dim`` -> a projection: the class itself, or what fills in its other arguments."""

FOUNDERS = ("first", "second")


def check_projection_shapes(make: Make) -> None:
    """``(N, T, width)`` -> pooled ``(N, dim)`` and tokens ``(N, T, dim)``, and what it ``provides``."""
    for dim in (6, 8):
        projection = _made(make, dim)
        expect(projection.dim == dim, f"made with dim {dim}, its dim is {projection.dim}")
        x, mask = _inputs(projection)
        pooled, tokens = projection(x, mask, "first")
        n, t = mask.shape
        expect(pooled.shape == (n, dim), f"pooled has shape {tuple(pooled.shape)}, expected {(n, dim)}")
        expect(
            tokens.shape == (n, t, dim), f"tokens have shape {tuple(tokens.shape)}, expected {(n, t, dim)}"
        )
        expect(bool(pooled.isfinite().all() and tokens[mask].isfinite().all()), "the output is not finite")
        extra = projection.extra(pooled, tokens, mask)
        missing = projection.provides - extra.keys()
        expect(not missing, f"provides {sorted(missing)} but extra does not give it")
        for name, value in extra.items():
            expect(len(value) == n, f"extra[{name!r}] has {len(value)} rows, expected {n}")


def check_projection_padding_changes_nothing(make: Make) -> None:
    """What stands at masked positions, and how many there are, has no effect on the rest."""
    projection = _made(make)
    x, mask = _inputs(projection)
    pooled, tokens = projection(x, mask, "second")
    junk = torch.cat([torch.where(mask.unsqueeze(-1), x, 7.0), torch.full_like(x[:, :3], 7.0)], 1)
    longer = torch.cat([mask, torch.zeros_like(mask[:, :3])], 1)
    again, again_tokens = projection(junk, longer, "second")
    expect(near(again, pooled), "masked tokens change the pooled vector")
    expect(near(again_tokens[:, : mask.shape[1]][mask], tokens[mask]), "masked tokens change real tokens")


def check_projection_rows_are_independent(make: Make) -> None:
    """A row alone and among others gives the same."""
    projection = _made(make)
    x, mask = _inputs(projection)
    pooled, tokens = projection(x, mask, "first")
    for i in range(len(x)):
        alone, alone_tokens = projection(x[i : i + 1], mask[i : i + 1], "first")
        expect(near(alone[0], pooled[i]), f"row {i} depends on the other rows")
        expect(near(alone_tokens[0][mask[i]], tokens[i][mask[i]]), f"tokens of row {i} depend on other rows")


def check_projection_eval_is_deterministic(make: Make) -> None:
    """In ``eval`` mode the same input gives the same output, whatever the global generators."""
    projection = _made(make)
    x, mask = _inputs(projection)
    found = []
    for noise in (1, 2):
        with seeded(noise):
            found.append(projection(x, mask, "first")[0])
    expect(same(*found), "the same input gave two results in eval mode")


def check_projection_gradient_reaches_everything(make: Make) -> None:
    """A gradient comes to each shared parameter, the modality's own, and the real tokens."""
    projection = _made(make)
    x, mask = _inputs(projection)
    x.requires_grad_()
    pooled, tokens = projection(x, mask, "first")
    with seeded(0):
        total = (pooled * torch.randn(pooled.shape)).sum()
    for value in projection.extra(pooled, tokens, mask).values():
        total = total + value.sum()
    total.backward()
    own = {id(p) for p in projection.modality_parameters("first")}
    others = frozenset(id(p) for p in projection.modality_parameters("second")) - own
    missed = without_gradient(projection, skip=others)
    expect(not missed, f"no finite gradient reaches {', '.join(missed[:5])}")
    assert x.grad is not None
    size = x.grad.abs().sum(-1)  # (N, T)
    expect(bool((size[mask] > 0).all()), "no gradient reaches some real tokens")
    expect(bool((size[~mask] == 0).all()), "a gradient reaches masked tokens")


def check_projection_later_modality_changes_nothing(make: Make) -> None:
    """A modality added later owns new parameters, and the founders' output stays bit for bit."""
    projection = _made(make)
    x, mask = _inputs(projection)
    before = {id(p) for p in projection.parameters()}
    found = [_pooled(projection, x, mask, m) for m in FOUNDERS]
    projection.add_modality("third", founder=False)
    own = {id(p) for p in projection.modality_parameters("third")}
    expect(own <= {id(p) for p in projection.parameters()}, "modality_parameters are not registered")
    expect(not own & before, "a later modality trains parameters that were there before it")
    with torch.no_grad():
        for p in projection.modality_parameters("third"):
            p.add_(1)
    projection(x, mask, "third")
    for modality, old in zip(FOUNDERS, found, strict=True):
        expect(same(_pooled(projection, x, mask, modality), old), f"adding audio changed {modality}")


def check_projection_state_dict_round_trips(make: Make) -> None:
    """Loaded with another's weights it is the other."""
    one, two = _made(make, seed=1), _made(make, seed=2)
    two.load_state_dict(one.state_dict())
    x, mask = _inputs(one)
    expect(
        same(_pooled(one, x, mask, "second"), _pooled(two, x, mask, "second")),
        "with the same state dict two instances differ: something learnt or drawn is not in it",
    )


def _made(make: Make, dim: int = 8, seed: int = 0) -> Projection:
    with seeded(seed):
        projection = make(dim)
        for modality in FOUNDERS:
            projection.add_modality(modality, founder=True)
    return projection.eval()


def _pooled(projection: Projection, x: Tensor, mask: Tensor, modality: str) -> Tensor:
    with seeded(0):
        return projection(x, mask, modality)[0]


def _inputs(projection: Projection) -> tuple[Tensor, Tensor]:
    """``(4, 5, width)`` and a mask with 1, 2, 4 and 5 real tokens."""
    with seeded(3):
        x = torch.randn(4, 5, projection.width)
    return x, torch.arange(5) < torch.tensor([[1], [5], [2], [4]])


CHECKS: tuple[Callable[[Make], None], ...] = (
    check_projection_shapes,
    check_projection_padding_changes_nothing,
    check_projection_rows_are_independent,
    check_projection_eval_is_deterministic,
    check_projection_gradient_reaches_everything,
    check_projection_later_modality_changes_nothing,
    check_projection_state_dict_round_trips,
)
