"""Vectors: what is read, what is refused and why, 500 broken files, and a plan that aligns two sets."""

from __future__ import annotations

import io
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from modalign import BadSample, UserError, align, load
from modalign_vector.identity import Identity
from modalign_vector.modality import WIDEST, Vector

torch.set_num_threads(1)


def npy(array: Any, version: tuple[int, int] | None = None) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array), version, allow_pickle=True)
    return file.getvalue()


NUMBERS = [0.5, -1.0, 3.25]


@pytest.mark.parametrize(
    "value",
    [
        NUMBERS,
        tuple(NUMBERS),
        np.array(NUMBERS),
        torch.tensor(NUMBERS, requires_grad=True),
        npy(NUMBERS),
        bytearray(npy(NUMBERS)),
        npy(np.array(NUMBERS, ">f8")),
        npy(np.array(NUMBERS, np.float16)),
        npy(NUMBERS, version=(2, 0)),
    ],
)
def test_reads_numbers_in_every_form(value, tmp_path):
    assert Vector(3).read(value).tolist() == NUMBERS
    if isinstance(value, bytes):
        path = tmp_path / "a.npy"
        path.write_bytes(value)
        assert Vector(3).read(path).tolist() == Vector(3).read(str(path)).tolist() == NUMBERS


def test_whole_numbers_become_floats():
    read = Vector(2).read([1, 2])
    assert read.dtype == torch.float32
    assert read.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([1.0, 2.0], "expected 3 numbers, got 2"),
        ([[1.0, 2.0, 3.0]], "got 1 x 3"),
        (1.5, "got one alone"),
        ([], "got 0"),
        ([1.0, float("nan"), 2.0], "number 2 of 3 is nan"),
        ([1.0, 2.0, float("-inf")], "number 3 of 3 is -inf"),
        ([1e300, 0.0, 0.0], "not finite in float32"),
        ([1.0, None, 2.0], "expected a list of numbers"),
        ([1.0, [2.0], 3.0], "expected a list of numbers"),
        ([True, False, True], "of bool"),
        (["1", "2", "3"], "expected a list of numbers"),
        ([10**400, 0, 0], "of object"),
        ({"a": 1}, "got dict"),
        (None, "got NoneType"),
        (b"", "empty file"),
        (b"1,2,3", r"not a readable \.npy"),
        (npy([1, 2]), "got 2"),
        (npy([1j, 2, 3]), "complex128"),
        (npy([None, 1, 2]), "object"),
        (npy([NUMBERS]), "1 x 3"),
        (npy(NUMBERS)[:-1], "not what follows"),
        (npy(NUMBERS) + b"0", "not what follows"),
    ],
)
def test_refuses_with_the_reason(value, reason):
    with pytest.raises(BadSample, match=reason):
        Vector(3).read(value)


def test_a_pickle_inside_is_never_loaded(tmp_path):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "sprung",)

    with pytest.raises(BadSample):
        Vector(1).read(npy(np.array([Trap()], dtype=object)))
    assert not (tmp_path / "sprung").exists()


def test_a_file_far_too_long_is_not_read(tmp_path):
    path = tmp_path / "long.npy"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # a terabyte of holes
    with pytest.raises(BadSample, match="no vector of 3 numbers"):
        Vector(3).read(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(BadSample, match=r"none\.npy"):
        Vector(3).read(tmp_path / "none.npy")


@pytest.mark.parametrize("width", [0, -1, WIDEST + 1, 1.5, "3", True])
def test_refuses_a_width_that_is_none(width):
    with pytest.raises(UserError, match="width"):
        Vector(width)


def broken(n: int) -> list[bytes]:
    """``n`` damaged files of three numbers, the same every time."""
    draw, whole = random.Random(0), npy(NUMBERS)
    header = b"\x93NUMPY\x01\x00"
    claims = ("(1 << 60,)", "(3, 1 << 50)", "(-3,)", "('a',)", "(" * 5000, "()", "(3.0,)", "(True,)", "None")
    files = []
    for claim in claims:
        for kind in ("<f8", "|O", "<U9", "V24", "no", "<M8[s]", "<f8" * 99):
            text = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {claim}}}\n".encode()
            files.append(header + len(text).to_bytes(2, "little") + text + bytes(24))
    while len(files) < n:
        data = bytearray(whole)
        for _ in range(draw.randrange(1, 4)):
            at = draw.randrange(len(data))
            match draw.randrange(4):
                case 0:
                    del data[at + 1 :]
                case 1:
                    data[at] ^= 1 << draw.randrange(8)
                case 2:
                    data[at:at] = bytes(draw.randrange(256) for _ in range(draw.randrange(1, 30)))
                case 3 if len(data) > 20:
                    del data[at : at + draw.randrange(1, 10)]
        files.append(bytes(data))
    return files[:n]


def test_500_broken_files_are_refused_in_words_or_read():
    refused = 0
    for data in broken(500):
        try:
            vector, reason = Vector(3).read(data), None
        except BadSample as bad:
            vector, reason = torch.zeros(3), str(bad)
            refused += 1
        assert reason is None or (0 < len(reason) < 300 and "\n" not in reason)
        assert vector.shape == (3,)
        assert vector.isfinite().all()
    assert 250 < refused < 500


def test_without_a_width_a_batch_has_one():
    vectors = [Vector().read([1.0] * n) for n in (2, 2, 3)]
    assert Vector().collate(vectors[:2])["vectors"].shape == (2, 2)
    with pytest.raises(UserError, match="of 2 and of 3 numbers"):
        Vector().collate(vectors)
    with pytest.raises(BadSample, match="got 0"):
        Vector().read([])


def test_features_are_the_vectors():
    items = Vector(4).example(5)
    features = Identity(4)(Vector(4).collate(items))
    assert torch.equal(features.tokens[:, 0], torch.stack(items))
    assert features.mask.all()
    assert pickle.loads(pickle.dumps(Vector(4))).width == 4


def test_two_models_features_meet_in_one_space(tmp_path, monkeypatch):
    monkeypatch.setenv("MODALIGN_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    random_ = np.random.default_rng(0)
    latent = random_.standard_normal((200, 8))
    sides = {name: latent @ random_.standard_normal((8, w)) for name, w in (("a", 16), ("b", 12))}
    columns: dict[str, Any] = {name: list(x.astype(np.float32)) for name, x in sides.items()}
    columns["a"][3] = np.full(16, np.nan, np.float32)
    columns["split"] = ["test" if i % 4 == 0 else "train" for i in range(200)]
    pq.write_table(pa.table(columns), "sides.parquet")
    encoders = {name: {"encoder": {"name": "identity", "width": w}} for name, w in (("a", 16), ("b", 12))}
    stage = {"name": "s", "align": ["a", "b"], "losses": {"infonce": 1.0}, "epochs": 20}
    align(
        {
            "name": "sides",
            "data": {"table": "sides.parquet", "split": "split"},
            "modalities": encoders,
            "space": {"dim": 16, "projection": "mean", "alignment": "linear"},
            "stages": [{**stage, "batch_size": 50, "lr": 1e-2}],
            "tasks": [{"name": "retrieval", "from": "a", "to": "b"}],
            "track": {"uri": None},
        }
    )
    assert "number 1 of 16 is nan" in Path("runs/sides/quarantine.csv").read_text()
    space = load("runs/sides/space")
    rows = range(0, 200, 4)
    a = space.embed("a", [sides["a"][i].tolist() for i in rows])
    b = space.embed("b", [torch.from_numpy(sides["b"][i]) for i in rows])
    assert (space.similarity(a, b).argmax(1) == torch.arange(50)).float().mean() > 0.8
