"""A model registered on a real server, served from an environment that has only what it names."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import mlflow
import modalign
import numpy as np
import pytest
from modalign.mlflow import log_model, table

from .mlflow_servers import ask, free_port, start, stop

ROOT = Path(__file__).parents[1]
WORDS = ["one", "a red fox", "sept"]


@pytest.mark.slow
def test_the_named_requirements_are_enough(plan: dict, in_tmp: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("modalign_text.minilm")
    plan["modalities"] = {m: plan["modalities"][m] for m in ("image", "text")}
    plan["modalities"]["text"] = {"encoder": "minilm"}
    plan["stages"], plan["tasks"] = plan["stages"][:1], plan["tasks"][:1]
    space = modalign.align(plan)
    links, fresh = in_tmp / "links", in_tmp / "fresh"
    for source in (ROOT, ROOT / "plugins" / "image", ROOT / "plugins" / "text"):
        pip(sys.executable, "wheel", "--no-deps", "-w", links, source)

    port, serving = free_port(), free_port()
    uri = f"http://127.0.0.1:{port}"
    stores = (f"--backend-store-uri=sqlite:///{in_tmp}/server.db", f"--artifacts-destination={in_tmp}/kept")
    server, model = start(in_tmp, port, "/health", "server", "--workers", "1", *stores), None
    try:
        mlflow.set_tracking_uri(uri)
        with mlflow.start_run():
            log_model(space, registered_model_name="words")
        requirements = mlflow.artifacts.download_artifacts("models:/words/1", dst_path=str(in_tmp / "copy"))
        subprocess.run([sys.executable, "-m", "venv", fresh], check=True)
        python = str(fresh / "bin" / "python")
        named = Path(requirements) / "requirements.txt"
        assert "modalign-text[minilm]==" in named.read_text()
        pip(python, "install", "-r", named, "--find-links", links, "-c", ROOT / "constraints.txt")
        model = start(
            in_tmp, serving, "/ping", "models", "serve", "-m", "models:/words/1", "--env-manager", "local",
            python=python, MLFLOW_TRACKING_URI=uri,
        )  # fmt: skip
        found = np.array(ask(serving, table({"text": WORDS})))
        np.testing.assert_allclose(found, space.embed("text", WORDS).numpy(), atol=1e-6, rtol=0)
    finally:
        stop(model)
        stop(server)
        mlflow.set_tracking_uri(None)


def pip(python: str, *arguments: object) -> None:
    done = subprocess.run([python, "-m", "pip", "-q", *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
