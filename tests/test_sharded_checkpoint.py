"""Checkpoints in pieces: read by any number of processes, a row at a time, and never if damaged."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies import DDPStrategy
from modalign.training.checkpoint import checkpoints, latest_checkpoint, save_checkpoint, save_together
from modalign.training.sharded_checkpoint import Pieces, read_pieces
from modalign.training.whole import share

ROWS = 5
"""Of the larger tensor: they do not divide by the number of processes."""


def tensors() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.arange(ROWS * 3.0).reshape(ROWS, 3), torch.tensor([7], dtype=torch.int32)


def write(rank: int, world: int, port: int, folder: Path, steps: list[int]) -> None:
    """One of several processes writes checkpoints."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Shard, distribute_tensor

    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world)}
    os.environ |= {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "1"}
    torch.set_num_threads(1)
    fabric = Fabric(accelerator="cpu", devices=world, strategy=DDPStrategy())
    fabric.launch()
    mesh = init_device_mesh("cpu", (world,))
    large, small = (distribute_tensor(t, mesh, [Shard(0)]) for t in tensors())
    for step in steps:
        state = {"step": step, "kept": {"large": large, "list": [small]}, "plain": torch.ones(2), "t": (1,)}
        save_together(fabric, folder, step, state, keep=2, sharded=True)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoints of three processes, of which the second holds one row less and the third none of
    the smaller tensor."""
    import socket

    folder = tmp_path_factory.mktemp("pieces")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    command = [sys.executable, __file__, str(port), str(folder)]
    tasks = [subprocess.Popen([*command, str(rank)]) for rank in range(3)]
    assert [task.wait(120) for task in tasks] == [0, 0, 0]
    return folder


def test_the_last_few_are_kept_one_of_each_step(written: Path) -> None:
    assert [p.name for p in checkpoints(written)] == ["step-000000003-1.shards", "step-000000002-2.shards"]
    files = ["00000.safetensors", "00001.safetensors", "00002.safetensors", "manifest"]
    assert sorted(p.name for p in checkpoints(written)[0].iterdir()) == files


def test_rows_come_from_the_files_that_hold_them(written: Path) -> None:
    state = latest_checkpoint(written)
    assert state is not None
    assert state["step"] == 3
    assert state["t"] == (1,)
    assert torch.equal(state["plain"], torch.ones(2))
    large, (small,) = state["kept"]["large"], state["kept"]["list"]
    assert isinstance(large, Pieces)
    expected, one = tensors()
    assert torch.equal(small[:], one)
    assert small[:].dtype == torch.int32
    for world in (1, 2, 4, 7):  # whoever reads
        for rank in range(world):
            rows = share(ROWS, rank, world)
            assert torch.equal(large[rows], expected[rows])


def test_only_the_wanted_files_are_opened(written: Path, tmp_path: Path) -> None:
    folder = tmp_path / "step-000000003-1.shards"
    shutil.copytree(written / folder.name, folder)
    large = read_pieces(folder)["kept"]["large"]
    (folder / "00001.safetensors").unlink()
    assert torch.equal(large[:2], tensors()[0][:2])
    with pytest.raises(FileNotFoundError):
        large[:3]


@pytest.mark.parametrize("damage", ["flip", "cut", "gone", "manifest", "no manifest"])
def test_a_damaged_one_is_passed_over(damage: str, written: Path, tmp_path: Path) -> None:
    shutil.copytree(written, tmp_path / "all")
    newest = checkpoints(tmp_path / "all")[0]
    piece = newest / ("manifest" if "manifest" in damage else "00001.safetensors")
    content = bytearray(piece.read_bytes())
    content[-1] ^= 1
    changes: dict[str, Any] = {
        "flip": lambda: piece.write_bytes(content),
        "cut": lambda: piece.write_bytes(content[:-1]),
        "manifest": lambda: piece.write_bytes(content),
    }
    changes.get(damage, piece.unlink)()
    with pytest.warns(UserWarning, match="damaged"):
        state = latest_checkpoint(tmp_path / "all")
    assert state is not None
    assert state["step"] == 2
    assert newest.with_suffix(".damaged").is_dir()


def test_what_was_half_written_does_not_count_and_goes(written: Path, tmp_path: Path) -> None:
    folder = tmp_path / "all"
    shutil.copytree(written, folder)
    shutil.copytree(checkpoints(folder)[0], folder / "step-000000009-1.part")
    state = latest_checkpoint(folder)
    assert state is not None
    assert state["step"] == 3
    save_checkpoint(folder, 4, {"step": 4}, keep=2)  # the kinds may follow each other
    names = sorted(p.name for p in folder.iterdir())
    assert names == ["step-000000003-1.shards", "step-000000004.ckpt"]
    assert latest_checkpoint(folder) == {"step": 4}


if __name__ == "__main__":
    write(int(sys.argv[3]), 3, int(sys.argv[1]), Path(sys.argv[2]), [1, 2, 2, 3])
