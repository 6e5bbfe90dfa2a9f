"""What a case of the fault suite is: what is done, when, and what is promised."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .bench import Bench
    from .process import Ended

CASES: dict[str, Case] = {}
"""Every case by kind and name."""


@dataclass(frozen=True)
class Promise:
    """What must hold after a fault.

    Inputs:
        status: the exit status; minus a signal's number where the signal ends the process.
        says: what stderr must say, a regular expression; several joined by ``.*``.
        resumes: whether the same command, with ``--resume``, then ends well.
        same: whether the space's bytes and every metric then equal those of the undisturbed run.
        more: what else is checked, in words; the check is the case's own.
    """

    status: int = 0
    says: str = ""
    resumes: bool = True
    same: bool = True
    more: str = ""

    def __str__(self) -> str:
        ends = f"ends with status {self.status}" if self.status >= 0 else "ends"
        parts = ["goes on to its end"] if self.status == 0 else [f"{ends}, saying why" if self.says else ends]
        if self.status and self.resumes:
            parts.append("`--resume` finishes it")
        if self.same:
            parts.append("result equal to the undisturbed run's, bit for bit")
        return "; ".join([*parts, *filter(None, [self.more])])


@dataclass(frozen=True)
class Case:
    """One injected fault.

    Inputs:
        inject: does it; returns the process it was done to, ended.
        name: what was done, in words.
        needs: what the machine must let us do (a name in ``machine.py``).
        defect: why the promise is not kept yet; the case is then expected to fail.
        quick: whether it belongs to the handful that is always run.
    """

    kind: str
    name: str
    when: str
    promise: Promise
    inject: Callable[[Bench], Ended]
    needs: str | None = None
    defect: str | None = None
    quick: bool = False

    def __str__(self) -> str:
        return f"{self.kind}: {self.name}"


def case(
    kind: str,
    name: str,
    when: str,
    promise: Promise,
    *,
    needs: str | None = None,
    defect: str | None = None,
    quick: bool = False,
) -> Callable[[Callable[[Bench], Ended]], Callable[[Bench], Ended]]:
    """Enter a function as a case."""

    def enter(inject: Callable[[Bench], Ended]) -> Callable[[Bench], Ended]:
        entered = Case(kind, name, when, promise, inject, needs, defect, quick)
        assert str(entered) not in CASES, entered
        CASES[str(entered)] = entered
        return inject

    return enter
