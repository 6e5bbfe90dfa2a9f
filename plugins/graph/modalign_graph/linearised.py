"""linearised: triples written as sentences, read by a language model."""

from __future__ import annotations

from typing import Any, ClassVar

from modalign import Encoder, Features, UserError
from modalign.contracts import Batch


class Linearised(Encoder):
    """A pretrained text encoder over the sentences a knowledge graph makes; one token per word piece.

    As in EREDAT, one sentence encoder may serve both triples and texts. It knows
    names and what they mean, but not which triples share a thing; their order matters a little.

    Prefer it wherever names are words of a language; ``relational-gnn`` where they are codes.

    Inputs:
        model: ``minilm``, or a hub id or folder as for ``hf-text``.
        max_tokens: longer graphs are cut there.
        weights: False builds the architecture with random weights.
        lora, lora_alpha: rank and strength of adapters, as for ``hf-text``.

    Raises:
        UserError: if modalign-text is not installed, or the model cannot be loaded.
    """

    modality: ClassVar[str] = "knowledge-graph"

    def __init__(
        self,
        model: str,
        max_tokens: int = 256,
        weights: bool = True,
        lora: int = 0,
        lora_alpha: float | None = None,
    ) -> None:
        super().__init__()
        try:
            from modalign_text.hf_text import HFText
            from modalign_text.minilm import MiniLM
        except ImportError:
            raise UserError(
                "linearised reads triples with modalign-text: pip install 'modalign-graph[text]'"
            ) from None
        options: dict[str, Any] = {
            "max_tokens": max_tokens, "weights": weights, "lora": lora, "lora_alpha": lora_alpha
        }  # fmt: skip
        self.text: Encoder = MiniLM(**options) if model == "minilm" else HFText(model, **options)
        self.pretrained, self.width = self.text.pretrained, self.text.width
        self.extras = ("text", *getattr(self.text, "extras", ()))

    def forward(self, batch: Batch) -> Features:
        """``bytes`` and ``mask``, both ``(N, S)`` -> tokens ``(N, T, W)``, mask ``(N, T)``."""
        return self.text({"bytes": batch["bytes"], "mask": batch["mask"]})

    def fingerprint(self) -> str:
        """The text encoder's, which knows its tokenizer."""
        return f"linearised-{self.text.fingerprint()}"
