"""Where one case happens: a folder with a small plan and data, and the undisturbed run beside it."""

from __future__ import annotations

import copy
import functools
import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from . import process
from .data import PLAN, write_data
from .process import Ended, Process

TIMES = ("seconds", "per_second")
"""What differs between two equal runs: parts of a metric's name."""


class Bench:
    """One case's folder. ``run`` is the run folder, ``cache`` the feature cache's.

    Inputs:
        home: an empty folder of the case's own.
        references: a folder that cases share, for undisturbed runs.
    """

    def __init__(self, home: Path, references: Path) -> None:
        self.home, self.references = home, references
        self.data = shared_data(references)
        self.plan = copy.deepcopy(PLAN)
        self.plan["data"]["table"] = str(self.data / "pairs.parquet")
        self.run, self.cache = home / "run", home / "cache"
        self.again: Callable[[], Ended] = self.resume
        self.equal: Callable[[], None] = self.equals_undisturbed
        self.environment: dict[str, str] = {}
        self.cleanup: list[Callable[[], None]] = []
        self.spoilt: set[Path] = set()
        """Files that the case itself has damaged."""

    # Commands ------------------------------------------------------------------------------------

    def align(
        self, *more: str, at: list[dict[str, Any]] | dict[str, Any] | None = None, **options: Any
    ) -> Process:
        """``modalign align`` of the plan as it is now.

        Inputs:
            at: the moments of faults inside, as ``inside.moment`` makes them.
        """
        file = self.home / "plan.yaml"
        if not options.pop("keep_plan", False):
            self.write_plan()
        out = [] if "--out" in more else ["--out", str(self.run)]
        return self.start("align", str(file), *out, *more, at=at, **options)

    def write_plan(self) -> None:
        """Write the plan as it is now."""
        text = yaml.safe_dump(self.plan, sort_keys=False, allow_unicode=True)
        (self.home / "plan.yaml").write_text(text, encoding="utf-8")

    def start(
        self, *arguments: str, at: list[dict[str, Any]] | dict[str, Any] | None = None, **options: Any
    ) -> Process:
        inside = dict(options.pop("inside", {}))
        if at:
            inside["moments"] = at if isinstance(at, list) else [at]
        environment = {
            "MODALIGN_CACHE": str(self.cache),
            **self.environment,
            **options.pop("environment", {}),
        }
        return process.start(list(arguments), self.home, environment=environment, inside=inside, **options)

    def resume(self) -> Ended:
        return self.align("--resume").end()

    # Moments from outside --------------------------------------------------------------------------

    @property
    def flag(self) -> Path:
        return self.home / ".flag"

    def paused(self, running: Process) -> None:
        """Wait until the process has come to a moment whose action is ``wait`` on ``flag``."""
        running.until(self.flag.exists, "its moment")

    def go_on(self) -> None:
        self.flag.unlink()

    def steps(self) -> int:
        try:
            return (self.run / "metrics.jsonl").read_bytes().count(b'"lr"')
        except OSError:
            return 0

    # Own things ------------------------------------------------------------------------------------

    def own_data(self) -> Path:
        """Data of the case's own, to be damaged."""
        self.data = self.home / "data"
        shutil.copytree(shared_data(self.references), self.data)
        self.plan["data"]["table"] = str(self.data / "pairs.parquet")
        return self.data

    def space(self) -> Path:
        """A finished space of the case's own."""
        to = self.home / "space"
        shutil.copytree(self.undisturbed() / "space", to)
        return to

    # The undisturbed run ----------------------------------------------------------------------------

    def undisturbed(self) -> Path:
        """The run folder of the same plan with nothing done to it, in a process of its own."""
        plan = copy.deepcopy(self.plan)
        plan["track"] = {"uri": None}
        plan["data"]["table"] = str(shared_data(self.references) / "pairs.parquet")
        path = self.environment.get("PYTHONPATH", "")
        if path:  # one copy of the plugin for all
            path = str(shutil.copytree(path, self.references / "site", dirs_exist_ok=True))
        return undisturbed(json.dumps(plan, sort_keys=True), self.references, path)

    def equals_undisturbed(self) -> None:
        assert_same(self.run, self.undisturbed())


def assert_same(run: Path, reference: Path) -> None:
    """Two run folders hold the same space, to the bit, and the same metrics, times apart."""
    weights = [(folder / "space" / "model.safetensors").read_bytes() for folder in (run, reference)]
    found, expected = metrics(run), metrics(reference)
    assert [r[:2] for r in found] == [r[:2] for r in expected], "other steps are in metrics.jsonl"
    differ = [r for r, e in zip(found, expected, strict=True) if r != e]
    assert not differ, f"metrics differ from {differ[0]} on"
    assert weights[0] == weights[1], "the space differs"
    tasks = [json.loads((folder / "report.json").read_text())["tasks"] for folder in (run, reference)]
    assert tasks[0] == tasks[1], "the report's tasks differ"


def metrics(run: Path) -> list[tuple[str, int, dict[str, Any]]]:
    """Every record of a run's ``metrics.jsonl`` without times."""
    records = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [
        (r["stage"], r["step"], {k: v for k, v in r["metrics"].items() if not any(t in k for t in TIMES)})
        for r in records
    ]


@functools.lru_cache
def shared_data(references: Path) -> Path:
    folder = references / "data"
    if not folder.exists():
        new = Path(tempfile.mkdtemp(dir=references))
        write_data(new)
        new.chmod(0o755)
        new.rename(folder)
    return folder


@functools.lru_cache
def undisturbed(plan: str, references: Path, path: str) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="undisturbed-", dir=references))
    (folder / "plan.yaml").write_text(plan)
    done = process.start(
        ["align", "plan.yaml", "--out", "run"],
        folder,
        environment={"MODALIGN_CACHE": str(folder / "cache"), "PYTHONPATH": path},
    ).end()
    assert done.status == 0, done.err
    return folder / "run"
