"""Checks of a loss: a finite number that prefers true pairs."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from modalign.contracts import Embeddings, Loss

from .tools import expect, finite, near, same, seeded

Make = Callable[[], Loss]

MODALITIES = ("first", "second", "third")


def example_embeddings(loss: Loss, modalities: int = 2, n: int = 8, seed: int = 0) -> Embeddings:
    """A batch of true pairs with all that ``loss.needs``: unit rows, labels, relevance, tokens, ….

    Row ``i`` of every modality is the same direction with a little noise, far from other rows.
    """
    names, d, t = MODALITIES[:modalities], 16, 3
    with seeded(seed):
        shared = torch.randn(n, d)  # (N, D)
        tokens = {m: normalize(shared.unsqueeze(1) + 0.3 * torch.randn(n, t, d), dim=2) for m in names}
        vectors = {m: normalize(shared + 0.3 * torch.randn(n, d), dim=1) for m in names}
        mask = torch.arange(t) < torch.randint(1, t + 1, (n, 1))  # (N, T)
        known = {"tokens", "labels", "relevance", "teacher"}
        extra = {k: {m: 0.1 * torch.randn(n, d) for m in names} for k in sorted(loss.needs - known)}
        if "momentum" in loss.needs:  # keys are embeddings too
            extra["momentum"] = {m: normalize(shared + 0.3 * torch.randn(n, d), dim=1) for m in names}
    return Embeddings(
        vectors,
        scale=10.0,
        tokens=tokens if "tokens" in loss.needs else {},
        masks=dict.fromkeys(names, mask) if "tokens" in loss.needs else {},
        labels=torch.arange(n) if "labels" in loss.needs else None,
        relevance=torch.eye(n) if "relevance" in loss.needs else None,
        teacher=dict.fromkeys(names, normalize(shared, dim=1)) if "teacher" in loss.needs else None,
        extra=extra,
    )


def check_loss_is_a_finite_scalar(make: Make) -> None:
    """``()`` in float32, whatever the precision of the embeddings and the size of the scale."""
    for scale in (1.0, 100.0):
        z = replace(example_embeddings(make()), scale=scale)
        half = replace(z, vectors={m: v.bfloat16() for m, v in z.vectors.items()})
        for given, what in ((z, "float32"), (half, "bfloat16")):
            value = _value(make(), given)
            expect(value.shape == (), f"the loss has shape {tuple(value.shape)}, expected ()")
            expect(value.dtype == torch.float32, f"from {what} it is {value.dtype}, expected float32")
            expect(finite(value), f"the loss is {value} at scale {scale} in {what}")
        with torch.autocast("cpu", torch.bfloat16):
            value = _value(make(), z)
        expect(value.dtype == torch.float32, f"under autocast it is {value.dtype}, expected float32")


def check_loss_prefers_true_pairs(make: Make) -> None:
    """It is lower when row ``i`` of each modality describes the same thing."""
    true = wrong = 0.0
    for seed in range(3):
        z = example_embeddings(make(), n=16, seed=seed)
        true += float(_value(make(), z).detach())
        wrong += float(_value(make(), _moved(z, torch.arange(16).roll(1), only="second")).detach())
    expect(true < wrong, f"true pairs cost {true / 3:.4g}, wrong ones {wrong / 3:.4g}; is a sign flipped?")


def check_loss_ignores_row_order(make: Make) -> None:
    """Reordering the batch in every modality at once changes nothing."""
    z = _with_gaps(example_embeddings(make(), modalities=3))
    with seeded(0):
        order = torch.randperm(len(z))
    moved = _moved(z, order)
    a, b = _value(make(), z), _value(make(), moved)
    expect(near(a, b, 1e-4), f"the order of rows changes the loss from {a:.6g} to {b:.6g}")


def check_loss_handles_missing_modalities(make: Make) -> None:
    """Rows that are not present are not read, and nothing at all gives a connected zero."""
    z = _with_gaps(example_embeddings(make(), modalities=3))
    expect(finite(_value(make(), z)), "a missing modality makes the loss infinite or NaN")
    dirty, leaves = _leaves(_absent_as(z, math.nan))
    value = _value(make(), dirty)
    expect(finite(value), "an absent row was read: NaN there reached the loss")
    value.backward()
    for m, leaf in leaves.items():
        expect(finite(leaf.grad), f"an absent row was read: the gradient of {m} is not finite")
    nowhere = dict.fromkeys(z.modalities, torch.zeros(len(z), dtype=torch.bool))
    empty, leaves = _leaves(replace(z, present=nowhere))
    value = _value(make(), empty)
    expect(value.item() == 0, f"with nothing present the loss is {value.item()}, expected 0")
    expect(value.requires_grad, "with nothing present the loss is not connected to its inputs")


def check_loss_handles_one_row(make: Make) -> None:
    """A batch of one gives a finite loss and finite gradients."""
    z, leaves = _leaves(example_embeddings(make(), n=1))
    value = _value(make(), z)
    expect(finite(value), f"a batch of one row gives {value}")
    if value.requires_grad:
        value.backward()
    expect(
        all(finite(x.grad) for x in leaves.values()), "a batch of one row gives gradients that are not finite"
    )


def check_loss_leaves_its_input_alone(make: Make) -> None:
    """The embeddings are the same after ``forward``."""
    z = example_embeddings(make())
    before = {m: v.clone() for m, v in z.vectors.items()}
    _value(make(), z)
    expect(all(same(z.vectors[m], before[m]) for m in before), "forward changed the vectors it was given")


def check_loss_accepts_three_modalities(make: Make) -> None:
    """Three modalities give a finite loss too."""
    value = _value(make(), example_embeddings(make(), modalities=3))
    expect(value.shape == () and finite(value), f"three modalities give {value}")


def check_loss_reaches_every_modality(make: Make) -> None:
    """Each modality's vectors, or tokens, get a finite gradient that is not zero."""
    z, leaves = _leaves(example_embeddings(make(), modalities=3))
    tokens = {m: t.clone().requires_grad_() for m, t in z.tokens.items()}
    _value(make(), replace(z, tokens=tokens)).backward()
    for m in z.modalities:
        found = [x.grad for x in (leaves[m], tokens.get(m)) if x is not None and x.grad is not None]
        expect(all(finite(g) for g in found), f"the gradient of {m} is not finite")
        expect(any(bool(g.any()) for g in found), f"no gradient reaches {m}")


