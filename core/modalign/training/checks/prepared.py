"""A plan that nothing speaks against, and the kind of problem that does."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from modalign.errors import UserError
from modalign.plugin import loader
from modalign.space import Space

from ..data import Dataset
from ..data_plan import Data
from ..plan import ModalityPlan, Plan, TaskPlan
from ..plan_file import Place, Problem


class Meaning(Problem):
    """A problem of meaning, found after those of form."""


@dataclass
class Prepared:
    """A plan that nothing speaks against, with the tables it reads."""

    plan: Plan
    folder: Path
    start: Space | None = None
    datasets: dict[str, Dataset] = field(default_factory=dict)

    def dataset(self, data: Data) -> Dataset:
        return self.datasets[data.model_dump_json()]

    def task_data(self, task: TaskPlan | None = None) -> Data | None:
        """What a task measures on: its own data, else the plan's, else the last stage's."""
        own = task.data if task else None
        return own or self.plan.data or (self.plan.stages[-1].data if self.plan.stages else None)

    def task_dataset(self, task: TaskPlan | None = None) -> Dataset | None:
        """The tables of ``task_data``; None if there are none, or they cannot be read."""
        data = self.task_data(task)
        return self.datasets.get(data.model_dump_json()) if data else None


def component(kind: str, spec_name: str, place: Place) -> tuple[type | None, list[Problem]]:
    try:
        return loader.load(kind, spec_name), []
    except UserError as error:
        return None, [Meaning(place, str(error))]


def modality_component(modality: ModalityPlan) -> str:
    """The component that reads a modality: the plan's, else the one its encoder reads.

    An encoder's own distribution wins where several plugins offer that name.
    """
    if modality.modality:
        return modality.modality
    offer = loader.resolve("encoders", modality.encoder.name)
    reads: str = loader.load("encoders", modality.encoder.name).modality
    own = [
        o
        for o in loader.components("modalities")
        if o.component.name == reads and o.distribution == offer.distribution
    ]
    return own[0].full_name if own else reads
