"""A run against a real `mlflow server` that is killed in the middle and started again."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Plan = dict[str, Any]


def serve(folder: Path, port: int) -> subprocess.Popen[bytes]:
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--workers",
        "1",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    stores = [
        f"--backend-store-uri=sqlite:///{folder}/server.db",
        f"--artifacts-destination={folder}/artifacts",
    ]
    log = (folder / "server.log").open("ab")
    server = subprocess.Popen([*command, *stores], stdout=log, stderr=log, start_new_session=True)
    for _ in range(600):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=1)
            return server
        except OSError:
            time.sleep(0.1)
    raise AssertionError((folder / "server.log").read_text())


def kill(server: subprocess.Popen[bytes]) -> None:
    os.killpg(server.pid, signal.SIGKILL)
    server.wait()


def steps(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return path.read_bytes().count(b'"lr"') if path.exists() else 0


def test_a_server_killed_in_mid_run_has_every_point_in_the_end(
    plan: Plan, write_plan: Callable[..., Path], in_tmp: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    for stage in plan["stages"]:
        stage |= {"epochs": 40, "batch_size": 16}
    plan["track"] = {"uri": uri}
    server = serve(in_tmp, port)
    run = None
    try:
        arguments = ["align", str(write_plan(plan))]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        run = subprocess.Popen([sys.executable, "-m", "modalign.cli", *arguments], env=environment)
        while steps(in_tmp / "runs/tiny") < 30:
            assert run.poll() is None
            time.sleep(0.01)
        kill(server)
        before = steps(in_tmp / "runs/tiny")
        time.sleep(2)
        assert steps(in_tmp / "runs/tiny") > before  # it went on by itself
        server = serve(in_tmp, port)
        assert run.wait(timeout=120) == 0
        check(uri, in_tmp / "runs/tiny")
    finally:
        kill(server)
        if run is not None:
            run.kill()


def check(uri: str, folder: Path) -> None:
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    runs = {run.info.run_name: run for run in client.search_runs([experiment.experiment_id])}
    assert set(runs) == {"tiny", "image-text", "add-audio"}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for stage in ("image-text", "add-audio"):
        for key in ("loss", "lr", "scale", "grad_norm", "samples_per_second"):
            expected = [
                (r["step"], r["metrics"][key]) for r in records if r["stage"] == stage and key in r["metrics"]
            ]
            found = client.get_metric_history(runs[stage].info.run_id, key)
            assert sorted((m.step, m.value) for m in found) == expected, (stage, key)
    parent = runs["tiny"]
    assert parent.data.metrics["retrieval:audio to image/class_R at 1"] >= 0
    assert parent.data.params["stages.0.lr"] == "0.003"
    assert {"plugin.modalign-image", "data_digest"} <= parent.data.tags.keys()
    names = {artifact.path for artifact in client.list_artifacts(parent.info.run_id)}
    assert {"plan.yaml", "report.json", "report.html", "space"} <= names
    space = {artifact.path for artifact in client.list_artifacts(parent.info.run_id, "space")}
    assert "space/model.safetensors" in space


@pytest.mark.parametrize("scheme", ["runs"])
def test_a_space_loads_from_its_mlflow_uri(
    plan: Plan, in_tmp: Path, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow
    import modalign
    import torch

    uri = f"sqlite:///{in_tmp}/mlflow.db"
    plan["track"] = {"uri": uri}
    space = modalign.align(plan)
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name("tiny")
    assert experiment is not None
    (parent,) = (r for r in client.search_runs([experiment.experiment_id]) if r.info.run_name == "tiny")
    mlflow.set_tracking_uri(uri)
    loaded = modalign.load(f"{scheme}:/{parent.info.run_id}/space")
    assert torch.equal(loaded.embed("text", ["one"]), space.embed("text", ["one"]))
