"""Laboratory values: percentiles, what is missing, and the command that learns the reference."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign import BadSample, UserError
from modalign_medical.labs import Labs
from modalign_medical.labs_mlp import LabsMLP
from modalign_medical.labs_reference import fit, load, percentile
from scipy.stats import percentileofscore

torch.set_num_threads(1)
REFERENCE = {"sodium": [120, 140, 160], "potassium": [2, 4, 7], "lactate": [0, 1, 1, 1, 15]}
LABS = Labs(REFERENCE)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"sodium": 140, "potassium": 5.5}, [0.5, 0.75, None]),
        ({"sodium": 1000, "potassium": -3, "lactate": 1, "glucose": 5}, [1, 0, 0.5]),
        ([130, None, 0.5], [0.25, None, 0.125]),
        ('{"sodium": "150 ", "lactate": ""}', [0.75, None, None]),
        (b"[140, NaN, null]", [0.5, None, None]),
        ({"sodium": "<140", "potassium": ">= 7"}, [0.5, 1, None]),
        ({"sodium": 140.0, "potassium": float("nan")}, [0.5, None, None]),
    ],
)
def test_values_become_percentiles(value, expected):
    item = LABS.read(value)
    assert item.dtype == torch.float32
    assert [None if v != v else pytest.approx(v) for v in item.tolist()] == expected


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        "",
        "[]",
        "not json",
        {"glucose": 5},
        {"sodium": None},
        [1, 2],
        {"sodium": "high"},
        {"sodium": True},
        {"sodium": [1]},
        {"sodium": float("inf")},
        {"sodium": 10**400},
        140,
        None,
        '{"sodium": 1e999}',
        "[" * 10**5,
    ],
    ids=lambda v: str(v)[:20],
)
def test_what_is_no_panel_is_refused(value):
    with pytest.raises(BadSample):
        LABS.read(value)


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=60),
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=5),
)
@settings(max_examples=60, deadline=None)
def test_percentiles_rise_and_agree_with_scipy(sample, values):
    quantiles = np.array(fit({"a": sample}, points=len(sample))["a"])
    found = [percentile(v, quantiles) for v in sorted(values)]
    assert all(0 <= f <= 1 for f in found)
    assert all(a <= b + 1e-12 for a, b in itertools.pairwise(found))
    for value in values:  # between the shares of values below, and at or below
        low, high = (percentileofscore(quantiles, value, kind=k) / 100 for k in ("strict", "weak"))
        assert low - 1.01 / len(sample) <= percentile(value, quantiles) <= high + 1.01 / len(sample)


def test_a_batch_says_what_is_missing():
    batch = LABS.collate([LABS.read([140, None, 1]), LABS.read([None, 2, None])])
    assert batch["present"].tolist() == [[True, False, True], [False, True, False]]
    torch.testing.assert_close(batch["percentiles"], torch.tensor([[0.5, 0.5, 0.5], [0.5, 0.0, 0.5]]))


def test_augment_drops_and_moves_but_never_all():
    labs = Labs(REFERENCE, jitter=0.05, drop=0.9)
    batch = labs.collate([labs.read([130, 4, None])] * 300)
    out = labs.augment(batch, torch.Generator().manual_seed(0))
    assert out["present"].any(1).all()
    assert not out["present"][:, 2].any()
    assert not out["present"][:, 0].all()
    assert (out["percentiles"] - 0.5)[~out["present"]].abs().max() == 0
    assert (out["percentiles"] - batch["percentiles"])[out["present"]].abs().max() <= 0.05 + 1e-6


def test_which_analytes_and_their_order():
    assert Labs(REFERENCE, ["lactate", "sodium"]).read({"sodium": 120, "lactate": 15}).tolist() == [1, 0]
    assert Labs(REFERENCE, 2).analytes == ("sodium", "potassium")
    ready = Labs(analytes=3)  # percentiles already
    assert ready.read([0.25, None, 1.0])[0] == 0.25
    assert Labs().read([0.5] * 50).shape == (50,)
    for bad in (["iron"], [], ["sodium", "sodium"], 4, 0):
        with pytest.raises(UserError, match="analytes"):
            Labs(REFERENCE, bad)


@pytest.mark.parametrize(
    "bad", [{}, {"a": [1]}, {"a": [2, 1]}, {"a": "x"}, {"a": [1, None]}, {"a": [[1, 2]]}, "no.json", [1]]
)
def test_references_are_checked(bad):
    with pytest.raises(UserError, match="labs"):
        load(bad)


def test_the_fingerprint_follows_the_reference(tmp_path):
    path = tmp_path / "r.json"
    found = []
    for top in (160, 160, 170):
        path.write_text(json.dumps({"sodium": [120, top]}))
        found.append(Labs(str(path)).fingerprint())
    assert found[0] == found[1] != found[2]


def test_the_command_learns_from_the_training_rows_alone(tmp_path):
    rows = [
        {"sodium": v, "labs": {"crp": v / 2, "iron": None if v % 2 else v}, "split": "train"}
        for v in range(101)
    ]
    rows += [
        {"sodium": 10**6, "labs": None, "split": "test"},
        {"sodium": None, "labs": None, "split": "train"},
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "t.parquet")
    command = [
        sys.executable,
        "-m",
        "modalign_medical.labs_reference",
        "--table",
        "t.parquet",
        "--columns",
        "sodium",
    ]
    command += ["labs", "--points", "5", "--out", "r.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "r.json").read_text()) == {
        "sodium": [0, 25, 50, 75, 100],
        "crp": [0, 12.5, 25, 37.5, 50],
        "iron": [0, 25, 50, 75, 100],
    }
    assert Labs(str(tmp_path / "r.json")).read({"sodium": 75})[0] == 0.75
    done = subprocess.run([*command[:6], "iron", *command[8:]], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "no column 'iron'; there are sodium, labs, split" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_encoder_refuses_another_number_of_analytes():
    batch = LABS.collate([LABS.read([140, 4, 1])])
    assert LabsMLP(3, width=8)(batch).tokens.shape == (1, 1, 8)
    assert LabsMLP(list(REFERENCE), width=8).modality_options() == {"analytes": list(REFERENCE)}
    with pytest.raises(UserError, match="analytes: 3"):
        LabsMLP(4)(batch)
