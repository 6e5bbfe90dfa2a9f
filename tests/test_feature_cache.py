"""The feature cache: what goes in comes out, whoever else writes or dies."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import modalign
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign.training.feature_cache import INDEX, RECORD, SHARD, FeatureCache, cache_report, clear_cache
from modalign_text.modality import Text

Plan = dict[str, Any]


def key(i: int) -> bytes:
    return i.to_bytes(16, "big")


@settings(max_examples=25, deadline=None)
@given(st.dictionaries(st.integers(0, 50), st.tuples(st.integers(1, 5), st.integers(1, 4)), max_size=12))
def test_what_goes_in_comes_out(
    tmp_path_factory: pytest.TempPathFactory, shapes: dict[int, tuple[int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("c")
    values = {key(i): torch.randn(shape) for i, shape in shapes.items()}
    cache = FeatureCache("x", folder=folder)
    cache.put(values)
    for reader in (cache, FeatureCache("x", folder=folder)):
        assert len(reader) == len(values)
        for k, tensor in values.items():
            found = reader.get(k)
            assert found is not None
            assert np.array_equal(found, tensor.numpy())
    assert cache.get(key(99)) is None


def test_two_writers_see_each_other(tmp_path: Path) -> None:
    a, b = FeatureCache("x", folder=tmp_path), FeatureCache("x", folder=tmp_path)
    a.put({key(1): torch.ones(2, 3)})
    b.put({key(2): torch.zeros(1, 3)})
    assert key(1) not in FeatureCache("y", folder=tmp_path)
    a.refresh()
    assert a.get(key(2)) is not None
    assert b.get(key(1)) is not None  # refreshed by its own put
    first = a.get(key(1))
    b.put({key(1): torch.full((2, 3), 7.0)})  # known already: left as it is
    assert np.array_equal(a.get(key(1)), first)


@pytest.mark.parametrize("cut", [1, RECORD.size - 1, RECORD.size + 5])
def test_a_torn_index_loses_only_its_tail(tmp_path: Path, cut: int) -> None:
    FeatureCache("x", folder=tmp_path).put({key(i): torch.full((1, 2), float(i)) for i in range(4)})
    (index,) = (tmp_path / "x").glob(f"*{INDEX}")
    os.truncate(index, index.stat().st_size - cut)
    cache = FeatureCache("x", folder=tmp_path)
    assert len(cache) == 4 - -(-cut // RECORD.size)
    assert np.array_equal(cache.get(key(0)), [[0, 0]])


def test_torn_and_damaged_data_are_not_returned(tmp_path: Path) -> None:
    FeatureCache("x", folder=tmp_path).put({key(i): torch.full((1, 2), float(i)) for i in range(3)})
    (shard,) = (tmp_path / "x").glob(f"*{SHARD}")
    data = bytearray(shard.read_bytes())
    data[9] ^= 1  # inside entry 1
    shard.write_bytes(data[:-4])  # and entry 2 is cut
    cache = FeatureCache("x", folder=tmp_path)
    assert cache.get(key(0)) is not None
    assert cache.get(key(1)) is None
    assert cache.get(key(2)) is None
    cache.put({key(1): torch.ones(1, 2)})
    assert np.array_equal(cache.get(key(1)), [[1, 1]])


WRITER = """
import sys, torch
from pathlib import Path
from modalign.training.feature_cache import FeatureCache
cache = FeatureCache("x", folder=Path(sys.argv[1]))
print("ready", flush=True)
i = int(sys.argv[2])
while True:
    cache.put({(i + j).to_bytes(16, "big"): torch.full((3, 64), float(i + j)) for j in range(8)})
    i += 8
"""


def test_a_killed_writer_harms_nobody(tmp_path: Path) -> None:
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path), str(start)], stdout=subprocess.PIPE)
        for start in (0, 1_000_000)
    ]
    for writer in writers:
        assert writer.stdout is not None
        writer.stdout.readline()
    time.sleep(0.5)
    for writer in writers:
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    cache = FeatureCache("x", folder=tmp_path)
    assert len(cache) > 0
    for k in list(cache._entries):
        found = cache.get(k)
        assert found is not None
        assert np.all(found == float(int.from_bytes(k, "big")))
    cache.put({key(2**64): torch.ones(1, 1)})
    assert len(FeatureCache("x", folder=tmp_path)) == len(cache)


def test_cleared_under_a_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODALIGN_CACHE", str(tmp_path))
    writer = FeatureCache("x", {"encoder": "e", "modality": "m"})
    writer.put({key(1): torch.ones(2, 2)})
    reader = FeatureCache("x")
    (row,) = cache_report()
    assert (row["name"], row["modality"], row["entries"]) == ("e", "m", 1)
    assert clear_cache() == row["bytes"] > 0
    assert cache_report() == []
    assert reader.get(key(1)) is None
    reader.put({key(1): torch.zeros(2, 2)})
    assert np.array_equal(reader.get(key(1)), np.zeros((2, 2)))


def test_a_second_run_encodes_nothing_and_gives_the_same_space(plan: Plan, in_tmp: Path) -> None:
    del plan["modalities"]["audio"], plan["tasks"][1]
    plan["stages"] = plan["stages"][:1]
    uses = []
    for name in ("cold", "warm"):
        modalign.align(plan, out=name)
        uses.append(json.loads(Path(f"{name}/report.json").read_text())["stages"][0]["cache"]["text"])
    assert [use["encoded"] for use in uses] == [20, 0]
    assert [use["hit_rate"] for use in uses] == [0.0, 1.0]
    assert uses[0]["bytes"] == uses[1]["bytes"] > 20 * 16 * 4
    cold, warm = (Path(f"{run}/space/model.safetensors").read_bytes() for run in ("cold", "warm"))
    assert cold == warm
    modalign.align({**plan, "cache": False}, out="uncached")  # frozen but encoded anew in every batch
    content = json.loads(Path("uncached/report.json").read_text())
    assert content["stages"][0]["cache"] == {}


def test_another_preprocessing_is_another_entry(plan: Plan, in_tmp: Path) -> None:
    del plan["modalities"]["audio"], plan["tasks"][1]
    plan["stages"] = plan["stages"][:1]
    plan["modalities"]["image"]["trainable"] = False
    for max_bytes in (64, 65):
        plan["modalities"]["text"]["read"] = {"max_bytes": max_bytes}
        modalign.align(plan)
    assert sorted(row["modality"].partition(":")[2] for row in cache_report()) == ["image", "text", "text"]


def test_another_file_behind_an_argument_is_another_entry(
    plan: Plan, in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    del plan["modalities"]["audio"], plan["tasks"][1]
    plan["stages"] = plan["stages"][:1]
    for digest in ("a", "b", "b"):
        monkeypatch.setattr(Text, "fingerprint", lambda self, digest=digest: digest)
        modalign.align(plan, out=f"run-{digest}-{len(list(Path().iterdir()))}")
    assert [row["modality"].partition(":")[2] for row in cache_report()].count("text") == 2
