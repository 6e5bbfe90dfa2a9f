"""What a Parquet file says of a column's values without reading them, even of a damaged file."""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


class _NoPages(io.RawIOBase):
    """A file of some size that gives nothing: metadata are looked at, values are not."""

    def __init__(self, size: int) -> None:
        self._size = size  # a column that claims to be larger is damaged
        self.asked = False
        """For values: what the metadata say was sound."""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return 0

    def tell(self) -> int:
        return self._size

    def read(self, size: int = -1) -> bytes:
        self.asked = True  # an exception from here would never be freed
        return b""


class Statistics:
    """The statistics of a file's row groups.

    Inputs:
        size: of the file, in bytes.

    pyarrow ends the process when it is asked for those of a column whose metadata contradict each other; when
    it is about to read such a column, it raises. So each column is first read from a file without values.
    """

    def __init__(self, file: pq.ParquetFile, size: int) -> None:
        self._about = file.metadata
        self._pages = _NoPages(size)
        self._probe = pq.ParquetFile(self._pages, metadata=file.metadata)

    def of(self, group: int, leaf: int) -> Any | None:
        """Those of a row group's column, or None; fields of structs are columns of their own.

        Raises:
            OSError, ValueError: if its metadata are damaged.
        """
        column = self._about.schema.column(leaf)
        self._pages.asked = False
        try:
            self._probe.read_row_group(group, columns=[column.path], use_threads=False)
        except (pa.ArrowException, OSError, ValueError):
            if not self._pages.asked:
                raise
        chunk = self._about.row_group(group).column(leaf)
        if chunk.physical_type != column.physical_type:
            raise ValueError(f"{column.path} is {column.physical_type}, its row group {chunk.physical_type}")
        return chunk.statistics
