"""Every reader that is fuzzed, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..reader import Bench
from . import modalities, plans, runs, saved, tables

READERS: dict[str, Callable[[Path], Bench]] = {
    "plan": plans.plan,
    "overrides": plans.overrides,
    "registry": plans.registry,
    "table-csv": tables.csv,
    "table-jsonl": tables.jsonl,
    "table-parquet": tables.parquet,
    "shards-parquet": tables.parquet_shards,
    "shards-tar": tables.tar,
    "tar-index": tables.tar_index,
    "folder-table": tables.folder,
    "space-config": saved.space_config,
    "space-weights": saved.space_weights,
    "checkpoint": saved.checkpoint,
    "feature-cache": saved.feature_cache,
    "search-index": saved.search_index,
    "metrics": runs.metrics,
    "report": runs.report,
    **modalities.BENCHES,
}
CORE = [name for name in READERS if name not in modalities.BENCHES]
