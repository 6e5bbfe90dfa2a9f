"""`modalign plugins check`: the contract kit over installed plugins."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from modalign.plugin.verdict import Verdict


@click.command("check")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--json", "as_json", is_flag=True, help="One JSON list instead of lines.")
def check(names: tuple[str, ...], as_json: bool) -> int:
    """Run the contract checks of plugins, each in a process of its own; default: of every one.

    A component whose constructor needs arguments is checked as a declaration only: its own tests can
    give the arguments (see `modalign.testing.parametrize_checks`).
    """
    from .judge import find, judge

    verdicts = []
    for name in find(names):
        verdict = judge(name)
        verdicts.append(verdict)
        if not as_json:
            click.echo("\n".join(lines(verdict)))
    if as_json:
        import dataclasses
        import json

        click.echo(json.dumps([{**dataclasses.asdict(v), "ok": v.good} for v in verdicts], indent=2))
    return 0 if all(verdict.good for verdict in verdicts) else 1


def lines(verdict: Verdict) -> list[str]:
    """A verdict for people."""
    title = f"{verdict.distribution} {verdict.version}"
    if verdict.problem is not None:
        return [f"{title}: cannot be checked: {verdict.problem}"]
    bad = len(verdict.failed)
    found = [f"{title}: {verdict.checks} checks passed"]
    if bad:
        found = [f"{title}: {bad} of {verdict.checks} checks failed"]
        found += [f"  {name}: {' '.join(reason.split())}" for name, reason in verdict.failed.items()]
    if verdict.declared_only:
        found.append(f"  not built, as they need arguments: {', '.join(verdict.declared_only)}")
    return found
