"""Memory that runs out: the step is done again in smaller chunks, with the same result."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import modalign
import pytest
import torch
from modalign.training.job import RunFailed
from modalign.training.memory import ChunkSize, is_out_of_memory
from modalign_image.small_vit import SmallViT
from safetensors.torch import load_file

Plan = dict[str, Any]


@pytest.fixture
def one_stage(plan: Plan) -> Plan:
    del plan["modalities"]["audio"], plan["stages"][1], plan["tasks"][1:]
    return plan


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA"), MemoryError()])
def test_the_size_is_halved_until_it_fits_and_generators_are_replayed(error: Exception) -> None:
    chunk, drawn, undone = ChunkSize(None), [], []

    def attempt() -> int:
        drawn.append(float(torch.rand(1)))
        if (chunk.size or 100) > 20:
            raise error
        return chunk.size or 0

    assert chunk.run(attempt, lambda: undone.append(1), rows=100) == 13  # 100, 50, 25, 13
    assert (len(set(drawn)), len(drawn), len(undone)) == (1, 4, 3)
    assert chunk.run(lambda: 5, undone.clear, rows=100) == 5


def test_one_row_that_does_not_fit_and_other_processes_end_the_run() -> None:
    def attempt() -> None:
        raise torch.OutOfMemoryError

    with pytest.raises(RunFailed, match="out of memory with 1 rows"):
        ChunkSize(None).run(attempt, lambda: None, rows=7)
    with pytest.raises(RunFailed, match="out of memory with 7 rows"):
        ChunkSize(None, alone=False).run(attempt, lambda: None, rows=7)


def test_other_errors_are_not_taken_for_it() -> None:
    def attempt() -> None:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        ChunkSize(None).run(attempt, lambda: None, rows=7)


def test_a_run_that_runs_out_equals_one_in_chunks(
    one_stage: Plan, in_tmp: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    one_stage["stages"][0]["chunk_size"] = 8
    modalign.align(one_stage, out="chunks")
    del one_stage["stages"][0]["chunk_size"]
    forward = SmallViT.forward

    def small(self: SmallViT, batch: Any) -> Any:
        if len(batch["pixels"]) > 8 and self.training:
            raise torch.OutOfMemoryError("no room")
        return forward(self, batch)

    monkeypatch.setattr(SmallViT, "forward", small)
    with caplog.at_level(logging.WARNING, "modalign"):
        modalign.align(one_stage, out="short")
    assert [r.getMessage()[:36] for r in caplog.records if "out of memory" in r.getMessage()] == [
        "out of memory with 32 rows at once: ",
        "out of memory with 16 rows at once: ",
    ]
    a, b = (load_file(f"{run}/space/model.safetensors") for run in ("chunks", "short"))
    assert all(torch.equal(a[name], b[name]) for name in a)
    losses = [
        json.loads(Path(f"{run}/report.json").read_text())["stages"][0]["loss"] for run in ("chunks", "short")
    ]
    assert losses[0] == losses[1]


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space as Linux does")
def test_real_allocations_that_fail_are_recognised() -> None:
    code = """
        import resource, torch
        from modalign.training.memory import is_out_of_memory
        resource.setrlimit(resource.RLIMIT_AS, (1 << 34, 1 << 34))
        try:
            torch.empty(1 << 33).normal_()
        except RuntimeError as error:
            print(is_out_of_memory(error))
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.stdout.strip() == "True", done.stderr
    assert not is_out_of_memory(RuntimeError("other"))
