"""What is predicted of a stage, and how its steps' memory follows from what was measured."""

from __future__ import annotations

from dataclasses import dataclass

from .peek import Encoding
from .probe import Sizes

SHARE = {"cpu": 0.6}
"""Of a device's free memory that tensors may take: the C library holds on to much that was freed."""


@dataclass(frozen=True)
class StagePrediction:
    """What one stage will need.

    Inputs:
        steps: of the optimiser.
        rows_at_once: on each device, that go through encoders and projection together.
        trained, frozen: parameters by part.
        memory: bytes by what they are for, on each device; on a CPU those of the data too.
        free: bytes of memory now.
        room: of them, those that tensors may take.
        encodings: by modality, what the feature cache lacks.
        tile: rows of a tile of the streamed losses; None in a stage without.
        step_seconds: one optimiser step, with its data.
        chunk: the largest ``chunk_size`` that is predicted to fit, where the stage as it is does not.
        pieces: into which fsdp cuts the model; None if it stays whole. Memory and time are rougher then.
        recomputes: whether the stage has ``activation_checkpointing``.
    """

    name: str
    align: tuple[str, ...]
    rows: int
    epochs: int
    steps: int
    batch_size: int
    rows_at_once: int
    trained: dict[str, int]
    frozen: dict[str, int]
    memory: dict[str, int]
    free: int
    room: int
    encodings: tuple[Encoding, ...]
    tile: int | None
    encode_seconds: float
    step_seconds: float
    chunk: int | None = None
    pieces: int | None = None
    recomputes: bool = False

    @property
    def needed(self) -> int:
        """Bytes at the peak."""
        return sum(self.memory.values())

    @property
    def fits(self) -> bool:
        return self.needed <= self.room

    @property
    def seconds(self) -> float:
        """Encoding and training, without tasks and compiling."""
        return self.encode_seconds + self.steps * self.step_seconds


@dataclass(frozen=True)
class StepCost:
    """What the probes say about one step.

    Inputs:
        sizes: of whole steps; alone: of the losses.
        gradients, outputs: bytes of the parameters' gradients, and of a global batch's embeddings.
        batch, local: rows on all devices, and on each.
    """

    sizes: Sizes
    alone: Sizes
    gradients: int
    outputs: int
    batch: int
    local: int

    def memory(self, chunk: int | None) -> dict[str, int]:
        """Bytes of activations and losses with that ``chunk_size``."""
        within = self.gradients + self.alone.memory(self.sizes.most)
        rows = chunk or self.local
        activations = max(0.0, self.sizes.memory(rows) - within)
        losses = self.alone.memory(self.batch) + (2 * self.outputs if chunk else 0)
        return {"activations": round(activations), "losses": round(losses)}

    def seconds(self, chunk: int | None) -> float:
        """One step; chunks cost a forward pass more, which is about a third."""
        rows = chunk or self.local
        passes = self.local / rows * self.sizes.seconds(rows) * (4 / 3 if chunk else 1)
        known, whole = self.alone.seconds(self.sizes.most), self.alone.seconds(self.batch)
        return passes + max(0.0, whole - known)

    def largest(self, below: int, room: float) -> int | None:
        """The largest power of two as ``chunk_size`` with which a step needs no more than ``room``."""
        chunk = 1 << max(0, (below - 1).bit_length() - 1)
        while chunk and sum(self.memory(chunk).values()) > room:
            chunk //= 2
        return chunk or None
