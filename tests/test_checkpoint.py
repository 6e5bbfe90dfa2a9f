"""Checkpoints: whole or absent, verified, the last few kept."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from modalign.training.checkpoint import checkpoints, latest_checkpoint, read_checkpoint, save_checkpoint
from modalign.training.rng import restore_rng, rng_state, seed_all, seeded


def test_round_trip_and_keep(tmp_path: Path) -> None:
    for step in range(5):
        save_checkpoint(tmp_path, step, {"step": step, "w": torch.full((3,), float(step))}, keep=2)
    assert [p.name for p in checkpoints(tmp_path)] == ["step-000000004.ckpt", "step-000000003.ckpt"]
    state = latest_checkpoint(tmp_path)
    assert state is not None
    assert state["step"] == 4
    assert torch.equal(state["w"], torch.full((3,), 4.0))


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "garbage"])
def test_a_damaged_one_is_passed_over(tmp_path: Path, damage: str) -> None:
    save_checkpoint(tmp_path, 1, {"step": 1}, keep=2)
    path = save_checkpoint(tmp_path, 2, {"step": 2}, keep=2)
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[-20] ^= 1
    path.write_bytes(
        {"flip": bytes(data), "cut": bytes(data[:-9]), "empty": b"", "garbage": b"\x80\n\x00"}[damage]
    )
    with pytest.warns(UserWarning, match="damaged"):
        state = latest_checkpoint(tmp_path)
    assert state == {"step": 1}
    assert path.with_suffix(".damaged").exists()  # set aside, out of the way of newer ones
    next(iter(checkpoints(tmp_path))).unlink()
    assert latest_checkpoint(tmp_path) is None


def test_a_half_written_file_is_no_checkpoint(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 1, {"step": 1}, keep=2)
    (tmp_path / "step-000000002.part").write_bytes(b"half")
    assert latest_checkpoint(tmp_path) == {"step": 1}


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "pwned"),)

    path = save_checkpoint(tmp_path, 1, {"x": Evil()}, keep=2)
    with pytest.raises(Exception, match=r"(?i)weights"):
        read_checkpoint(path)
    assert not (tmp_path / "pwned").exists()


def test_generators_come_back(tmp_path: Path) -> None:
    def draw() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    seed_all("a", 1)
    draw()
    path = save_checkpoint(tmp_path, 1, {"rng": rng_state()}, keep=1)
    expected = [draw(), draw()]
    seed_all("b")
    restore_rng(read_checkpoint(path)["rng"])
    assert [draw(), draw()] == expected


def test_seeded_leaves_no_trace() -> None:
    seed_all(0)
    expected = float(torch.rand(()))
    seed_all(0)
    with seeded("inside"):
        inside = float(torch.rand(()))
    assert float(torch.rand(())) == expected
    with seeded("inside"):
        assert float(torch.rand(())) == inside


def test_a_damaged_one_does_not_count_among_those_kept(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, 9, {"step": 9}, keep=1).write_bytes(b"damaged")
    with pytest.warns(UserWarning, match="damaged"):
        assert latest_checkpoint(tmp_path) is None
    save_checkpoint(tmp_path, 1, {"step": 1}, keep=1)
    assert latest_checkpoint(tmp_path) == {"step": 1}
