"""Parquet shards, row group by row group, and CSV or JSON-lines shards, each read whole."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from modalign.errors import UserError, listed

from ..cells import filled, is_text
from ..table_files import check_names, checked, read_table
from .parquet_statistics import Statistics
from .shard import every, sample_digest


class ArrowColumn(Sequence[Any]):
    """A column's values as Python values, each made when it is asked for."""

    def __init__(self, values: pa.ChunkedArray) -> None:
        self.values = values.combine_chunks() if values.num_chunks != 1 else values.chunk(0)

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, row: Any) -> Any:
        return self.values[int(row)].as_py()


class ParquetShard:
    """A Parquet file; a row group is a block."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = pq.ParquetFile(path, memory_map=False)
            check_names(self._file.schema_arrow)
            about = self._file.metadata
            groups = [about.row_group(i) for i in range(about.num_row_groups)]
            self.blocks = [group.num_rows for group in groups]
            if min(self.blocks, default=0) < 0 or sum(self.blocks) != about.num_rows:
                raise ValueError(f"{about.num_rows} rows, in row groups of {listed(map(str, self.blocks))}")
        except (pa.ArrowException, OSError, ValueError) as error:
            raise UserError(
                f"{path.name}: not a readable parquet table: {str(error).splitlines()[0]}"
            ) from None
        self.columns = list(self._file.schema_arrow.names)
        self.weights = [group.total_byte_size for group in groups]
        self._statistics = Statistics(self._file, path.stat().st_size)
        self._leaves: dict[str, list[int]] = {}
        names = set(self.columns)
        for i in range(about.num_columns):
            name = about.schema.column(i).path
            while name not in names and "." in name:  # full stops may be part of a column's name
                name = name.rpartition(".")[0]
            self._leaves.setdefault(name, []).append(i)

    def _column(self, block: int, column: str) -> pa.ChunkedArray:
        try:
            read = checked(self._file.read_row_group(block, columns=[column], use_threads=False))[column]
            if len(read) != self.blocks[block]:
                raise ValueError(f"it holds {len(read)} of its {self.blocks[block]} values of {column}")
            return read
        except (pa.ArrowException, OSError, ValueError, KeyError) as error:
            raise self._damaged(block, error) from None

    def _damaged(self, block: int, error: Exception) -> UserError:
        reason = str(error).splitlines()[0]
        return UserError(f"{self.path.name}: row group {block} cannot be read: {reason}")

    def values(self, block: int, column: str) -> ArrowColumn:
        return ArrowColumn(self._column(block, column))

    def filled(self, block: int, column: str, literal: bool) -> np.ndarray:
        if self._full(block, column, literal):
            return every(self.blocks[block])
        return filled(self._column(block, column), literal)

    def _full(self, block: int, column: str, literal: bool) -> bool:
        """Whether the file's own statistics say that no value is missing."""
        kind = self._file.schema_arrow.field(column).type
        if pa.types.is_floating(kind) or column not in self._leaves:  # NaN is missing too
            return False
        try:
            for leaf in self._leaves[column]:
                known = self._statistics.of(block, leaf)
                if known is None or not known.has_null_count or known.null_count:
                    return False
                if is_text(kind) and not literal and not (known.has_min_max and known.min):
                    return False
        except (pa.ArrowException, OSError, ValueError) as error:
            raise self._damaged(block, error) from None
        return True

    def sizes(self, block: int, column: str, literal: bool) -> np.ndarray:
        return sizes(self._column(block, column), literal)

    def digest(self) -> bytes:
        return sample_digest(self.path)


class WholeShard:
    """A CSV or JSON-lines file, read whole each time: one block.

    Inputs:
        texts: columns of a CSV file that are text whatever they look like.
    """

    def __init__(self, path: Path, texts: Iterable[str]) -> None:
        self.path, self._texts = path, list(texts)
        table = self._table()
        self.columns = list(table.column_names)
        self.blocks = [len(table)] if len(table) else []
        self.weights = [table.nbytes] if len(table) else []

    def _table(self) -> pa.Table:
        return read_table(self.path, self._texts)

    def values(self, block: int, column: str) -> ArrowColumn:
        return ArrowColumn(self._table()[column])

    def filled(self, block: int, column: str, literal: bool) -> np.ndarray:
        return filled(self._table()[column], literal)

    def sizes(self, block: int, column: str, literal: bool) -> np.ndarray:
        return sizes(self._table()[column], literal)

    def digest(self) -> bytes:
        return sample_digest(self.path)


def sizes(values: pa.ChunkedArray, literal: bool) -> np.ndarray:
    """By value: roughly its bytes, or the length of a list; -1 where it is the path of a file."""
    kind, empty = values.type, 0
    if is_text(kind):
        if not literal:
            return np.full(len(values), -1, dtype=np.int64)
        values = values.cast(pa.large_string())
        kind = values.type
    if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
        values, empty = pc.struct_field(values, "bytes"), -1  # a path instead of bytes
        kind = values.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        lengths = pc.list_value_length(values)
    elif pa.types.is_large_string(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        lengths = pc.binary_length(values)
    else:
        return np.full(len(values), 8, dtype=np.int64)
    return np.asarray(pc.fill_null(lengths, empty).to_numpy(), dtype=np.int64)
