"""The ecg modality: electrocardiograms from files and arrays as leads of one rate."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from modalign import Modality, UserError
from modalign.contracts import Batch
from torch import Generator, Tensor

from .ecg_arrays import is_npy, read_array, read_csv, read_npy
from .ecg_files import is_edf, read_edf, read_wfdb
from .ecg_paper import strip
from .ecg_recording import RATES, Recording, checked, cut, filled, processed, with_leads
from .files import content

_STANDARD = ("I", "II", "III", "aVR", "aVL", "aVF", "V1", "V2", "V3", "V4", "V5", "V6")


class Ecg(Modality):
    """Electrocardiograms: WFDB records, EDF and BDF, CSV, ``.npy``, or numbers in the table itself.

    Leads are picked, resampled, put into millivolts and on a common zero, their median; gaps (NaN,
    a file's own mark) are bridged by straight lines and marked. Header texts are dropped.

    Inputs:
        rate: samples per second of a batch. Encoders ask for theirs.
        leads: how many, from the first; or names in order, each perhaps with others that will do:
            ``["II|MLII", "V1"]``. What a recording lacks is zero and marked.
        seconds: recordings are cut after that long.
        start: where they are cut first, in seconds.
        source_rate: of arrays, ``.npy`` and CSV, which do not say; None: ``rate``.
        source_leads: names of their leads, where they have none.
        units_per_mv: of what does not say its unit: 200 for much of PhysioNet's, 1000 for microvolts.
        band: a filter's lowest and highest frequency in Hz, such as ``[0.5, 40]``; None: no filter.
        gain, wander, noise, shift, drop: ``augment`` changes each lead's amplitude by up to this
            share, adds slow waves and noise of up to so many mV, moves by up to so many seconds, and
            leaves out each lead with this probability (never all).
        turn: ``augment`` mixes leads by a random rotation of about so many degrees in each plane of
            two, as another axis of the heart or place of the electrodes would.

    Raises:
        UserError: if an argument is out of range.
    """

    name: ClassVar[str] = "ecg"

    def __init__(
        self,
        rate: float = 250,
        leads: int | Sequence[str] = 12,
        seconds: float = 10.0,
        start: float = 0.0,
        source_rate: float | None = None,
        source_leads: Sequence[str] | None = None,
        units_per_mv: float | None = None,
        band: Sequence[float] | None = None,
        gain: float = 0.2,
        wander: float = 0.1,
        noise: float = 0.02,
        shift: float = 0.1,
        drop: float = 0.1,
        turn: float = 0.0,
    ) -> None:
        for what, given in (("rate", rate), ("source_rate", source_rate)):
            if given is not None and not RATES[0] <= given <= RATES[1]:
                raise UserError(f"ecg: {what} is {given}; use {RATES[0]:g} to {RATES[1]:g} (Hz), such as 250")
        self.leads = leads if isinstance(leads, int) else tuple(leads)
        count = leads if isinstance(leads, int) else len(leads)
        if not 1 <= count <= 256 or not 0 < seconds * rate <= 2e6 or not 0 <= start < 1e6:
            raise UserError(
                "ecg: give 1 to 256 leads, at most 2,000,000 samples of each, start at 0 or later"
            )
        if units_per_mv is not None and not 0 < units_per_mv < math.inf:
            raise UserError(f"ecg: units_per_mv is {units_per_mv}; use a positive number such as 1000")
        if band is not None and not (len(band) == 2 and 0 < band[0] < band[1] < rate / 2):
            raise UserError(
                f"ecg: band {list(band)}; give two frequencies below half of rate, such as [0.5, 40]"
            )
        if min(gain, wander, noise, shift, turn) < 0 or not 0 <= drop < 1 or not gain < 1:
            raise UserError("ecg: gain and drop must be in [0, 1); wander, noise, shift, turn 0 or more")
        self.rate, self.seconds, self.start = float(rate), float(seconds), float(start)
        self.source_rate, self.units_per_mv, self.band = source_rate, units_per_mv, band
        self.source_leads = tuple(source_leads) if source_leads is not None else None
        self.gain, self.wander, self.noise, self.shift, self.drop = gain, wander, noise, shift, drop
        self.turn = turn

    def read(self, value: Any) -> Tensor:
        """A file (path or bytes; WFDB by path alone) or numbers by lead and time -> ``(leads, L)`` float32.

        Millivolts at ``rate``; NaN is a gap, a lead of NaN is missing.

        Raises:
            BadSample: if it is of no known kind, damaged, too large, or has no sample.
        """
        recording = checked(self._recording(value))
        recording = with_leads(recording, self.leads)
        return torch.from_numpy(processed(recording, self.rate, self.band))

    def _recording(self, value: Any) -> Recording:
        rate, units = self.source_rate or self.rate, self.units_per_mv or 1.0
        if isinstance(value, list | tuple | np.ndarray):
            return cut(read_array(value, rate, units, self.source_leads), self.start, self.seconds)
        if isinstance(value, dict) and not value.get("bytes"):
            value = value.get("path")
        if isinstance(value, str):
            value = Path(value)
        if isinstance(value, Path) and (value.suffix in (".hea", ".dat") or not value.suffix):
            return read_wfdb(value, self.start, self.seconds, self.units_per_mv)
        data = content(value)
        if is_edf(data):
            return read_edf(data, self.start, self.seconds, self.units_per_mv)
        if is_npy(data):
            recording = read_npy(data, rate, units, self.source_leads)
        else:
            recording = read_csv(data, self.source_rate, self.rate, units, self.source_leads)
        return cut(checked(recording), self.start, self.seconds)

    def collate(self, items: Sequence[Tensor]) -> Batch:
        """``N`` items -> ``signal (N, leads, L)``, ``mask (N, L)``, ``lead_mask (N, leads)``.

        ``mask`` is True where any lead was measured, neither gap nor padding; ``lead_mask`` where a
        lead has a sample. Gaps are bridged by straight lines; padding and missing leads are zero.
        """
        longest = max(item.shape[1] for item in items)
        signal = torch.zeros(len(items), items[0].shape[0], longest)
        mask = torch.zeros(len(items), longest, dtype=torch.bool)
        lead_mask = torch.zeros(signal.shape[:2], dtype=torch.bool)
        for i, item in enumerate(items):
            known, length = ~item.isnan(), item.shape[1]  # (leads, L)
            signal[i, :, :length] = torch.from_numpy(filled(item.numpy()))
            mask[i, :length], lead_mask[i] = known.any(0), known.any(1)
        return {"signal": signal, "mask": mask, "lead_mask": lead_mask}

    def example(self, n: int, seed: int = 0) -> list[Tensor]:
        """``n`` synthetic rhythms (P, QRS and T waves as bumps) of 1 to 3 seconds, some with a gap."""
        generator = torch.Generator().manual_seed(seed)
        count = self.leads if isinstance(self.leads, int) else len(self.leads)
        items = []
        for i in range(n):
            u = torch.rand(4, generator=generator)
            length = max(1, int(min(1 + 2 * float(u[0]), self.seconds) * self.rate))
            beat = 0.6 + 0.6 * float(u[1])  # seconds
            phase = (torch.arange(length) / self.rate + float(u[2])) % beat / beat  # (L,)
            waves = [
                (0.2, 0.03, 0.15),
                (0.35, 0.008, -0.1),
                (0.38, 0.012, 1.0),
                (0.42, 0.01, -0.2),
                (0.65, 0.05, 0.3),
            ]
            shape = sum(h * torch.exp(-(((phase - at) / w) ** 2)) for at, w, h in waves)  # (L,)
            gains = 0.3 + torch.rand(count, 1, generator=generator)
            noise = 0.02 * torch.randn(count, length, generator=generator)
            item = gains * shape + noise  # (leads, L)
            if i % 3 == 2 and length > 8:
                item[:, length // 4 : length // 2] = math.nan
            if i % 4 == 3 and count > 1:
                item[-1] = math.nan
            items.append(item.float())
        return items

    def augment(self, batch: Batch, generator: Generator) -> Batch:
        """Other amplitudes, slow waves, noise, a shift in time, leads left out."""
        signal, mask, lead_mask = batch["signal"], batch["mask"], batch["lead_mask"]
        n, leads, length = signal.shape
        draw: dict[str, Any] = {"generator": generator, "device": generator.device}
        u = torch.rand(n, leads, 4, **draw).to(signal)  # (N, leads, 4)
        move = torch.rand(n, 1, **draw).to(signal)  # (N, 1)
        noise = torch.randn(n, leads, length, **draw).to(signal)  # (N, leads, L)

        by = (self.shift * self.rate * (2 * move - 1)).round().long()  # (N, 1)
        at = torch.arange(length, device=signal.device) + by  # (N, L)
        inside, at = (at >= 0) & (at < length), at.clamp(0, length - 1)
        moved = mask.gather(1, at) & inside  # (N, L)
        kept = moved.any(1, keepdim=True)  # a shift must not push everything out
        mask = torch.where(kept, moved, mask)
        at = torch.where(kept, at, torch.arange(length, device=signal.device))
        signal = signal.gather(2, at.unsqueeze(1).expand(-1, leads, -1))  # (N, leads, L)

        if self.turn > 0:
            planes = torch.randn(n, leads, leads, **draw).to(signal) * math.radians(self.turn)
            turned = torch.matrix_exp(planes.triu(1) - planes.triu(1).mT)  # (N, leads, leads), rotations
            signal = turned @ signal
        time = torch.arange(length, device=signal.device) / self.rate  # (L,)
        slow = torch.sin(2 * math.pi * ((0.1 + 0.4 * u[..., 1:2]) * time + u[..., 2:3]))  # (N, leads, L)
        signal = signal * (1 + self.gain * (2 * u[..., :1] - 1))
        signal = signal + self.wander * u[..., 3:4] * slow + self.noise * move[..., None] * noise

        out = torch.rand(n, leads, **draw).to(signal) < self.drop  # (N, leads)
        left = lead_mask & ~out
        lead_mask = torch.where(left.any(1, keepdim=True), left, lead_mask)
        signal = signal * mask.unsqueeze(1) * lead_mask.unsqueeze(2)
        return {**batch, "signal": signal, "mask": mask, "lead_mask": lead_mask}

    def preview(self, item: Tensor) -> tuple[str, bytes]:
        """The recording on ECG paper, as far as encoders see it: an SVG."""
        names = self.leads
        if isinstance(names, int):
            names = self.source_leads or (_STANDARD if names == 12 else ())
        return "image/svg+xml", strip(item.numpy(), self.rate, [n.split("|")[0] for n in names])
