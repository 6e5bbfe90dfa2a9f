"""Two frozen feature sets of one latent, the same for every implementation: data, measure, settings."""

from __future__ import annotations

from pathlib import Path

import numpy as np

WIDTHS = {"a": 256, "b": 128}
DIM, EPOCHS, BATCH, SCALE = 64, 3, 128, 1 / 0.07
MOST_TEST = 2000
"""Test rows: a quarter of all, and no more than this."""
Views = dict[str, np.ndarray]


def rate(rows: int) -> float:
    """The learning rate: what finds most for our loop among 0.001, 0.003 and 0.01."""
    return 0.01 if rows < 10_000 else 0.003


def make(rows: int, noise: float = 1.0, seed: int = 0) -> Views:
    """``(rows, W)`` of each side: a map of the shared 32-dimensional latent, and noise of its own."""
    random = np.random.default_rng(seed)
    latent = random.standard_normal((rows, 32), dtype=np.float32)
    views = {}
    for name, width in WIDTHS.items():
        seen = latent @ random.standard_normal((32, width), dtype=np.float32) / np.float32(32**0.5)
        views[name] = seen + noise * random.standard_normal((rows, width), dtype=np.float32)
    return views


def test_rows(rows: int) -> int:
    """How many rows, the first ones, are for testing."""
    return min(rows // 4, MOST_TEST)


def write(views: Views, folder: Path) -> None:
    """``a.npy`` and ``b.npy`` for the peers, ``views.parquet`` for us."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = len(views["a"])
    held = test_rows(rows)
    for name, view in views.items():
        np.save(folder / f"{name}.npy", view)
    columns = {
        name: pa.FixedSizeListArray.from_arrays(pa.array(view.reshape(-1)), view.shape[1])
        for name, view in views.items()
    }
    pq.write_table(
        pa.table({**columns, "split": ["test"] * held + ["train"] * (rows - held)}), folder / "views.parquet"
    )


def read(folder: Path) -> tuple[Views, Views]:
    """The training and the test rows."""
    views = {name: np.load(folder / f"{name}.npy") for name in WIDTHS}
    held = test_rows(len(views["a"]))
    return {m: v[held:] for m, v in views.items()}, {m: v[:held] for m, v in views.items()}


def recall(a: np.ndarray, b: np.ndarray) -> dict[str, float]:
    """R@1 and R@10 of unit rows that belong together, averaged over both directions."""
    scores = a @ b.T
    own = np.diagonal(scores)
    found = {}
    for k in (1, 10):
        hits = [((side >= own[:, None]).sum(1) <= k).mean() for side in (scores, scores.T)]
        found[f"R@{k}"] = float(sum(hits) / 2)
    return found
