"""An MLflow model in a fresh environment: refused without its plugins, whole with its requirements."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import modalign
import numpy as np
import pytest

if TYPE_CHECKING:
    from .conftest import Environment

ROOT = Path(__file__).parents[2]
LOAD = """
import sys, json, mlflow, modalign
print(json.dumps(mlflow.pyfunc.load_model(sys.argv[1]).predict(modalign.mlflow.table(json.loads(sys.argv[2]))).tolist()))
"""


@pytest.mark.slow
def test_the_named_requirements_are_enough(
    environment: Environment, plan: dict[str, Any], in_tmp: Path
) -> None:
    plan["stages"], plan["tasks"] = plan["stages"][:1], []
    plan["modalities"] = {m: plan["modalities"][m] for m in ("image", "text")}
    space = modalign.align(plan)
    modalign.mlflow.save_model(space, in_tmp / "model")
    requirements = (in_tmp / "model" / "requirements.txt").read_text()
    assert "modalign-audio" not in requirements  # the space does not use it
    asked = {"text": ["one", "two"]}
    refused = environment.run("-c", LOAD, in_tmp / "model", json.dumps(asked))
    assert refused.returncode != 0
    for name in ("modalign-image", "modalign-text"):
        assert f"Run: modalign plugins install {name}" in refused.stderr
    folders = [str(ROOT / "plugins" / name) for name in ("image", "text")]
    built = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "--wheel-dir", str(environment.links), *folders],
        capture_output=True, text=True,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    installed = environment.run("-m", "pip", "install", "-r", in_tmp / "model" / "requirements.txt")
    assert installed.returncode == 0, installed.stderr
    done = environment.run("-c", LOAD, in_tmp / "model", json.dumps(asked))
    assert done.returncode == 0, done.stderr
    found = np.array(json.loads(done.stdout.splitlines()[-1]))
    np.testing.assert_allclose(found, space.embed("text", asked["text"]).numpy(), atol=1e-6, rtol=0)
