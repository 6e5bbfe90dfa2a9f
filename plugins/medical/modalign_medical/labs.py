"""The labs modality: laboratory values, some of them missing, as percentiles."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from modalign import BadSample, Modality, UserError
from modalign.contracts import Batch
from torch import Generator, Tensor

from .files import content
from .labs_reference import load, percentile

MOST = 10_000
"""Analytes."""
_MOST_BYTES = 1 << 20
_UNIT = np.array([0.0, 1.0])  # quantiles of what is a percentile already
_CENSORED = re.compile(r"\s*[<>≤≥]=?\s*(?=[0-9.])")  # "<0.01": outside what the device measures


class Labs(Modality):
    """Laboratory values of one patient: each as its percentile in a reference, or missing.

    Percentiles make millimoles and cells per litre alike and tame outliers; a flag says what was not
    measured, as in Symile-MIMIC (Saporta et al., 2024, arXiv:2411.01053). Names of the table that are
    not analytes of the reference are ignored.

    Inputs:
        reference: ``{analyte: quantiles}`` or the path of such a JSON file; learn it from the training
            rows with ``python -m modalign_medical.labs_reference``. None: the table holds percentiles
            already, from 0 to 1, as Symile-MIMIC's does.
        analytes: which of the reference, in order, or how many of its first; None: all of them, and
            without a reference 50.
        jitter: ``augment`` moves each percentile by up to this much.
        drop: ``augment`` takes away each value with this probability (never the last one).

    Raises:
        UserError: if there is no such reference, or it lacks an analyte.
    """

    name: ClassVar[str] = "labs"
    literal: ClassVar[bool] = True

    def __init__(
        self,
        reference: str | Mapping[str, Sequence[float]] | None = None,
        analytes: int | Sequence[str] | None = None,
        jitter: float = 0.02,
        drop: float = 0.1,
    ) -> None:
        known = {} if reference is None else load(reference)
        if isinstance(analytes, int):
            names = list(known)[:analytes] if known else [str(i + 1) for i in range(analytes)]
            if not 1 <= analytes <= MOST or len(names) < analytes:
                raise UserError(f"labs: {analytes} analytes; use 1 to {len(known) or MOST}")
        else:
            names = list(analytes if analytes is not None else known or map(str, range(1, 51)))
        unknown = [a for a in names if known and a not in known]
        if unknown or not 1 <= len(set(names)) == len(names) <= MOST:
            there = ", ".join(list(known)[:20])
            raise UserError(f"labs: analytes {unknown[:3]}: name some, each once, of the reference: {there}")
        self.analytes = tuple(names)
        if not 0 <= jitter <= 1 or not 0 <= drop < 1:
            raise UserError(f"labs: jitter {jitter} must be in [0, 1], drop {drop} in [0, 1)")
        self.quantiles = [known.get(a, _UNIT) for a in self.analytes]
        self.jitter, self.drop = jitter, drop

    def fingerprint(self) -> str:
        """Changes with the reference, which may be a file."""
        digest = hashlib.blake2b(digest_size=8)
        for quantiles in self.quantiles:
            digest.update(quantiles.tobytes())
        return digest.hexdigest()

    def read(self, value: Any) -> Tensor:
        """``{analyte: number}``, numbers in the order of ``analytes``, or JSON of either -> ``(A,)`` float32.

        Percentiles from 0 to 1, NaN where missing (None, NaN, an empty text). ``"<0.5"`` counts as 0.5.

        Raises:
            BadSample: if it is neither, something is no number, or no analyte has a value.
        """
        if isinstance(value, str | bytes | bytearray | memoryview | Path):
            value = _parsed(value)
        if isinstance(value, Mapping):
            values = [value.get(a) for a in self.analytes]
        elif isinstance(value, list | tuple):
            if len(value) != len(self.analytes):
                raise BadSample(f"{len(value)} values for {len(self.analytes)} analytes")
            values = list(value)
        else:
            raise BadSample(f"expected analytes and their values, got {type(value).__name__}")
        pairs = zip(map(_number, values), self.quantiles, strict=True)
        found = torch.tensor([math.nan if v is None else percentile(v, q) for v, q in pairs])
        if found.isnan().all():
            raise BadSample("has no value of any analyte")
        return found.float()

    def collate(self, items: Sequence[Tensor]) -> Batch:
        """``N`` items -> ``percentiles (N, A)``, 0.5 where missing, and ``present (N, A)`` bool."""
        table = torch.stack(list(items))  # (N, A)
        return {"percentiles": table.nan_to_num(0.5), "present": ~table.isnan()}

    def example(self, n: int, seed: int = 0) -> list[Tensor]:
        """``n`` patients whose values rise and fall together, a fifth of them missing."""
        generator = torch.Generator().manual_seed(seed)
        table = (0.5 * torch.rand(n, 1, generator=generator)) + 0.5 * torch.rand(
            n, len(self.analytes), generator=generator
        )  # (N, A)
        gone = torch.rand(table.shape, generator=generator) < 0.2
        gone[:, 0] = False
        return list(table.masked_fill(gone, math.nan))

    def augment(self, batch: Batch, generator: Generator) -> Batch:
        """Percentiles moved a little, some values taken away."""
        values, present = batch["percentiles"], batch["present"]
        u = torch.rand(2, *values.shape, generator=generator, device=generator.device).to(values)
        left = present & (u[0] >= self.drop)  # (N, A)
        present = torch.where(left.any(1, keepdim=True), left, present)
        moved = (values + self.jitter * (2 * u[1] - 1)).clamp(0, 1)
        return {**batch, "percentiles": torch.where(present, moved, 0.5), "present": present}

    def preview(self, item: Tensor) -> tuple[str, bytes]:
        """Each value that is there, as a percentile: plain text."""
        lines = [
            f"{a}: {100 * float(v):.0f}"
            for a, v in zip(self.analytes, item, strict=True)
            if not math.isnan(v)
        ]
        return "text/plain", ("percentiles\n" + "\n".join(lines)).encode()


def _parsed(value: Any) -> Any:
    if isinstance(value, str):
        if len(value) > _MOST_BYTES:
            raise BadSample(f"a text of {len(value)} characters; the limit is {_MOST_BYTES}")
    else:
        value = content(value, _MOST_BYTES)
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        raise BadSample("not JSON: expected {analyte: number} or a list of numbers") from None


def _number(value: Any) -> float | None:
    """A value, or None where it is missing.

    Raises:
        BadSample: if it is something else.
    """
    if value is None:
        return None
    if isinstance(value, str):
        value = value.strip()
        if not value:
            return None
        value = _CENSORED.sub("", value, count=1)
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise BadSample(f"a value is {type(value).__name__}, expected a number")
    try:
        number = float(value)
    except (ValueError, OverflowError):
        raise BadSample("a value is no number") from None
    if math.isinf(number):
        raise BadSample("a value is infinite")
    return None if math.isnan(number) else number
