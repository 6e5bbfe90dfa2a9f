"""The text modality: sentences and documents as padded UTF-8 bytes."""

from __future__ import annotations

import random
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from modalign.contracts import BadSample, Batch, Modality, file_bytes
from torch import Generator

_SCRIPTS = (
    (
        "the {} {} {}",
        "red green tiny old bright quiet",
        "fox bell river engine letter cloud",
        "sings waits falls",
    ),
    ("{} {} {} señal", "él ella quien", "mañana niño corazón", "añade enseña"),
    ("{} {} {}", "красный старый тихий", "поезд город голос", "поёт летит ждёт"),
    ("{}{}{}。", "赤い 古い 静かな", "電車 手紙 小鳥", "歌う 落ちる 待つ"),
    ("{} {} {}", "الصغير القديم الهادئ", "قطار كتاب صوت", "يغني يسقط ينتظر"),
    ("{} {} {} है", "छोटा पुराना शांत", "पक्षी पत्र शहर", "गाता गिरता"),
    ("{} {} {}!", "🎈 🌧️ 🔔", "naïve façade déjà", "été Ærø Łódź"),
)

_ENDS = {
    "line": r"(\n+)",
    "sentence": r"(\n+|(?<=[.!?])\s+|(?<=[。！？]))",
    "clause": r"(\n+|[.!?,;:]\s+|[。！？、，；])",
}


class Text(Modality):
    """Text in any language: NFC-normalised strings, batched as UTF-8 bytes.

    It knows no tokenizer: encoders get the bytes, or the strings back from ``decode``.

    Inputs:
        max_bytes: longer texts are cut there, at a character boundary; at least 4.
        drop: chance that ``augment`` leaves a piece of a text out (text dropout).
        pieces: what a piece is: a ``line``, a ``sentence``, or a ``clause`` (up to a comma or semicolon).

    Raises:
        ValueError: if ``max_bytes`` is below 4, the longest UTF-8 character, or another argument is
            out of range.
    """

    name: ClassVar[str] = "text"
    literal: ClassVar[bool] = True

    def __init__(
        self,
        max_bytes: int = 4096,
        drop: float = 0.5,
        pieces: Literal["line", "sentence", "clause"] = "sentence",
    ) -> None:
        if max_bytes < 4:
            raise ValueError(f"max_bytes is {max_bytes}; a UTF-8 character takes up to 4")
        if not 0 <= drop < 1 or pieces not in _ENDS:
            raise ValueError(f"drop {drop} in [0, 1); pieces {pieces!r}: one of {', '.join(_ENDS)}")
        self.max_bytes, self.drop, self.pieces = max_bytes, drop, pieces

    def read(self, value: Any) -> str:
        """A string as it is, or the content of UTF-8 ``bytes`` or of the file at a ``Path``.

        Raises:
            BadSample: if it is not text, not UTF-8, or empty once stripped.
        """
        if isinstance(value, bytes | bytearray | memoryview | Path):
            try:
                value = file_bytes(value).decode("utf-8-sig")
            except UnicodeDecodeError as error:
                raise BadSample(f"not UTF-8 text: {error.reason} at byte {error.start}") from None
        if not isinstance(value, str):
            raise BadSample(f"expected text, got {type(value).__name__}")
        text = unicodedata.normalize("NFC", str(value)).strip()
        if not text:
            raise BadSample("empty text")
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:  # half of a surrogate pair is no character
            raise BadSample(f"not UTF-8 text: {error.reason} at character {error.start}") from None
        return text

    def collate(self, items: Sequence[str]) -> Batch:
        """``N`` strings -> ``bytes (N, L)`` uint8 and ``mask (N, L)`` bool, True where real."""
        encoded = [_cut(item, self.max_bytes) for item in items]
        lengths = torch.tensor([len(e) for e in encoded])  # (N,)
        longest = max(int(lengths.max()), 1)
        padded = b"".join(e.ljust(longest, b"\0") for e in encoded)
        table = torch.frombuffer(bytearray(padded), dtype=torch.uint8).view(len(items), longest)  # (N, L)
        return {"bytes": table, "mask": torch.arange(longest) < lengths.unsqueeze(1)}

    def example(self, n: int, seed: int = 0) -> list[str]:
        """``n`` short sentences in seven scripts and alphabets, the same for one seed."""
        draw = random.Random(seed)
        texts = []
        for i in range(n):
            pattern, *words = _SCRIPTS[i % len(_SCRIPTS)]
            text = pattern.format(*(draw.choice(w.split()) for w in words))
            texts.append(self.read(f"{text} {draw.randrange(1000)}"))
        return texts

    def augment(self, batch: Batch, generator: Generator) -> Batch:
        """Some pieces of each text, at least one, in another order; as in CLaMP's text dropout."""
        texts = [self._some(text, generator) for text in decode(batch)]
        table = torch.zeros_like(batch["bytes"])  # (N, L)
        mask = torch.zeros_like(batch["mask"])  # (N, L)
        for row, text in enumerate(texts):
            encoded = _cut(text, table.shape[1])
            table[row, : len(encoded)] = torch.frombuffer(bytearray(encoded), dtype=torch.uint8)
            mask[row, : len(encoded)] = True
        return {**batch, "bytes": table, "mask": mask}

    def preview(self, item: str) -> tuple[str, bytes]:
        """The text, as far as encoders see it."""
        return "text/plain", _cut(item, self.max_bytes)

    def _some(self, text: str, generator: Generator) -> str:
        parts = re.split(_ENDS[self.pieces], text)
        pieces, between = parts[::2], parts[1::2]
        draw = torch.rand(len(pieces), 2, generator=generator, device=generator.device).tolist()
        kept = [i for i, (d, _) in enumerate(draw) if d >= self.drop]
        kept = kept or [max(range(len(pieces)), key=lambda i: draw[i][0])]
        kept.sort(key=lambda i: draw[i][1])
        rest = [gap + pieces[i] for gap, i in zip(between, kept[1:], strict=False)]
        return "".join([pieces[kept[0]], *rest]).strip() or text


def _cut(text: str, size: int) -> bytes:
    """UTF-8 of at most ``size`` bytes, cut between characters."""
    encoded = text.encode("utf-8")
    return encoded if len(encoded) <= size else encoded[:size].decode("utf-8", "ignore").encode("utf-8")


def decode(batch: Batch) -> list[str]:
    """The strings of a batch of ``N``, for encoders that bring their own tokenizer."""
    table: np.ndarray = batch["bytes"].cpu().numpy()  # (N, L)
    lengths = batch["mask"].sum(1).tolist()  # (N,)
    return [
        row[:length].tobytes().decode("utf-8", "replace") for row, length in zip(table, lengths, strict=True)
    ]
