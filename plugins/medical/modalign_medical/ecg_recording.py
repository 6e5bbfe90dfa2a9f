"""A recording in millivolts, and what becomes of it: leads, rate, gaps, band."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from modalign import BadSample

RATES = (1.0, 100_000.0)
"""Samples per second that a recording may have."""
_HIGHEST = 1e6  # millivolts: beyond, units are wrong


@dataclass(frozen=True)
class Recording:
    """What a reader gives.

    Inputs:
        signal: ``(C, L)`` millivolts, NaN where nothing was measured.
        rate: samples per second.
        names: of the ``C`` leads, as the file has them; None where it has none.
    """

    signal: np.ndarray
    rate: float
    names: tuple[str, ...] | None = None


def checked(recording: Recording) -> Recording:
    """The recording, if it is one.

    Raises:
        BadSample: if it has no sample, an impossible rate, or voltages far beyond any.
    """
    signal = recording.signal
    if signal.ndim != 2 or not signal.size:
        raise BadSample("holds no samples")
    if not RATES[0] <= recording.rate <= RATES[1]:
        raise BadSample(f"a rate of {recording.rate:g} samples per second")
    signal = np.where(np.isinf(signal), np.nan, signal)
    if np.isnan(signal).all():
        raise BadSample("holds gaps only")
    if np.nanmax(np.abs(signal)) > _HIGHEST:
        raise BadSample(f"holds voltages above {_HIGHEST:g} mV; check units_per_mv")
    return replace(recording, signal=signal)


def plain_name(name: str) -> str:
    """``ECG aVR``, ``Lead II``, ``avr`` -> ``AVR``, ``II``, ``AVR``."""
    bare = re.sub(r"[^A-Z0-9]", "", name.upper())
    return re.sub(r"^(ECG|EKG|LEAD)+(?=.)", "", bare)


def with_leads(recording: Recording, leads: int | Sequence[str]) -> Recording:
    """The wanted leads in their order, NaN where the recording lacks one.

    Inputs:
        leads: how many, from the first; or names, each perhaps with others that will do: ``II|MLII``.

    Raises:
        BadSample: if it has none of them, or has no names and another number of leads.
    """
    signal = recording.signal  # (C, L)
    if isinstance(leads, int):
        wanted: list[int | None] = [i if i < len(signal) else None for i in range(leads)]
    elif recording.names is None:
        if len(signal) != len(leads):
            raise BadSample(
                f"{len(signal)} leads without names, {len(leads)} were asked for; give source_leads"
            )
        wanted = list(range(len(leads)))
    else:
        place = {plain_name(name): i for i, name in reversed(list(enumerate(recording.names)))}
        wanted = [
            next((place[n] for n in map(plain_name, lead.split("|")) if n in place), None) for lead in leads
        ]
    out = np.full((len(wanted), signal.shape[1]), np.nan, np.float64)
    for to, at in enumerate(wanted):
        if at is not None:
            out[to] = signal[at]
    if np.isnan(out).all():
        raise BadSample(f"has {len(signal)} leads, and nothing in those asked for")
    return replace(recording, signal=out, names=None)


def cut(recording: Recording, start: float, seconds: float) -> Recording:
    """``seconds`` of it, from ``start`` on.

    Raises:
        BadSample: if it ends before ``start``.
    """
    first = round(start * recording.rate)
    if first >= recording.signal.shape[1]:
        raise BadSample(f"is shorter than start, {start:g} seconds")
    length = max(1, round(seconds * recording.rate))
    return replace(recording, signal=recording.signal[:, first : first + length])


def filled(signal: np.ndarray) -> np.ndarray:
    """``(C, L)`` with gaps bridged by straight lines, and zero for a lead without any sample."""
    if not np.isnan(signal).any():
        return signal
    out, at = np.zeros_like(signal), np.arange(signal.shape[1])
    for i, lead in enumerate(signal):
        known = ~np.isnan(lead)
        if known.any():
            out[i] = np.interp(at, at[known], lead[known])
    return out


def processed(recording: Recording, rate: float, band: Sequence[float] | None = None) -> np.ndarray:
    """``(C, L)`` float32 at ``rate``: each lead's median at zero, filtered, gaps still NaN.

    Resampling is polyphase, the ratio rounded to terms up to 1000; the filter is a Butterworth of
    order 3, run forwards and backwards, so that nothing is delayed.
    """
    from scipy.signal import butter, resample_poly, sosfiltfilt

    known = ~np.isnan(recording.signal)  # (C, L)
    signal = filled(recording.signal)
    signal = signal - np.median(signal, axis=1, keepdims=True)
    ratio = Fraction(rate / recording.rate).limit_denominator(1000)
    ratio = ratio or Fraction(1, 1000)
    if ratio != 1:
        signal = resample_poly(signal, ratio.numerator, ratio.denominator, axis=1, padtype="line")  # (C, L')
        at = np.arange(signal.shape[1]) * ratio.denominator / ratio.numerator
        known = known[:, np.minimum(np.rint(at).astype(int), known.shape[1] - 1)]
    if band is not None and signal.shape[1] > 1:
        sos = butter(3, band, "bandpass", fs=rate, output="sos")
        pad = min(signal.shape[1] - 1, round(2 * rate / band[0]))
        signal = sosfiltfilt(sos, signal, axis=1, padlen=pad)
    return np.where(known, signal, np.nan).astype(np.float32)
