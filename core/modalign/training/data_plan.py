"""The part of a plan that names data."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator


class Part(BaseModel):
    """One mapping of the plan; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SplitBy(BaseModel):
    """Splits by a column's values: ``{column: speaker, test: [ada]}``; all other rows are in ``train``."""

    model_config = ConfigDict(extra="allow", frozen=True)
    __pydantic_extra__: dict[str, list[str | int | float | bool]]
    column: str

    @property
    def named(self) -> dict[str, list[str | int | float | bool]]:
        """The values of every split that is named."""
        return self.__pydantic_extra__ or {}


def _hub_dataset(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


class HubDataset(Part):
    """A dataset of the Hugging Face library. A plain word is its name."""

    name: str
    """Of the hub, a folder that ``save_to_disk`` wrote or of data files, or a format such as ``json``."""
    config: str | None = None
    revision: str | None = None
    files: str | list[str] | dict[str, str | list[str]] | None = None
    """``data_files`` of ``load_dataset``."""


class Source(Part):
    """Paired samples: a table (Parquet, CSV, JSON lines), a folder of files, shards, or a dataset."""

    table: Annotated[str, Field(min_length=1)] | None = None
    """One file or folder with all splits, or a pattern of shards; relative to the plan, ``${VARIABLE}``
    allowed. Shards (``shards/*.parquet``, ``{000..099}.tar``, any ``.tar``) stay on disk and are read block
    by block."""
    tables: Annotated[dict[str, str], Field(min_length=1)] | None = None
    """One such path per split, instead of ``table``."""
    dataset: Annotated[HubDataset, BeforeValidator(_hub_dataset)] | None = None
    """A dataset of the Hugging Face library, with its own splits, instead of ``table``."""
    stream: bool = False
    """Read a single table file like shards: row group by row group."""
    window: Annotated[int, Field(ge=1)] = 16384
    """Rows of shards that are shuffled together: whole blocks in random order, until there are so many."""
    split: str | SplitBy | None = None
    """The column of ``table`` that names the split; without it every row is in ``train``."""
    columns: dict[str, str] | None = None
    """Which column holds which modality; by default the column of the modality's own name."""
    label: str | None = None
    """The column of class labels, for tasks and losses that need them."""
    root: str | None = None
    """The folder that paths in cells are relative to; by default the table's."""
    weight: Annotated[float, Field(gt=0)] | None = None
    """The share of a mixture; by default the number of rows."""


class Data(Source):
    """What a run or a stage learns from and is measured on."""

    mix: Annotated[list[Source], Field(min_length=1)] | None = None
    """Several tables instead of one; what they leave out they take from here."""
    max_bad: Annotated[float, Field(ge=0, le=1)] = 0.05
    """The share of unreadable samples in one column above which the run stops."""

    @model_validator(mode="after")
    def _one_source(self) -> Data:
        for source in self.sources():
            if sum(way is not None for way in (source.table, source.tables, source.dataset)) != 1:
                where = " in every part of 'mix'" if self.mix else ""
                raise ValueError(f"name either 'table', 'tables' or 'dataset'{where}")
        if self.mix is not None and (self.table or self.tables or self.dataset):
            raise ValueError("'mix' stands instead of 'table', 'tables' and 'dataset'")
        own = [self] if self.mix is None else self.mix
        if any(source.split is not None and source.table is None for source in own):
            raise ValueError(
                "'split' names a column of 'table'; 'tables' and datasets have splits of their own"
            )
        return self

    def sources(self) -> list[Source]:
        """The tables, each complete."""
        if self.mix is None:
            return [self]
        shared = {key: getattr(self, key) for key in ("split", "columns", "label", "root")}
        return [
            s.model_copy(update={k: v for k, v in shared.items() if getattr(s, k) is None}) for s in self.mix
        ]
