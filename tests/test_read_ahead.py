"""Batches are the same whoever reads them, and whatever happens to who does."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import modalign
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from modalign import UserError
from modalign.contracts import BadSample, Modality
from modalign.training.content import Loaded
from modalign.training.context import Context
from modalign.training.data import Dataset
from modalign.training.data_plan import Data
from modalign.training.loader import read_ahead
from modalign.training.quarantine import Quarantine, TooManyBad
from modalign.training.reader import Reader

Plan = dict[str, Any]


class Stubborn(OSError):
    """An error that no other process can be sent."""

    def __init__(self, number: int, text: str) -> None:
        super().__init__(text)
        self.handle = lambda: number


class Numbers(Modality):
    """Reads numbers; some of them do something to the process that reads them."""

    name = "number"
    literal = True

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def read(self, value: Any) -> float:
        number = float(value)
        if number < 0:
            raise BadSample("negative")
        if number == 17 and self.once("killed"):
            os.kill(os.getpid(), signal.SIGKILL)
        if number == 23 and (self.folder / "vanished").exists():
            raise Stubborn(7, "t.parquet: row group 3 cannot be read")
        if number == 19 and (self.folder / "raise").exists():
            raise ZeroDivisionError("a plugin's mistake")
        return number

    def once(self, what: str) -> bool:
        """Whether this is to be done, and has not been."""
        flag = self.folder / what
        if not flag.exists():
            return False
        flag.unlink()
        return True

    def collate(self, items: Any) -> dict[str, torch.Tensor]:
        return {"x": torch.tensor(items)}

    def example(self, n: int, seed: int = 0) -> list[float]:
        return [float(i) for i in range(n)]


class OneReader:
    """As much of a space as a reader asks for."""

    def __init__(self, modality: Modality) -> None:
        self.modality = modality

    def reader(self, name: str) -> Modality:
        return self.modality


@pytest.fixture
def reader(tmp_path: Path) -> Reader:
    values = [float(i) if i % 10 != 4 else -1.0 for i in range(40)]
    pq.write_table(pa.table({"number": values}), tmp_path / "t.parquet")
    data = Dataset(Data(table="t.parquet", max_bad=0.5), tmp_path, ["number"], ["number"])
    quarantine = Quarantine(tmp_path / "quarantine.csv")
    return Reader(OneReader(Numbers(tmp_path)), "number", data, quarantine, seed=0)  # type: ignore[arg-type]


def rows(first: int) -> Iterator[np.ndarray]:
    return (np.arange(start, min(start + 6, 40)) for start in range(first * 6, 40, 6))


def plain(batches: Iterator[dict[str, Loaded]]) -> list[Any]:
    found = []
    for batch in batches:
        loaded = batch["number"]
        assert isinstance(loaded.content, dict)
        found.append((loaded.content["x"].tolist(), loaded.present.tolist(), loaded.ids.tolist()))
    return found


def test_processes_change_nothing(reader: Reader) -> None:
    state = torch.get_rng_state()
    alone = plain(read_ahead({"number": reader}, rows, 0, 0, 0))
    noted = dict(reader.quarantine.rows)
    assert len(noted) == 4
    for workers, first in ((1, 0), (3, 0), (2, 4), (9, 6)):  # more than there are batches too
        reader.quarantine.rows.clear()
        assert plain(read_ahead({"number": reader}, rows, 0, first, workers)) == alone[first:]
        if first == 0:
            assert reader.quarantine.rows == noted
    assert torch.equal(state, torch.get_rng_state())
    text = (reader.quarantine.path or Path()).read_text()
    assert text.count("negative") == 4  # each once, whoever found it


def test_a_killed_reader_is_done_without(
    reader: Reader, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    alone = plain(read_ahead({"number": reader}, rows, 0, 0, 0))
    (tmp_path / "killed").touch()
    assert plain(read_ahead({"number": reader}, rows, 0, 0, 2)) == alone
    assert "one of 2 loader processes died" in caplog.text
    assert "going on with 1" in caplog.text
    assert not (tmp_path / "killed").exists()


def test_other_errors_and_too_many_bad_samples_are_the_runs_own(reader: Reader, tmp_path: Path) -> None:
    (tmp_path / "raise").touch()
    with pytest.raises(ZeroDivisionError, match="a plugin's mistake"):
        plain(read_ahead({"number": reader}, rows, 0, 0, 2))
    (tmp_path / "raise").unlink()
    (tmp_path / "vanished").touch()
    with pytest.raises(UserError) as caught:
        plain(read_ahead({"number": reader}, rows, 0, 0, 2))
    assert str(caught.value) == "t.parquet: row group 3 cannot be read"
    (tmp_path / "vanished").unlink()
    reader.dataset.max_bad = 0.05
    with pytest.raises(TooManyBad, match=r"negative|quarantine"):
        plain(read_ahead({"number": reader}, rows, 0, 0, 2))


def test_who_stops_early_leaves_no_process(reader: Reader) -> None:
    before = set(children())
    ahead = read_ahead({"number": reader}, rows, 0, 0, 2)
    next(ahead)
    ahead.close()  # type: ignore[attr-defined]
    deadline = time.monotonic() + 10
    while set(children()) - before:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def children() -> list[int]:
    import psutil

    found = psutil.Process().children(recursive=True)
    return [
        p.pid for p in found if p.status() != psutil.STATUS_ZOMBIE and "tracker" not in " ".join(p.cmdline())
    ]


def losses(folder: Path) -> list[tuple[int, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [(line["step"], line["metrics"]["loss"]) for line in lines if "lr" in line["metrics"]]


@pytest.fixture
def shards(plan: Plan, digits: Path, in_tmp: Path) -> Plan:
    """The plan of two stages on shards of seven rows, a few blocks in a window."""
    table = pq.read_table(digits)
    split = table["split"].to_pylist()
    for name in ("train", "test", "val"):
        part = table.filter(pa.array([s == name for s in split]))
        for i in range(0, len(part), 20):
            pq.write_table(part.slice(i, 20), in_tmp / f"{name}-{i:03d}.parquet", row_group_size=7)
    plan["data"] = {
        "tables": {name: f"{name}-*.parquet" for name in ("train", "test", "val")},
        "label": "label",
        "window": 20,
    }
    plan["track"] = {"uri": None}
    plan["checkpoint"] = {"every_steps": 1}
    plan["stages"][0]["bucket_by"] = "text"
    for stage in plan["stages"]:
        stage["batch_size"] = 8
    return plan


def test_a_run_on_shards_is_the_same_with_readers_and_after_an_interruption(
    shards: Plan, write_plan: Callable[..., Path], in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_plan(shards)
    whole = modalign.align(file, out="whole")
    assert set(whole.modalities) == {"image", "text", "audio"}
    ahead = modalign.align(file, out="ahead", overrides=["workers=2"])
    assert losses(in_tmp / "ahead") == losses(in_tmp / "whole")
    record = Context.record

    def stop(run: Context, stage: str, metrics: dict[str, float]) -> None:
        record(run, stage, metrics)
        if run.step == 5 and "lr" in metrics and not run.stopping:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Context, "record", stop)
    with pytest.raises(KeyboardInterrupt):
        modalign.align(file, out="broken", overrides=["workers=2"])
    monkeypatch.undo()
    monkeypatch.chdir(in_tmp)
    again = modalign.align(file, out="broken", resume=True, overrides=["workers=1"])
    assert losses(in_tmp / "broken") == losses(in_tmp / "whole")
    for key, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[key]), key
        assert torch.equal(value, ahead.state_dict()[key]), key


def test_a_closed_form_of_shards_is_that_of_the_table(shards: Plan, in_tmp: Path, digits: Path) -> None:
    from modalign.space_files import weights

    shards["space"] |= {"alignment": "linear", "projection": "mean"}
    for name in ("image", "audio"):
        shards["modalities"][name]["trainable"] = False
    shards["stages"] = [{"name": "all", "align": ["image", "audio"], "closed_form": "ridge"}]
    shards["tasks"] = []
    del shards["modalities"]["text"]
    streamed = weights(modalign.align(shards, out="streamed"))
    shards["data"] = {"table": str(digits), "split": "split"}
    whole = weights(modalign.align(shards, out="whole"))
    for key, value in whole.items():
        assert torch.allclose(value, streamed[key], rtol=1e-3, atol=1e-4), key


def test_a_shard_that_vanishes_ends_the_run_with_what_to_do(
    shards: Plan, write_plan: Callable[..., Path], in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from modalign.training.job import RunFailed
    from modalign.training.shards.arrow_shard import ParquetShard

    values = ParquetShard.values
    count = []

    def read(shard: ParquetShard, block: int, column: str) -> Any:
        count.append(1)
        if len(count) == 20:
            (in_tmp / "hidden").mkdir()
            raise OSError(5, "Input/output error")
        return values(shard, block, column)

    monkeypatch.setattr(ParquetShard, "values", read)
    with pytest.raises(RunFailed, match=r"Input/output error.*--resume"):
        modalign.align(write_plan(shards), out="broken")
    monkeypatch.undo()
    monkeypatch.chdir(in_tmp)
    modalign.align(write_plan(shards), out="broken", resume=True)
