"""What the parts of a run share: the space as it grows, where it is written, who is told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from modalign.contracts import Run
from modalign.plugin import loader
from modalign.space import Space
from modalign.space_files import weights

from .checkpoint import save_together
from .checks import Prepared
from .data import Dataset
from .evaluate import Measured, run_tasks, task_splits
from .metric_log import MetricLog
from .plan import Plan, Views
from .quarantine import Quarantine
from .reader import Reader
from .report_files import write_reports
from .run_folder import RunFolder

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
    tasks: dict[str, Measured] = field(default_factory=dict)
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

    def reader(
        self,
        dataset: Dataset,
        name: str,
        *,
        frozen: bool = True,
        augmented: bool = False,
        cached: bool = True,
    ) -> Reader:
        """The reader of a modality; the same one as long as its encoder does not change.

        Inputs:
            cached: False for more rows than a feature cache should hold.
        """
        plan = self.plan.modalities.get(name)
        augment = plan.augment if plan and augmented else False
        cached = cached and frozen and self.plan.cache
        views = augment.views if isinstance(augment, Views) and frozen and cached else 0
        anew = bool(augment) and not views

        def build() -> Reader:
            return Reader(
                self.space,
                name,
                dataset,
                self.quarantine,
                seed=self.plan.seed,
                cached=cached and not anew,
                views=views,
                augment=anew,
            )

        if not frozen:
            return build()
        key = (id(dataset), name, f"{views} {anew} {cached} {self.space.encoder(name).fingerprint()}")
        if key not in self._readers:
            self._readers[key] = build()
        return self._readers[key]

    def measure(self) -> None:
        """Run every task the space is ready for."""
        self._tell_space()
        tasks = [task for task in self.plan.tasks if self.prepared.task_dataset(task) is not None]
        split = task_splits(self.prepared.task_dataset, lambda dataset, m: self.reader(dataset, m))
        self.tasks = run_tasks(self.space, tasks, split)

    def _tell_space(self) -> None:
        """Note in the space what made it so far: tasks ask which modalities were trained together."""
        self.space.plan = self.about.plan
        self.space.stages = self.earlier + [{k: s[k] for k in LASTING} for s in self.stages]

    def metrics_of_tasks(self) -> dict[str, dict[str, float]]:
        """What the tasks found last, by id."""
        return {name: measured.report.metrics for name, measured in self.tasks.items()}

    def checkpoint(self, stage: int, trainer: dict[str, Any] | None) -> None:
        """Write where the run is: in the middle of a stage, or (no trainer) before it.

        Every process takes part, and goes on when it is written.
        """
        if self.metrics is not None:
            self.folder.check_there()
        state = {
            "stage": stage,
            "step": self.step,
            "stages": self.stages,
            "metrics_position": self.metrics.position if self.metrics else 0,
            "trainer": trainer,
            "space": None if trainer else weights(self.space),
        }
        plan = self.plan.checkpoint
        folder = self.folder.checkpoints
        save_together(self.fabric, folder, self.step, state, plan.keep, sharded=plan.sharded)

    def write_space(self) -> None:
        """The space as of now, with what tasks found in it."""
        if not self.fabric.is_global_zero:
            return
        self.folder.check_there()
        self._tell_space()
        self.space.about["results"] = self.metrics_of_tasks()
        self.space.save(self.folder.space)

    def write(self) -> None:
        """The space and the report, as of now."""
        self.write_space()
        if not self.fabric.is_global_zero:
            return
        write_reports(
            self.folder.path,
            self.space,
            self.tasks,
            self.prepared.task_dataset(),
            whole=len(self.stages) == len(self.plan.stages),
            stages=self.stages,
            plan=self.about.plan,
            versions=self.about.versions,
            quarantined=len(self.quarantine.rows),
        )
