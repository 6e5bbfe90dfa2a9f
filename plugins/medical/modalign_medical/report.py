"""The report modality: clinical text, section by section, or captions made of labels."""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from modalign import BadSample, Modality, UserError
from modalign.contracts import Batch
from torch import Generator, Tensor

from .files import content
from .report_sections import SECTIONS, sections

_MOST_BYTES = 4 * 2**20
_SENTENCE = re.compile(r"(?<=[.!?;])\s+|\n+")


class ClinicalReport(Modality):
    """A report's text, its wanted sections alone; a batch is the text plugin's, so that ``minilm`` reads it.

    With ``templates`` a cell is a label and its caption is a template with the label in it (UniMed,
    Khattak et al., 2024, arXiv:2412.10372): the first one, and any of them under ``augment``. Nothing
    is removed from the text itself: names in it stay.

    Inputs:
        sections: which to keep, such as ``[findings, impression]``; None: the whole text. Text before
            the first known heading is dropped with them, unless no heading is known at all.
        templates: sentences with a ``{}`` where the label goes.
        max_bytes: longer texts are cut there, at a character boundary; at least 4.
        drop: ``augment`` leaves out each sentence with this probability (never all).

    Raises:
        UserError: for an unknown section, a template without ``{}``, or a number out of range.
    """

    name: ClassVar[str] = "report"
    literal: ClassVar[bool] = True

    def __init__(
        self,
        sections: Sequence[str] | None = None,
        templates: Sequence[str] | None = None,
        max_bytes: int = 4096,
        drop: float = 0.0,
    ) -> None:
        unknown = [s for s in sections or () if s not in SECTIONS]
        if unknown or (sections is not None and not sections):
            raise UserError(f"report: no section {unknown[:1]}; use some of {', '.join(SECTIONS)}")
        wrong = [t for t in templates or () if "{}" not in t]
        if wrong or (templates is not None and not templates) or isinstance(templates, str):
            raise UserError(f"report: templates {wrong}: a list, with {{}} where the label goes")
        if max_bytes < 4 or not 0 <= drop < 1:
            raise UserError(f"report: max_bytes {max_bytes} must be 4 or more, drop {drop} in [0, 1)")
        self.sections = tuple(sections) if sections is not None else None
        self.templates = tuple(templates) if templates is not None else None
        self.max_bytes, self.drop = max_bytes, drop

    def read(self, value: Any) -> str:
        """A string as it is, or the content of UTF-8 ``bytes`` or of the file at a ``Path`` -> the text kept.

        Raises:
            BadSample: if it is not text, not UTF-8, empty, or has none of the wanted sections.
        """
        if isinstance(value, bytes | bytearray | memoryview | Path):
            try:
                value = content(value, _MOST_BYTES).decode("utf-8-sig")
            except UnicodeDecodeError as error:
                raise BadSample(f"not UTF-8 text: {error.reason} at byte {error.start}") from None
        if not isinstance(value, str):
            raise BadSample(f"expected text, got {type(value).__name__}")
        if len(value) > _MOST_BYTES:
            raise BadSample(f"a text of {len(value)} characters; the limit is {_MOST_BYTES}")
        text = unicodedata.normalize("NFC", str(value)).strip()
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:  # half of a surrogate pair is no character
            raise BadSample(f"not UTF-8 text: {error.reason} at character {error.start}") from None
        text = text if self.sections is None else self._kept(text, self.sections)
        if not text:
            raise BadSample("empty text")
        return text

    @staticmethod
    def _kept(text: str, wanted: Sequence[str]) -> str:
        found = sections(text)
        if all(name is None for name, _ in found):
            return text
        kept = [part for name, part in found if name in wanted]
        if not kept:
            there = ", ".join(sorted({name for name, _ in found if name}))
            raise BadSample(f"has none of the sections {', '.join(wanted)}; it has {there}")
        return "\n".join(kept)

    def collate(self, items: Sequence[str]) -> Batch:
        """``N`` texts -> ``bytes (N, L)`` uint8, ``mask (N, L)`` bool; with ``K`` templates also
        ``captions (N, K, L)`` and ``caption_lengths (N, K)``, for ``augment``."""
        rows = [[self._cut(t.replace("{}", item)) for t in self.templates or ("{}",)] for item in items]
        longest = max(len(one) for row in rows for one in row)
        padded = b"".join(one.ljust(longest, b"\0") for row in rows for one in row)
        table = torch.frombuffer(bytearray(padded), dtype=torch.uint8).view(
            len(rows), -1, longest
        )  # (N, K, L)
        lengths = torch.tensor([[len(one) for one in row] for row in rows])  # (N, K)
        batch = _batch(table[:, 0], lengths[:, 0])
        if self.templates is not None:
            batch |= {"captions": table, "caption_lengths": lengths}
        return batch

    def example(self, n: int, seed: int = 0) -> list[str]:
        """``n`` short reports of two sentences, the same for one seed."""
        draw = random.Random(seed)
        where = ["left lower lobe", "right apex", "both lungs", "lingula", "right costophrenic angle"]
        what = ["consolidation", "effusion", "ground-glass opacity", "nodule of 4 mm", "no opacity"]
        more = ["Heart size is normal.", "The mediastinum is wide.", "No pneumothorax."]
        found = []
        for _ in range(n):
            first = f"{draw.choice(what).capitalize()} in the {draw.choice(where)}"
            found.append(f"{first}, {draw.randrange(100)} µm. {draw.choice(more)}")
        return found

    def augment(self, batch: Batch, generator: Generator) -> Batch:
        """Another template for each label, and sentences left out."""
        table, lengths = batch["bytes"], batch["mask"].sum(1)  # (N, L), (N,)
        n = len(table)
        draw: dict[str, Any] = {"generator": generator, "device": generator.device}
        if "captions" in batch:
            which = torch.randint(batch["captions"].shape[1], (n,), **draw).to(table.device)
            rows = torch.arange(n, device=table.device)
            table, lengths = batch["captions"][rows, which], batch["caption_lengths"][rows, which]
        if self.drop > 0:
            seeds = torch.randint(2**31, (n,), **draw).tolist()
            table, lengths = self._thinned(table, lengths, seeds)
        return {**batch, **_batch(table, lengths)}

    def _thinned(self, table: Tensor, lengths: Tensor, seeds: list[int]) -> tuple[Tensor, Tensor]:
        out, kept_lengths = torch.zeros_like(table), torch.zeros_like(lengths)
        for i, (row, length, seed) in enumerate(
            zip(table.cpu().numpy(), lengths.tolist(), seeds, strict=True)
        ):
            text, chance = row[:length].tobytes().decode("utf-8", "ignore"), random.Random(seed)
            parts = [p for p in _SENTENCE.split(text) if p]
            kept = [p for p in parts if chance.random() >= self.drop] or parts[:1] or [text]
            encoded = " ".join(kept).encode()[:length]
            out[i, : len(encoded)] = torch.frombuffer(bytearray(encoded), dtype=torch.uint8).to(out.device)
            kept_lengths[i] = len(encoded)
        return out, kept_lengths

    def preview(self, item: str) -> tuple[str, bytes]:
        """The text, as far as encoders see it."""
        return "text/plain", self._cut((self.templates or ("{}",))[0].replace("{}", item))

    def _cut(self, text: str) -> bytes:
        encoded = text.encode("utf-8")
        if len(encoded) <= self.max_bytes:
            return encoded
        return encoded[: self.max_bytes].decode("utf-8", "ignore").encode("utf-8")


def _batch(table: Tensor, lengths: Tensor) -> Batch:
    mask = torch.arange(table.shape[1], device=table.device) < lengths.unsqueeze(1)  # (N, L)
    return {"bytes": table, "mask": mask}
