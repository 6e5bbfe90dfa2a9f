"""A space: embeds any of its modalities, and takes in one more."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .alignment import alignment_layer
from .combine import combined
from .contracts import BadSample, Encoder, Features, Modality
from .errors import UserError, suggest
from .plugin import loader
from .spec import Spec


@dataclass(frozen=True)
class SpaceModality:
    """How a space reads and encodes one modality.

    Inputs:
        modality: the component that reads it, by full name, with every argument.
        encoder: the component that encodes it, likewise.
        width: of the encoder's tokens.
        carried: whether the encoder's weights travel with the space: they were trained here, or
            nothing else would give them again.
        fingerprint: the encoder's, if the space only refers to it.
        founder: whether it came in the stage that trained the projection.
        extras: of the encoder's distribution, which it cannot be built without.
    """

    modality: Spec
    encoder: Spec
    width: int
    carried: bool = False
    fingerprint: str | None = None
    founder: bool = False
    extras: tuple[str, ...] = ()


@dataclass(frozen=True)
class Projected:
    """What a space makes of a batch of features: ``(N, D)`` unit rows, ``(N, T, D)`` unit tokens."""

    vectors: Tensor
    tokens: Tensor
    mask: Tensor
    extra: dict[str, Tensor] = field(default_factory=dict)


class Space(nn.Module):
    """Alignment layers, modality tokens, projection and temperature, and the encoders they belong to.

    Inputs:
        dim: ``D``, the width of embeddings.
        projection: the projection's component and arguments.
        temperature: what cosines are divided by before a softmax.
        dropout: of the alignment layers.
        alignment: their kind: "mlp" (OneEncoder's), "linear" or "residual" (linear plus a perceptron).
    """

    def __init__(
        self,
        dim: int,
        projection: Spec,
        temperature: float = 0.07,
        dropout: float = 0.1,
        alignment: str = "mlp",
    ) -> None:
        super().__init__()
        self.dim = dim
        self.dropout = dropout
        self.alignment = alignment
        self.projection_spec = Spec(loader.resolve("projections", projection.name).full_name, projection.args)
        self.projection = loader.load("projections", projection.name)(dim=dim, **projection.keywords())
        self.layers = nn.ModuleDict()
        self.encoders = nn.ModuleDict()
        self.logit_scale = nn.Parameter(torch.tensor(-math.log(temperature)))
        self.entries: dict[str, SpaceModality] = {}
        self.plan: dict[str, Any] = {}
        self.stages: list[dict[str, Any]] = []
        self.about: dict[str, Any] = {}
        self._readers: dict[str, Modality] = {}

    @property
    def modalities(self) -> tuple[str, ...]:
        """The modalities it embeds, in the order in which they came."""
        return tuple(self.entries)

    @property
    def scale(self) -> Tensor:
        """What cosines are multiplied by: 1 / temperature, a scalar."""
        return self.logit_scale.exp()

    def add(self, name: str, entry: SpaceModality, encoder: Encoder | None, *, founder: bool) -> None:
        """Give a new modality its alignment layer and modality token, untrained.

        Inputs:
            encoder: the module; None leaves it to be built on first use.
            founder: whether the projection itself is trained together with it.
        """
        if name in self.entries:
            raise UserError(f"the space has a modality '{name}' already; choose another name")
        self.layers[name] = alignment_layer(self.alignment, entry.width, self.projection.width, self.dropout)
        self.projection.add_modality(name, founder=founder)
        self.entries[name] = replace(entry, founder=founder)
        if encoder is not None:
            self.encoders[name] = encoder

    def entry(self, name: str) -> SpaceModality:
        """How a modality is read and encoded; a ``UserError`` names those there are."""
        if name not in self.entries:
            known = ", ".join(self.entries) or "none yet"
            raise UserError(
                f"the space has no modality '{name}'{suggest(name, self.entries)} (it has: {known})"
            )
        return self.entries[name]

    def reader(self, name: str) -> Modality:
        """The modality component that reads ``name``."""
        if name not in self._readers:
            spec = self.entry(name).modality
            self._readers[name] = loader.load("modalities", spec.name)(**spec.keywords())
        return self._readers[name]

    def encoder(self, name: str) -> Encoder:
        """The encoder of ``name``, built on first use and checked against its fingerprint."""
        entry = self.entry(name)
        if name not in self.encoders:
            encoder = loader.load("encoders", entry.encoder.name)(**entry.encoder.keywords())
            encoder.requires_grad_(False).eval()
            found = encoder.fingerprint()
            if entry.fingerprint not in (None, found):
                raise UserError(
                    f"the encoder {entry.encoder.value()} of '{name}' is not the one this space was made "
                    f"with (fingerprint {found}, expected {entry.fingerprint}): use the same weights and "
                    "plugin version"
                )
            self.encoders[name] = encoder.to(self.logit_scale.device)
        encoder = self.encoders[name]
        assert isinstance(encoder, Encoder)
        return encoder

    def project(self, name: str, features: Features) -> Projected:
        """Features ``(N, T, W)`` of a modality -> unit embeddings."""
        aligned = self.layers[name](features.tokens)  # (N, T, width)
        pooled, tokens = self.projection(aligned, features.mask, name)  # (N, D), (N, T, D)
        extra = self.projection.extra(pooled, tokens, features.mask) if self.projection.provides else {}
        return Projected(F.normalize(pooled, dim=-1), F.normalize(tokens, dim=-1), features.mask, extra)

    def embed(self, name: str, values: Sequence[Any], batch_size: int = 64) -> Tensor:
        """Embeddings of values as a table would hold them: paths, bytes or literals.

        Inputs:
            name: one of ``modalities``.
            values: ``N`` of them.

        Returns ``(N, D)`` float32 with unit rows, on the CPU.

        Raises:
            UserError: for an unknown modality, or a value that cannot be read, with the reason.
        """
        if isinstance(values, str | bytes | Path):
            raise UserError(f"embed takes a list of values, not one {type(values).__name__}: write [value]")
        reader, encoder = self.reader(name), self.encoder(name)
        rows = [torch.empty(0, self.dim)]
        with inference(self):
            for start in range(0, len(values), batch_size):
                items = [self.read(name, v) for v in values[start : start + batch_size]]
                batch = {k: t.to(self.logit_scale.device) for k, t in reader.collate(items).items()}
                rows.append(self.project(name, encoder(batch)).vectors.float().cpu())
        return torch.cat(rows)

    def read(self, name: str, value: Any) -> Any:
        """One item of a modality from a path, bytes or a literal; a ``UserError`` if it cannot be read."""
        reader = self.reader(name)
        if isinstance(value, str) and not reader.literal:
            value = Path(value)
        try:
            return reader.read(value)
        except BadSample as bad:
            shown = repr(value) if len(repr(value)) < 80 else type(value).__name__
            raise UserError(f"cannot read {shown} as {name}: {bad}") from None

    def similarity(self, a: Tensor, b: Tensor) -> Tensor:
        """Cosines of embeddings ``(N, D)`` and ``(K, D)`` -> ``(N, K)``."""
        return a @ b.T

    def score(
        self, queries: Mapping[str, Tensor], candidates: Mapping[str, Tensor], combine: str = "product"
    ) -> Tensor:
        """How well each candidate goes with each query of several modalities.

        ``Σ_k Π_m q^m_k · Π_m c^m_k``, the product that Symile trains (arXiv 2411.01053, §3); for two
        modalities the cosine. ``score({"image": a, "audio": b}, {"text": c})``.

        Inputs:
            queries, candidates: embeddings ``{modality: (N, D)}`` and ``{modality: (K, D)}``.
            combine: "sum" adds the cosines of the pairs instead, for spaces trained on pairs.

        Returns ``(N, K)``.

        Raises:
            UserError: if a side is empty, its modalities differ in their rows, or for another ``combine``.
        """
        for what, side in (("queries", queries), ("candidates", candidates)):
            sizes = {name: len(v) for name, v in side.items()}
            if len(set(sizes.values())) != 1:
                raise UserError(f"score: {what} need one or more modalities with equal rows, not {sizes}")
        return combined(queries.values(), combine) @ combined(candidates.values(), combine).T

    def parts(self) -> Iterator[tuple[str, list[tuple[str, Tensor]]]]:
        """Its tensors by part: ``projection``, ``temperature``, each modality, each encoder.

        A modality's part is its alignment layer and whatever the projection keeps for it.
        """
        kept = self.projection.state_dict(keep_vars=True).items()
        own = {id(p) for name in self.entries for p in self.projection.modality_parameters(name)}
        yield "projection", [(key, t) for key, t in kept if id(t) not in own]
        yield "temperature", [("logit_scale", self.logit_scale)]
        for name in self.entries:
            mine = {id(p) for p in self.projection.modality_parameters(name)}
            layer = self.layers[name].state_dict(keep_vars=True).items()
            yield name, [*layer, *((key, t) for key, t in kept if id(t) in mine)]
            if name in self.encoders:
                yield f"encoder:{name}", list(self.encoders[name].state_dict(keep_vars=True).items())

    def save(self, path: str | Path) -> None:
        """Write the space folder: ``config.json``, ``model.safetensors``, ``README.md``; all or nothing."""
        from .space_files import save

        save(self, Path(path))

    def save_pretrained(self, path: str | Path, **about: Any) -> None:
        """``save``, for others: see ``modalign.hub.save_pretrained``."""
        from .hub import save_pretrained

        save_pretrained(self, path, **about)

    @classmethod
    def from_pretrained(cls, source: str | Path, **options: Any) -> Space:
        """A space from a folder or the Hugging Face hub: see ``modalign.hub.from_pretrained``."""
        from .hub import from_pretrained

        return from_pretrained(source, **options)

    def push_to_hub(self, repo_id: str, **options: Any) -> Any:
        """Upload it to the Hugging Face hub: see ``modalign.hub.push_to_hub``."""
        from .hub import push_to_hub

        return push_to_hub(self, repo_id, **options)


@contextmanager
def inference(*modules: nn.Module) -> Iterator[None]:
    """No gradients and eval mode inside; every module's mode as it was afterwards."""
    modes = [(m, m.training) for module in modules for m in module.modules()]
    try:
        for module in modules:
            module.eval()
        with torch.inference_mode():
            yield
    finally:
        for module_, mode in modes:
            module_.training = mode
