"""A stage in closed form: one pass over the features, then the alignment layers are solved."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from modalign.alignment import LinearAlignment
from modalign.closed_form import PARTS, Map, Moments, align_pairs, identity, onto
from modalign.contracts import Features
from modalign.projections.pooling import masked_mean
from modalign.space import Space, inference

from .agree import agreed
from .content import Loaded, to_device
from .gather import per_process
from .job import Position, RunFailed
from .plan import StagePlan
from .reader import Reader
from .sampler import Epochs
from .stage import Trained, stage_pairs

if TYPE_CHECKING:
    from lightning_fabric import Fabric

ROWS = 2048
"""Rows held at once."""
Pairs = dict[tuple[str, str], list[Moments]]


def solve_stage(
    fabric: Fabric,
    space: Space,
    stage: StagePlan,
    trained: Trained,
    epochs: Epochs,
    readers: Mapping[str, Reader],
    stopping: Callable[[], bool],
) -> Position:
    """Set the alignment layers of the stage's trained modalities; says how long it took and what is left.

    Each row counts once, with the first of its alternatives that ``epoch`` 0 draws; a mixture's rows
    by their table's weight. Modalities already in the space stay, and the others are mapped onto
    their embeddings.

    Raises:
        RunFailed: if no row holds both of a pair.
        KeyboardInterrupt: when the user asked to stop; nothing was changed then.
    """
    assert stage.closed_form is not None
    method, regularisation = stage.closed_form.method, stage.closed_form.regularisation
    begun = time.perf_counter()
    pairs = stage_pairs(stage, trained)
    widths = {m: space.entry(m).width if m in trained else space.dim for m in stage.align}
    parts = PARTS if method == "csa" else 1
    moments: Pairs = {(a, b): [Moments(widths[a], widths[b]) for _ in range(parts)] for a, b in pairs}
    with inference(space):
        for rows, weight in shares(epochs, fabric.global_rank, fabric.world_size):
            if agreed(fabric, stopping()):
                raise KeyboardInterrupt
            found = {m: vectors(space, m, readers[m].load(rows, 0), m in trained) for m in stage.align}
            for a, b in pairs:
                deal(moments[a, b], found[a], found[b], weight)
    if fabric.world_size > 1:
        moments = {pair: [together(fabric, m) for m in parts] for pair, parts in moments.items()}
    for (a, b), parts_ in moments.items():
        if not any(m.weight for m in parts_):
            raise RunFailed(f"stage {stage.name}: no row holds both {a} and {b}")
    try:
        if set(stage.align) <= trained.parts:
            maps, left = align_pairs(method, moments, space.dim, regularisation)
        else:
            maps, left = onto_space(method, moments, trained, space.dim, regularisation)
    except ValueError as error:
        raise RunFailed(f"stage {stage.name}: {error}") from None
    for name, solved in maps.items():
        layer = space.layers[name]
        assert isinstance(layer, LinearAlignment)
        scale = firm(solved)
        layer.become(scale * solved.weight, scale * solved.bias)
    return Position(epoch=1, stage_step=1, seconds=time.perf_counter() - begun, loss=left)


def shares(epochs: Epochs, rank: int, world: int) -> Iterator[tuple[np.ndarray, float]]:
    """Every ``ROWS`` of this process's rows, and what each of them counts; as often on every process."""
    for table, count in zip(epochs.tables, epochs.counts, strict=True):
        mine = table[rank::world]
        for start in range(0, per_process(len(table), world), ROWS):
            yield np.asarray(mine[start : start + ROWS]), float(count) / len(table)


def vectors(space: Space, name: str, loaded: Loaded, trained: bool) -> tuple[Tensor | None, Tensor]:
    """Of the present rows ``(n, W)`` mean tokens if it is trained, else ``(n, D)`` embeddings; and which."""
    if loaded.content is None:
        return None, loaded.present
    features = to_device(loaded.content, space.logit_scale.device)
    if isinstance(features, dict):
        features = space.encoder(name)(features)
    assert isinstance(features, Features)  # closed forms take readers as they are
    if trained:
        return masked_mean(features.tokens, features.mask), loaded.present
    return space.project(name, features).vectors, loaded.present


def deal(
    parts: list[Moments], a: tuple[Tensor | None, Tensor], b: tuple[Tensor | None, Tensor], weight: float
) -> None:
    """Deal the rows in which both are present out to the parts."""
    (x, has_x), (y, has_y) = a, b
    if x is None or y is None:
        return
    both = has_x & has_y
    x, y = x[both[has_x].to(x.device)], y[both[has_y].to(y.device)]
    for i, moments in enumerate(parts):
        moments.add(x[i :: len(parts)], y[i :: len(parts)], weight)


def together(fabric: Fabric, moments: Moments) -> Moments:
    """The moments of all processes' rows."""
    gathered = fabric.all_gather(moments.state().to(fabric.device))
    assert isinstance(gathered, Tensor)
    return Moments.of_state(gathered.sum(0), *moments.widths)


def onto_space(
    method: str, moments: Pairs, trained: Trained, dim: int, regularisation: float | None
) -> tuple[dict[str, Map], float]:
    """Every trained modality onto the embeddings of those that are already there."""
    toward: dict[str, list[Moments]] = {}
    for (a, b), m in moments.items():
        if a in trained and b not in trained:
            toward.setdefault(a, []).extend(m)
        elif b in trained and a not in trained:
            toward.setdefault(b, []).extend(part.swapped() for part in m)
    maps, left = {}, []
    for name, parts in toward.items():
        maps[name], unexplained = onto(method, Moments.sum(parts), identity(dim), regularisation)
        left.append(unexplained)
    return maps, sum(left) / len(left)


def firm(solved: Map) -> float:
    """A factor that leaves cosines as they are, and makes the layer's rows ten times as long as an
    untrained layer's: what trains it next then begins by turning it a little, not by forgetting it."""
    length = float(solved.weight.square().sum(1).mean().sqrt())
    return 10 / (3**0.5 * max(length, 1e-12))
