"""A space as a module of sentence-transformers, so that its evaluators and losses run on one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from modalign.errors import UserError

from .values import as_cell

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from modalign.space import Space

NAMES, FOLDER = "names.json", "space"


def as_sentence_transformer(space: Space, names: Mapping[str, str] | None = None) -> SentenceTransformer:
    """A ``SentenceTransformer`` of a space: ``encode(["a cat"])``, ``encode([{"ecg": "a.dat"}])``.

    Its ``save`` writes the space along; load it with ``trust_remote_code=True``, by which
    sentence-transformers asks for leave to import modalign.

    Inputs:
        names: sentence-transformers' modality names -> the space's, such as a name of its own for
            each language; default: those that are the same.

    Raises:
        UserError: if sentence-transformers is not installed, or the space lacks a modality.
    """
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError:
        raise UserError("this needs pip install 'sentence-transformers>=5.4'") from None
    return SentenceTransformer(modules=[SpaceModule(space, names)], similarity_fn_name="cosine")


class SpaceModule(nn.Module):
    """The first and only module of such a model.

    Inputs:
        names: as for ``as_sentence_transformer``.
    """

    save_in_root = False

    def __init__(self, space: Space, names: Mapping[str, str] | None = None) -> None:
        super().__init__()
        self.names = dict(names or {name: name for name in space.modalities})
        for name in self.names.values():
            space.encoder(name)  # built now: a module added later would stay on the CPU
        self.space = space

    @property
    def modalities(self) -> list[str]:
        """What it takes, in sentence-transformers' words."""
        return list(self.names)

    def preprocess(self, inputs: Sequence[Any], prompt: str | None = None, **kwargs: Any) -> dict[str, Any]:
        """``N`` inputs of one modality, read and collated.

        Inputs:
            inputs: strings, PIL pictures, ``{"array", "sampling_rate"}``, or ``{modality: value}``
                with a value as in ``space.embed``.
            prompt: put before inputs that are strings.

        Raises:
            UserError: for several modalities, one that the space lacks, or a value that cannot be read.
        """
        names, values = zip(*map(self._sort, inputs), strict=True)
        if len(set(names)) > 1:
            raise UserError(f"one batch has one modality, this has {', '.join(sorted(set(names)))}")
        reader = self.space.reader(names[0])
        before = prompt if prompt and reader.literal else None
        items = [self.space.read(names[0], before + v if before else as_cell(v)) for v in values]
        return {"modality": names[0], "batch": reader.collate(items)}

    def forward(self, features: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        """Adds ``sentence_embedding`` ``(N, D)``, unit rows, with gradients."""
        name, device = features["modality"], self.space.logit_scale.device
        batch = {key: tensor.to(device) for key, tensor in features["batch"].items()}
        encoded = self.space.encoder(name)(batch)  # (N, T, W)
        features["sentence_embedding"] = self.space.project(name, encoded).vectors  # (N, D)
        return features

    def _sort(self, value: Any) -> tuple[str, Any]:
        """The space's modality of one input, and what it reads."""
        if isinstance(value, Mapping) and len(value) == 1:
            ((name, inner),) = value.items()
            return self._known(str(name)), inner
        from sentence_transformers.base.modality import infer_modality

        try:
            known: Any = self.modalities
            inferred: Any = infer_modality(value, supported_modalities=known)
        except (TypeError, ValueError):
            raise UserError(
                f"which modality is a {type(value).__name__}? Write {{modality: value}}, with one of "
                f"{', '.join(self.names)}"
            ) from None
        return self._known("+".join(inferred) if isinstance(inferred, tuple) else inferred), value

    def _known(self, name: str) -> str:
        if name not in self.names and name not in self.names.values():
            raise UserError(f"the space takes no input of '{name}' (it takes: {', '.join(self.names)})")
        return self.names.get(name, name)

    def get_embedding_dimension(self) -> int:
        """``D``."""
        return self.space.dim

    get_sentence_embedding_dimension = get_embedding_dimension  # its older name

    def save(self, path: str, **kwargs: Any) -> None:
        """Write ``names.json`` and the space folder."""
        self.space.save(Path(path) / FOLDER)
        (Path(path) / NAMES).write_text(json.dumps({"names": self.names}, indent=1) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **kwargs: Any) -> SpaceModule:
        """What ``SentenceTransformer(path_or_repo, trust_remote_code=True)`` calls."""
        from sentence_transformers.util import load_dir_path

        from modalign.space_files import load

        known = ("token", "cache_folder", "revision", "local_files_only")
        where = {key: kwargs[key] for key in known if key in kwargs}
        folder = load_dir_path(model_name_or_path, subfolder, **where)
        if folder is None:
            raise UserError(f"{model_name_or_path} holds no space in {subfolder!r}")
        names = json.loads((Path(folder) / NAMES).read_text(encoding="utf-8"))["names"]
        return cls(load(Path(folder) / FOLDER), names)
