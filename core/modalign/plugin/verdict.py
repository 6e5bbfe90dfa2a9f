"""What the contract kit says of a plugin."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Verdict:
    """What the contract kit says of an installed plugin.

    Inputs:
        checks: how many were run.
        failed: what went wrong, by check.
        declared_only: components that need arguments and so were not built.
        offers: names by kind.
        problem: why no check could be run.
    """

    distribution: str
    version: str = "?"
    checks: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    declared_only: tuple[str, ...] = ()
    offers: dict[str, list[str]] = field(default_factory=dict)
    problem: str | None = None

    @property
    def good(self) -> bool:
        return self.problem is None and not self.failed and self.checks > 0
