"""Datasets of the Hugging Face library as tables: from the hub, a folder it saved, or local files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from modalign.errors import UserError

from .data_plan import HubDataset
from .table_files import Part, expanded

PICKLES = ("pandas",)
"""Formats of the library that, in some of its versions, unpickle their files."""


def each_file(files: Any, change: Callable[[str], str]) -> Any:
    """Names of data files, alone, in lists or by split, each of them changed."""
    if isinstance(files, list):
        return [each_file(one, change) for one in files]
    if isinstance(files, dict):
        return {split: each_file(one, change) for split, one in files.items()}
    return change(files) if isinstance(files, str) else files


def found(file: str, name: str, folder: Path) -> str:
    """A data file of a format, or a pattern of some, in ``folder``; others lie where their dataset does.

    Inputs:
        name: of the dataset: a format such as ``json``, or else a folder or a name on the hub.

    Raises:
        UserError: if a variable is not set.
    """
    file = expanded(file)
    own = "/" in name or "://" in file or (folder / expanded(name)).is_dir()
    return file if own else str(folder / file)


def read_dataset(wanted: HubDataset, folder: Path) -> list[Part]:
    """Every split; Arrow files stay on disk, mapped into memory. Pictures and sounds are left encoded.

    Raises:
        UserError: if ``datasets`` is not installed, or it cannot load that.
    """
    try:
        import datasets
    except ImportError:
        raise UserError(
            "data.dataset needs the datasets library; type: pip install 'modalign[datasets]'"
        ) from None
    if wanted.name in PICKLES:
        raise UserError(
            f"the datasets format '{wanted.name}' reads pickles, which can run code; convert them"
        )
    local = folder / expanded(wanted.name)
    try:
        if (local / "dataset_dict.json").is_file() or (local / "state.json").is_file():
            loaded: Any = datasets.load_from_disk(str(local))
        else:
            name = str(local) if local.is_dir() else wanted.name
            files = each_file(wanted.files, lambda file: found(file, wanted.name, folder.absolute()))
            options = {"data_files": files, "revision": wanted.revision}
            loaded = datasets.load_dataset(
                name, wanted.config, **{k: v for k, v in options.items() if v is not None}
            )
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"the dataset {wanted.name} could not be loaded: {reason}") from None
    splits = loaded if isinstance(loaded, dict) else {"train": loaded}
    parts = []
    for split, rows in splits.items():
        for column, feature in rows.features.items():
            if hasattr(feature, "decode"):
                rows = rows.cast_column(column, type(feature)(decode=False))
        root = local if local.is_dir() else folder
        path = Path(f"{wanted.name.replace('/', '-')}-{split}")
        flat = rows.flatten_indices() if rows._indices is not None else rows  # of a selection or shuffle
        parts.append(Part(str(split), path, root, flat.data.table))
    return parts
