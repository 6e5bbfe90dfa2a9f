"""One signal written as WFDB, EDF, BDF, CSV, npy and lists is one item; leads, gaps, rates, units."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from modalign import BadSample
from modalign_medical.ecg import Ecg
from modalign_medical.ecg_recording import Recording, processed
from scipy.signal import resample

sys.path.insert(0, str(Path(__file__).parent))
import files

BEAT, RATE = files.BEAT, files.RATE
LEADS = {"I": BEAT, "II": 0.5 * BEAT[::-1], "V1": -BEAT}
EXPECTED = torch.from_numpy(
    np.stack(list(LEADS.values())) - np.median(np.stack(list(LEADS.values())), 1)[:, None]
)
ECG = Ecg(RATE, leads=["I", "II", "V1"])


def close(item, expected=EXPECTED, most=0.002):
    assert item.dtype == torch.float32
    assert item.shape == expected.shape
    assert (item - expected).abs().max() < most


@pytest.mark.parametrize("fmt", ["16", "212", "80", "24", "32", "516"])
def test_wfdb_by_any_of_its_names(fmt, tmp_path):
    header = files.wfdb_record(tmp_path / "ü", "r1", LEADS, fmt)
    for path in (
        header,
        header.with_suffix(".dat"),
        header.with_suffix(""),
        str(header),
        {"bytes": None, "path": str(header)},
    ):
        close(ECG.read(path), most=0.02 if fmt == "80" else 0.002)


@pytest.mark.parametrize(("unit", "factor"), [("mV", 1), ("uV", 1000), ("V", 0.001)])
def test_units_of_files_are_believed(unit, factor, tmp_path):
    scaled = {k: v * factor for k, v in LEADS.items()}
    close(ECG.read(files.wfdb_record(tmp_path, "r", scaled, units=unit)))
    close(Ecg(RATE, leads=3, units_per_mv=7).read(files.edf(scaled, unit=unit)))


def test_units_of_what_says_none():
    given = Ecg(RATE, leads=3, units_per_mv=200)
    close(given.read([list(200 * v) for v in LEADS.values()]))
    close(given.read(files.csv({k: 200 * v for k, v in LEADS.items()})))
    close(given.read(files.edf({k: 200 * v for k, v in LEADS.items()}, unit="")), most=0.01)


def test_edf_and_bdf(tmp_path):
    path = tmp_path / "x.edf"
    path.write_bytes(files.edf(LEADS))
    close(ECG.read(path))
    close(ECG.read(files.edf(LEADS)))
    close(ECG.read(files.edf(LEADS, bdf=True)))
    close(ECG.read(files.edf({f"ECG {k}": v for k, v in LEADS.items()})))


@pytest.mark.parametrize("separator", [",", ";", "\t", " "])
@pytest.mark.parametrize("header", [True, False])
def test_csv(separator, header):
    content = files.csv(LEADS, header).replace(b",", separator.encode())
    close(Ecg(RATE, leads=3).read(content))
    close(Ecg(RATE, leads=3).read(b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n")))


def test_a_column_of_times_gives_the_rate():
    twice = {"Time (s)": np.arange(500) / 125, **LEADS}
    item = Ecg(125, leads=3).read(files.csv(twice).replace(b"Time (s)", b"time"))
    close(item)
    assert Ecg(250, leads=3).read(files.csv(twice).replace(b"Time (s)", b"time")).shape == (3, 1000)
    assert Ecg(125, leads=3, source_rate=250).read(files.csv(twice).replace(b"Time (s)", b"time")).shape == (
        3,
        250,
    )


def test_arrays_both_ways_round():
    array = np.stack(list(LEADS.values()))
    for value in (
        array,
        array.T,
        array.tolist(),
        files.npy(array),
        files.npy(array.T),
        files.npy(np.asfortranarray(array)),
    ):
        close(Ecg(RATE, leads=3).read(value))
    whole = (array * 1000).astype(np.int16)
    close(Ecg(RATE, leads=3, units_per_mv=1000).read(files.npy(whole)), most=0.002)
    assert Ecg(RATE, leads=1).read(list(BEAT)).shape == (1, 500)


def test_leads_by_name_with_others_that_will_do_and_missing_ones():
    content = files.edf({"ECG aVR": BEAT, "MLII": -BEAT, "V 5": 2 * BEAT})
    item = Ecg(RATE, leads=["II|MLII", "avr", "V1", "V5"]).read(content)
    assert item[2].isnan().all()
    middle = np.median(BEAT)
    for row, factor in ((0, -1), (1, 1), (3, 2)):
        assert (item[row] - torch.from_numpy(factor * (BEAT - middle))).abs().max() < 0.002
    with pytest.raises(BadSample, match="nothing in those"):
        Ecg(RATE, leads=["V9"]).read(content)
    assert Ecg(RATE, leads=12).read(content)[3:].isnan().all()
    named = Ecg(RATE, leads=["b", "a"], source_leads=["a", "b"]).read(np.stack([BEAT, -BEAT]))
    close(named, torch.from_numpy(np.stack([-BEAT, BEAT])))
    with pytest.raises(BadSample, match="source_leads"):
        Ecg(RATE, leads=["I"]).read(np.stack([BEAT, -BEAT]))


@pytest.mark.parametrize("kind", ["wfdb", "edf", "csv"])
def test_a_stretch_from_start_on(kind, tmp_path):
    long = {"I": np.arange(5000) / 5000, "II": np.arange(5000) / -5000}
    value = {
        "wfdb": lambda: files.wfdb_record(tmp_path, "r", long),
        "edf": lambda: files.edf(long),
        "csv": lambda: files.csv(long),
    }
    item = Ecg(RATE, leads=2, seconds=2, start=4).read(value[kind]())
    assert item.shape == (2, 500)
    expected = torch.arange(1000, 1500) / 5000
    assert (item[0] - (expected - expected.median())).abs().max() < 0.001
    with pytest.raises(BadSample):
        Ecg(RATE, leads=2, start=30).read(value[kind]())


def test_gaps_are_marked_bridged_and_do_not_spread(tmp_path):
    gap = BEAT.copy()
    gap[100:150] = np.nan
    for value in (
        files.csv({"I": gap, "II": BEAT}),
        np.stack([gap, BEAT]),
        files.wfdb_record(tmp_path, "r", {"I": gap, "II": BEAT}),
    ):
        item = Ecg(RATE, leads=2).read(value)
        assert item[0].isnan().nonzero().squeeze(1).tolist() == list(range(100, 150))
        assert not item[1].isnan().any()
        half = Ecg(RATE / 2, leads=2, source_rate=RATE).read(value)
        assert half[0].isnan().sum() == 25
    batch = Ecg(RATE, leads=2).collate([item])
    assert batch["mask"].all()  # the other lead was measured
    bridge = batch["signal"][0, 0, 99:151]
    assert (bridge.diff() - bridge.diff().mean()).abs().max() < 1e-5
    alone = Ecg(RATE, leads=1)
    batch = alone.collate([alone.read(gap[None])])
    assert (~batch["mask"][0]).nonzero().squeeze(1).tolist() == list(range(100, 150))


@pytest.mark.parametrize("rate", [100, 128, 360, 500, 1000])
def test_resampling_agrees_with_the_fourier_method(rate):
    rng, length = np.random.default_rng(0), 1000
    wave = resample(rng.standard_normal(40), length)  # smooth
    got = processed(Recording(wave[None], 250.0), rate)[0]
    want = resample(wave - np.median(wave), round(length * rate / 250))
    assert abs(len(got) - len(want)) <= 1
    size = min(len(got), len(want))
    edge = size // 10
    assert np.abs(got[:size] - want[:size])[edge:-edge].max() < 0.03


def test_a_band_removes_wander_and_hum_and_delays_nothing():
    time = np.arange(2500) / 250
    beat = np.exp(-((((time % 1) - 0.5) / 0.02) ** 2))
    dirty = beat + 2 * np.sin(2 * np.pi * 0.1 * time) + 0.5 * np.sin(2 * np.pi * 60 * time)
    item = Ecg(250, leads=1, band=[0.5, 40]).read(dirty[None])[0].numpy()
    inside = slice(250, 2250)
    assert np.corrcoef(item[inside], beat[inside])[0, 1] > 0.95
    peaks = [int(item[i * 250 : (i + 1) * 250].argmax()) for i in range(2, 8)]
    assert all(abs(p - 125) <= 1 for p in peaks)
    assert Ecg(250, leads=1, band=[0.5, 40]).read([[1.0, 2.0]]).shape == (1, 2)
    assert Ecg(250, leads=1, band=[0.5, 40]).read([[1.0]]).shape == (1, 1)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([[1e9, 2.0]], "units_per_mv"),
        ([[float("nan")] * 5], "gaps"),
        ([], "numbers"),
        ([[]], "numbers"),
        ([["a"]], "numbers"),
        ([[1.0], [1.0, 2.0]], "one length"),
        (b"hello world", "table of numbers"),
        (b"a,b\n1,x\n", "numbers"),
        (3, "path or bytes"),
        (None, "path or bytes"),
        ("no/such.csv", "cannot read"),
        (b"\xff\xfe\x00\x01", "neither"),
    ],
)
def test_what_is_no_recording_is_refused_with_the_reason(value, words):
    with pytest.raises(BadSample, match=words):
        Ecg(RATE, leads=1).read(value)


def test_wfdb_reads_no_file_but_its_own(tmp_path):
    (tmp_path / "secret.dat").write_bytes(bytes(2000))
    place = tmp_path / "records"
    place.mkdir()
    for name in ("../secret.dat", "/etc/passwd"):
        (place / "r.hea").write_text(f"r 1 250 500\n{name} 16 200 16 0 0 0 0 I\n")
        with pytest.raises(BadSample):
            Ecg(RATE, leads=1).read(place / "r.hea")
