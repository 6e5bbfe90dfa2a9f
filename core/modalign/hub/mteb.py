"""A space as mteb's encoder, so that its tasks run on one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from modalign.combine import combined
from modalign.errors import UserError
from modalign.space import Space

from .values import as_cell


class SpaceEncoder:
    """What ``mteb.evaluate`` takes: ``mteb.evaluate(SpaceEncoder(space), tasks)``.

    An item with several modalities is the sum of their embeddings, made unit length. Prompts and
    instructions are left out: a space was trained without.

    Inputs:
        name: ``"organisation/model"``, under which mteb files the results.
        revision: of the space, for mteb's cache of results.
        names: mteb's modality names -> the space's; default: those that are the same.
    """

    def __init__(
        self,
        space: Space,
        name: str | None = None,
        revision: str = "1",
        names: Mapping[str, str] | None = None,
    ) -> None:
        self.space = space
        self.names = dict(names) if names is not None else {m: m for m in space.modalities if m in _known()}
        for each in self.names.values():
            space.entry(each)
        self.mteb_model_meta = _meta(space, name, revision, list(self.names))

    def encode(self, inputs: Iterable[Mapping[str, Any]], *, batch_size: int = 64, **kwargs: Any) -> Tensor:
        """Embeddings ``(N, D)`` of mteb's batches.

        Inputs:
            inputs: batches ``{modality: values}``; other columns (ids, titles) are not read.

        Raises:
            UserError: if a batch has none of the space's modalities.
        """
        rows = [torch.empty(0, self.space.dim)]
        for batch in inputs:
            rows.append(self._batch(batch, batch_size))
        return torch.cat(rows)

    def _batch(self, batch: Mapping[str, Any], batch_size: int) -> Tensor:
        found = [
            self.space.embed(ours, [as_cell(value) for value in batch[theirs]], batch_size)  # (n, D)
            for theirs, ours in self.names.items()
            if theirs in batch
        ]
        if not found:
            raise UserError(
                f"mteb gives {', '.join(map(str, batch))}; the space takes "
                f"{', '.join(self.names) or 'none'}: say with names={{mteb's: the space's}} which is which"
            )
        return found[0] if len(found) == 1 else F.normalize(combined(found, "sum"), dim=-1)  # (n, D)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Cosines ``(N, K)`` of unit rows ``(N, D)`` and ``(K, D)``."""
        return torch.as_tensor(embeddings1) @ torch.as_tensor(embeddings2).mT

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> Tensor:
        """Cosines ``(N,)``, row by row."""
        return (torch.as_tensor(embeddings1) * torch.as_tensor(embeddings2)).sum(-1)


def _known() -> tuple[str, ...]:
    """mteb's names of modalities."""
    from typing import get_args

    try:
        from mteb.types import Modalities
    except ImportError:
        raise UserError("this needs mteb: pip install 'mteb>=2'") from None
    return get_args(Modalities)


def _meta(space: Space, name: str | None, revision: str, modalities: list[str]) -> Any:
    try:
        from mteb.models import ModelMeta
    except ImportError:
        raise UserError("this needs mteb: pip install 'mteb>=2'") from None
    name = name or f"modalign/{space.plan.get('name') or 'space'}"
    return ModelMeta.create_empty(
        {
            "name": name if "/" in name else f"modalign/{name}",
            "revision": revision,
            "embed_dim": space.dim,
            "n_parameters": sum(p.numel() for p in space.parameters()),
            "similarity_fn_name": "cosine",
            "framework": ["PyTorch"],
            "modalities": modalities,
            "use_instructions": False,
        }
    )
