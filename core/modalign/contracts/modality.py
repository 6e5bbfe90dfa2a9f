"""What a kind of data must do: read one item, collate many. No models."""

from __future__ import annotations

import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from torch import Generator, Tensor

Batch = dict[str, Tensor]
"""Named tensors, all with the same first dimension ``N``."""

PREVIEWS = r"(image|audio|video)/[a-z0-9][a-z0-9.+-]*|text/plain"
"""MIME types of previews: what a browser shows without running anything."""


MOST_BYTES = 1 << 30
"""Of a file that is one sample."""


class BadSample(ValueError):
    """One value could not be read; the message is the reason, in words, for ``quarantine.csv``."""


class Modality(ABC):
    """One kind of data. Knows files and tensors, never models.

    Constructor arguments are preprocessing (a size, a sampling rate): plain values, so that a plan
    can write them and the feature cache can key on them. Instances must pickle.
    """

    name: ClassVar[str]
    """The component's name: an open set of strings, never an enum."""

    literal: ClassVar[bool] = False
    """True when a string *is* the item (a sentence, a SMILES); False when it is a path."""

    @abstractmethod
    def read(self, value: Any) -> Any:
        """One item from a table cell.

        Inputs:
            value: ``bytes`` (a file's content), a ``Path``, or a literal (``str``, number, list of
                numbers, dict) as the table holds it.

        Raises:
            BadSample: with the reason, whenever the value is empty, damaged or of another kind.
        """

    @abstractmethod
    def collate(self, items: Sequence[Any]) -> Batch:
        """``N >= 1`` items as tensors whose first dimension is ``N``; padding is marked as such."""

    @abstractmethod
    def example(self, n: int, seed: int = 0) -> list[Any]:
        """``n`` synthetic items, as ``read`` would give them, offline and the same for one seed."""

    def fingerprint(self) -> str:
        """Changes with what its arguments only point to, such as a file; keys the feature cache with them.

        The default, an empty string, is for arguments that say everything themselves.
        """
        return ""

    def augment(self, batch: Batch, generator: Generator) -> Batch:
        """A random variant of the batch, drawn from ``generator`` alone. Default: the batch."""
        return batch

    def preview(self, item: Any) -> tuple[str, bytes] | None:
        """One item for people to see or hear: its MIME type and content. Default: None, nothing to show.

        Inputs:
            item: as ``read`` gives it.

        The type is ``image/*``, ``audio/*``, ``video/*`` or ``text/plain`` (UTF-8): what a browser shows
        without running anything.
        """
        return None


def file_bytes(value: Any) -> bytes:
    """The content of a file cell: ``bytes`` as they are, a ``Path`` read from disk.

    Raises:
        BadSample: if there is no such file, it cannot be read, or it is empty.
    """
    if isinstance(value, Path | str):
        try:
            about = os.stat(value)
            if not stat.S_ISREG(about.st_mode):  # a pipe or a device would never end
                raise BadSample(f"cannot read {value}: it is no regular file")
            if about.st_size > MOST_BYTES:
                raise BadSample(f"cannot read {value}: it is larger than 1 GiB")
            value = Path(value).read_bytes()
        except OSError as error:
            raise BadSample(f"cannot read {value}: {error.strerror or error}") from None
        except BadSample:
            raise
        except ValueError:
            raise BadSample("cannot read a file whose name holds a NUL or no characters") from None
    if not isinstance(value, bytes | bytearray | memoryview):
        raise BadSample(f"expected a path or bytes, got {type(value).__name__}")
    if not value:
        raise BadSample("empty file")
    return bytes(value)
