"""float16: how far losses are scaled is part of where a run is."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import modalign
import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from modalign.training import run
from modalign.training.checkpoint import latest_checkpoint

Plan = dict[str, Any]


def test_a_stopped_run_scales_on_from_where_it_was(
    plan: Plan, in_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fabric(_: object) -> Fabric:  # Fabric itself takes bfloat16 instead on a CPU
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**40)  # too much, so that it falls
        return Fabric(accelerator="cpu", plugins=[MixedPrecision("16-mixed", "cpu", scaler)])

    monkeypatch.setattr(run, "build_fabric", fabric)
    plan["fabric"]["precision"] = "16-mixed"
    plan["stages"][0] |= {"epochs": 10, "losses": {"infonce": 1.0}}
    modalign.align(plan, out="whole")

    def stop() -> None:
        log = Path("stopped/metrics.jsonl")
        while not log.is_file() or log.read_bytes().count(b'"lr"') < 30:
            time.sleep(0.002)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=stop, daemon=True).start()
    with pytest.raises(KeyboardInterrupt):
        modalign.align(plan, out="stopped")
    state = latest_checkpoint(Path("stopped/checkpoints"))
    assert state is not None
    assert state["trainer"]["scaler"]["scale"] < 2.0**40
    modalign.align(plan, out="stopped", resume=True)
    whole, stopped = (Path(out, "space/model.safetensors").read_bytes() for out in ("whole", "stopped"))
    assert whole == stopped
