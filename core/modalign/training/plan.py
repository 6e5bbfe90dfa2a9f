"""The plan: what a whole run is, as data."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    model_validator,
)

from modalign.spec import Spec

from .data_plan import Data, Part

NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]*$"
Name = Annotated[str, Field(pattern=NAME)]
Component = Annotated[Spec, PlainValidator(Spec.of), PlainSerializer(lambda spec: spec.value())]


class Views(Part):
    """Augmented views kept in the feature cache: ``views`` variants of every sample, one drawn per epoch."""

    views: Annotated[int, Field(ge=1, le=256)]


class ModalityPlan(Part):
    """One modality: how it is read and encoded."""

    encoder: Component
    modality: str | None = None
    """The modality component that reads it; by default the one its encoder reads."""
    read: dict[str, Any] = {}
    """Arguments of the modality (a size, a sampling rate), over those its encoder asks for."""
    trainable: bool = False
    """Train the encoder in the stage that introduces the modality; frozen afterwards."""
    augment: bool | Views = False


def _temperature(value: Any) -> Any:
    return {"init": value, "learned": False} if isinstance(value, int | float) else value


class Temperature(Part):
    """What cosines are divided by before a softmax. A plain number means that value, fixed."""

    init: Annotated[float, Field(gt=0)] = 0.07
    learned: bool = True
    min: Annotated[float, Field(gt=0)] = 0.01


class SpacePlan(Part):
    """The shape of the space."""

    dim: Annotated[int, Field(ge=1)] = 256
    projection: Component = Spec("universal")
    alignment: Literal["mlp", "linear", "residual"] = "mlp"
    """The kind of the alignment layers; what a ``closed_form`` stage solves is linear."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.1
    """Of the alignment layers."""
    temperature: Annotated[Temperature, BeforeValidator(_temperature)] = Temperature()


class Select(Part):
    """Keep the weights of the epoch in which a task did best on the validation split."""

    task: str
    every: Annotated[int, Field(ge=1)] = 1
    """Epochs between measurements."""
    patience: Annotated[int, Field(ge=1)] | None = None
    """Measurements without improvement after which the stage ends; None = never early."""
    split: str = "val"


class ClosedForm(Part):
    """Alignment layers solved from covariances. A plain word means that method."""

    method: Literal["ridge", "procrustes", "cca", "csa"]
    regularisation: Annotated[float, Field(ge=0)] | None = None
    """Added to the diagonal of covariances, as a share of the mean variance; None: estimated."""


def _method(value: Any) -> Any:
    return {"method": value} if isinstance(value, str) else value


class StagePlan(Part):
    """One training phase."""

    name: Name
    align: Annotated[list[str], Field(min_length=1)]
    """Modalities compared in this stage: new ones are trained, those already in the space are anchors."""
    losses: dict[str, Any] = {}
    """Weights by loss: ``{infonce: 1.0}``, or ``{infonce: {weight: 1.0, symmetric: false}}``."""
    closed_form: Annotated[ClosedForm, BeforeValidator(_method)] | None = None
    """Instead of ``losses``: one pass over the features, no gradient."""
    pairs: list[Annotated[list[str], Field(min_length=2, max_length=2)]] | None = None
    """Which pairs are compared; by default every pair of ``align`` that has something to train."""
    data: Data | None = None
    epochs: Annotated[int, Field(ge=1)] = 10
    batch_size: Annotated[int, Field(ge=1)] = 256
    """Rows per step, over all devices."""
    chunk_size: Annotated[int, Field(ge=1)] | None = None
    """Rows that encoders and projection see at once, on each device, while the loss sees the whole
    batch (GradCache): less memory for one more forward pass. None: all at once."""
    activation_checkpointing: bool = False
    """Compute the activations of layers again in the backward pass instead of keeping them."""
    accumulate: Annotated[int, Field(ge=1)] = 1
    bucket_by: str | None = None
    """A modality: batches hold rows in which it is of like size, so that less of them is padding."""
    latent_mix: Annotated[float, Field(gt=0)] | None = None
    """Train on mixtures of two rows' features (FuseMix), in shares drawn from Beta(alpha, alpha):
    this is alpha. Frozen encoders with cached features only."""
    lr: Annotated[float, Field(gt=0)] = 1e-3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-3
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of the steps in which the learning rate rises."""
    schedule: Literal["cosine", "constant"] = "cosine"
    clip: Annotated[float, Field(gt=0)] | None = 1.0
    """Largest norm of the gradient."""
    unfreeze: list[str] = []
    """What else to train: ``projection``, ``temperature``, a modality (its alignment layer and token)
    or ``encoder:<modality>``. Embeddings made before then change."""
    select: Select | None = None

    def weights(self) -> dict[str, tuple[float, Spec]]:
        """``{loss name: (weight, spec)}``.

        Raises:
            ValueError: if an entry is neither a number nor a mapping with a numeric ``weight``.
        """
        parts: dict[str, tuple[float, Spec]] = {}
        for name, value in self.losses.items():
            args = dict(value) if isinstance(value, dict) else {"weight": value}
            weight = args.pop("weight", 1.0)
            if isinstance(weight, bool) or not isinstance(weight, int | float) or not -1e30 < weight < 1e30:
                raise ValueError(f"loss '{name}': write a weight, or {{weight: 1.0, argument: value}}")
            parts[name] = (float(weight), Spec(name, args))
        return parts

    @model_validator(mode="after")
    def _one_way(self) -> StagePlan:
        if bool(self.losses) == (self.closed_form is not None):
            raise ValueError("write either 'losses', with at least one of them, or 'closed_form'")
        if self.closed_form is not None:
            used = {"name", "align", "closed_form", "pairs", "data", "unfreeze"}
            fields = type(self).model_fields
            idle = [k for k, f in fields.items() if k not in used and getattr(self, k) != f.get_default()]
            if idle:
                raise ValueError(f"a closed_form stage has no use for {', '.join(idle)}")
        self.weights()
        return self


class TaskPlan(BaseModel):
    """One measurement; other keys are the task's own arguments."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: str
    id: str | None = None
    split: str = "test"
    label: str | None = None
    """The column of classes, instead of the one that ``data`` names."""
    data: Data | None = None
    """What it measures on, instead of the plan's data."""

    def spec(self) -> Spec:
        return Spec(self.name, dict(self.__pydantic_extra__ or {}))