def _value(loss: Loss, z: Embeddings) -> Tensor:
    with seeded(0):
        return loss(z)


def _leaves(z: Embeddings) -> tuple[Embeddings, dict[str, Tensor]]:
    leaves = {m: v.clone().requires_grad_() for m, v in z.vectors.items()}
    return replace(z, vectors=leaves), leaves


def _with_gaps(z: Embeddings) -> Embeddings:
    """Image lacks row 1, text rows 2 and 3, audio the second half."""
    row = torch.arange(len(z))  # (N,)
    gone = {"first": row == 1, "second": (row == 2) | (row == 3), "third": row >= len(z) // 2}
    return replace(z, present={m: ~gone[m] for m in z.modalities})


def _absent_as(z: Embeddings, value: float) -> Embeddings:
    def fill(x: Tensor, m: str) -> Tensor:
        gone = ~z.present[m].reshape(-1, *[1] * (x.dim() - 1))  # (N, 1, ...)
        return x.masked_fill(gone, value)

    return replace(
        z,
        vectors={m: fill(v, m) for m, v in z.vectors.items()},
        tokens={m: fill(v, m) for m, v in z.tokens.items()},
    )


def _moved(z: Embeddings, order: Tensor, only: str | None = None) -> Embeddings:
    """Rows in another order: everything, or one modality's embeddings alone, which breaks the pairs."""

    def move(group: dict[str, Tensor]) -> dict[str, Tensor]:
        return {m: v[order] if only in (None, m) else v for m, v in group.items()}

    moved = replace(
        z,
        vectors=move(dict(z.vectors)),
        tokens=move(dict(z.tokens)),
        masks=move(dict(z.masks)),
        present=move(dict(z.present)),
        extra={k: move(v) for k, v in z.extra.items()},
    )
    if only is not None:
        return moved
    return replace(
        moved,
        labels=None if z.labels is None else z.labels[order],
        relevance=None if z.relevance is None else z.relevance[order][:, order],
        teacher=None if z.teacher is None else move(dict(z.teacher)),
    )


CHECKS: tuple[Callable[[Make], None], ...] = (
    check_loss_is_a_finite_scalar,
    check_loss_prefers_true_pairs,
    check_loss_ignores_row_order,
    check_loss_handles_missing_modalities,
    check_loss_handles_one_row,
    check_loss_leaves_its_input_alone,
    check_loss_accepts_three_modalities,
    check_loss_reaches_every_modality,
)
