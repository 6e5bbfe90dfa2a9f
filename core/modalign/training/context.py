"""What the parts of a run share: the space as it grows, where it is written, who is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from modalign import report as reports
from modalign.contracts import Report, Run, Task
from modalign.plugin import loader
from modalign.space import Space
from modalign.space_files import weights

from .checkpoint import save_checkpoint
from .checks import Prepared
from .data import Dataset
from .evaluate import TableSplit, build_task, run_tasks
from .gallery import make_gallery
from .health import health
from .metric_log import MetricLog
from .plan import Plan, Views
from .quarantine import Quarantine
from .reader import Reader
from .run_folder import RunFolder, write_json

if TYPE_CHECKING:
    from lightning_fabric import Fabric

LASTING = ("name", "align", "new", "trained", "epochs", "steps")
"""What a space remembers of its stages."""


@dataclass
class Context:
    """A run under way.

    Inputs:
        metrics: None on every process but the first.
        earlier: the stages of the space that the run started from.
    """

    prepared: Prepared
    folder: RunFolder
    fabric: Fabric
    space: Space
    quarantine: Quarantine
    metrics: MetricLog | None
    about: Run
    earlier: list[dict[str, Any]] = field(default_factory=list)
    stages: list[dict[str, Any]] = field(default_factory=list)
    tasks: dict[str, Report] = field(default_factory=dict)
    measured: dict[str, tuple[Task, TableSplit]] = field(default_factory=dict)
    """By id, each task that was run and the split it was run on."""
    step: int = 0
    stopping: bool = False
    _readers: dict[tuple[int, str, str], Reader] = field(default_factory=dict)

    @property
    def plan(self) -> Plan:
        return self.prepared.plan

    def event(self, hook: str, **more: Any) -> None:
        """Tell every listener, from the first process only."""
        if self.fabric.is_global_zero:
            loader.call(hook, run=self.about, **more)

    def record(self, stage: str, metrics: dict[str, float]) -> None:
        """Note metrics of the current step in ``metrics.jsonl``."""
        if self.metrics is not None:
            self.metrics.append(stage, self.step, metrics)

    def reader(self, dataset: Dataset, name: str, *, frozen: bool = True, augmented: bool = False) -> Reader:
        """The reader of a modality; the same one as long as its encoder does not change."""
        plan = self.plan.modalities.get(name)
        augment = plan.augment if plan and augmented else False
        views = augment.views if isinstance(augment, Views) and frozen else 0
        anew = bool(augment) and not views

        def build() -> Reader:
            return Reader(
                self.space,
                name,
                dataset,
                self.quarantine,
                seed=self.plan.seed,
                cached=frozen and self.plan.cache and not anew,
                views=views,
                augment=anew,
            )

        if not frozen:
            return build()
        key = (id(dataset), name, f"{views} {anew} {self.space.encoder(name).fingerprint()}")
        if key not in self._readers:
            self._readers[key] = build()
        return self._readers[key]

    def measure(self) -> None:
        """Run every task the space is ready for."""
        data = self.prepared.task_data()
        if data is None or not self.plan.tasks:
            return
        dataset = self.prepared.dataset(data)
        splits: dict[str, TableSplit] = {}

        def split(name: str) -> TableSplit:
            return splits.setdefault(name, TableSplit(name, dataset, lambda m: self.reader(dataset, m)))

        self.tasks = run_tasks(self.space, self.plan.tasks, split)
        built = {name: (task, plan.split) for plan in self.plan.tasks for name, task in [build_task(plan)]}
        self.measured = {name: (built[name][0], split(built[name][1])) for name in self.tasks}

    def _task_modalities(self) -> dict[str, tuple[str, ...]]:
        return {name: task.modalities for name, (task, _) in self.measured.items()}

    def checkpoint(self, stage: int, trainer: dict[str, Any] | None) -> None:
        """Write where the run is: in the middle of a stage, or (no trainer) before it."""
        if self.metrics is None:
            return
        state = {
            "stage": stage,
            "step": self.step,
            "stages": self.stages,
            "metrics_position": self.metrics.position,
            "trainer": trainer,
            "space": None if trainer else weights(self.space),
        }
        save_checkpoint(self.folder.checkpoints, self.step, state, self.plan.checkpoint.keep)

    def write(self) -> None:
        """The space and the report, as of now."""
        if not self.fabric.is_global_zero:
            return
        self.space.plan = self.about.plan
        self.space.stages = self.earlier + [{k: s[k] for k in LASTING} for s in self.stages]
        self.space.about["results"] = {name: report.metrics for name, report in self.tasks.items()}
        self.space.save(self.folder.space)
        content = {
            "plan": self.about.plan,
            "versions": self.about.versions,
            "stages": self.stages,
            "tasks": {name: report.metrics for name, report in self.tasks.items()},
            "intervals": {name: report.intervals for name, report in self.tasks.items() if report.intervals},
            "chance": {name: report.chance for name, report in self.tasks.items() if report.chance},
            "primary": {name: task.primary for name, (task, _) in self.measured.items()},
            "never_paired": reports.never_paired(self.space.stages, self._task_modalities()),
            "quarantined": len(self.quarantine.rows),
        }
        gallery = None
        if len(self.stages) == len(self.plan.stages):
            gallery = make_gallery(self.space, self.measured)
            data = self.prepared.task_data()
            dataset = self.prepared.dataset(data) if data is not None else None
            wanted = [
                m for m in self.space.modalities if dataset and any(m in t.columns for t in dataset.tables)
            ]
            content["health"] = health(dataset, wanted) if dataset else []
        write_json(self.folder.path / "report.json", content)
        reports.write(self.folder.path, content, self.tasks, gallery)
