"""Tables and tasks: are the files, columns and splits there?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from modalign.errors import UserError, listed, suggest
from modalign.plugin import loader

from ..data import Dataset
from ..data_plan import Data
from ..evaluate import build_task
from ..plan import StagePlan
from ..plan_file import Place, Problem
from .prepared import Meaning, Prepared, component, modality_component


def check_data(prepared: Prepared) -> Iterator[Problem]:
    plan = prepared.plan
    named: list[tuple[Place, Data, Iterable[str], StagePlan | None]] = []
    for i, stage in enumerate(plan.stages):
        data = plan.stage_data(stage)
        if data is not None:
            place: Place = ("stages", i, "data") if stage.data else ("data",)
            named.append((place, data, stage.align, stage))
    if plan.data is not None:
        named.append((("data",), plan.data, (), None))
    named += [(("tasks", i, "data"), task.data, (), None) for i, task in enumerate(plan.tasks) if task.data]
    failed: set[str] = set()
    for place, data, align, owner in named:
        key = data.model_dump_json()
        if key in failed:
            continue
        if key not in prepared.datasets:
            try:
                prepared.datasets[key] = Dataset(data, prepared.folder, *literal_names(prepared))
            except UserError as error:
                failed.add(key)
                where = where_of(data)
                yield Meaning(
                    (*place, where) if "column" not in str(error) else (*place, "columns"), str(error)
                )
                continue
        dataset = prepared.datasets[key]
        for m in align:
            if m in all_names(prepared) and not any(m in table.columns for table in dataset.tables):
                columns = ", ".join(dataset.tables[0].column_names)
                yield Meaning(
                    (*place, "columns"),
                    f"no column for '{m}': write columns: {{{m}: COLUMN}} (the table has: {columns})",
                )
        if owner is not None:
            wrong = list(check_split(dataset, "train", place))
            yield from wrong
            known = set(align) <= set(all_names(prepared))
            rows = dataset.usable("train", align, min(2, len(list(align)))) if known and not wrong else ()
            if known and not wrong and not any(map(len, rows)):
                yield Meaning(place, f"no row of split 'train' holds two of {', '.join(align)}")
            if owner.latent_mix is not None and dataset.streamed:
                yield Meaning(
                    (*place, where_of(data)),
                    "latent_mix mixes cached features, and those of shards are not kept",
                )
            if owner.select is not None:
                yield from check_split(dataset, owner.select.split, place)


def where_of(data: Data) -> str:
    """The key that names the samples."""
    ways = {"mix": data.mix, "table": data.table, "tables": data.tables, "dataset": data.dataset}
    return next(way for way, value in ways.items() if value)


def all_names(prepared: Prepared) -> list[str]:
    return [*prepared.plan.modalities, *(prepared.start.modalities if prepared.start else ())]


def literal_names(prepared: Prepared) -> tuple[list[str], list[str]]:
    """All modalities a table may hold, and those of them whose strings are literal."""
    literal = [
        m
        for m in (prepared.start.modalities if prepared.start else ())
        if prepared.start and prepared.start.reader(m).literal
    ]
    for name, modality in prepared.plan.modalities.items():
        try:
            if loader.load("modalities", modality_component(modality)).literal:  # type: ignore[attr-defined]
                literal.append(name)
        except UserError:
            continue
    return all_names(prepared), literal


def check_tasks(prepared: Prepared) -> Iterator[Problem]:
    plan = prepared.plan
    known = {*plan.modalities, *(prepared.start.modalities if prepared.start else ())}
    seen: set[str] = set()
    for i, task_plan in enumerate(plan.tasks):
        dataset = prepared.task_dataset(task_plan)
        place: Place = ("tasks", i)
        target, problems = component("tasks", task_plan.name, place)
        yield from problems
        if target is None:
            continue
        wrong = task_plan.spec().check(target)
        yield from (Meaning(place, text) for text in wrong)
        if wrong:
            continue
        try:
            name, task = build_task(task_plan)
        except (UserError, TypeError, ValueError) as error:
            yield Meaning(place, str(error))
            continue
        if name in seen:
            yield Meaning(place, f"two tasks have the id '{name}'; give one an 'id'")
        seen.add(name)
        for m in sorted({m if isinstance(m, str) else repr(m) for m in task.modalities} - known):
            yield Meaning(
                place, f"unknown modality '{m}'{suggest(m, known)} (known: {', '.join(sorted(known))})"
            )
        if dataset is not None:
            yield from check_column(dataset, task_plan.label, (*place, "label"))
            yield from check_split(
                dataset,
                task_plan.split,
                (*place, "split") if "split" in task_plan.model_fields_set else place,
            )


def check_split(dataset: Dataset, split: str, place: Place) -> Iterator[Problem]:
    if split not in dataset.splits:
        have = ", ".join(dataset.splits) or "none"
        yield Meaning(
            place, f"the data have no split '{split}'{suggest(split, dataset.splits)} (they have: {have})"
        )


def check_column(dataset: Dataset, column: str | None, place: Place) -> Iterator[Problem]:
    known = dataset.columns
    if column is not None and column not in known:
        have = listed(known)
        yield Meaning(
            place, f"the data have no column '{column}'{suggest(column, known)} (they have: {have})"
        )
