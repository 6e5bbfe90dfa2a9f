"""Small real data and plans that the tests of the core share."""

from __future__ import annotations

import io
import math
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
GERMAN = ["null", "eins", "zwei", "drei", "vier", "fünf", "sechs", "sieben", "acht", "neun"]

Plan = dict[str, Any]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees another's feature cache, plan switches or mlflow.db."""
    monkeypatch.setenv("MODALIGN_CACHE", str(tmp_path_factory.mktemp("cache")))
    monkeypatch.delenv("MODALIGN_DISABLE", raising=False)


@pytest.fixture(autouse=True, scope="session")
def _process() -> None:
    torch.set_num_threads(1)
    # A shell's background jobs ignore Ctrl-C, and so would every process that a test starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def shared_data() -> Path:
    """The folder of real data; the test is skipped where it is absent."""
    default = Path(__file__).parents[2] / "shared" / "data"
    folder = Path(os.environ.get("MODALIGN_DATA") or default)
    if not folder.is_dir():
        pytest.skip("no real data: set MODALIGN_DATA to the folder that holds digits.parquet")
    return folder


def png(image: np.ndarray) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(np.uint8(image * 255 / max(1, image.max()))).save(file, "PNG")
    return file.getvalue()


def tone(label: int, n: int) -> bytes:
    """A short sound whose pitch says the label, as WAV."""
    import soundfile as sf

    time = np.arange(800 + 40 * (n % 5)) / 4000
    wave = 0.3 * np.sin(2 * math.pi * (200 + 150 * label) * time) * (1 + 0.1 * (n % 3))
    file = io.BytesIO()
    sf.write(file, wave, 4000, format="WAV")
    return file.getvalue()


def digit_rows(count: int = 150, first: int = 0) -> list[dict[str, Any]]:
    """Real handwritten digits (scikit-learn's), their names as alternatives, a tone per class."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    rows = []
    for i in range(first, first + count):
        label = int(digits.target[i])
        rows.append(
            {
                "image": {"bytes": png(digits.images[i]), "path": None},
                "text": [NAMES[label], GERMAN[label]],
                "audio": {"bytes": tone(label, i), "path": None},
                "label": label,
                "split": "train" if i % 5 else ("val" if i % 2 else "test"),
            }
        )
    return rows


@pytest.fixture(scope="session")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Parquet table of 150 digits with image, text, audio, label and split."""
    path = tmp_path_factory.mktemp("digits") / "digits.parquet"
    pq.write_table(pa.Table.from_pylist(digit_rows()), path)
    return path


TINY: dict[str, dict[str, Any]] = {
    "image": {
        "encoder": {"name": "small-vit", "size": 8, "patch": 4, "width": 16, "layers": 1, "heads": 2},
        "trainable": True,
    },
    "text": {"encoder": {"name": "char-cnn", "width": 16, "layers": 1}},
    "audio": {"encoder": {"name": "logmel-cnn", "width": 16, "rate": 4000, "mels": 16}, "trainable": True},
}


@pytest.fixture
def plan(digits: Path, tmp_path: Path) -> Plan:
    """A plan of two stages that takes a second or two."""
    import copy

    stage = {"losses": {"infonce": 1.0}, "epochs": 2, "batch_size": 32, "lr": 3e-3}
    return {
        "name": "tiny",
        "data": {"table": str(digits), "split": "split", "label": "label"},
        "modalities": copy.deepcopy(TINY),
        "space": {"dim": 16, "projection": {"name": "universal", "width": 16, "heads": 2, "hidden": 32}},
        "stages": [
            {"name": "image-text", "align": ["image", "text"], **stage},
            {"name": "add-audio", "align": ["audio", "text"], **stage},
        ],
        "tasks": [
            {"name": "retrieval", "from": "image", "to": "text"},
            {"name": "retrieval", "from": "audio", "to": "image"},
            {"name": "zero_shot", "modality": "image", "classes": "text"},
        ],
        "track": {"uri": None},
        "fabric": {"accelerator": "cpu"},
    }


@pytest.fixture
def write_plan(tmp_path: Path) -> Callable[..., Path]:
    """Writes a plan (or its text) as YAML and returns the file."""
    import yaml

    def write(plan: Plan | str, name: str = "plan.yaml") -> Path:
        path = tmp_path / name
        path.write_text(
            plan if isinstance(plan, str) else yaml.safe_dump(plan, sort_keys=False, allow_unicode=True)
        )
        return path

    return write


@pytest.fixture
def in_tmp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs the test inside its own folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
