"""Checks of a modality: reading, collating, examples, augmentation, previews."""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from modalign.contracts import BadSample, Batch, Modality
from modalign.contracts.modality import PREVIEWS

from .tools import expect, same, same_batch, seeded

Make = Callable[[], Modality]


def check_modality_example_is_deterministic(make: Make) -> None:
    """The same ``n`` items for one seed, whatever the global generators; others for another seed."""
    modality = make()
    batches = []
    for noise in (1, 2):
        with seeded(noise):
            batches.append(modality.collate(modality.example(4, seed=0)))
    expect(same_batch(*batches), "example(4, seed=0) gave two different results; draw from `seed` alone")
    others = [modality.collate(modality.example(4, seed=s)) for s in range(1, 6)]
    expect(
        not all(same_batch(batches[0], other) for other in others),
        "example(4, seed) gave the same items for six seeds; use `seed`",
    )


def check_modality_batch_has_n_rows(make: Make) -> None:
    """``example(n)`` is ``n`` items, and each tensor of their batch has first dimension ``n``."""
    modality = make()
    for n in (1, 4):
        items = modality.example(n)
        expect(len(items) == n, f"example({n}) gave {len(items)} items")
        batch = modality.collate(items)
        expect(isinstance(batch, dict) and len(batch) > 0, "collate must give a non-empty dict of tensors")
        for key, value in batch.items():
            expect(isinstance(value, Tensor), f"batch[{key!r}] is {type(value).__name__}, not a tensor")
            expect(
                value.dim() > 0 and len(value) == n,
                f"batch[{key!r}] has shape {tuple(value.shape)}, its first dimension must be {n}",
            )


def check_modality_padding_leaves_items_alone(make: Make) -> None:
    """An item's row starts with what the item is alone, and something in the batch tells padding."""
    modality = make()
    items = modality.example(6)
    batch = modality.collate(items)
    padded = False
    for i, item in enumerate(items):
        for key, value in modality.collate([item]).items():
            alone, row = value[0], batch[key][i]  # (...), (...)
            cut = row[tuple(slice(0, size) for size in alone.shape)]
            expect(same(alone, cut), f"batch[{key!r}] changes item {i} when others join it")
            padded = padded or row.shape != alone.shape
    marks = any(not v.is_floating_point() for v in batch.values())
    expect(marks or not padded, "items are padded but no mask or length in the batch says so")


def check_modality_pickles(make: Make) -> None:
    """It goes through pickle, as data-loader workers need, and works the same afterwards."""
    modality = make()
    try:
        copy = pickle.loads(pickle.dumps(modality))
    except Exception as error:  # pickle raises whatever the object's parts raise
        raise AssertionError(f"it does not pickle: {error}") from error
    items = modality.example(2)
    expect(same_batch(copy.collate(items), modality.collate(items)), "a pickled copy collates differently")


def check_modality_refuses_empty_values(make: Make) -> None:
    """An empty file, a missing file or an empty literal raises ``BadSample``."""
    modality = make()
    values = [""] if modality.literal else [b"", Path("no") / "such" / "file"]
    for value in values:
        _expect_bad_sample(modality, value)


def check_modality_refuses_other_kinds(make: Make) -> None:
    """A value that no table cell of this modality holds raises ``BadSample``."""
    _expect_bad_sample(make(), object())


def check_modality_augment_keeps_shapes(make: Make) -> None:
    """A variant has the batch's names, shapes and types, and leaves the batch as it was."""
    modality = make()
    batch = modality.collate(modality.example(4))
    before = {k: v.clone() for k, v in batch.items()}
    found = _augment(modality, batch, 0)
    expect(found.keys() == before.keys(), f"augment gave {sorted(found)} from {sorted(before)}")
    for key, value in before.items():
        now = found[key]
        expect(
            now.shape == value.shape and now.dtype == value.dtype,
            f"augment made batch[{key!r}] {tuple(now.shape)} {now.dtype}, "
            f"it was {tuple(value.shape)} {value.dtype}",
        )
    expect(same_batch(batch, before), "augment changed the batch it was given")


def check_modality_augment_draws_from_its_generator(make: Make) -> None:
    """One generator state gives one variant, whatever the global generators."""
    modality = make()
    batch = modality.collate(modality.example(4))
    found = []
    for noise in (1, 2):
        with seeded(noise):
            found.append(_augment(modality, {k: v.clone() for k, v in batch.items()}, 0))
    expect(same_batch(*found), "augment drew from a global generator; use the one it is given")


def check_modality_preview_can_be_shown(make: Make) -> None:
    """A preview is None, or a MIME type that runs nothing and the same bytes each time."""
    modality = make()
    for item in modality.example(2):
        found = modality.preview(item)
        if found is None:
            continue
        expect(isinstance(found, tuple) and len(found) == 2, "preview must give (MIME type, bytes) or None")
        kind, content = found
        expect(
            isinstance(kind, str) and re.fullmatch(PREVIEWS, kind) is not None,
            f"preview gave the type {kind!r}; use image/*, audio/*, video/* or text/plain",
        )
        expect(isinstance(content, bytes) and len(content) > 0, "preview must give bytes, at least one")
        if kind == "text/plain":
            expect(_is_utf8(content), "preview of type text/plain must be UTF-8")
        with seeded(1):
            again = modality.preview(item)
        expect(again == found, "preview gave two different results for one item")


def _is_utf8(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _augment(modality: Modality, batch: Batch, seed: int) -> Batch:
    return modality.augment(batch, torch.Generator().manual_seed(seed))


def _expect_bad_sample(modality: Modality, value: Any) -> None:
    try:
        item = modality.read(value)
    except BadSample as error:
        expect(bool(str(error).strip()), f"read({value!r:.40}) raised BadSample without a reason")
    except Exception as error:
        raise AssertionError(
            f"read({value!r:.40}) raised {type(error).__name__} ({error}); raise BadSample with the reason"
        ) from error
    else:
        raise AssertionError(
            f"read({value!r:.40}) gave {type(item).__name__}; raise BadSample with the reason"
        )


CHECKS: tuple[Callable[[Make], None], ...] = (
    check_modality_example_is_deterministic,
    check_modality_batch_has_n_rows,
    check_modality_padding_leaves_items_alone,
    check_modality_pickles,
    check_modality_refuses_empty_values,
    check_modality_refuses_other_kinds,
    check_modality_augment_keeps_shapes,
    check_modality_augment_draws_from_its_generator,
    check_modality_preview_can_be_shown,
)