class FabricPlan(Part):
    """Passed to ``lightning.fabric.Fabric``."""

    accelerator: str = "auto"
    devices: int | str | list[int] = 1
    strategy: str = "auto"
    """``ddp`` (auto's choice for several devices), ``fsdp`` (PyTorch's second, on CPU too), or another of
    Fabric's."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    """Weights stay in float32 whatever is chosen, so that what is frozen stays the same to the bit."""
    num_nodes: Annotated[int, Field(ge=1)] = 1
    timeout: Annotated[float, Field(gt=0)] = 1800
    """Seconds that processes wait for one that does not answer, before the run fails."""


class Compile(Part):
    """How ``torch.compile`` goes about it."""

    mode: Literal["default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs"] = "default"
    dynamic: bool | None = None
    """Compile for every shape at once; None: once a shape changes."""


class SpeedPlan(Part):
    """What makes a run faster, and its numbers differ in their last digits."""

    compile: bool | Compile = False
    """Compile alignment layers, projection and the encoders that run in every batch."""
    tf32: bool = False
    """Multiply float32 matrices in TF32 on GPUs that can: 10 bits of precision instead of 23."""

    @property
    def compiler(self) -> Compile | None:
        """The compiler's options; None: nothing is compiled."""
        return self.compile if isinstance(self.compile, Compile) else Compile() if self.compile else None


class TrackPlan(Part):
    """Where MLflow keeps the run; ``uri: null`` tracks nothing."""

    uri: str | None = "sqlite:///mlflow.db"
    experiment: str | None = None
    """By default the plan's name."""


class CheckpointPlan(Part):
    """How often a run can be resumed from, beside the end of every epoch."""

    every_steps: Annotated[int, Field(ge=1)] | None = None
    keep: Annotated[int, Field(ge=1)] = 2
    sharded: bool = False
    """Each process writes what it holds, into a folder, instead of the first process all, into a file."""


class PluginsPlan(Part):
    disable: list[str] = []


class Plan(Part):
    """A whole run. Every field's default is what a run without it uses."""

    name: Name
    seed: Annotated[int, Field(ge=0)] = 0
    data: Data | None = None
    modalities: dict[Name, ModalityPlan] = {}
    space: SpacePlan = SpacePlan()
    stages: list[StagePlan] = []
    tasks: list[TaskPlan] = []
    fabric: FabricPlan = FabricPlan()
    speed: SpeedPlan = SpeedPlan()
    track: TrackPlan = TrackPlan()
    checkpoint: CheckpointPlan = CheckpointPlan()
    plugins: PluginsPlan = PluginsPlan()
    workers: Annotated[int, Field(ge=0)] = 0
    """Processes that read and decode samples ahead; 0: a thread of the run's own. Changes no result."""
    cache: bool = True
    """Keep the features of frozen encoders on disk."""
    max_nonfinite: Annotated[int, Field(ge=0)] = 10
    """Steps with a loss that is not finite, skipped each, after which the run stops."""

    @property
    def first_trained(self) -> int:
        """The number of the first stage with losses: it trains what all modalities share."""
        return next((i for i, stage in enumerate(self.stages) if stage.losses), len(self.stages))

    def stage_data(self, stage: StagePlan) -> Data | None:
        return stage.data or self.data
