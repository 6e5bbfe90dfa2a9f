"""A Ray cluster of two nodes gives the rows that one process gives, even when its workers are killed."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
from modalign.cli.main import main

from .test_embed import _at_home, embed, home, in_background, long_rows, parts, until  # noqa: F401


def test_without_ray_the_command_that_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(embed("--engine", "ray", out=tmp_path / "a.parquet")) == 2
    assert 'pip install "modalign[ray]"' in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """The address of two nodes with one core each."""
    pytest.importorskip("ray", reason="the engine needs Ray: pip install 'modalign[ray]'")
    from ray.cluster_utils import Cluster

    node: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
    both = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    both.add_node(**node)
    yield both.address
    both.shutdown()


def on_ray(address: str, out: Path, *more: str) -> list[str]:
    return embed("--engine", "ray", "--ray-address", address, *more, table="long.parquet", out=out)


def test_two_nodes_give_the_same_and_a_killed_worker_changes_nothing(
    cluster: str,
    tmp_path: Path,
    long_rows: Any,  # noqa: F811
) -> None:
    out, killed = tmp_path / "a.parquet", []

    def at_work() -> list[psutil.Process]:
        return [p for p in psutil.process_iter(["name"]) if p.info["name"].startswith("ray::embed_part")]

    def kill() -> None:
        until(lambda: parts(out))
        (victim,) = until(at_work)[:1]
        os.kill(victim.pid, signal.SIGKILL)
        killed.append(victim.pid)

    thread = in_background(kill)
    assert main(on_ray(cluster, out)) == 0
    thread.join()
    assert killed
    table = pq.read_table(out)
    assert table.equals(long_rows)
    bad = Path(f"{out}.quarantine.csv").read_text()
    assert bad == Path("undisturbed.parquet.quarantine.csv").read_text()
    cost = json.loads(table.schema.metadata[b"modalign"])["cost"]
    assert cost["workers"] >= 2
    assert not Path(f"{out}.parts").exists()


def test_what_a_worker_refuses_is_said(
    cluster: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.parquet"
    assert main(on_ray(cluster, out, "--id", "text")) == 2
    assert "'text' holds a list" in capsys.readouterr().err
    assert main(on_ray("127.0.0.1:1", out)) == 2
    assert "no Ray cluster at 127.0.0.1:1" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_emoji_set(
    cluster: str, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = shared_data / "emoji.parquet"
    if not table.is_file():
        pytest.skip("no emoji.parquet in the folder of real data")
    outs = [tmp_path / f"{name}.parquet" for name in ("here", "ray")]
    engines = ([], ["--engine", "ray", "--ray-address", cluster])
    for out, engine in zip(outs, engines, strict=True):
        arguments = embed("--id", "name_en", "--part-rows", "128", *engine, table=str(table), out=out)
        assert main(arguments) == 0
    here, ray = map(pq.read_table, outs)
    assert here.num_rows == len(set(here["row"].to_pylist())) == pq.read_metadata(table).num_rows
    assert here.equals(ray)
