"""Every row exactly once per epoch, in an order that is a function of seed and position alone."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign.training.sampler import BUCKETS, Epochs
from modalign.training.stream_order import WholeOrder, WindowOrder

BLOCKS = st.lists(st.integers(0, 12), min_size=1, max_size=20).filter(sum)


def order(
    counts: list[int], window: int = 10, keep: np.ndarray | None = None, weight: int = 0, first: int = 0
) -> WindowOrder:
    """Of a table whose rows are numbered from ``first``, as they are when others come before it."""
    starts = first + np.concatenate([[0], np.cumsum(counts)])
    rows = range(first, int(starts[-1])) if keep is None else first + np.flatnonzero(keep)
    return WindowOrder(rows, starts, [weight] * len(counts), window, 100, 7, "stage")


@given(BLOCKS, st.integers(1, 30), st.integers(0, 3), st.data())
@settings(max_examples=80, deadline=None)
def test_every_row_once_per_epoch_however_it_is_cut(
    counts: list[int], window: int, epoch: int, data: st.DataObject
) -> None:
    keep = np.array(
        data.draw(st.lists(st.booleans(), min_size=sum(counts), max_size=sum(counts))), dtype=bool
    )
    keep[0] = True
    at = data.draw(st.integers(0, 50))
    for kept in (None, keep):
        made = order(counts, window, kept, first=at)
        whole = made.take(epoch, 0, len(made))
        assert sorted(whole.tolist()) == list(np.asarray(made.rows))
        start = data.draw(st.integers(0, len(made)))
        stop = data.draw(st.integers(start, len(made)))
        fresh = order(counts, window, kept, first=at)  # as after a restart
        assert fresh.take(epoch, start, stop).tolist() == whole[start:stop].tolist()
        assert made.take(epoch, start, stop).tolist() == whole[start:stop].tolist()


def test_a_window_lies_in_few_blocks_and_epochs_differ() -> None:
    made = order([10] * 100, window=40)
    first = made.take(0, 0, 1000)
    for start in range(0, 1000, 40):
        assert len(set((first[start : start + 40] // 10).tolist())) == 4
    assert not np.array_equal(first, made.take(1, 0, 1000))
    assert not np.array_equal(first[:40], np.sort(first[:40]))
    heavy = order([10] * 100, window=1000, weight=60)
    assert len(set((heavy.take(0, 0, 20) // 10).tolist())) == 2  # bytes close a window too


@pytest.mark.parametrize("made", [order([3, 4, 5]), WholeOrder(np.arange(12), 7)])
def test_beyond_the_end_it_begins_anew(made: WindowOrder | WholeOrder) -> None:
    twice = made.take(0, 0, 30)
    assert Counter(twice[:24].tolist()) == dict.fromkeys(range(12), 2)
    assert twice[:12].tolist() != twice[12:24].tolist()
    assert made.take(0, 11, 14).tolist() == twice[11:14].tolist()


def epochs(batch: int, weights: list[float | None]) -> Epochs:
    starts = np.cumsum([0, 30, 30, 30])
    tables = [range(90), np.arange(90, 120)]
    orders = [WindowOrder(tables[0], starts, [0] * 3, 40, 100, 1), None]
    return Epochs(tables, weights, batch, 1, orders=orders)


@given(st.integers(1, 40), st.integers(0, 3), st.integers(0, 20))
@settings(max_examples=40, deadline=None)
def test_a_mixture_with_shards_can_be_entered_anywhere(batch: int, epoch: int, first: int) -> None:
    whole = [rows.tolist() for rows in epochs(batch, [None, None]).from_batch(epoch)]
    assert sorted(row for batch_ in whole for row in batch_) == list(range(120))
    assert [rows.tolist() for rows in epochs(batch, [None, None]).from_batch(epoch, first)] == whole[first:]
    shares = Counter(
        row >= 90 for rows in epochs(batch, [1.0, 1.0]).from_batch(epoch) for row in rows.tolist()
    )
    assert shares[True] == shares[False] == 60


@given(st.integers(1, 9), st.integers(0, 400), st.integers(0, 130))
@settings(max_examples=40, deadline=None)
def test_batches_of_like_size(batch: int, rows: int, first: int) -> None:
    sizes = np.random.default_rng(0).integers(0, 1000, rows)
    made = Epochs([range(rows)], [None], batch, 3, size_of=lambda numbers: sizes[numbers])
    whole = list(made.from_batch(0))
    assert len(whole) == made.batches
    assert sorted(np.concatenate([np.empty(0, int), *whole]).tolist()) == list(range(rows))
    assert all(len(b) == batch for b in whole[:-1])
    assert [b.tolist() for b in made.from_batch(0, first)] == [b.tolist() for b in whole[first:]]
    if rows >= BUCKETS * batch and batch > 2:
        plain = Epochs([range(rows)], [None], batch, 3)
        spread = [np.mean([np.ptp(sizes[b]) for b in e.from_batch(0)]) for e in (made, plain)]
        assert spread[0] < spread[1] / 3
