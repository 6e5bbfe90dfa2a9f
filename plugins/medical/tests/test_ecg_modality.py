"""The ecg modality's batches, augmentation, examples and paper."""

from __future__ import annotations

import math
import pickle
import xml.etree.ElementTree as ET

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign import UserError
from modalign_medical.ecg import Ecg

torch.set_num_threads(1)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=5), st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_collate_marks_padding_gaps_and_leads(lengths, seed):
    rng, ecg = np.random.default_rng(seed), Ecg(leads=3)
    items = []
    for length in lengths:
        item = rng.standard_normal((3, length)).astype(np.float32)
        item[rng.random(item.shape) < 0.3] = np.nan
        item[0, 0] = 1.0
        items.append(torch.from_numpy(item))
    batch = ecg.collate(items)
    assert batch["signal"].shape == (len(items), 3, max(lengths))
    assert batch["signal"].isfinite().all()
    for item, signal, mask, leads in zip(
        items, batch["signal"], batch["mask"], batch["lead_mask"], strict=True
    ):
        known = ~item.isnan()
        assert torch.equal(signal[:, : item.shape[1]][known], item[known])
        assert torch.equal(mask[: item.shape[1]], known.any(0))
        assert not mask[item.shape[1] :].any()
        assert not signal[:, item.shape[1] :].any()
        assert torch.equal(leads, known.any(1))
        assert not signal[~leads].any()


@given(st.integers(0, 2**31), st.sampled_from([0.0, 30.0]))
@settings(max_examples=25, deadline=None)
def test_augment_varies_within_bounds(seed, turn):
    ecg = Ecg(100, leads=3, turn=turn)
    batch = ecg.collate(ecg.example(6, seed))
    copy = {k: v.clone() for k, v in batch.items()}
    one, two = (ecg.augment(batch, torch.Generator().manual_seed(seed)) for _ in range(2))
    for key in batch:
        assert torch.equal(one[key], two[key])
        assert torch.equal(batch[key], copy[key])
    assert one["signal"].isfinite().all()
    assert one["mask"].any(1).all()
    assert one["lead_mask"].any(1).all()
    assert not (one["lead_mask"] & ~batch["lead_mask"]).any()
    assert not one["signal"][~one["lead_mask"]].any()
    assert not one["signal"].transpose(1, 2)[~one["mask"]].any()
    assert (one["mask"].sum(1) >= batch["mask"].sum(1) - 2 * ecg.shift * ecg.rate).all()


def test_augment_of_nothing_changes_nothing():
    ecg = Ecg(100, leads=2, gain=0, wander=0, noise=0, shift=0, drop=0)
    batch = ecg.collate(ecg.example(4))
    signal = batch["signal"] * batch["mask"].unsqueeze(1)
    torch.testing.assert_close(ecg.augment(batch, torch.Generator())["signal"], signal)


def test_turning_keeps_the_length_of_what_all_leads_say():
    ecg = Ecg(100, leads=3, gain=0, wander=0, noise=0, shift=0, drop=0, turn=40)
    batch = ecg.collate([torch.randn(3, 50, generator=torch.Generator().manual_seed(0)) for _ in range(4)])
    turned = ecg.augment(batch, torch.Generator().manual_seed(1))["signal"]
    assert (turned - batch["signal"]).abs().max() > 0.1
    torch.testing.assert_close(turned.norm(dim=1), batch["signal"].norm(dim=1))


def test_no_shift_pushes_a_short_clip_out():
    ecg = Ecg(100, leads=1, shift=0.2)
    batch = ecg.collate([torch.ones(1, 2), torch.ones(1, 90)] * 20)
    assert ecg.augment(batch, torch.Generator().manual_seed(0))["mask"].any(1).all()


def test_a_lead_is_left():
    ecg = Ecg(100, leads=2, drop=0.9)
    batch = ecg.collate([torch.ones(2, 20)] * 60)
    kept = ecg.augment(batch, torch.Generator().manual_seed(0))["lead_mask"]
    assert kept.any(1).all()
    assert not kept.all(1).all()


def test_a_shift_moves_what_it_keeps():
    ecg = Ecg(100, leads=1, gain=0, wander=0, noise=0, shift=0.1, drop=0)
    signal = torch.zeros(1, 1, 100)
    signal[0, 0, 50] = 1
    batch = {
        "signal": signal.expand(50, -1, -1),
        "mask": torch.ones(50, 100, dtype=torch.bool),
        "lead_mask": torch.ones(50, 1, dtype=torch.bool),
    }
    moved = ecg.augment(batch, torch.Generator().manual_seed(0))["signal"]
    at = moved[:, 0].argmax(1)
    assert at.min() >= 40
    assert at.max() <= 60
    assert len(at.unique()) > 8


def test_examples_have_gaps_and_missing_leads():
    items = Ecg(100, leads=3).example(8)
    assert any(item.isnan().all(1).any() for item in items)
    assert any(item[0].isnan().any() for item in items)
    assert len({item.shape[1] for item in items}) > 4
    assert Ecg(100, leads=1, seconds=0.05).example(1)[0].shape == (1, 5)


@pytest.mark.parametrize("leads", [1, 2, 12, ["II|MLII", "<V1>"]])
def test_paper_is_valid_svg_with_gaps_left_white(leads):
    ecg = Ecg(100, leads=leads)
    for item in ecg.example(4):
        kind, content = ecg.preview(item)
        assert kind == "image/svg+xml"
        root = ET.fromstring(content)
        lines = [e for e in root.iter("{http://www.w3.org/2000/svg}path") if e.get("stroke") == "#222"]
        assert len(lines) == len(item)
        for line, lead in zip(lines, item, strict=True):
            known = ~lead.isnan()
            starts = int((known[1:] & ~known[:-1]).sum()) + int(known[0])
            assert line.get("d").count("M") == starts
    names = [e.text for e in root.iter("{http://www.w3.org/2000/svg}text")]
    if leads == 12:
        assert names[3] == "aVR"
    if isinstance(leads, list):
        assert names == ["II", "<V1>"]
    assert len(ecg.preview(torch.full((ecg.example(1)[0].shape[0], 3), math.nan))[1]) > 100


@pytest.mark.parametrize(
    "bad",
    [
        {"rate": 0},
        {"rate": 1e6},
        {"leads": 0},
        {"leads": []},
        {"seconds": 0},
        {"start": -1},
        {"source_rate": 0},
        {"units_per_mv": 0},
        {"band": [40, 0.5]},
        {"band": [0.5, 200]},
        {"gain": 1.0},
        {"drop": 1.0},
        {"noise": -1},
    ],
    ids=str,
)
def test_arguments_out_of_range(bad):
    with pytest.raises(UserError, match="ecg"):
        Ecg(**bad)


def test_it_pickles():
    again = pickle.loads(pickle.dumps(Ecg(100, leads=["I", "II|MLII"], band=[0.5, 40], turn=5)))
    assert (again.leads, again.band, again.rate, again.turn) == (("I", "II|MLII"), [0.5, 40], 100.0, 5)
