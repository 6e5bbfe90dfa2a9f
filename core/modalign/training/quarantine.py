"""Samples that could not be read, and why: ``quarantine.csv``."""

from __future__ import annotations

import csv
import os
from pathlib import Path

COLUMNS = ("table", "row", "modality", "reason")


class TooManyBad(Exception):
    """More samples of a column could not be read than ``data.max_bad`` allows."""


class Quarantine:
    """Collects unreadable cells; each counts as missing from then on.

    Inputs:
        path: where the table is kept up to date; None keeps it in memory.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self.rows: dict[tuple[str, int, str], str] = {}
        self._counts: dict[tuple[str, str], int] = {}
        self._written: set[tuple[str, str, str]] = set()
        self._read = 0

    def _count(self, table: str, row: int, modality: str, reason: str) -> bool:
        if (table, row, modality) in self.rows:
            return False
        self.rows[table, row, modality] = reason
        self._counts[table, modality] = self._counts.get((table, modality), 0) + 1
        return True

    def add(self, table: str, row: int, modality: str, reason: str, cells: int, max_bad: float) -> None:
        """Note one unreadable cell, once.

        Inputs:
            cells: how many cells that column has: the share is of them.

        Raises:
            TooManyBad: if the column's share of bad cells is above ``max_bad``.
        """
        reason = " ".join(reason.split())
        if self._count(table, row, modality, reason):
            self._write((table, row, modality, reason))
        bad = self._counts[table, modality]
        if bad > max_bad * cells:
            where = f"; the reasons are in {self.path}" if self.path else f"; the first: {reason}"
            raise TooManyBad(
                f"{bad} of {cells} {modality} samples of {table} could not be read, more than data.max_bad = "
                f"{max_bad:g} allows{where}. Mend them, or raise data.max_bad"
            )

    def _write(self, row: tuple[str, int, str, str]) -> None:
        if self.path is None:
            return
        new = not self.path.exists()
        if not new:  # an interrupted run, or another process of this one, may have noted it
            with self.path.open("rb") as written:
                written.seek(self._read)
                more = written.read()
            self._read += len(more)
            self._written |= {
                (r[0], r[1], r[2]) for r in csv.reader(more.decode().splitlines()) if len(r) > 3
            }
            if (row[0], str(row[1]), row[2]) in self._written:
                return
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(COLUMNS)
            writer.writerow(row)
            file.flush()
            os.fsync(file.fileno())

    def save(self, path: Path) -> None:
        """Write all of it to a file, if there is any."""
        self.path = path
        for (table, row, modality), reason in self.rows.items():
            self._write((table, row, modality, reason))
