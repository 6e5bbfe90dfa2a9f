"""Says what a plan would do: rows, steps and parameters, without writing anything."""

from __future__ import annotations

import os
from collections.abc import Iterable

from modalign import report
from modalign.space_files import load

from .build import build_encoders, build_space, enter_stage
from .checks import prepare
from .loop import steps_per_epoch
from .plan_file import read_plan
from .sampler import Epochs
from .stage import count_parameters, trained_parts


def describe(plan: str | os.PathLike[str], overrides: Iterable[str] = (), start: str | None = None) -> str:
    """One line per stage of a checked plan, as text.

    Raises:
        UserError: if anything is wrong with it.
    """
    prepared = prepare(read_plan(plan, overrides), load(start) if start else None)
    plan_ = prepared.plan
    space = prepared.start or build_space(plan_)
    encoders = build_encoders(plan_)
    rows = [["stage", "aligns", "rows", "epochs", "steps", "trained", "+ encoders", "trains"]]
    for i, stage in enumerate(plan_.stages):
        fresh = prepared.start is None
        new = enter_stage(plan_, space, stage, encoders, founders=fresh and i == 0)
        trained = trained_parts(plan_, stage, new, first=fresh and i == plan_.first_trained)
        data = plan_.stage_data(stage)
        assert data is not None
        dataset = prepared.dataset(data)
        usable = dataset.usable("train", stage.align, min(2, len(stage.align)))
        epochs = Epochs(usable, dataset.weights, stage.batch_size, plan_.seed, stage.name)
        solved = stage.closed_form is not None
        counts = count_parameters(space, trained)
        encoder = sum(n for name, n in counts.items() if name.startswith("encoder:"))
        rows.append(
            [
                stage.name,
                ", ".join(stage.align),
                f"{epochs.size:,}",
                "1" if solved else str(stage.epochs),
                "1" if solved else f"{steps_per_epoch(stage, epochs) * stage.epochs:,}",
                f"{sum(counts.values()) - encoder:,}",
                f"{encoder:,}",
                ", ".join(sorted(trained.parts)),
            ]
        )
    return report.columns(rows)
