"""The encoders: padding, gaps and missing leads, extreme input, and that each learns."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from modalign import UserError
from modalign_medical.ecg import Ecg
from modalign_medical.ecg_cnn import EcgCNN
from modalign_medical.ecg_transformer import EcgTransformer
from modalign_medical.labs import Labs
from modalign_medical.labs_mlp import LabsMLP
from modalign_medical.scan import Scan
from modalign_medical.scan_cnn import ScanCNN
from torch.nn import functional as F

torch.set_num_threads(1)
ECG = Ecg(100, leads=3)
KINDS = {
    "cnn": lambda **o: EcgCNN(100, 3, width=16, channels=(8, 8, 16), **o),
    "transformer": lambda **o: EcgTransformer(100, 3, width=16, layers=2, heads=2, **o),
}


@pytest.fixture(params=KINDS)
def encoder(request):
    torch.manual_seed(0)
    return KINDS[request.param]().eval()


@given(st.lists(st.integers(1, 400), min_size=1, max_size=5), st.integers(0, 300), st.integers(0, 2**31))
@settings(max_examples=10, deadline=None)
@pytest.mark.parametrize("kind", KINDS)
def test_rows_ignore_their_batch_and_what_padding_holds(kind, lengths, extra, seed):
    torch.manual_seed(0)
    encoder, generator = KINDS[kind]().eval(), torch.Generator().manual_seed(seed)
    items = [torch.randn(3, n, generator=generator) for n in lengths]
    batch = ECG.collate(items)
    padded = {
        "signal": F.pad(batch["signal"], (0, extra), value=7.0),
        "mask": F.pad(batch["mask"], (0, extra)),
        "lead_mask": batch["lead_mask"],
    }
    padded["signal"] = torch.where(padded["mask"].unsqueeze(1), padded["signal"], 7.0)
    with torch.no_grad():
        together = encoder(padded)
        for i, item in enumerate(items):
            alone = encoder(ECG.collate([item]))
            real = together.tokens[i][together.mask[i]]
            torch.testing.assert_close(real, alone.tokens[0][alone.mask[0]], atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_what_stands_in_a_gap_or_a_missing_lead_does_not_matter(encoder):
    item = torch.randn(3, 200, generator=torch.Generator().manual_seed(0))
    item[:, 60:140] = math.nan
    item[1] = math.nan
    batch = ECG.collate([item])
    other = {**batch, "signal": batch["signal"].clone()}
    other["signal"][:, :, 60:140] = 5.0
    other["signal"][:, 1] = -3.0
    a, b = encoder(batch), encoder(other)
    torch.testing.assert_close(a.tokens, b.tokens)
    assert not a.mask.all()
    there = {**batch, "lead_mask": torch.ones_like(batch["lead_mask"])}
    assert not torch.allclose(encoder(there).tokens, a.tokens)  # a flat lead is not a missing one


@pytest.mark.parametrize("standardise", [True, False])
@pytest.mark.parametrize("value", [0.0, 1e6, -1e6, 1e-12])
@torch.no_grad()
def test_extreme_signals_give_numbers(standardise, value):
    for make in KINDS.values():
        encoder = make(standardise=standardise).eval()
        item = torch.full((3, 50), value)
        item[0, 0] = -value
        assert encoder(ECG.collate([item, torch.tensor([[value]] * 3)])).tokens.isfinite().all()


@torch.no_grad()
def test_standardising_forgets_gain_and_offset_and_nothing_else():
    torch.manual_seed(0)
    item = torch.randn(3, 200)
    for make in KINDS.values():
        encoder = make().eval()
        encoder.standardise = True
        base = encoder(ECG.collate([100 * item])).tokens
        torch.testing.assert_close(encoder(ECG.collate([300 * item + 5])).tokens, base, atol=2e-2, rtol=0)
        encoder.standardise = False
        assert not torch.allclose(encoder(ECG.collate([300 * item])).tokens, base, atol=2e-2)


def test_tokens_per_second():
    batch = ECG.collate([torch.randn(3, 203)])
    assert EcgCNN(100, 3, channels=(8, 8))(batch).mask.shape == (1, 26)  # halved three times
    assert EcgTransformer(100, 3, patch=0.05)(batch).mask.shape == (1, 41)


@pytest.mark.parametrize(
    ("kind", "bad"),
    [
        (EcgCNN, {"kernel": 4}),
        (EcgCNN, {"channels": []}),
        (EcgCNN, {"leads": []}),
        (EcgTransformer, {"heads": 3}),
        (EcgTransformer, {"patch": 0.0001}),
        (ScanCNN, {"channels": [12]}),
        (ScanCNN, {"size": 40}),
        (ScanCNN, {"blocks": 0}),
        (LabsMLP, {"analytes": 0}),
        (LabsMLP, {"analytes": []}),
    ],
)
def test_sizes_that_do_not_fit_are_refused(kind, bad):
    with pytest.raises(UserError):
        kind(**bad)


def test_other_leads_and_sizes_than_built_for_are_refused(encoder):
    with pytest.raises(UserError, match="3 leads"):
        encoder(Ecg(100, leads=2).collate([torch.zeros(2, 9)]))
    with pytest.raises(UserError, match="size 32"):
        ScanCNN(32)({"pixels": torch.zeros(1, 3, 64, 64)})


def learnt(encoder, batch, labels, steps):
    """The loss before and after a few steps of a linear head on the mean token."""
    torch.manual_seed(0)
    head = torch.nn.Linear(encoder.width, int(labels.max()) + 1)
    optimiser = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=3e-3)
    losses = []
    for _ in range(steps):
        features = encoder(batch)
        real = features.mask.unsqueeze(2).float()
        loss = F.cross_entropy(head((features.tokens * real).sum(1) / real.sum(1)), labels)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return losses[0], losses[-1]


def test_each_learns_what_its_data_show():
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(24) % 2
    fast = [
        torch.sin(torch.arange(120) * (0.1 + 0.3 * int(i)) + j).expand(3, -1) for j, i in enumerate(labels)
    ]
    for make in KINDS.values():
        first, last = learnt(make().train(), ECG.collate(list(fast)), labels, 25)
        assert last < 0.3 * first
    bright = torch.rand(24, 1, 32, 32, generator=generator)
    bright[labels == 1, :, 8:12] += 1
    pixels = Scan(32).collate([(b / 2 * 255).to(torch.uint8) for b in bright])
    first, last = learnt(ScanCNN(32, width=16, channels=(8, 16)), pixels, labels, 15)
    assert last < 0.3 * first
    panel = Labs(analytes=4).collate(
        [torch.tensor([0.5, 0.2 + 0.6 * float(i), math.nan, 0.1]) for i in labels]
    )
    first, last = learnt(LabsMLP(4, width=16, hidden=32), panel, labels, 15)
    assert last < 0.3 * first
