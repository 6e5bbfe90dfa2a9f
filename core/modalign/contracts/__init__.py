"""The contracts: what components promise each other. Imports torch and nothing of ours."""

from .encoder import Encoder
from .features import Embeddings, Features
from .loss import Loss
from .modality import BadSample, Batch, Modality, file_bytes
from .projection import Projection
from .run import Run, Stage
from .task import Items, Report, Split, Task

__all__ = [
    "BadSample", "Batch", "Embeddings", "Encoder", "Features", "Items", "Loss", "Modality",
    "Projection", "Report", "Run", "Split", "Stage", "Task", "file_bytes",
]  # fmt: skip
