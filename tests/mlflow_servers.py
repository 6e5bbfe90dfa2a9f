"""Real MLflow servers for tests: started, asked, killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pandas as pd


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start(
    folder: Path, port: int, health: str, *arguments: str, python: str = sys.executable, **environment: str
) -> subprocess.Popen[bytes]:
    """``mlflow ...`` of an environment, when it answers."""
    log = folder / f"server-{port}.log"
    with log.open("ab") as out:
        server = subprocess.Popen(
            [python, "-m", "mlflow", *arguments, "--host", "127.0.0.1", "--port", str(port)],
            stdout=out, stderr=out, start_new_session=True, cwd=folder,
            env={**os.environ, "PATH": f"{Path(python).parent}:{os.environ['PATH']}",
                 "OMP_NUM_THREADS": "1", **environment},
        )  # fmt: skip
    for _ in range(1200):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}{health}", timeout=5)
            return server
        except OSError:
            assert server.poll() is None, log.read_text()
            time.sleep(0.1)
    raise AssertionError(log.read_text())


def stop(server: subprocess.Popen[bytes] | None) -> None:
    if server is not None:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def ask(port: int, frame: pd.DataFrame, form: str = "dataframe_split") -> Any:
    body = {form: frame.to_dict(orient="split" if form == "dataframe_split" else "records")}
    if form == "dataframe_split":
        body[form].pop("index")  # type: ignore[attr-defined]
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/invocations",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["predictions"]
