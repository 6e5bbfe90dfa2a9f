"""Finds everything that is wrong with a plan before anything starts."""

from __future__ import annotations

from modalign.errors import UserError
from modalign.plugin import loader
from modalign.space import Space

from ..data import Dataset
from ..plan_file import Place, PlanSource, Problem
from ..plan_form import validate
from .closed_form import check_widths
from .components import check_modalities, check_projection
from .devices import check_devices
from .prepared import Meaning, Prepared, modality_component
from .speed import check_speed
from .stages import check_stages
from .tables import check_data, check_tasks, literal_names

__all__ = ["Prepared", "check_widths", "modality_component", "prepare", "prepare_tasks"]


def prepare(source: PlanSource, start: Space | None = None) -> Prepared:
    """Check form, components, order of stages, tables and tasks.

    Raises:
        UserError: one message with all problems, each with its line.
    """
    plan, problems = validate(source)
    if plan is None:
        raise source.error(problems)
    loader.disable(plan.plugins.disable)
    prepared = Prepared(plan, source.folder, start)
    problems += check_modalities(plan)
    problems += check_projection(plan, start)
    problems += check_stages(prepared)
    problems += check_speed(plan)
    problems += check_data(prepared)
    problems += check_tasks(prepared)
    problems += check_devices(prepared)
    # A problem below a place that is itself wrong says nothing new.
    broken = {p.place for p in problems if not isinstance(p, Meaning)}
    problems = [
        p
        for p in problems
        if not isinstance(p, Meaning) or not any(p.place[:n] in broken for n in range(1, len(p.place) + 1))
    ]
    if problems:
        raise source.error(problems)
    return prepared


def prepare_tasks(source: PlanSource, space: Space) -> Prepared:
    """Check only what measuring a finished space needs: tables and tasks, not stages.

    Raises:
        UserError: one message with all problems, each with its line.
    """
    plan, problems = validate(source)
    if plan is None:
        raise source.error(problems)
    loader.disable(plan.plugins.disable)
    prepared = Prepared(plan.model_copy(update={"modalities": {}}), source.folder, space)
    if not plan.tasks:
        problems.append(Problem(("tasks",), "there are no tasks to run"))
    for i, task in enumerate(plan.tasks):
        place: Place = ("tasks", i, "data") if task.data else ("data",)
        data = prepared.task_data(task)
        key = data.model_dump_json() if data else ""
        if data is None:
            problems.append(Problem(place, "there is no data to measure on"))
        elif key not in prepared.datasets:
            try:
                prepared.datasets[key] = Dataset(data, prepared.folder, *literal_names(prepared))
            except UserError as error:
                problems.append(Problem(place, str(error)))
    problems += check_tasks(prepared)
    if problems:
        raise source.error(problems)
    return prepared
