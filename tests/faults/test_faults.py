"""Every fault is survived as promised; the page says what the suite does."""

from __future__ import annotations

from pathlib import Path

import pytest

from .bench import Bench
from .case import Case
from .judge import judge
from .machine import lacks
from .page import names
from .suite import SUITE

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"


def marked(case: Case) -> object:
    marks = [] if case.quick else [pytest.mark.slow]
    if case.defect:
        marks.append(pytest.mark.xfail(strict=True, reason=case.defect))
    return pytest.param(case, id=str(case), marks=marks)


@pytest.fixture(scope="session")
def references(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("references")


@pytest.mark.parametrize("case", map(marked, SUITE))
def test_a_fault_is_survived_as_promised(case: Case, tmp_path: Path, references: Path) -> None:
    if reason := lacks(case.needs):
        pytest.skip(reason)
    verdict = judge(case, Bench(tmp_path, references))
    assert not verdict.broken, verdict.broken


def test_the_page_is_of_this_suite() -> None:
    written = names(PAGE.read_text(encoding="utf-8"))
    assert sorted(written) == sorted(map(str, SUITE)), "run `make faults`"


def test_there_are_enough_kinds() -> None:
    assert len(SUITE) >= 60
    assert len({case.kind for case in SUITE}) >= 20
